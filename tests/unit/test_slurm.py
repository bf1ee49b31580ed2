from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from jobs import slurm


# minutes worked out by hand from the description of --time in sbatch's manual
@pytest.mark.parametrize(("text", "minutes"), [
    ("1", 1), ("90", 90), ("30:00", 30), ("30:01", 31), ("0:10", 1), ("2:00:00", 120), ("36:00:00", 2160),
    ("00:00:59", 1), ("1-0", 1440), ("1-12", 2160), ("2-00:30", 2910), ("7-23:59:59", 11520), ("0-1", 60), (" 5 ", 5),
])
def test_every_form_of_a_time_limit(text: str, minutes: int) -> None:
    assert slurm.parse_time(text) == minutes


@pytest.mark.parametrize("text", ["", "0", "0:00", "1h", "1:2:3:4", "-5", "1-", "1.5", "1-1-1", "UNLIMITED", "1;ls", "٣x"])
def test_what_is_no_time_limit(text: str) -> None:
    with pytest.raises(ValueError, match="is no time"):
        slurm.parse_time(text)


def test_times_are_shown_as_slurm_shows_them() -> None:
    assert slurm.format_time(1) == "00:01:00"
    assert slurm.format_time(1440) == "1-00:00:00"
    assert slurm.format_time(2 * 1440 + 3 * 60 + 7) == "2-03:07:00"
    assert all(slurm.parse_time(slurm.format_time(n)) == n for n in (1, 59, 60, 1439, 1440, 10081))


@pytest.mark.parametrize(("text", "gpus"), [
    ("(null)", (0, "")), ("", (0, "")), ("gpu:4", (4, "")), ("gpu:a100:8", (8, "a100")),
    ("gpu:a100:8(S:0-1)", (8, "a100")), ("nvme:1,gpu:h100:4(S:0,2),mic:2", (4, "h100")),
    ("gpu:1g.10gb:7", (7, "1g.10gb")), ("gpu:a100:2,gpu:v100:1", (3, "a100+v100")), ("xgpu:3", (0, "")),
])
def test_gpus_of_a_node(text: str, gpus: tuple[int, str]) -> None:
    assert slurm.parse_gres(text) == gpus


def test_partitions_from_sinfo() -> None:
    found = slurm.parse_partitions(
        "gpu*|up|2-00:00:00|1-16|30|64|515000|idle|gpu:a100:8(S:0-1)\n"
        "gpu*|up|2-00:00:00|1-16|2|64|515000|drained|gpu:a100:8(S:0-1)\n"
        "gpu*|up|2-00:00:00|1-16|1|64|515000|idle*|gpu:a100:8(S:0-1)\n"
        "gpu*|up|2-00:00:00|1-16|4|32|257000|mixed|gpu:v100:4\n"
        "long|down|infinite|1-infinite|10|128+|1000000|allocated|(null)\n")
    gpu, long = found
    assert (gpu.name, gpu.default, gpu.up, gpu.max_time_min, gpu.max_nodes) == ("gpu", True, True, 2880, 16)
    assert gpu.shapes == (slurm.NodeShape(33, 30, 64, 515000, 8, "a100"), slurm.NodeShape(4, 4, 32, 257000, 4, "v100"))
    assert (gpu.nodes, gpu.nodes_with(8), gpu.nodes_with(1)) == (37, 33, 37)
    assert (long.default, long.up, long.max_time_min, long.max_nodes) == (False, False, None, None)
    assert long.shapes == (slurm.NodeShape(10, 10, 128, 1000000, 0, ""),)


def program(folder: Path, name: str, text: str) -> None:
    path = folder / name
    path.write_text("#!/bin/sh\n" + text)
    path.chmod(0o755)


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}/usr/bin{os.pathsep}/bin")
    return tmp_path


def test_a_command_that_hangs_is_given_up_and_named(programs: Path) -> None:
    program(programs, "squeue", "exec sleep 30")
    began = time.monotonic()
    with pytest.raises(slurm.SlurmError, match=r"`squeue --me` did not answer within 0.3 s"):
        slurm.run(["squeue", "--me"], timeout_s=0.3)
    assert time.monotonic() - began < 5


def test_a_command_that_fails_is_named_with_its_words(programs: Path) -> None:
    program(programs, "sacct", "echo 'Slurm accounting storage is disabled' >&2; exit 1")
    with pytest.raises(slurm.SlurmError, match=r"`sacct .*` failed \(exit 1\): Slurm accounting storage is disabled"):
        slurm.accounted(["1"])


def test_a_command_that_is_not_there(programs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(programs))
    with pytest.raises(slurm.SlurmError, match="`scancel` is not installed here"):
        slurm.cancel("1")
    assert slurm.absent() == "sbatch and srun not installed"


def test_jobs_of_squeue(programs: Path) -> None:
    program(programs, "squeue", "echo '7|RUNNING|1:02|2|run-a|cn[1-2]|/runs/a|b'; echo '8|PENDING|0:00|1|x|(Resources)|(null)'")
    first, second = slurm.queued(["7", "8"])
    assert (first.id, first.name, first.where, first.comment, first.active) == ("7", "run-a", "cn[1-2]", "/runs/a|b", True)
    assert (second.state, second.where, second.comment) == ("PENDING", "(Resources)", "")


def test_a_job_that_squeue_has_forgotten_is_no_error(programs: Path) -> None:
    program(programs, "squeue", "echo 'slurm_load_jobs error: Invalid job id specified' >&2; exit 1")
    assert slurm.queued(["7"]) == []


def test_jobs_of_sacct(programs: Path) -> None:
    program(programs, "sacct", "echo '7|CANCELLED by 1000|00:01:02|2|15:0|cn[1-2]|run-a'")
    (job,) = slurm.accounted(["7"])
    assert (job.state, job.active, job.exit_code, job.elapsed, job.name) == ("CANCELLED", False, 15, "00:01:02", "run-a")


def test_a_surrounding_job_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SLURM_JOB_ID", "SLURM_ARRAY_JOB_ID", "SRUN_DEBUG", "SLURM_CONF", "SBATCH_ACCOUNT"):
        monkeypatch.setenv(name, "1")
    slurm.leave_surrounding_job()
    left = {name for name in os.environ if name.startswith(("SLURM_", "SRUN_", "SBATCH_"))}
    assert left == {"SLURM_CONF", "SBATCH_ACCOUNT"}
