from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from jobs.place.scheduler import commands, slurm
from tests.support.launching import write_program


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


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}/usr/bin{os.pathsep}/bin")
    return tmp_path


def test_a_command_that_hangs_is_given_up_and_named(programs: Path) -> None:
    write_program(programs, "squeue", "exec sleep 30")
    began = time.monotonic()
    with pytest.raises(slurm.SlurmError, match=r"`squeue --me` did not answer within 0.3 s"):
        slurm.run(["squeue", "--me"], timeout_s=0.3)
    assert time.monotonic() - began < 5


def test_a_command_that_fails_is_named_with_its_words(programs: Path) -> None:
    write_program(programs, "sacct", "echo 'Slurm accounting storage is disabled' >&2; exit 1")
    with pytest.raises(slurm.SlurmError, match=r"`sacct .*` failed \(exit 1\): Slurm accounting storage is disabled"):
        slurm.accounted(["1"])


def test_a_command_that_is_not_there(programs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(programs))
    with pytest.raises(slurm.SlurmError, match="`scancel` is not installed here"):
        slurm.cancel("1")
    assert str(slurm.absent()) == "sbatch and srun not installed"


def test_jobs_of_squeue(programs: Path) -> None:
    write_program(programs, "squeue", "echo '7|RUNNING|1:02|2|run-a|cn[1-2]|/runs/a|b'; echo '8|PENDING|0:00|1|x|(Resources)|(null)'")
    first, second = slurm.queued(["7", "8"])
    assert (first.id, first.name, first.where, first.comment, first.active) == ("7", "run-a", "cn[1-2]", "/runs/a|b", True)
    assert (second.state, second.where, second.comment) == ("PENDING", "(Resources)", "")


def test_a_job_that_squeue_has_forgotten_is_no_error(programs: Path) -> None:
    write_program(programs, "squeue", "echo 'slurm_load_jobs error: Invalid job id specified' >&2; exit 1")
    assert slurm.queued(["7"]) == []


def test_what_waits_in_the_queue(programs: Path) -> None:
    write_program(programs, "squeue", "echo '8_[4-9%2]|a|b|gpu,long|8|17|2026-11-30T10:00:00|Priority'; echo '9|c|gpu|1|40|N/A|Resources'")
    assert slurm.waiting() == [slurm.Waiting("9", "c", "gpu", "1", 40, "N/A", "Resources"),
                               slurm.Waiting("8_[4-9%2]", "a|b", "gpu,long", "8", 17, "2026-11-30T10:00:00", "Priority")]


