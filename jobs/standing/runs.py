"""The runs of a folder: find one by what a user types, and tell the truth about its state.

What is a single dispatch here is answered otherwise for the shards of an output (jobs/standing/shard_runs.py).

A state comes from result.json > squeue > sacct > the process (local) > exit.json (local, shards) > heartbeat.json, the first
that knows; with no Slurm and no accounting the run's own records still speak. A job counts as the run's only if its name is
the one that was submitted: Slurm starts its ids anew sometimes.
"""

from __future__ import annotations

import argparse
import os
import socket
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import singledispatch
from pathlib import Path
from typing import Any

from jobs.place.scheduler import slurm
from vidmae.model.formats.weight_files import ENDINGS
from vidmae.ranks.preempt import EXIT_PREEMPTED
from vidmae.runs.record import CANCELLED, RunFolder, read_json, runs_that_fit
from vidmae.settings.layers import ConfigError, nearest
from vidmae.weights.finding import Found, is_name, weights_in

EXIT_RECORD = "exit.json"  # of a local job and of a shard: submit/<jobid>/exit.json
SUBMITTED = "submitted.json"  # of the shards of an output: OUT/submitted.json
FRESH_S = 600.0  # a heartbeat younger than this is a sign of life
NOT_STARTED = ("NEW", "SUBMITTING", "REFUSED")  # states of a run that no job has worked at
INTERRUPTED = (130, -2)
SHOWN = 10  # of many runs in a message
LOCAL_STATES = {0: "COMPLETED", EXIT_PREEMPTED: "PREEMPTED", 124: "TIMEOUT"}


@dataclass(frozen=True)
class State:
    """What is known of a run's newest job.

    Attributes:
        run: Its folder.
        job_id: Newest job, or empty.
        cluster: slurm or local, or empty.
        state: Slurm's word (RUNNING, COMPLETED ...), SUBMITTING, NEW (never submitted), REFUSED (by sbatch), ENDED (over,
            nobody knows how) or UNKNOWN.
        active: True while the job waits or runs; None where nobody can tell.
        elapsed: Time it has run, in Slurm's form.
        nodes: How many nodes.
        where: Node list, or a reason in brackets.
        source: Who said so.
        exit_code: Of the job, where known.
    """

    run: RunFolder
    job_id: str
    cluster: str
    state: str
    active: bool | None
    elapsed: str = ""
    nodes: str = ""
    where: str = ""
    source: str = ""
    exit_code: int | None = None

    @property
    def run_id(self) -> str:
        """Name of the folder."""
        return self.run.path.name

    @property
    def log(self) -> Path:
        """Log of the job's rank 0."""
        return log_path(self.run, self.job_id, 0)


def log_path(run: RunFolder, job_id: str, rank: int) -> Path:
    """Where submitit puts what a rank prints."""
    return run.submit / job_id / f"{job_id}_{rank}_log.out"


def all_runs(runs_dir: Path) -> list[RunFolder]:
    """Every run of a folder, oldest first."""
    found = [RunFolder(path.parent) for path in runs_dir.glob("*/run.json")]
    return sorted(found, key=lambda run: (run.record.stat().st_ctime, run.path.name))


def find_run(given: str, runs_dir: Path, among: Sequence[RunFolder] | None = None) -> RunFolder:
    """The run that a user means: a path, a run id, the unique start of one, or a Slurm job id.

    Args:
        given: What the user typed.
        runs_dir: Folder of the runs.
        among: Only these of them; None: all.
    Raises:
        ConfigError: None or several fit; the message names the nearest or all of them.
    """
    if (Path(given) / "run.json").is_file():
        return RunFolder(Path(given).absolute())
    runs = all_runs(runs_dir.absolute()) if among is None else list(among)
    names = [r.path.name for r in runs]
    chosen = runs_that_fit(given, names)
    fit = [r for r in runs if r.path.name in chosen]
    if not fit and slurm.is_job_id(given):
        fit = [r for r in runs if any(s.get("job_id") == given for s in submissions(r))]
    if len(fit) == 1:
        return fit[0]
    if fit:
        shown = ", ".join(r.path.name for r in fit[:SHOWN]) + (" ..." if len(fit) > SHOWN else "")
        raise ConfigError(f"{given!r} fits {len(fit)} runs: {shown}; give more of the name")
    lacks = " or ".join(name for name in ("run.json", SUBMITTED) if not (Path(given) / name).exists())
    there = f"; the folder {given} has no {lacks}" if Path(given).is_dir() else ""
    raise ConfigError(f"no run {given!r} in {runs_dir}{nearest(given, names)}{there}; there are {len(names)} "
                      "(python jobs/status.py lists them; --runs-dir names another folder)")


def find_weights(args: argparse.Namespace) -> tuple[Found, Path]:
    """What --run or --weights names, and the file that holds the weights; a run is found as its folder.

    Args:
        args: With `run`, `weights` and `runs_dir`.
    Raises:
        ConfigError: There is no such run or file, or the run is not finished or did not keep its weights.
    """
    return _weights_of_run(args.run, args.runs_dir) if args.run else weights_in(args.weights, "--weights")


