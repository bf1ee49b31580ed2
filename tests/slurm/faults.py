"""The fault matrix: break a training job in every way that a cluster does, and see whether it ends as if unbroken.

    python -m tests.slurm.faults                         all faults x ZeRO 1, 2, 3 (about 50 minutes on 2 cores)
    python -m tests.slurm.faults --faults usr2,hung --stages 2
    python -m tests.slurm.faults --prepared              clips are read from archives of prepared footage
    make faults                                          the first of these

Each row starts a run of two ranks on two nodes with `jobs/pretrain.py`, does the fault while it trains, waits until the
job has come back by itself and is done, and compares metrics, weights and optimizer state with an uninterrupted run of
the same stage bit for bit. Everything is real: slurmctld, srun, signals, kill -9, a full file system.
Exit code 1 where a row did not survive, lost more steps than it may, or differs in one bit.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path

from tests.slurm import cluster as slurm
from tests.slurm.cluster import Cluster
from tests.support.interruptions import differences, wait_for_step
from tests.support.runs import TINY, make_manifest
from vidmae.clips.clip_cost import cpu_name
from vidmae.footage.manifest import read_summary
from vidmae.preparing.preparation import Preparation
from vidmae.preparing.prepare_archives import prepare
from vidmae.preparing.prepared_folder import Order
from vidmae.runs.attempts import read_attempts
from vidmae.runs.record import RunFolder, read_json

ROOT = Path(__file__).resolve().parents[2]
STEPS, EVERY = 60, 10  # small clips: a step takes a tenth of a second
AT_STEP = 13  # the fault comes after this step: three after a checkpoint
MEMORY, AFTER_COPIES = 3, 18  # steps between copies in memory; the fault comes long after a checkpoint on disk
TMPFS_MIB = 96


@dataclass
class Job:
    """One training job of the matrix."""

    cluster: Cluster
    run: RunFolder
    id: str
    arguments: list[str]
    repairs: list[Callable[[], None]] = field(default_factory=list)  # what puts the cluster right again

    def pid(self, rank: int) -> int:
        """Process of a rank: its task, or where that watches it (recovery.restarts_in_place) the task's only child."""
        task = self.task(rank)
        if "recovery.restarts_in_place=3" not in self.arguments:
            return task
        children = Path(f"/proc/{task}/task/{task}/children").read_text().split()
        if not children:
            raise LookupError(f"task {rank} of job {self.id} has no rank yet")
        return int(children[0])

    def task(self, rank: int) -> int:
        """Process of a task: a child of slurmstepd with the job's and the rank's number, and not the batch script."""
        marks = {f"SLURM_JOB_ID={self.id}".encode(), f"SLURM_PROCID={rank}".encode()}
        for entry in Path("/proc").iterdir():
            with contextlib.suppress(OSError, ValueError, IndexError):
                if not entry.name.isdigit() or b"submitit" not in (entry / "cmdline").read_bytes():
                    continue
                if marks <= set((entry / "environ").read_bytes().split(b"\0")):
                    parent = (entry / "stat").read_text().rpartition(")")[2].split()[1]
                    if "slurmstepd" in Path(f"/proc/{parent}/comm").read_text():
                        return int(entry.name)
        raise LookupError(f"job {self.id} has no rank {rank}")

    def node(self, rank: int) -> str:
        """Node that a rank runs on."""
        words = Path(f"/proc/{self.pid(rank)}/environ").read_bytes().split(b"\0")
        return next(w for w in words if w.startswith(b"SLURMD_NODENAME=")).partition(b"=")[2].decode()

    def wait_step(self, step: int) -> None:
        """Wait until a step is done, the job being alive."""
        wait_for_step(self.run, step, timeout_s=180)


def usr2(job: Job) -> None:
    job.cluster.run("scancel", "--signal=USR2", job.id)


def term(job: Job) -> None:
    job.cluster.run("scancel", "--signal=TERM", job.id)


