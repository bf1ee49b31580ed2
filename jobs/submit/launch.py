"""From a request to a batch script and a job. Imports submitit, as local_controller.py does, and only when it is needed.

A job carries a `Pretrain` (or a `Cell`) with the run folder's path and nothing else. The script that --dry-run shows is
the one that is submitted: both are written by the same executor.

    launcher --sbatch--> batch script --srun--> one process per rank: submitit unpickles Pretrain, which calls
    vidmae.train.pretrain.main, all from the snapshot in code/, since the job starts in it and PYTHONPATH names it first

The tasks of an array share its folder (jobs/standing/arrays.py), one snapshot and one batch script.
"""

from __future__ import annotations

import atexit
import contextlib
import importlib
import logging
import os
import pickle
import py_compile
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jobs.place.notify_ways import Notify
from jobs.place.resources import Resources
from jobs.place.scheduler import slurm
from jobs.place.scheduler.commands import is_away
from jobs.standing.locks import release_lock_of_dead_job
from jobs.standing.runs import EXIT_RECORD
from jobs.submit.watched import run_watched
from vidmae.runs.record import SCHEMA, RunFolder, port_of_job, write_json

MALLOC = {  # keeps freed activations mapped: glibc otherwise returns and refaults them in every step (CPU training only)
    "MALLOC_MMAP_THRESHOLD_": "4294967296", "MALLOC_TRIM_THRESHOLD_": "8589934592",
}
ROOT = Path(__file__).parents[2]  # of a job its snapshot
NO_LIMIT_MIN = 10 * 365 * 24 * 60
KILLED_BY_LIMIT = 124
EXIT_CODE = "exit_code"  # of a job: submit/<jobid>/exit_code


@dataclass(frozen=True)
class Pretrain:
    """What a job runs on every rank; pickled by reference, so that it comes from the snapshot."""

    run_path: str

    def __call__(self) -> None:
        """Pretrain, and leave with the exit code, which Slurm then sees."""
        run_rank("vidmae.train.pretrain", self.run_path)


@dataclass(frozen=True)
class Cell:
    """What the task of a sweep's array runs on every rank."""

    run_path: str

    def __call__(self) -> None:
        """Run the cell like `Pretrain`; one that is done ends at once, before torch is loaded."""
        if RunFolder(Path(self.run_path)).result.exists():
            print(f"done before: {self.run_path}", flush=True)
            return
        run_rank("vidmae.train.cell", self.run_path)


@dataclass(frozen=True)
class Shard:
    """One part of what a program deals out (`python -m MODULE OUT --shard I/N`, jobs/submit/sharding.py), on every rank.

    Attributes:
        module: Its `main` takes these words and returns the exit code.
        out: Folder of the results.
        number: I, from 0.
        shards: N.
    """

    module: str
    out: str
    number: int
    shards: int

    def __call__(self) -> None:
        """Do this part, and leave its exit code in exit.json; where all are done it ends at once, before torch is loaded."""
        import submitit

        if RunFolder(Path(self.out)).result.exists():
            print(f"done before: {self.out}", flush=True)
            return
        signal.signal(signal.SIGTERM, signal.SIG_DFL)  # submitit ignores it, and a cancelled shard lived on until SIGKILL
        env = submitit.JobEnvironment()
        if env.global_rank == 0:
            keep_bytecode()
        os.environ.update(rank_variables(env))
        code = importlib.import_module(self.module).main([self.out, "--shard", f"{self.number}/{self.shards}"])
        if code or env.global_rank == 0:
            write_json(env.paths.folder / EXIT_RECORD, {"schema": SCHEMA, "exit_code": code, "time": time.time()})
        if code:
            sys.exit(code)


@dataclass(frozen=True)
class Program:
    """Commands of the suite as a job of its own, on one task; it belongs to no run.

    Attributes:
        commands: Each a script and its arguments; all of them run, in order.
        cwd: Folder in which they run.
    """

    commands: tuple[tuple[str, ...], ...]
    cwd: str

    def __call__(self) -> None:
        """Run the commands, and leave with the largest exit code."""
        import submitit

        if code := max(run_script(command, self.cwd) for command in self.commands):
            note_exit_code(submitit.JobEnvironment().paths.folder / EXIT_CODE, code)
            sys.exit(code)


