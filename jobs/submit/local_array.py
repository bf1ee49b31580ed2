"""An array on this machine: one process that outlives the launcher runs the cells, some at a time, each on its own.

    runs/arrays/<time>-fewshot/submit/controller.sh    what is started, in a session of its own; its pid is the array's id
    submit/<pid>_<i>/<pid>_<i>_0_log.out, exit.json    of cell i, as of any local job

A cell has one process and at most one GPU; on a CPU it is forked from the controller (forked_cell.py). A file `cancelled` in
its folder (jobs/cancel.py) keeps it from starting, or asks it to save and leave; where it has content the cell is killed at
once. SIGINT to the controller kills all.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from jobs.standing.arrays import cells_of
from jobs.standing.runs import EXIT_RECORD
from jobs.submit import notice
from jobs.submit.forked_cell import ForkedCell, load_programs, run_cell
from jobs.submit.launch import KILLED_BY_LIMIT, Request, by_shell, own_environment, setup_lines
from jobs.submit.local_controller import INTERRUPTED, code_of_cancelled
from jobs.submit.watched import is_worth_a_restart_here
from vidmae.runs.attempts import RESTARTED
from vidmae.runs.record import CANCELLED, SCHEMA, RunFolder, make_private_folder, write_json
from vidmae.settings.signals import number_of

LOOK_S = 0.2
RESTARTS = 3  # of a cell that is killed, at most: one without training records no progress
NOT_STARTED = 127  # exit code of a cell that could not be started, as of a shell that finds no program
SCRIPT = "controller.sh"


def script_of(request: Request, first: int) -> str:
    """The script that runs an array here.

    Args:
        request: With `tasks` and `max_parallel`.
        first: So many of the cells run to their end before the others start: they leave features that those find.
    """
    r, gpus = request.resources, ",".join(gpus_here()) if request.resources.gpus_per_node else ""
    words = [sys.executable, "-u", "-m", "jobs.submit.local_array", str(request.run.path), "--max-parallel",
             str(request.max_parallel or 1), "--first", str(first), "--gpus", gpus]
    words += ["--fork"] if request.on_cpu and not request.python else []  # the profile's Python may be that of a container
    words += ["--max-restarts", str(min(RESTARTS, request.max_requeues))]
    words += ["--signal", request.signal, "--signal-delay-s", str(request.signal_delay_s)]
    words += ["--limit-s", str(60 * r.time_min)] if r.time_min else []
    words += ["--python", request.python] if request.python else []
    return "\n".join(["#!/bin/bash", "", "# setup", *setup_lines(request), "", "# command",
                      f"cd {shlex.quote(str(request.run.code))} || exit 1", f"exec {shlex.join(words)}", ""])


def start(request: Request, first: int) -> str:
    """Start the controller; its pid, which is the array's id."""
    script = request.run.submit / SCRIPT
    script.write_text(script_of(request, first))
    with (request.run.submit / "local.log").open("ab") as log:
        process = subprocess.Popen(["bash", str(script)], stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                                   env=own_environment(), cwd=request.run.code, start_new_session=True)
    return str(process.pid)


def gpus_here() -> list[str]:
    """The GPUs that a process started from here would see, as CUDA_VISIBLE_DEVICES names them."""
    from jobs.place.resources import count_gpus

    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    return [v.strip() for v in visible.split(",")] if visible else list(map(str, range(count_gpus())))


@dataclass
class Task:
    """A cell in its turn.

    Attributes:
        run: Its run folder.
        folder: submit/<pid>_<i>.
        python: Shell command that starts Python; empty takes that of the controller.
        max_restarts: How often it starts again after it was killed.
        slot: Which of the places that run at a time it has.
        process: Once it runs.
        began: Monotonic seconds of its start.
        started: The same in seconds since 1970.
        warned_s: Monotonic seconds when it was asked to save and leave.
        starts: How often it was started.
    """

    run: RunFolder
    folder: Path
    python: str = ""
    max_restarts: int = 0
    slot: int = 0
    process: subprocess.Popen[bytes] | ForkedCell | None = None
    began: float = 0.0
    started: float = 0.0
    warned_s: float | None = None
    starts: int = 0

    @property
    def log(self) -> Path:
        """What it prints."""
        return self.folder / f"{self.folder.name}_0_log.out"

    @property
    def cancelled(self) -> bool:
        """A person wants it to end."""
        return (self.folder / CANCELLED).exists()

    @property
    def unwanted(self) -> bool:
        """A person wants it to end at once."""
        return self.cancelled and (self.folder / CANCELLED).stat().st_size > 0

    def start(self, slot: int, gpus: Sequence[str], *, fork: bool) -> None:
        """Start the cell's program; its process group is its own, so that it can be ended with its loader processes.

        Raises:
            OSError, ValueError: This machine starts no more processes, or none with these words.
        """
        make_private_folder(self.folder)
        if not self.starts:
            self.slot, self.began, self.started = slot, time.monotonic(), time.time()
        self.starts += 1
        job_id, gpu = self.folder.name, gpus[slot % len(gpus)] if gpus else ""
        env = {"VIDMAE_JOB_ID": job_id, "CUDA_VISIBLE_DEVICES": gpu, RESTARTED: "it was killed" if self.starts > 1 else ""}
        words = ["-u", "-m", "jobs.submit.local_array", "--run", str(self.run.path)]
        command = by_shell(f'{self.python} "$@"', *words) if self.python else [sys.executable, *words]
        with self.log.open("ab") as log:
            if fork:
                self.process = ForkedCell(str(self.run.path), env, log.fileno())
            else:
                self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                                                env={**os.environ, **env}, start_new_session=True)

    def comes_back(self, code: int) -> bool:
        """Whether a cell that has ended with a code, minus the signal, is to start again in its place."""
        asked = self.cancelled or self.warned_s is not None
        return (code < 0 and not asked and self.starts <= self.max_restarts
                and is_worth_a_restart_here(self.run, self.folder.name, code))

    def end(self, how: signal.Signals) -> None:
        """Send a signal to the cell's process and all of its children."""
        assert self.process is not None
        try:
            os.killpg(self.process.pid, how)
        except ProcessLookupError:
            return

    def give_up(self, error: Exception) -> None:
        """Say in its log that it could not be started, and leave an exit code; the others go on."""
        started_by = f"python {self.python!r} of the cluster profile" if self.python else sys.executable
        said = f"error: the cell {self.run.path.name} could not be started by {started_by}: {error}"
        print(said, file=sys.stderr, flush=True)
        with contextlib.suppress(OSError):  # its folder cannot be written
            make_private_folder(self.folder)
            with self.log.open("a") as log:
                print(said, file=log)
            self.note(NOT_STARTED)

    def note(self, code: int) -> None:
        """Leave the exit code for jobs/status.py and --retry."""
        make_private_folder(self.folder)
        now = time.time()
        write_json(self.folder / EXIT_RECORD, {"schema": SCHEMA, "exit_code": code, "started": self.started or now,
                                               "time": now})