def time_limit(job: Job) -> None:
    """Slurm warns of it."""
    _held_until(job, signal.SIGUSR2, lambda: None)


def _held_until(job: Job, number: signal.Signals, act: Callable[[], object]) -> None:
    """Hold the ranks where they are, act, and wait until Slurm has signalled them; it lets them go on itself."""
    pids = [job.pid(rank) for rank in (0, 1)]
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    time.sleep(1)  # a signal takes a moment to stop all threads
    act()
    deadline = time.monotonic() + 150
    while all(_holds(pid, number) for pid in pids):
        assert time.monotonic() < deadline, f"Slurm sends no {number.name}"
        time.sleep(0.2)
    for pid in pids:
        os.kill(pid, signal.SIGCONT)


def kill_rank_0(job: Job) -> None:
    os.kill(job.pid(0), signal.SIGKILL)


def kill_rank_1(job: Job) -> None:
    os.kill(job.pid(1), signal.SIGKILL)


def kill_task_1(job: Job) -> None:
    """The rank goes with the process that watches it."""
    os.kill(job.task(1), signal.SIGKILL)


def kill_slurmd(job: Job) -> None:
    """The node of rank 1 loses power."""
    node = job.node(1)
    job.repairs.append(lambda: job.cluster.start_node(node))
    job.cluster.kill_node(node)


def lose_node(job: Job) -> None:
    """The node of rank 1 loses power, and its memory with it. The pretend nodes share one memory: each has a folder there."""
    node = job.node(1)
    kill_slurmd(job)
    shutil.rmtree(Path(f"/dev/shm/vidmae-{os.getuid()}") / node)


def node_down(job: Job) -> None:
    node = job.node(1)
    job.repairs.append(lambda: _bring_back(job.cluster, node))
    job.cluster.down(node)


def _bring_back(cluster: Cluster, node: str) -> None:
    if "DOWN" in cluster.node_state(node):  # it may have come back when it next reported
        cluster.resume(node)
    cluster.wait_node(node, up=True)


def requeue(job: Job) -> None:
    job.cluster.run("scontrol", "requeue", job.id)


def preempt(job: Job) -> None:
    """A job of a partition with a higher priority wants all nodes for a moment."""
    _held_until(job, signal.SIGTERM, lambda: job.cluster.run(
        "sbatch", "--partition=urgent", f"--nodes={len(job.cluster.nodes)}", "--exclusive", "--output=/dev/null", "--wrap=sleep 3"))


def disk_full(job: Job) -> None:
    """Fill the file system of the run; once the job has given up, make room and continue it as the README says."""
    filler = job.run.path.parent / "filler"
    with contextlib.suppress(OSError), filler.open("wb") as f:
        while True:
            f.write(bytes(2**16))
            f.flush()
    deadline = time.monotonic() + 180
    while job.cluster.job_state(job.id) not in ("FAILED", "COMPLETED", "CANCELLED"):
        assert time.monotonic() < deadline, "the job does not give up"
        time.sleep(0.5)
    filler.unlink()
    job.id = submit(job.arguments, "--retry")