def run_script(command: Sequence[str], cwd: str, stdout: Any = None) -> int:
    """Run a script of the suite and its arguments; the exit code, 1 where a signal ended it."""
    code = subprocess.run([sys.executable, *command], cwd=cwd, stdin=subprocess.DEVNULL, stdout=stdout).returncode
    return code if code >= 0 else 1


def run_rank(program: str, run_path: str) -> None:
    """Say who this rank is, run the `main` of a module, and leave with its exit code."""
    import submitit

    from vidmae.ranks import preempt, watchdog

    preempt.listen()  # in place of submitit's handlers: those save on rank 0 alone and requeue under the others
    env = submitit.JobEnvironment()
    os.environ.update(rank_variables(env))
    if env.global_rank == 0:
        keep_bytecode()
    logging.getLogger("submitit").setLevel(logging.WARNING)  # it calls every end of a job a completion, cancelled ones, too
    if os.environ["RANK"] == "0":
        release_lock_of_dead_job(RunFolder(Path(run_path)))
    if code := run_watched(program, RunFolder(Path(run_path)), env.job_id):
        note_exit_code(env.paths.folder / EXIT_CODE, code)
    if env.global_rank and code in (0, preempt.EXIT_PREEMPTED):  # submitit would keep a file of each rank
        watchdog.end_process(0)
    if code == preempt.EXIT_PREEMPTED:  # srun would kill the other ranks for it, and those are just leaving too
        code = 0
    atexit.register(watchdog.end_process, code)  # once submitit has written what it writes
    if code:
        sys.exit(code)


def keep_bytecode() -> None:
    """Write the byte code of the snapshot from now on, and of what is loaded already. A snapshot begins without any: each of
    1,024 ranks would write that of 126 modules, in the same folders at the same time."""
    sys.dont_write_bytecode = False
    for module in list(sys.modules.values()):
        file, cached = getattr(module, "__file__", None) or "", getattr(module, "__cached__", None)
        if cached and file.startswith(f"{ROOT}{os.sep}") and not Path(cached).exists():
            with contextlib.suppress(OSError):
                py_compile.compile(file, cached, quiet=2)


def note_exit_code(path: Path, code: int) -> None:
    """Leave the exit code of the first rank that fails; the others are killed because of it, and srun reports a signal."""
    with contextlib.suppress(FileExistsError), path.open("x") as f:
        f.write(str(code))


def rank_variables(env: Any) -> dict[str, str]:
    """The rendezvous of torch, from submitit's job environment. LOCAL_SIZE stays unset (DeepSpeed would leak /dev/shm)."""
    return {
        "RANK": str(env.global_rank), "WORLD_SIZE": str(env.num_tasks), "LOCAL_RANK": str(env.local_rank),
        "MASTER_ADDR": env.hostnames[0] if env.num_nodes > 1 else "127.0.0.1",
        "MASTER_PORT": str(port_of_job(env.job_id)), "VIDMAE_JOB_ID": env.job_id,
    }


@dataclass(frozen=True)
class Request:
    """One job, or one array of jobs, as it is asked for.

    Attributes:
        run: The run folder; of an array its own folder.
        job_name: Name in squeue.
        resources: What it gets.
        on_cpu: The ranks compute on the CPU.
        workers: Loader processes of each rank.
        options: sbatch options by submitit's names (account, qos ...); empty ones are left out.
        more_options: Further sbatch options by sbatch's names.
        signal: What Slurm sends before the time limit, such as USR2.
        signal_delay_s: Seconds from that signal to the limit.
        max_requeues: How often the job may be requeued.
        setup: Shell lines before srun.
        python: Shell command that starts Python; empty takes the launcher's.
        env: Variables of the job.
        tasks: Of an array; 0 is a single job.
        max_parallel: Tasks of an array that may run at the same time; 0 does not limit them.
        notify: Who is told how it ended.
        recovers: Whether what is left at its end is judged by jobs/submit/recover.py, as a run's is.
    """

    run: RunFolder
    job_name: str
    resources: Resources
    on_cpu: bool
    workers: int
    options: dict[str, str] = field(default_factory=dict)
    more_options: dict[str, str] = field(default_factory=dict)
    signal: str = "USR2"
    signal_delay_s: int = 300
    max_requeues: int = 20
    setup: tuple[str, ...] = ()
    python: str = ""
    env: dict[str, str] = field(default_factory=dict)
    tasks: int = 0
    max_parallel: int = 0
    notify: Notify = field(default_factory=Notify)
    recovers: bool = True