def find_model(given: str, flag: str, runs_dir: Path) -> tuple[Found, Path]:
    """The same where one flag takes both, a run or a file."""
    path = Path(given).expanduser()
    a_file = path.is_file() or path.suffix in ENDINGS or is_name(given)
    return weights_in(given, flag) if a_file else _weights_of_run(given, runs_dir)


def _weights_of_run(given: str, runs_dir: Path) -> tuple[Found, Path]:
    run = find_run(given, runs_dir)
    if not run.weights.is_file():
        why = "it did not keep them (--set keep_weights=true)" if run.result.is_file() else \
            f"it is not finished (python jobs/status.py {given})"
        raise ConfigError(f"the run {run.path} has no weights.safetensors: {why}")
    return Found(run.path, run.path.name), run.weights


@singledispatch
def submissions(run: RunFolder) -> list[dict[str, Any]]:
    """The jobs of a run, oldest first."""
    return list((read_json(run.record) or {}).get("submissions", []))


def states(runs: Sequence[RunFolder], *, newest: Mapping[RunFolder, Mapping[str, Any]] | None = None,
           queued: Mapping[str, slurm.Job] | None = None) -> tuple[list[State], list[str]]:
    """The state of each run, and what could not be asked.

    Slurm is asked once for all of them.

    Args:
        runs: The runs.
        newest: The newest submission of each, where it was read already.
        queued: What squeue says of all their jobs, where it was asked already.
    """
    newest = {run: newest_submission(run) for run in runs} if newest is None else newest
    answer = ask_slurm((newest[run] for run in runs), queued)
    return [state_by(run, newest[run], answer) for run in runs], list(answer.problems)


@dataclass(frozen=True)
class Answer:
    """What Slurm said of the newest jobs of runs.

    Attributes:
        jobs: Those that it knows, by id.
        gone: Whether squeue answered: a job that it did not name is over then.
        problems: What could not be asked.
    """

    jobs: Mapping[str, slurm.Job]
    gone: bool
    problems: tuple[str, ...] = ()


def newest_submission(run: RunFolder) -> Mapping[str, Any]:
    """What run.json says of the newest job; empty where there is none."""
    return (submissions(run) or [{}])[-1]


def ask_slurm(newest: Iterable[Mapping[str, Any]], queued: Mapping[str, slurm.Job] | None = None) -> Answer:
    """Ask squeue of the jobs of these submissions, and sacct of those that squeue does not know; each once.

    Args:
        newest: The submissions.
        queued: What squeue says, where it was asked already.
    """
    ids = [s["job_id"] for s in newest if s.get("cluster") == "slurm" and s.get("job_id")]
    live, live_problem = _ask(slurm.queued, ids) if queued is None else (dict(queued), None)
    past, past_problem = _ask(slurm.accounted, [i for i in ids if i not in live])
    return Answer({**past, **live}, live_problem is None, tuple(p for p in (live_problem, past_problem) if p))


def state_of(run: RunFolder) -> State:
    """The state of one run's newest job.

    Raises:
        SlurmError: The controller must be asked and does not answer: whether the job lives is not known.
    """
    return sure_states([run])[0]


def sure_states(runs: Sequence[RunFolder]) -> list[State]:
    """The state of each run's newest job. Raises like `state_of`, where that of a single one is not known."""
    found, problems = states(runs)
    for state in found:
        if state.active is None:
            raise slurm.SlurmError(f"the state of job {state.job_id} of {state.run_id} is not known: {'; '.join(problems)}")
    return found


def _ask(query: Any, ids: list[str]) -> tuple[dict[str, slurm.Job], str | None]:
    try:
        return {job.id: job for job in query(ids)}, None
    except slurm.SlurmError as error:
        return {}, str(error)


def state_by(run: RunFolder, submission: Mapping[str, Any], answer: Answer) -> State:
    """The state of a run.

    Args:
        run: Its folder.
        submission: Its newest, see `newest_submission`.
        answer: What Slurm said.
    """
    job_id, cluster = str(submission.get("job_id") or ""), str(submission.get("cluster") or "")
    job = answer.jobs.get(job_id) if cluster == "slurm" else None
    if job and (job.name != submission.get("job_name", job.name) or (job.active and job.source == "sacct" and answer.gone)):
        job = None  # another job of this id; or an end that the accounting has missed: squeue knows all that is active
    if job:
        found = State(run, job_id, cluster, job.state, job.active, job.elapsed, job.nodes, job.where, job.source,
                      job.exit_code)
    elif cluster == "local":
        found = _local_state(run, submission, job_id)
    elif not submission:
        found = State(run, "", "", "NEW", False, source="run.json")
    elif submission.get("state") == "refused":
        found = State(run, "", cluster, "REFUSED", False, source="run.json")
    elif not job_id:
        found = State(run, "", cluster, "SUBMITTING", False, source="run.json")
    else:
        found = _by_records(run, job_id, cluster, gone=answer.gone)
    if run.result.exists():
        return replace(found, state="COMPLETED", active=False, source="result.json", exit_code=0)
    return found