def test_very_many_jobs_are_asked_for_in_several_calls(programs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Linux takes 128 KiB in one argument."""
    text = "echo \"$*\" >> CALLS; for id in $(echo \"$*\" | grep -o 'jobs=[0-9,]*' | tr -c '0-9\n' ' '); do echo LINE; done"
    for name, line in (("squeue", '"$id|RUNNING|1:02|2|a|cn1|x"'), ("sacct", '"$id|FAILED|1:02|2|1:0|cn1|a"')):
        write_program(programs, name, text.replace("CALLS", f"{programs}/{name}.calls").replace("LINE", line))
    monkeypatch.setattr(slurm, "MOST_IDS", 20)
    ids = [str(i) for i in range(100, 150)]
    assert [job.id for job in slurm.queued(ids)] == ids == [job.id for job in slurm.accounted([*ids, "100_3"])]
    for name in ("squeue", "sacct"):
        assert len((programs / f"{name}.calls").read_text().splitlines()) == 3


def test_jobs_of_sacct(programs: Path) -> None:
    write_program(programs, "sacct", "echo '7|CANCELLED by 1000|00:01:02|2|15:0|cn[1-2]|run-a'")
    (job,) = slurm.accounted(["7"])
    assert (job.state, job.active, job.exit_code, job.elapsed, job.name) == ("CANCELLED", False, 15, "00:01:02", "run-a")


def test_a_surrounding_job_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SLURM_JOB_ID", "SLURM_ARRAY_JOB_ID", "SRUN_DEBUG", "SLURM_CONF", "SBATCH_ACCOUNT"):
        monkeypatch.setenv(name, "1")
    slurm.leave_surrounding_job()
    left = {name for name in os.environ if name.startswith(("SLURM_", "SRUN_", "SBATCH_"))}
    assert left == {"SLURM_CONF", "SBATCH_ACCOUNT"}


AWAY = "slurm_load_jobs error: Unable to contact slurm controller (connect failure)"


def fails(folder: Path, name: str, words: str, *, times: int, then: str = "") -> None:
    """Write a program that fails with these words so often, and then does `then`; it notes its arguments in NAME.calls."""
    write_program(folder, name, f"echo \"$*\" >> {folder}/{name}.calls\n"
                  f"if [ $(wc -l < {folder}/{name}.calls) -le {times} ]; then echo '{words}' >&2; exit 1; fi\n{then}")


def calls(folder: Path, name: str) -> list[str]:
    return (folder / f"{name}.calls").read_text().splitlines()


@pytest.mark.parametrize(("words", "away"), [  # from Slurm's own list of errors, and from what the tests' cluster says
    (AWAY, True), ("sacct: error: Problem talking to the database: Connection refused", True),
    ("squeue: error: slurm_receive_msg: Socket timed out on send/recv operation", True),
    ("sinfo: error: Resource temporarily unavailable", True), ("Slurm backup controller in standby mode", True),
    ("slurm_load_node: Zero Bytes were transmitted or received", True), ("Unexpected message received for job 1", True),
    ("slurm_load_jobs error: Invalid job id specified", False), ("sacct: error: Slurm accounting storage is disabled", False),
    ("sbatch: error: invalid partition specified: nope", False), ("scancel: error: Kill job error: Access/permission denied", False),
    ("sinfo: fatal: Could not establish a configuration source", False), ("", False),
])
def test_an_answer_is_told_from_no_answer(words: str, away: bool) -> None:
    assert commands.is_away(words) == away


def test_a_question_is_asked_again_while_slurm_is_away(programs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fails(programs, "squeue", AWAY, times=2, then="echo '7|RUNNING|1:02|2|run-a|cn1|x'")
    began = time.monotonic()
    (job,) = slurm.queued(["7"])
    assert job.state == "RUNNING" and len(calls(programs, "squeue")) == 3 and time.monotonic() - began >= 1.5
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 2 and all(AWAY in line and line.startswith("`squeue ") for line in said)
    assert said[0].endswith("trying again in 0.5 s") and said[1].endswith("trying again in 1 s")


def test_a_question_is_given_up_and_its_tries_are_told(programs: Path) -> None:
    fails(programs, "sinfo", AWAY, times=99)
    with pytest.raises(slurm.SlurmAwayError, match=r"`sinfo .*Unable to contact .* \(tried 4 times in [3-9]\S* s\)"):
        slurm.partitions()
    assert len(calls(programs, "sinfo")) == 4


def test_all_tries_together_keep_a_limit(programs: Path) -> None:
    write_program(programs, "sinfo", f"echo >> {programs}/sinfo.calls; exec sleep 30")
    began = time.monotonic()
    with pytest.raises(slurm.SlurmAwayError, match=r"`sinfo -h` did not answer within 0.5 s.* \(tried 2 times in [12]\S* s\)"):
        commands.ask(["sinfo", "-h"], timeout_s=0.5, patience_s=2.6)
    assert len(calls(programs, "sinfo")) == 2 and time.monotonic() - began < 2.6


@pytest.mark.parametrize("ask", [
    lambda: slurm.test_start("#!/bin/sh"), lambda: slurm.cancel("7"), lambda: slurm.accounted(["7"]), slurm.cluster_name,
    lambda: slurm.bad_nodes("cn1"),
])
def test_a_refusal_is_not_asked_again(programs: Path, ask: Callable[[], object], capsys: pytest.CaptureFixture[str]) -> None:
    names = ("sbatch", "scancel", "sacct", "scontrol", "sinfo")
    for name in names:
        fails(programs, name, "error: Invalid something specified", times=99)
    with pytest.raises(slurm.SlurmError, match=r"failed \(exit 1\): error: Invalid something specified$") as caught:
        ask()
    assert not isinstance(caught.value, slurm.SlurmAwayError) and capsys.readouterr().err == ""
    assert sum(len(calls(programs, name)) for name in names if (programs / f"{name}.calls").exists()) == 1


def test_what_must_not_happen_twice_is_tried_once(programs: Path) -> None:
    fails(programs, "scontrol", "Socket timed out on send/recv operation", times=99)
    with pytest.raises(slurm.SlurmAwayError):
        slurm.requeue("7")
    assert calls(programs, "scontrol") == ["requeue 7"]


def test_whether_slurm_is_here_is_asked_once(programs: Path) -> None:
    for name in ("sbatch", "srun"):
        write_program(programs, name, "")
    fails(programs, "sinfo", AWAY, times=1)
    assert isinstance(slurm.absent(), slurm.SlurmAwayError) and slurm.absent() is None


def test_slurm_without_a_cluster_is_said_in_a_few_words(programs: Path) -> None:
    for name in ("sbatch", "srun"):
        write_program(programs, name, "")
    write_program(programs, "sinfo", "echo 'sinfo: error: resolve_ctls_from_dns_srv: res_nsearch error: Unknown host' >&2\n"
                                     "echo 'sinfo: fatal: Could not establish a configuration source' >&2; exit 1")
    assert str(slurm.absent()) == "Slurm's programs are installed, and no cluster is configured for them (slurm.conf)"


def test_excluded_nodes_are_added_to_those_of_the_job(programs: Path) -> None:
    write_program(programs, "squeue", "echo 'cn[1-2]'")
    fails(programs, "scontrol", "", times=0, then='[ "$*" = "show hostnames cn[1-2]" ] && printf "cn1\\ncn2\\n"; exit 0')
    slurm.exclude_nodes("7", ["cn9", "cn2"])
    assert calls(programs, "scontrol")[1:] == ["update jobid=7 excnodelist=cn1,cn2,cn9"]
    slurm.exclude_nodes("7", ["cn2"])
    assert calls(programs, "scontrol")[2:] == ["show hostnames cn[1-2]"], "nothing to change"


def test_nodes_that_do_not_work(programs: Path) -> None:  # states as in sinfo's manual; a node has a line per partition
    states = ["allocated", "mixed", "idle", "completing", "down", "down*", "drained", "draining", "fail", "failing", "idle*",
              "allocated*", "unknown", "inval", "idle~", "planned", "reserved", "maint"]
    write_program(programs, "sinfo", "\n".join(f"echo 'cn{i}|{state}'; echo 'cn{i}|{state}'" for i, state in enumerate(states)))
    assert slurm.bad_nodes("cn[0-17]") == [f"cn{i}" for i in range(4, 14)]
    assert slurm.bad_nodes("") == []


def test_the_state_of_a_job(programs: Path) -> None:
    write_program(programs, "squeue", "echo '7|COMPLETING|1:02|2|run-a|cn1|x'")
    assert slurm.job_state("7") == "COMPLETING"
    write_program(programs, "squeue", "echo 'slurm_load_jobs error: Invalid job id specified' >&2; exit 1")
    assert slurm.job_state("7") is None