def setup_lines(request: Request) -> list[str]:
    """Shell lines that prepare the job: the site's, the snapshot, thread counts, the site's variables (which win)."""
    exports = {"OMP_NUM_THREADS": str(max(1, request.resources.cpus_per_task - request.workers))}
    if request.resources.world_size > 1:
        exports["PYTHONDONTWRITEBYTECODE"] = "1"  # rank 0 does it for all, see `keep_bytecode`
    if request.on_cpu:
        exports |= {"DS_ACCELERATOR": "cpu", **MALLOC}
    lines = ["umask 077", *request.setup,
             f"export PYTHONPATH={shlex.quote(str(request.run.code))}${{PYTHONPATH:+:$PYTHONPATH}}"]
    return lines + [f"export {name}={shlex.quote(value)}" for name, value in {**exports, **request.env}.items()]


def recover_command(request: Request) -> str:
    """The batch script's last command: it runs beside Slurm's own commands, so not in a container the ranks may be in."""
    return (f"{shlex.quote(sys.executable)} -m jobs.submit.recover {shlex.quote(str(request.run.path))} $code "
            f"--max-requeues {request.max_requeues} --signal-delay-s {request.signal_delay_s}")


def slurm_parameters(request: Request) -> dict[str, Any]:
    """The request in the words of submitit's SlurmExecutor."""
    r = request.resources
    assert r.time_min is not None
    more: dict[str, Any] = {"chdir": str(request.run.code), "comment": str(request.run.path),
                            "signal": f"{request.signal}@{request.signal_delay_s}",
                            "requeue" if request.max_requeues else "no-requeue": True}
    if request.options.get("dependency"):
        more["kill-on-invalid-dep"] = "yes"  # else the job waits for ever once its parent has failed
    if request.notify.mail is not None:
        more |= {"mail-type": "END,FAIL", **({"mail-user": request.notify.mail} if request.notify.mail else {})}
    more |= {name: value if value else True for name, value in request.more_options.items()}
    job = "${SLURM_ARRAY_JOB_ID}_${SLURM_ARRAY_TASK_ID}" if request.tasks else "$SLURM_JOB_ID"
    noted = f"{shlex.quote(str(request.run.submit))}/{job}/{EXIT_CODE}"
    judged = [f"[ -s {noted} ] && code=$(cat {noted})", f"exec {recover_command(request)}"]
    parameters: dict[str, Any] = {
        "job_name": request.job_name, "partition": r.partition, "nodes": r.nodes, "ntasks_per_node": r.tasks_per_node,
        "gpus_per_node": r.gpus_per_node or None, "cpus_per_task": r.cpus_per_task, "time": r.time_min,
        "mem": f"{r.mem_mib}M" if r.mem_mib else "0", "stderr_to_stdout": True, "wckey": None,
        # srun of Slurm 22.05 and later no longer takes --cpus-per-task from sbatch
        "srun_args": ["--kill-on-bad-exit=1", f"--cpus-per-task={r.cpus_per_task}"],
        # bash runs a trap once srun has ended; without one, a TERM would end the script before its last command
        "setup": [*setup_lines(request), f"rm -f {noted}", f"trap : TERM {request.signal}"],
        "teardown": ["code=$?", *(judged if request.recovers else ["exit $code"])],
        "additional_parameters": more, **request.options,
    }
    if request.tasks:
        parameters["array_parallelism"] = request.max_parallel or request.tasks
    return {key: value for key, value in parameters.items() if value != "" and (value is not None or key == "wckey")}