def _local_state(run: RunFolder, submission: Mapping[str, Any], job_id: str) -> State:
    """Of a job on some machine: by its process where that is this one, else by its heartbeat."""
    host = str(submission.get("host", ""))
    elapsed = _elapsed(time.time() - float(submission.get("submitted_at_s", time.time())))
    ended = read_json(run.submit / job_id / EXIT_RECORD)
    if ended:
        code, state = _end(ended)
        began = ended.get("started", submission.get("submitted_at_s", ended["time"]))  # a cell starts when its turn comes
        elapsed = _elapsed(float(ended["time"]) - float(began))
        return State(run, job_id, "local", state, False, elapsed, "1", host, EXIT_RECORD, code)
    if host != socket.gethostname():
        return _by_records(run, job_id, "local", gone=False)
    if process_birth(int(slurm.base_id(job_id))) == submission.get("process_birth"):
        if slurm.base_id(job_id) != job_id:
            if not log_path(run, job_id, 0).exists():  # its turn has not come
                if (run.submit / job_id / CANCELLED).exists():  # nor will it
                    return State(run, job_id, "local", "CANCELLED", False, source=CANCELLED)
                return State(run, job_id, "local", "PENDING", True, "", "1", "(Resources)", "process")
            elapsed = _elapsed(time.time() - (run.submit / job_id).stat().st_mtime)
        return State(run, job_id, "local", "RUNNING", True, elapsed, "1", host, "process")
    return _by_records(run, job_id, "local", gone=True)


def _end(record: Mapping[str, Any]) -> tuple[int, str]:
    """Exit code and state by exit.json."""
    code = int(record["exit_code"])
    return code, "CANCELLED" if code in INTERRUPTED else LOCAL_STATES.get(code, "FAILED")


def _by_records(run: RunFolder, job_id: str, cluster: str, *, gone: bool) -> State:
    """By what the job itself left, where the scheduler knows it no longer (`gone`) or cannot be asked."""
    failure, heartbeat = read_json(run.failure) or {}, read_json(run.heartbeat) or {}
    if ended := read_json(run.submit / job_id / EXIT_RECORD):
        code, state = _end(ended)
        return State(run, job_id, cluster, state, False, source=EXIT_RECORD, exit_code=code)
    if str(failure.get("job_id")) == job_id:
        return State(run, job_id, cluster, "FAILED", False, source="failure.json", exit_code=1)
    if gone:
        return State(run, job_id, cluster, "ENDED", False, source=f"{'process' if cluster == 'local' else 'squeue'}: gone")
    if str(heartbeat.get("job_id")) == job_id and time.time() - float(heartbeat.get("time", 0)) < FRESH_S:
        return State(run, job_id, cluster, "RUNNING", True, where=str(heartbeat.get("host", "")), source="heartbeat.json")
    return State(run, job_id, cluster, "UNKNOWN", None, source="nobody")


def why(state: State) -> str:
    """Why a run is not done, in one line."""
    parts = [f"job {state.job_id} is {state.state} ({state.source})"] if state.job_id else [state.state, _refusal(state.run)]
    return "; ".join(filter(None, [*parts, failure_of(state.run, state.job_id)]))


def _refusal(run: RunFolder) -> str:
    """What sbatch said to the newest submission, where it refused it."""
    return str(newest_submission(run).get("problem", ""))


@singledispatch
def failure_of(run: RunFolder, job_id: str) -> str:
    """What a job of a run failed of, in one line; empty where it left no word."""
    failure = read_json(run.failure) or {}
    if not failure or str(failure.get("job_id")) != job_id:
        return ""
    return f"rank {failure.get('rank')}: {failure.get('error')}: {failure.get('message')}"


@singledispatch
def progress(run: RunFolder) -> dict[str, Any]:
    """Where training stands, from heartbeat.json; empty where there is none or it is just being damaged."""
    try:
        return read_json(run.heartbeat) or {}
    except ValueError:
        return {}


def process_birth(pid: int) -> int | None:
    """When a process began, in ticks since boot; with the pid it names one process. None: no such process.

    On systems without /proc it is 0 for every process that lives.
    """
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return int(fields[19]) if fields[0] not in "ZX" else None
    except (FileNotFoundError, ProcessLookupError):
        if Path("/proc/self").exists():
            return None
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return None
    except PermissionError:
        pass
    return 0


def _elapsed(seconds: float) -> str:
    days, rest = divmod(max(0, int(seconds)), 86400)
    return (f"{days}-" if days else "") + f"{rest // 3600:02d}:{rest // 60 % 60:02d}:{rest % 60:02d}"


def format_seconds(seconds: float | None) -> str:
    """Seconds in Slurm's form, or a dash where they are not known."""
    return "-" if seconds is None else _elapsed(seconds)
