"""The pretend cluster behaves as a real one does, and leaves nothing behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.slurm import cluster as slurm
from tests.slurm import daemons, settings

# One rank: gloo over the job's first host, as the product sets it up, and the sum of all ranks.
RANK = """
import os, subprocess, torch, torch.distributed as dist
env = os.environ
hosts = subprocess.run(["scontrol", "show", "hostnames", env["SLURM_JOB_NODELIST"]], capture_output=True, text=True)
port = 10000 + int(env["SLURM_JOB_ID"]) % 20000
rank, world = int(env["SLURM_PROCID"]), int(env["SLURM_NTASKS"])
dist.init_process_group("gloo", init_method=f"tcp://{hosts.stdout.split()[0]}:{port}", rank=rank, world_size=world)
total = torch.tensor([rank + 1.0])
dist.all_reduce(total)
print(env["SLURMD_NODENAME"], int(total))
dist.barrier()
dist.destroy_process_group()  # else gloo's threads may still run when the interpreter ends, which aborts it
"""


@pytest.fixture
def short_path() -> Iterator[Path]:
    """A folder for another cluster: the path of a socket in it must not be longer than 107 characters."""
    with tempfile.TemporaryDirectory(prefix="vidmae-slurm-other-", ignore_cleanup_errors=True) as folder:
        yield Path(folder)


def _double(number: int) -> tuple[int, str]:
    return 2 * number, os.environ["SLURM_ARRAY_TASK_ID"]


def _alive(pids: dict[str, int]) -> list[str]:
    return [name for name, pid in pids.items() if Path(f"/proc/{pid}/exe").exists()]


def test_two_nodes_run_two_tasks_each_and_see_their_gpus(cluster: slurm.Cluster) -> None:
    show = "echo $SLURMD_NODENAME $SLURM_PROCID $CUDA_VISIBLE_DEVICES"
    done = cluster.run(
        "srun", "-N2", "--ntasks-per-node=2", "--gpus-per-node=2", "--mem=4G", "-w", "cn1,cn2", "sh", "-c", show
    )
    assert sorted(done.stdout.splitlines()) == ["cn1 0 0,1", "cn1 1 0,1", "cn2 2 0,1", "cn2 3 0,1"]


@pytest.mark.parametrize(("code", "state"), [(0, "COMPLETED"), (3, "FAILED")])
def test_the_accounting_knows_how_a_job_ended(cluster: slurm.Cluster, code: int, state: str) -> None:
    job = cluster.run("sbatch", "--parsable", "-o", "/dev/null", "--wrap", f"exit {code}").stdout.strip()
    assert cluster.wait_job(job) == state


def test_sbatch_test_only_tells_what_would_be_refused(cluster: slurm.Cluster) -> None:
    accepted = cluster.run("sbatch", "--test-only", "-N4", "--gpus-per-node=2", "--wrap", "true")
    assert "to start at" in accepted.stderr
    for refused in (["-N5"], ["--gpus-per-node=3"], ["-p", "debug", "-t", "60"], ["-p", "nowhere"]):
        assert cluster.run("sbatch", "--test-only", *refused, "--wrap", "true", check=False).returncode, refused


def test_submitit_array_gives_results(cluster: slurm.Cluster, tmp_path: Path) -> None:
    submitit = pytest.importorskip("submitit")
    executor = submitit.SlurmExecutor(folder=tmp_path / "%j")
    executor.update_parameters(time=5, cpus_per_task=1, mem="500M", array_parallelism=4)
    jobs = executor.map_array(_double, [1, 2, 3, 4])
    cluster.wait_job(jobs[-1].job_id, timeout_s=120)
    assert [job.result() for job in jobs] == [(2, "0"), (4, "1"), (6, "2"), (8, "3")]


def test_requeued_job_runs_again_soon(cluster: slurm.Cluster, tmp_path: Path) -> None:
    script = f'echo ${{SLURM_RESTART_COUNT:-0}} >> {tmp_path}/runs; test -n "$SLURM_RESTART_COUNT" || sleep 600'
    job = cluster.run("sbatch", "--parsable", "--requeue", "-o", "/dev/null", "--wrap", script).stdout.strip()
    daemons.wait((tmp_path / "runs").exists, 30, "the first run", cluster.folder, "slurmctld")
    cluster.run("scontrol", "requeue", job)
    assert cluster.wait_job(job, "COMPLETED", timeout_s=90) == "COMPLETED"
    assert (tmp_path / "runs").read_text().split() == ["0", "1"]


def test_two_ranks_on_two_nodes_meet_over_gloo(cluster: slurm.Cluster, tmp_path: Path) -> None:
    pytest.importorskip("torch")
    (tmp_path / "rank.py").write_text(RANK)
    done = cluster.run("srun", "-N2", "-n2", "-w", "cn3,cn4", sys.executable, f"{tmp_path}/rank.py", timeout_s=240)
    assert sorted(done.stdout.splitlines()) == ["cn3 3", "cn4 3"]


@pytest.mark.slow
def test_killed_node_is_lost_with_its_job_and_comes_back(cluster: slurm.Cluster, tmp_path: Path) -> None:
    script = f"setsid sleep 611 & echo $! > {tmp_path}/pid; sleep 612"  # one child leaves the job's session
    job = cluster.run("sbatch", "--parsable", "--no-requeue", "-w", "cn4", "-o", "/dev/null", "--wrap", script)
    daemons.wait((tmp_path / "pid").exists, 30, "the job", cluster.folder, "cn4")
    try:
        cluster.kill_node("cn4")
        assert not daemons.job_processes(cluster.folder, "cn4")
        assert not Path(f"/proc/{(tmp_path / 'pid').read_text().strip()}/exe").exists()
        cluster.wait_node("cn4", up=False, timeout_s=90)
    finally:
        cluster.start_node("cn4", timeout_s=90)
    assert cluster.wait_job(job.stdout.strip(), timeout_s=90) == "NODE_FAIL"
    assert cluster.run("srun", "-w", "cn4", "true").returncode == 0


def test_drained_node_takes_no_job_until_resumed(cluster: slurm.Cluster) -> None:
    cluster.drain("cn2", "fan")
    try:
        assert "DRAIN" in cluster.node_state("cn2")
        assert cluster.run("srun", "--immediate=1", "-w", "cn2", "true", check=False).returncode
    finally:
        cluster.resume("cn2")
    assert cluster.wait_node("cn2", up=True)
    with pytest.raises(ValueError, match="no node 'cn9'"):
        cluster.drain("cn9")


def test_accounting_and_controller_stop_and_come_back(cluster: slurm.Cluster) -> None:
    cluster.stop_slurmdbd()
    try:
        assert cluster.run("sacct", check=False).returncode == 1
    finally:
        cluster.start_slurmdbd()
    assert cluster.run("sacct").returncode == 0
    cluster.stop_controller()
    try:
        assert slurm.status(cluster.folder)["slurmctld"] is None
    finally:
        cluster.start_controller()
    assert cluster.wait_node("cn1", up=True)


def test_second_cluster_runs_beside_survives_its_shell_and_leaves_nothing(cluster: slurm.Cluster, short_path: Path) -> None:
    def cli(verb: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, slurm.__file__, verb, "--folder", str(short_path / "b"), "--nodes", "1"]
        return subprocess.run(command, capture_output=True, text=True, timeout=120, cwd="/")

    first = cli("start")
    assert first.stdout == f"export SLURM_CONF={short_path}/b/slurm.conf\n", first.stderr
    second = slurm.load(short_path / "b")
    before = second.pids
    assert cli("start").stdout == first.stdout
    assert second.pids == before, "a second start leaves a running cluster as it is"
    assert second.run("sinfo", "-h", "-o", "%N", "-p", "gpu").stdout == "cn1\n"
    second.run("sbatch", "-o", "/dev/null", "--wrap", "sleep 613")
    daemons.wait(lambda: bool(daemons.job_processes(second.folder, "cn1")), 30, "the job", second.folder, "cn1")
    jobs = {str(pid): pid for pid in daemons.job_processes(second.folder, "cn1")}

    for pid in before.values():  # a crash: all daemons at once, the job's processes stay
        os.kill(pid, signal.SIGKILL)
    assert cli("status").returncode == 1
    third = cli("start")
    assert third.returncode == 0, third.stderr
    assert _alive(before | jobs) == []
    pids = second.pids
    assert len(pids) == 5
    assert cli("stop").returncode == 0
    assert _alive(pids) == []
    assert not (short_path / "b").exists()
    assert None not in slurm.status(cluster.folder).values(), "the other cluster is untouched"


def test_stop_ends_what_start_left_half_way(cluster: slurm.Cluster, short_path: Path) -> None:
    folder = short_path / "half"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(settings, "_SLURMDBD", settings._SLURMDBD.replace("StorageLoc", "NoSuchKey"))
        with pytest.raises(RuntimeError, match=r"(?s)slurmdbd ended.*NoSuchKey"):
            slurm.start(folder, nodes=1)
    assert sorted(entry.name for entry in folder.iterdir()) == [slurm.MARKER, "log"], "the logs say what happened"
    slurm.stop(folder)
    assert not folder.exists()


def test_start_takes_no_folder_that_is_not_its_own(tmp_path: Path, cluster: slurm.Cluster) -> None:
    (tmp_path / "slurm.conf").write_text("ClusterName=theirs\n")
    with pytest.raises(ValueError, match="not empty and no cluster of ours"):
        slurm.start(tmp_path)
    with pytest.raises(FileNotFoundError, match="no cluster in"):
        slurm.stop(tmp_path)
    assert (tmp_path / "slurm.conf").read_text() == "ClusterName=theirs\n"
    with pytest.raises(ValueError, match="of 4 nodes, not 2"):
        slurm.start(cluster.folder, nodes=2)


def test_nodes_get_names_once_and_never_somebody_elses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hosts = tmp_path / "hosts"
    hosts.write_text("127.0.0.1 localhost\n127.0.1.2 cn2  # by hand")
    monkeypatch.setattr(settings, "HOSTS", hosts)
    settings.name_nodes(("cn1", "cn2", "cn3"))
    once = hosts.read_text()
    assert [line.split()[:2] for line in once.splitlines()[1:]] == [
        ["127.0.1.2", "cn2"],
        ["127.0.1.1", "cn1"],
        ["127.0.1.3", "cn3"],
    ]
    settings.name_nodes(("cn1", "cn2", "cn3"))
    assert hosts.read_text() == once
    hosts.write_text("10.0.0.7 cn1\n")
    with pytest.raises(slurm.Unavailable, match=r"cn1 is 10\.0\.0\.7"):
        settings.name_nodes(("cn1",))
    assert hosts.read_text() == "10.0.0.7 cn1\n"


def test_missing_programs_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slurm, "PROGRAMS", (*slurm.PROGRAMS, "no-such-daemon"))
    with pytest.raises(slurm.Unavailable, match="not installed: no-such-daemon"):
        slurm.start()