def batch_script(request: Request, cluster: str) -> str:
    """The script of the job, as it will be submitted (slurm) or started (local). Writes nothing."""
    executor = _executor(request, cluster)
    script: str = executor._make_submission_file_text(executor._submitit_command_str, "")
    return script


def submit(request: Request, cluster: str) -> str:
    """Submit a pretraining job; its id. Raises like `submit_program`."""
    return submit_program(request, Pretrain(str(request.run.path)), cluster)


def submit_program(request: Request, program: Callable[[], None], cluster: str = "slurm") -> str:
    """Submit one job that calls `program` on every rank; its id.

    Raises:
        SlurmAwayError: sbatch was not answered; there may be a job all the same.
        SlurmError: sbatch refused.
    """
    return _submitted(request, lambda: str(_executor(request, cluster).submit(program).job_id))


def submit_array(request: Request, runs: Sequence[RunFolder]) -> str:
    """Submit the cells of a sweep as one array; its id without a task. Raises like `submit_program`."""
    return submit_tasks(request, [Cell(str(run.path)) for run in runs])


def submit_tasks(request: Request, tasks: Sequence[Callable[[], None]]) -> str:
    """Submit an array whose i-th task calls `tasks[i]` on every rank; its id. Raises like `submit_program`."""
    assert len(tasks) == request.tasks
    return _submitted(request, lambda: slurm.base_id(str(_executor(request, "slurm").submit_array(tasks)[0].job_id)))


def _submitted(request: Request, call: Callable[[], str]) -> str:
    from submitit.core.utils import FailedJobError, FailedSubmissionError

    try:
        return call()
    except (FailedJobError, FailedSubmissionError) as error:
        words = " ".join(str(error).split())
        if getattr(error.__cause__, "returncode", None) == KILLED_BY_LIMIT:
            words = f"no answer within {slurm.SUBMIT_TIMEOUT_S:g} s"
        elif not is_away(words):
            raise slurm.SlurmError(f"`sbatch` refused the job: {words}") from error
        raise slurm.SlurmAwayError(
            f"`sbatch` was not answered: {words}; the job may be in the queue all the same (squeue --me --name="
            f"{request.job_name}); the same command again attaches to it, or submits where there is none") from error


def _executor(request: Request, cluster: str) -> Any:
    """A submitit executor for the request, chosen by name: submitit's own choice would turn local without a word."""
    folder = request.run.submit / "%j"
    if cluster == "slurm":
        executor = _slurm_executor()(folder, python=request.python or None)
        executor.update_parameters(**slurm_parameters(request))
        if request.tasks:
            executor.parameters["map_count"] = request.tasks
        return executor
    executor = _local_executor()("/", python=request.python or None)  # it makes its folder, and --dry-run writes nothing
    executor.folder = folder.absolute()
    executor.update_parameters(request=request)
    return executor


def _slurm_executor() -> type[Any]:
    import submitit
    from submitit.core.utils import DelayedSubmission

    class LimitedSlurmExecutor(submitit.SlurmExecutor):
        """Gives sbatch a time limit, and an array this executor's own settings."""

        @classmethod
        def affinity(cls) -> int:
            return 2  # whether Slurm is here was asked before; --dry-run works without

        def _make_submission_command(self, submission_file_path: Path) -> list[str]:
            return ["timeout", f"{slurm.SUBMIT_TIMEOUT_S:g}", "sbatch", str(submission_file_path)]

        def _internal_process_submissions(self, delayed_submissions: list[DelayedSubmission]) -> list[Any]:
            """submitit submits an array by a plain executor, without what is set here, and one task as no array."""
            if "map_count" not in self.parameters:
                return list(super()._internal_process_submissions(delayed_submissions))
            top = self.folder.parent
            for place, delayed in enumerate(delayed_submissions):
                delayed.set_timeout(self.parameters["time"], self.max_num_timeout)
                (top / f".{place}.pkl").write_bytes(pickle.dumps(delayed))
            job_id = self._submit_command(self._submitit_command_str).job_id
            tasks = [f"{job_id}_{place}" for place in range(len(delayed_submissions))]
            for task in tasks:  # all folders first: a task that starts now writes its log there, and then waits for its call
                (top / task).mkdir(mode=0o700, exist_ok=True)
            for place, task in enumerate(tasks):
                (top / f".{place}.pkl").replace(top / task / f"{task}_submitted.pkl")
            return [submitit.SlurmJob(self.folder, tasks[0], tasks=list(range(self._num_tasks())))]

    return LimitedSlurmExecutor