def truncated_checkpoint(job: Job) -> None:
    """The newest checkpoint is cut in half while the job dies."""
    os.kill(job.pid(1), signal.SIGKILL)
    newest = max(job.run.checkpoints.glob("step_*"))
    shard = max(newest.rglob("*.pt"), key=lambda p: p.stat().st_size)
    os.truncate(shard, shard.stat().st_size // 2)


def hung_collective(job: Job) -> None:
    """Rank 1 stands still, so rank 0 waits in the next collective."""
    os.kill(job.pid(1), signal.SIGSTOP)


def no_accounting(job: Job) -> None:
    job.repairs.append(job.cluster.start_slurmdbd)
    job.cluster.stop_slurmdbd()
    os.kill(job.pid(1), signal.SIGKILL)


def controller_restart(job: Job) -> None:
    """A rank dies while slurmctld is away; it comes back ten seconds later."""
    job.cluster.stop_controller()
    os.kill(job.pid(1), signal.SIGKILL)
    time.sleep(10)
    job.cluster.start_controller()


@dataclass(frozen=True)
class Fault:
    """What is done to a job.

    Attributes:
        title: For the table.
        act: Does it.
        after: The step that it waits for.
        may_lose: Steps that may have to be done again.
        flags: What the launcher is told beside the usual.
        in_place: The job keeps its nodes and starts its ranks again; else it is requeued.
    """

    title: str
    act: Callable[[Job], None]
    after: int = AT_STEP
    may_lose: int = EVERY
    flags: tuple[str, ...] = ("--time", "20")
    in_place: bool = False


COPIES = ("--time", "20", "--set", f"checkpoint.memory_steps={MEMORY}")
IN_PLACE = ("--time", "20", "--set", "recovery.restarts_in_place=3")
FAULTS = {
    "usr2": Fault("USR2 to the job", usr2, may_lose=0),
    "term": Fault("TERM to the job", term, may_lose=0),
    "preempt": Fault("preempted by another job", preempt, may_lose=0),
    "limit": Fault("time limit", time_limit, may_lose=0, flags=("--time", "3", "--signal-delay-s", "100")),
    "kill0": Fault("kill -9 of rank 0", kill_rank_0),
    "kill1": Fault("kill -9 of rank 1", kill_rank_1),
    "place0": Fault("kill -9 of rank 0, restarted in place", kill_rank_0, flags=IN_PLACE, in_place=True),
    "place1": Fault("kill -9 of rank 1, restarted in place", kill_rank_1, flags=IN_PLACE, in_place=True),
    "task1": Fault("kill -9 of rank 1 and what watches it", kill_task_1, flags=IN_PLACE),
    "hungplace": Fault("a rank stopped, restarted in place", hung_collective, in_place=True,
                       flags=(*IN_PLACE, "--set", "recovery.step_limit_s=8")),
    "slurmd": Fault("kill -9 of a slurmd and its job steps", kill_slurmd),
    "down": Fault("node set down", node_down),
    "requeue": Fault("scontrol requeue", requeue),
    "disk": Fault("disk full, then room and --retry", disk_full),
    "truncated": Fault("newest checkpoint truncated, rank killed", truncated_checkpoint, after=22, may_lose=2 * EVERY),
    "hung": Fault("hung collective (a rank stopped)", hung_collective,
                  flags=("--time", "20", "--set", "recovery.step_limit_s=8")),
    "slurmdbd": Fault("kill -9 of rank 1, slurmdbd stopped", no_accounting),
    "slurmctld": Fault("kill -9 of rank 1, slurmctld restarted", controller_restart),
    "copies0": Fault(f"kill -9 of rank 0, copies in memory every {MEMORY} steps", kill_rank_0, after=AFTER_COPIES,
                     may_lose=2 * MEMORY, flags=COPIES),
    "copies1": Fault(f"kill -9 of rank 1, copies in memory every {MEMORY} steps", kill_rank_1, after=AFTER_COPIES,
                     may_lose=2 * MEMORY, flags=COPIES),
    "lost_node": Fault(f"a node and its memory lost, copies in memory every {MEMORY} steps", lose_node, after=AFTER_COPIES,
                       may_lose=2 * MEMORY, flags=(*COPIES, "--exclude", "cn4")),  # three nodes: two are left, and both are needed
}


@dataclass
class Row:
    """What came of a fault in a ZeRO stage.

    Attributes:
        survived: The run reached its end.
        steps_lost: Steps done again; None where it did not survive.
        back_s: Seconds from the fault to the first step after it.
        differs: What is not bit for bit that of the uninterrupted run.
        problem: Why it did not survive.
    """

    fault: str
    stage: int
    survived: bool = False
    steps_lost: int | None = None
    back_s: float | None = None
    differs: list[str] = field(default_factory=list)
    problem: str = ""

    @property
    def ok(self) -> bool:
        """The row is green."""
        allowed = FAULTS[self.fault].may_lose
        return self.survived and not self.differs and self.steps_lost is not None and self.steps_lost <= allowed


def submit(arguments: list[str], *more: str) -> str:
    """Type a launcher's command; the job id."""
    done = subprocess.run([sys.executable, str(ROOT / "jobs/pretrain.py"), *arguments, *more], cwd=ROOT, capture_output=True,
                          text=True, timeout=180, stdin=subprocess.DEVNULL)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def command(manifest: Path, runs: Path, stage: int, *flags: str) -> list[str]:
    settings = [*TINY, "train.device=cpu", f"train.zero_stage={stage}", f"checkpoint.every_steps={EVERY}",
                f"train.phases=[{{duration: {STEPS} steps, lr: 1.0e-3}}]"]
    return ["--recipe", "demo", "--data", str(manifest), "--partition", "gpu", "--nodes", "2", "--gpus-per-node", "0",
            "--tasks-per-node", "1", "--cpus-per-task", "2", "--mem", "2G", "--runs-dir", str(runs),
            *(arg for s in settings for arg in ("--set", s)), *flags]


def the_run(runs: Path) -> RunFolder:
    (record,) = runs.glob("*/run.json")
    return RunFolder(record.parent)


def wait_done(job: Job, timeout_s: float = 240) -> None:
    """Wait for result.json, and for the end of the job that wrote it."""
    deadline = time.monotonic() + timeout_s
    while not job.run.result.exists():
        queue = job.cluster.run("squeue", "-h", "-o", "%T", "-j", job.id, check=False, timeout_s=30)
        gone = queue.returncode == 0 and queue.stdout.strip() in ("", "FAILED", "CANCELLED", "TIMEOUT", "COMPLETED")
        if (gone and not job.run.result.exists()) or time.monotonic() > deadline:
            why = (read_json(job.run.failure) or {}).get("message", "")
            raise TimeoutError(f"job {job.id} is {'over' if gone else 'not done in time'} without a result: {why}")
        time.sleep(0.5)


def uninterrupted(cluster: Cluster, manifest: Path, folder: Path, stage: int) -> RunFolder:
    """The run that the rows of a stage are compared with."""
    runs = folder / f"whole{stage}"
    arguments = command(manifest, runs, stage, "--time", "20")
    job = Job(cluster, RunFolder(folder), submit(arguments), arguments)
    job.run = the_run(runs)
    wait_done(job)
    return job.run


def run_row(cluster: Cluster, manifest: Path, folder: Path, name: str, whole: RunFolder, stage: int, *more: str) -> Row:
    """Do one fault to one run.

    Args:
        cluster: A running cluster whose nodes are all up; it is left so.
        manifest: The clips.
        folder: An own folder.
        name: Of the fault.
        whole: The uninterrupted run of the stage.
        stage: ZeRO stage.
        more: Further flags of the launcher.
    """
    row, fault = Row(name, stage), FAULTS[name]
    with _file_system(folder, small=name == "disk") as runs:
        arguments = command(manifest, runs, stage, *fault.flags, *more)
        job = Job(cluster, RunFolder(runs), submit(arguments), arguments)
        try:
            job.run = the_run(runs)
            job.wait_step(fault.after)
            began = time.time()
            fault.act(job)
            wait_done(job)
            row.survived = True
            if name == "hung":
                said = job.run.hang.read_text()
                assert "rank 1 (node " in said and "gave no sign any more" in said, said.splitlines()[:1]
            _, *later = read_attempts(job.run)
            assert later, "the job was not interrupted"
            assert bool(later[0].restarted) == fault.in_place, f"it started again for {later[0].restarted or 'a requeue'}"
            row.steps_lost = sum(attempt.repeated_steps for attempt in later)
            row.back_s = later[0].started + later[0].starting_s - began
            row.differs = differences(job.run, whole)
        except (TimeoutError, LookupError, AssertionError) as error:
            row.problem = str(error)
        finally:
            cluster.run("scancel", job.id, check=False)
            for repair in job.repairs:
                repair()
    return row


@contextlib.contextmanager
def _file_system(folder: Path, *, small: bool) -> Iterator[Path]:
    """A folder for runs, on a small file system of its own where it is to fill up."""
    runs = folder / "runs"
    runs.mkdir(mode=0o700, parents=True)
    if small:
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={TMPFS_MIB}m,mode=700", "tmpfs", str(runs)], check=True)
    try:
        yield runs
    finally:
        if small:
            for _ in range(20):  # the last process of the job may still be leaving
                if subprocess.run(["umount", str(runs)], capture_output=True).returncode == 0:
                    break
                time.sleep(1)


def _holds(pid: int, number: signal.Signals) -> bool:
    """Whether a stopped process has not been sent this signal yet."""
    lines = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    waiting = int(lines["SigPnd"], 16) | int(lines["ShdPnd"], 16)
    return lines["State"].split()[0] == "T" and not waiting >> (number - 1) & 1


def table(rows: list[Row]) -> str:
    """The rows as a Markdown table, a line per fault; values in the order of the stages."""
    stages = sorted({row.stage for row in rows})
    lines = [f"| fault | survived (ZeRO {', '.join(map(str, stages))}) | steps lost | back after | bit-identical |",
             "|---|---|---|---|---|"]
    for name in dict.fromkeys(row.fault for row in rows):
        mine = sorted((row for row in rows if row.fault == name), key=lambda row: row.stage)
        survived = ["yes" if row.survived else "NO" for row in mine]
        lost = ["-" if row.steps_lost is None else str(row.steps_lost) for row in mine]
        back = ["-" if row.back_s is None else f"{row.back_s:.0f}" for row in mine]
        same = ["-" if not row.survived else "NO" if row.differs else "yes" for row in mine]
        lines.append(f"| {FAULTS[name].title} | {', '.join(survived)} | {', '.join(lost)} | {', '.join(back)} s | "
                     f"{', '.join(same)} |")
    return "\n".join(lines)


def where(manifest: Path) -> str:
    """What the table belongs to."""
    decoders = ", ".join(read_summary(manifest).decoders)
    return f"{date.today()}, {os.cpu_count()} cores of {cpu_name() or 'an unknown processor'}, clips read by {decoders}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--faults", default=",".join(FAULTS), help="default: %(default)s")
    parser.add_argument("--stages", default="1,2,3", help="ZeRO stages (default: %(default)s)")
    parser.add_argument("--prepared", action="store_true", help="train from archives of prepared footage")
    args = parser.parse_args()
    names, stages = args.faults.split(","), [int(s) for s in args.stages.split(",")]
    if unknown := set(names) - set(FAULTS):
        parser.error(f"no fault {', '.join(sorted(unknown))}; there are: {', '.join(FAULTS)}")
    rows: list[Row] = []
    with tempfile.TemporaryDirectory(prefix="vidmae-faults-") as folder:
        cluster = slurm.start(Path(folder) / "slurm")
        os.environ.update(cluster.env)
        try:
            manifest = make_manifest(Path(folder))
            if args.prepared:
                raw, manifest = manifest, Path(folder, "clips-144.csv")
                prepare(Order(raw, Preparation(fps=30, short_side_px=144), Path(folder, "prepared"), manifest), workers=1,
                        time_limit_s=600, tell=lambda *_: None)
            place = where(manifest)
            for stage in stages:
                whole = uninterrupted(cluster, manifest, Path(folder), stage)
                for name in names:
                    row = run_row(cluster, manifest, Path(folder) / f"{name}{stage}", name, whole, stage)
                    rows.append(row)
                    print(json.dumps({"fault": name, "stage": stage, "ok": row.ok, "steps_lost": row.steps_lost,
                                      "back_s": row.back_s, "problem": row.problem, "differs": row.differs[:5]}),
                          file=sys.stderr, flush=True)
        finally:
            slurm.stop(cluster.folder)
    print(f"{place}\n\n{table(rows)}")
    return 0 if all(row.ok for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
