"""Features over the shards of an array on a real Slurm: two tasks, the real program, real clips; a task that failed."""

from __future__ import annotations

import json
import time
from pathlib import Path

from tests.launching import cli
from tests.runs import make_labelled
from tests.slurm.cluster import Cluster
from tests.unit.test_embed import NANO
from vidmae.embeddings import file_path, read_embeddings
from vidmae.trained import untrained
from vidmae.weights import save_safetensors

ASKED = ["--cluster", "slurm", "--partition", "gpu", "--gpus-per-node", "0", "--cpus-per-task", "1", "--mem", "1G", "--time", "5"]
MORE = ["--sampling-rate", "2", "--decoder", "pyav", "--device", "cpu", "--workers", "0", "--batch", "2", "--clips-per-file", "2"]


def test_two_shards_embed_clips_from_one_command(cluster: Cluster, tmp_path: Path) -> None:
    manifest, _ = make_labelled(tmp_path / "set", train=2, val=1)
    save_safetensors(untrained(NANO).state_dict(), tmp_path / "say.safetensors", {})
    args = ["embed.py", "--weights", "say.safetensors", "--data", str(manifest), "--out", "out", *ASKED, *MORE]
    dry = cli(*args, "--shards", "2", "--dry-run", cwd=tmp_path)
    assert dry.returncode == 0 and "#SBATCH --array=0-1%2" in dry.stdout and not (tmp_path / "out").exists(), dry.stderr
    first = cli(*args, "--shards", "2", "--sbatch", "begin=now+3", cwd=tmp_path)
    assert first.returncode == 0, first.stderr
    array = first.stdout.strip()
    again = cli(*args, "--shards", "2", "--json", cwd=tmp_path)
    assert json.loads(again.stdout) == {"job_id": array, "out": str(tmp_path / "out")}, "attached"
    ends = [cluster.wait_job(f"{array}_{task}", timeout_s=90) for task in (0, 1)]
    logs = [(tmp_path / f"out/submit/{array}_{task}/{array}_{task}_0_log.out").read_text() for task in (0, 1)]
    assert ends == ["COMPLETED", "COMPLETED"], logs
    assert "2 of this shard's 2 files are missing" in logs[0] and "1 of this shard's 1 files are missing" in logs[1]
    found, record = read_embeddings(tmp_path / "out")
    assert len(found) == 6 and record["job_id"].startswith(f"{array}_")

    shown = cli(*args, cwd=tmp_path)
    assert shown.returncode == 0 and shown.stdout.strip() == str(tmp_path / "out") and "6 clips in 3 files" in shown.stderr

    (tmp_path / "out/result.json").unlink()
    lost = file_path(tmp_path / "out", 1, 3)
    before = lost.read_bytes()
    lost.unlink()
    other = cli(*args, cwd=tmp_path)
    assert other.stdout.strip() not in ("", array), other.stderr
    assert cluster.wait_job(f"{other.stdout.strip()}_0", timeout_s=90) == "COMPLETED"
    deadline = time.monotonic() + 10
    while not (tmp_path / "out/result.json").exists() and time.monotonic() < deadline:
        time.sleep(0.2)
    assert lost.read_bytes() == before, "the array goes on with what is missing"
