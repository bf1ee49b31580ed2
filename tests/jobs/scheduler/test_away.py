"""What the launchers do while Slurm hangs, fails or refuses: small programs stand for it, so that it happens each time."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest

from jobs import cancel, logs, pretrain, status
from jobs.place.scheduler import commands, slurm
from tests.support.launching import write_manifest, write_program
from vidmae.runs.record import RunFolder, read_json, write_json

AWAY = "echo 'slurm_load_jobs error: Unable to contact slurm controller (connect failure)' >&2; exit 1"
NEVER = "exec sleep 60"
ARGS = ["--recipe", "demo", "--cluster", "slurm", "--partition", "gpu", "--time", "5", "--gpus-per-node", "0",
        "--cpus-per-task", "1", "--set", "train.device=cpu", "--set", "data.workers=0", "--set", "train.global_batch=16",
        "--set", "train.phases=[{duration: 10 steps, lr: 1.0e-3}]"]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An own folder with a manifest and a Slurm whose controller answers and knows no job."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", f"{tmp_path}/bin{os.pathsep}/usr/bin{os.pathsep}/bin")
    monkeypatch.setattr(commands, "PAUSES_S", (0.05, 0.05))
    for name in ("VIDMAE_PROFILE", "VIDMAE_DATA"):
        monkeypatch.delenv(name, raising=False)
    write_manifest(tmp_path / "manifests/demo.csv")
    sinfo = "case \"$*\" in *%R*) echo gpu;; *) echo 'gpu*|up|1-00:00:00|1-infinite|4|8|16384|idle|(null)';; esac"
    for name, text in {"sinfo": sinfo, "scontrol": "echo 'ClusterName = c'", "squeue": "", "sacct": "", "srun": "",
                       "scancel": "", "sbatch": "echo Submitted batch job 77"}.items():
        slurm_does(tmp_path, name, text)
    return tmp_path


def slurm_does(folder: Path, name: str, text: str) -> None:
    write_program(folder / "bin", name, f"echo \"$*\" >> '{folder}/{name}.calls'\n{text}")


def calls(folder: Path, name: str) -> int:
    path = folder / f"{name}.calls"
    return len(path.read_text().splitlines()) if path.exists() else 0


def submitted(folder: Path) -> list[tuple[str, str | None]]:
    (path,) = (folder / "runs").iterdir()
    return [(s["state"], s["job_id"]) for s in (read_json(RunFolder(path).record) or {})["submissions"]]


@pytest.fixture
def active(folder: Path) -> RunFolder:
    """A run with a job 7 that gave a sign of life just now."""
    run = RunFolder(folder / "runs/a-1")
    run.path.mkdir(parents=True)
    write_json(run.record, {"submissions": [{"job_id": "7", "cluster": "slurm", "job_name": "a-1"}]})
    write_json(run.heartbeat, {"job_id": "7", "time": time.time(), "host": "cn3", "step": 3, "total_steps": 9, "loss": 0.5})
    return run


@pytest.mark.parametrize("squeue_of_the_second", ["echo \"77|PENDING|0:00|1|$NAME|(None)|$RUN\"", ""])
def test_an_sbatch_that_hangs_is_called_once_and_its_job_found(folder: Path, capsys: pytest.CaptureFixture[str],
                                                               monkeypatch: pytest.MonkeyPatch,
                                                               squeue_of_the_second: str) -> None:
    monkeypatch.setattr(slurm, "SUBMIT_TIMEOUT_S", 1.0)
    slurm_does(folder, "sbatch", NEVER)
    began = time.monotonic()
    assert pretrain.main(ARGS) == 4 and time.monotonic() - began < 10
    out, err = capsys.readouterr()
    assert out == "" and "`sbatch` was not answered: no answer within 1 s; the job may be in the queue all the same" in err
    assert calls(folder, "sbatch") == 1 and submitted(folder) == [("submitting", None)]

    (run,) = (folder / "runs").iterdir()  # the second launcher looks for the job first
    slurm_does(folder, "squeue", f"NAME={run.name} RUN={run}\n{squeue_of_the_second}")
    slurm_does(folder, "sbatch", "echo Submitted batch job 78")
    assert pretrain.main(ARGS) == 0
    found = bool(squeue_of_the_second)
    assert capsys.readouterr().out == ("77\n" if found else "78\n") and calls(folder, "sbatch") == (1 if found else 2)
    assert submitted(folder)[-1] == ("submitted", "77" if found else "78")


@pytest.mark.parametrize(("words", "notes"), [
    ("Batch job submission failed: Socket timed out on send/recv operation", [("submitting", None)]),  # it may be queued
    ("Batch job submission failed: Invalid account or account/partition combination specified", [("refused", None)]),
])
def test_a_submission_that_may_have_been_taken_is_kept_in_mind(folder: Path, capsys: pytest.CaptureFixture[str], words: str,
                                                               notes: list[tuple[str, str | None]]) -> None:
    slurm_does(folder, "sbatch", f"echo 'sbatch: error: {words}' >&2; exit 1")
    assert pretrain.main(ARGS) == 4
    assert words in capsys.readouterr().err and submitted(folder) == notes and calls(folder, "sbatch") == 1


def test_a_refused_submission_says_so_and_leaves_the_run_free(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    slurm_does(folder, "sbatch", "echo 'sbatch: error: Invalid account' >&2; exit 1")
    assert pretrain.main(ARGS) == 4 and status.main(["demo"]) == 0
    out, err = capsys.readouterr()
    assert " REF " in out and "REFUSED; " in err and "Invalid account" in err.splitlines()[-1]
    slurm_does(folder, "sbatch", "echo Submitted batch job 79")
    assert pretrain.main(ARGS) == 0 and submitted(folder) == [("submitted", "79")]


@pytest.mark.parametrize("text", [AWAY, NEVER])
def test_a_login_node_does_not_train_because_slurm_is_away(folder: Path, text: str, capsys: pytest.CaptureFixture[str],
                                                           monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slurm, "ABSENT_TIMEOUT_S", 0.5)
    slurm_does(folder, "sinfo", text)
    assert pretrain.main(["--recipe", "demo"]) == 4
    out, err = capsys.readouterr()
    assert out == "" and "Slurm is installed and away: `sinfo" in err and "--cluster local" in err
    assert calls(folder, "sinfo") == 1 and not (folder / "runs").exists()


@pytest.mark.parametrize("sacct", [AWAY, "echo 'Slurm accounting storage is disabled' >&2; exit 1"])
def test_status_goes_by_the_records_while_nobody_answers(folder: Path, active: RunFolder, sacct: str,
                                                         capsys: pytest.CaptureFixture[str]) -> None:
    slurm_does(folder, "squeue", AWAY)
    slurm_does(folder, "sacct", sacct)
    assert status.main(["--json"]) == 0
    out, err = capsys.readouterr()
    row = json.loads(out)
    assert (row["state"], row["source"], row["where"], row["step"]) == ("RUNNING", "heartbeat.json", "cn3", 3)
    assert "note: `squeue" in err and "note: `sacct" in err and err.count("trying again") == (4 if sacct == AWAY else 2)


def test_status_waits_for_a_controller_that_is_back_soon(folder: Path, active: RunFolder,
                                                         capsys: pytest.CaptureFixture[str]) -> None:
    slurm_does(folder, "squeue", f"if [ $(wc -l < {folder}/squeue.calls) -le 2 ]; then {AWAY}; fi\n"
               "echo '7|PENDING|0:00|2|a-1|(Resources)|x'")
    assert status.main(["--json"]) == 0
    out, err = capsys.readouterr()
    assert json.loads(out)["state"] == "PENDING" and json.loads(out)["source"] == "squeue" and "note:" not in err


def test_a_job_that_the_accounting_believes_to_run_and_squeue_does_not_know(folder: Path, active: RunFolder,
                                                                            capsys: pytest.CaptureFixture[str]) -> None:
    slurm_does(folder, "sacct", "echo '7|RUNNING|1:00|2|0:0|cn1|a-1'")  # slurmdbd was away when it ended
    assert status.main(["--json"]) == 0
    row = json.loads(capsys.readouterr().out)
    assert (row["state"], row["active"], row["source"]) == ("ENDED", False, "squeue: gone")
    slurm_does(folder, "squeue", AWAY)  # now the accounting is all there is
    assert status.main(["--json"]) == 0
    assert json.loads(capsys.readouterr().out)["source"] == "sacct"


def test_cancelling_without_a_controller_is_an_error(folder: Path, active: RunFolder,
                                                     capsys: pytest.CaptureFixture[str]) -> None:
    slurm_does(folder, "squeue", AWAY)
    slurm_does(folder, "scancel", AWAY)
    assert cancel.main(["a-1"]) == 4
    assert "error: `scancel 7` failed (exit 1)" in capsys.readouterr().err and calls(folder, "scancel") == 3
    active.heartbeat.unlink()  # nobody can tell whether the job lives
    assert cancel.main(["a-1"]) == 4
    assert "error: the state of job 7 of a-1 is not known: `squeue" in capsys.readouterr().err


def test_a_log_is_followed_through_an_absence(folder: Path, active: RunFolder, capsys: pytest.CaptureFixture[str]) -> None:
    active.heartbeat.unlink()
    slurm_does(folder, "sacct", AWAY)
    running, ended = (f"echo '7|{state}|0:01|2|a-1|cn1|x'" for state in ("RUNNING", "COMPLETED"))
    slurm_does(folder, "squeue", f"case $(wc -l < {folder}/squeue.calls) in 1) {running};; 2|3|4) {AWAY};; *) {ended};; esac")
    log = active.submit / "7/7_0_log.out"
    log.parent.mkdir(parents=True)
    log.write_text("step 1\n")
    assert logs.main(["a-1", "-f"]) == 0
    out, err = capsys.readouterr()
    assert out == "step 1\n" and "still watching, for 59" in err and calls(folder, "squeue") == 5


def test_a_log_that_is_not_there_yet_is_waited_for_aloud(folder: Path, active: RunFolder,
                                                         capsys: pytest.CaptureFixture[str]) -> None:
    waiting, ended = "echo '7|PENDING|0:00|2|a-1|(Priority)|x'", "echo '7|CANCELLED|0:00|2|a-1||x'"
    slurm_does(folder, "squeue", f"case $(wc -l < {folder}/squeue.calls) in 1) {waiting};; *) {ended};; esac")
    assert logs.main(["a-1", "-f"]) == 0
    assert "job 7 is PENDING (Priority); waiting for its log" in capsys.readouterr().err and not active.submit.exists()
