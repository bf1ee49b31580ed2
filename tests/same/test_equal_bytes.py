"""Equal content gives equal bytes: every kind of file, written by fresh processes in which sets and hash maps have other orders."""

import json
import os
import subprocess
import sys
from pathlib import Path

from safetensors import safe_open

from tests.support.facilities import need
from tests.support.launching import ROOT

KINDS = ("weights.safetensors", "features/*/*.npy", "features/*/spec.json", "embeddings/files/*.npz", "predictions.npz",
         "config.yaml", "clips.csv", "clips.json", "clips.unreadable.csv", "shots.json", "tables/*.csv", "tables/*.md",
         "tables/*.tex", "run/checkpoints/step_*/state/*.pt", "run/checkpoints/step_*/COMPLETE")


def written(out: Path, hash_seed: str) -> dict[str, bytes]:
    """The files of a fresh process by their names; of COMPLETE all but the seconds of the save."""
    out.mkdir()
    env = {**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-m", "tests.support.programs.equal_bytes", str(out)], env=env, capture_output=True, text=True,
                          cwd=out, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    files = {str(path.relative_to(out)): path.read_bytes() for path in sorted(out.rglob("*")) if path.is_file()}
    (complete,) = (name for name in files if name.endswith("COMPLETE"))
    record = json.loads(files[complete])
    del record["save_s"]
    return {**files, complete: json.dumps(record).encode()}


def test_fresh_processes_write_equal_bytes(tmp_path):
    need("clips")
    one, *others = (written(tmp_path / seed, seed) for seed in ("1", "2"))
    for kind in KINDS:
        assert any(Path(name).match(kind) for name in one), f"no {kind} was written"
    for other in others:
        # what was collected before has a cache, with the paths and times of the logs in it
        assert [name for name in one if other.get(name) != one[name] and "/." not in name] == []
        assert sorted(other) == sorted(one)
    with safe_open(tmp_path / "1/weights.safetensors", "pt") as file:  # the library reads it as it did
        assert file.metadata() == {"format": "pt"} | {f"key {i}": '"é' * i for i in range(12)}
        assert all(file.get_tensor(f"blocks.{i}.bias").tolist() == [i] * (i + 1) for i in range(8))
