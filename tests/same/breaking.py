"""Start the two jobs of a leg, and break them by kill -9 at moments that a seed draws."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tests.support.interruptions import wait_for_step
from tests.support.launching import ROOT
from vidmae.runs.record import RunFolder
from vidmae.runs.record import _process_exists as alive

DELAY_S = 0.3  # after the drawn step, at most
LIMIT_S = 1200.0


@dataclass(frozen=True)
class Command:
    """A command of the suite that starts one run on this machine.

    Attributes:
        words: Script and arguments; standard output is the pid of the job's controller.
        retry: What continues a run that was killed.
        run: Finds the run folder, once it was started.
        steps: Of the run.
    """

    words: tuple[str, ...]
    retry: tuple[str, ...]
    run: Callable[[], RunFolder]
    steps: int


def run_through(command: Command, cwd: Path, kills: int, seed: int) -> RunFolder:
    """Run a command to the end of its job, killing the job so many times on the way.

    Raises:
        RuntimeError: It did not reach its end, or a kill came too late; the message has the job's log.
    """
    random = np.random.default_rng(seed)
    moments = np.sort(random.choice(np.arange(1, int(command.steps * 0.8)), kills, replace=False)).tolist()
    for number in range(kills + 1):
        pid = int(call(cwd, *command.words, *(command.retry if number else ())).split()[-1])
        run = command.run()
        if number < kills:
            wait_for_step(run, moments[number], timeout_s=LIMIT_S, alive=lambda pid=pid: alive(pid))
            time.sleep(random.uniform(0, DELAY_S))
            kill(pid, everything=bool(random.integers(2)))
        wait_gone(pid)
        if run.result.exists() != (number == kills):
            raise RuntimeError(f"{run.path.name} after {number} kills: " + (
                "it ended before the next one" if run.result.exists() else f"it has no result\n{last_log(run)}"))
    return run


def call(cwd: Path, script: str, *args: str) -> str:
    """Type a command of the suite; its standard output."""
    done = subprocess.run([sys.executable, str(ROOT / script), *args], cwd=cwd, capture_output=True, text=True,
                          stdin=subprocess.DEVNULL, timeout=LIMIT_S)
    if done.returncode:
        raise RuntimeError(f"{script} ended with {done.returncode}:\n{done.stderr}")
    return done.stdout.strip()


def kill(controller: int, *, everything: bool) -> None:
    """Kill -9 the training process, or its controller and the training process with it."""
    rank, *_ = map(int, Path(f"/proc/{controller}/task/{controller}/children").read_text().split())
    for pid in ([controller, rank] if everything else [rank]):
        os.kill(pid, signal.SIGKILL)


def wait_gone(pid: int) -> None:
    """Wait until a process has ended."""
    deadline = time.monotonic() + LIMIT_S
    while alive(pid):
        if time.monotonic() > deadline:
            raise RuntimeError(f"process {pid} does not end")
        time.sleep(0.1)


def last_log(run: RunFolder) -> str:
    """The end of the newest log of rank 0."""
    logs = sorted(run.submit.glob("*/*_0_log.out"), key=lambda path: path.stat().st_mtime)
    return logs[-1].read_text()[-3000:] if logs else "no log"