def _local_executor() -> type[Any]:
    import submitit
    from submitit.local.local import LocalJob

    class DetachedLocalExecutor(submitit.LocalExecutor):
        """Runs the job in a session of its own: it outlives the launcher, and Ctrl-C there does not reach it."""

        def _make_submission_file_text(self, command: str, uid: str) -> str:  # noqa: ARG002
            return local_script(self.parameters["request"], command, self.folder)

        def _num_tasks(self) -> int:
            return int(self.parameters["request"].resources.tasks_per_node)

        def _submit_command(self, command: str) -> Any:
            request: Request = self.parameters["request"]
            script = request.run.submit / f".local_{os.getpid()}_{time.time_ns()}.sh"
            script.write_text(self._make_submission_file_text(command, ""))
            # by its descriptor: the script moves to the job's folder below, maybe before bash has opened it
            with (request.run.submit / "local.log").open("ab") as log, script.open("rb") as text:
                process = subprocess.Popen(["bash", f"/dev/fd/{text.fileno()}"], stdin=subprocess.DEVNULL, stdout=log,
                                           stderr=log, env=own_environment(), cwd=request.run.code,
                                           start_new_session=True, pass_fds=(text.fileno(),))
            job: Any = LocalJob(self.folder, str(process.pid), tasks=list(range(self._num_tasks())), process=process)
            job.paths.move_temporary_file(script, "submission_file")
            return job

    return DetachedLocalExecutor


def own_environment() -> dict[str, str]:
    """The environment without what a Slurm job that this process may run in has put there."""
    return {k: v for k, v in os.environ.items() if not k.startswith(("SLURM_", "SUBMITIT_")) or k == "SLURM_CONF"}


def by_shell(command: str, *words: str) -> list[str]:
    """Words that let a shell start a profile's Python, so that $VAR and ~ in it mean something. It takes the shell's place.

    Args:
        command: Shell command; "$@" in it are `words`.
        words: Taken as they are.
    """
    return ["bash", "-c", f"exec {command}", "python of the cluster profile", *words]  # the last begins what bash says


def local_script(request: Request, command: str, folder: Path) -> str:
    """The script of a job on this machine: submitit's local controller, told what submitit's executor would tell it."""
    r = request.resources
    variables = {
        "SUBMITIT_EXECUTOR": "local", "SUBMITIT_LOCAL_NTASKS": str(r.tasks_per_node),
        "SUBMITIT_LOCAL_COMMAND": shlex.join(by_shell(command)) if request.python else command,
        "SUBMITIT_LOCAL_TIMEOUT_S": str(60 * (r.time_min or NO_LIMIT_MIN)),
        "SUBMITIT_LOCAL_SIGNAL_DELAY_S": str(request.signal_delay_s), "SUBMITIT_PREEMPT_SIGNAL": request.signal,
        "SUBMITIT_LOCAL_NODEID": "0", "SUBMITIT_LOCAL_JOB_NUM_NODES": "1", "SUBMITIT_STDERR_TO_STDOUT": "1",
        "SUBMITIT_LOCAL_WITH_SHELL": "",
    }
    gpus = ",".join(map(str, range(r.gpus_per_node)))
    words = [sys.executable, "-u", "-m", "jobs.submit.local_controller", str(folder), str(request.max_requeues)]
    visible = f'export CUDA_VISIBLE_DEVICES="${{CUDA_VISIBLE_DEVICES-{gpus}}}"' if gpus else "export CUDA_VISIBLE_DEVICES="
    return "\n".join([
        "#!/bin/bash", "", "# setup", *setup_lines(request), visible,
        *(f"export {name}={shlex.quote(value)}" for name, value in variables.items()),
        "", "# command", f"cd {shlex.quote(str(request.run.code))} || exit 1",
        f"exec {shlex.join(words)}", ""])