@dataclass(frozen=True)
class Limit:
    """The time limit of a cell: `seconds` after its start it is killed, `delay_s` earlier it is warned by `signal`.

    One that is cancelled gets the same signal, and `delay_s` to save and leave.
    """

    seconds: float = 0.0
    signal: str = "USR2"
    delay_s: float = 0.0


def control(array: Path, *, max_parallel: int, first: int, gpus: Sequence[str], limit: Limit, fork: bool,
            python: str = "", max_restarts: int = 0) -> None:
    """Run all cells of an array."""
    waiting = [Task(run, array / "submit" / f"{os.getpid()}_{i}", python, max_restarts)
               for i, run in enumerate(cells_of(array))]
    running: list[Task] = []
    leaders = waiting[:first]
    try:
        if fork:
            load_programs()
        while waiting or running:
            running = [task for task in running if not _over(task, limit, gpus, fork=fork)]
            while waiting and len(running) < max_parallel:
                if waiting[0] not in leaders and any(task in leaders for task in running):
                    break
                task = waiting.pop(0)
                if task.cancelled:
                    task.note(INTERRUPTED)
                    continue
                try:
                    task.start(min(set(range(max_parallel)) - {t.slot for t in running}), gpus, fork=fork)
                except (OSError, ValueError) as error:
                    task.give_up(error)
                    continue
                running.append(task)
            time.sleep(LOOK_S)
    except KeyboardInterrupt:
        for task in running:
            task.end(signal.SIGKILL)
        for task in running + waiting:
            task.note(INTERRUPTED)
    notice.array_ended(RunFolder(array), str(os.getpid()))


def _over(task: Task, limit: Limit, gpus: Sequence[str], *, fork: bool) -> bool:
    """Whether a cell has ended; its exit code is noted then. Ends it where its time is up or a person wants it, and starts
    it again where something else has killed it."""
    assert task.process is not None
    code, now = task.process.poll(), time.monotonic()
    if code is None and not _is_up(task, limit, now):
        late = limit.seconds and now > task.began + limit.seconds - limit.delay_s
        if task.warned_s is None and (task.cancelled or late):
            task.end(signal.Signals(number_of(limit.signal)))
            task.warned_s = now
        return False
    task.end(signal.SIGKILL)  # what is left of it: loader processes
    task.process.wait()
    code = KILLED_BY_LIMIT if code is None else code
    if task.comes_back(code):
        try:
            with task.log.open("a") as log:
                print(f"the cell was killed by signal {-code}: it starts again in its place ({task.starts} of "
                      f"{task.max_restarts} times)", file=log)
            task.start(task.slot, gpus, fork=fork)
            return False
        except (OSError, ValueError) as error:
            task.give_up(error)
            return True
    task.note(code_of_cancelled(code) if task.cancelled else code)
    return True


def _is_up(task: Task, limit: Limit, now: float) -> bool:
    """Whether a cell that runs has had its time."""
    if task.unwanted or (limit.seconds and now > task.began + limit.seconds):
        return True
    return task.cancelled and task.warned_s is not None and now > task.warned_s + limit.delay_s


def main(argv: list[str] | None = None) -> int:
    """Run the command: the controller, or with --run one cell."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("array", type=Path, nargs="?")
    parser.add_argument("--run")
    parser.add_argument("--max-parallel", type=int, default=1)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--gpus", default="")
    parser.add_argument("--fork", action="store_true", help="fork cells from this process; only where they use no GPU")
    parser.add_argument("--limit-s", type=float, default=0.0)
    parser.add_argument("--signal", default="USR2")
    parser.add_argument("--signal-delay-s", type=float, default=0.0)
    parser.add_argument("--python", default="")
    parser.add_argument("--max-restarts", type=int, default=0)
    args = parser.parse_args(argv)
    if args.run:
        run_cell(args.run)
    control(args.array, max_parallel=args.max_parallel, first=args.first, gpus=[g for g in args.gpus.split(",") if g],
            limit=Limit(args.limit_s, args.signal, args.signal_delay_s), fork=args.fork, python=args.python,
            max_restarts=args.max_restarts)
    return 0


if __name__ == "__main__":
    sys.exit(main())
