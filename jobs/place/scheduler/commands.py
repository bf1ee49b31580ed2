"""Run one of Slurm's commands under a time limit, and again where that is safe and may help. Stdlib only.

    run   one try: for what must not happen twice, such as a requeue
    ask   a few tries with growing pauses: for questions, and for what leaves the same state when it is done twice

A command that fails raises `SlurmError`, which names it. Where Slurm did not answer, rather than refused, that is a
`SlurmAwayError`: only this may pass by waiting, and what was asked for may have been done all the same. On its own a
command would retry an unreachable controller for a minute or more and then say little.
"""

from __future__ import annotations

import math
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Sequence

QUERY_TIMEOUT_S = 10.0
PATIENCE_S = 15.0  # for all tries of a question together: a user waits for the answer
PAUSES_S = (0.5, 1.0, 2.0)
LEAST_TRY_S = 1.0  # a try with less time than this is not begun

_AWAY = re.compile(  # Slurm's words for a daemon, a network or a node that is away or too busy; anything else is a refusal
    r"unable to contact|timed out|connection (refused|reset|aborted)|temporarily (unavailable|unable)|standby mode|"
    r"zero bytes were transmitted|unexpected message received|not connected|no route to host|network is unreachable",
    re.IGNORECASE)


class SlurmError(RuntimeError):
    """Slurm refused or did not answer; the message names the command."""


class SlurmAwayError(SlurmError):
    """Slurm did not answer, which may pass; what was asked for may have been done all the same."""


def is_away(words: str) -> bool:
    """Whether a command's words say that Slurm did not answer, rather than that it refused."""
    return _AWAY.search(words) is not None


def run(command: Sequence[str], *, timeout_s: float = QUERY_TIMEOUT_S, stdin: str | None = None,
        ) -> subprocess.CompletedProcess[str]:
    """Run a command once.

    Args:
        command: Program and arguments.
        timeout_s: It is killed after this time.
        stdin: What it reads; nothing by default.
    Returns:
        What it printed; the exit code is 0.
    Raises:
        SlurmAwayError: It took too long, or failed for a reason that may pass.
        SlurmError: It is not installed, or was refused.
    """
    try:
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=timeout_s,
                              **({"input": stdin} if stdin is not None else {"stdin": subprocess.DEVNULL}))
    except FileNotFoundError:
        raise SlurmError(f"`{command[0]}` is not installed here; --cluster local runs on this machine") from None
    except subprocess.TimeoutExpired:
        raise SlurmAwayError(f"`{shlex.join(command)}` did not answer within {timeout_s:.3g} s; is the Slurm controller "
                             "reachable? (scontrol ping)") from None
    if done.returncode:
        words = " ".join((done.stderr or done.stdout).split()) or "no message"
        kind = SlurmAwayError if is_away(words) else SlurmError
        raise kind(f"`{shlex.join(command)}` failed (exit {done.returncode}): {words}")
    return done


def ask(command: Sequence[str], *, timeout_s: float = QUERY_TIMEOUT_S, patience_s: float = PATIENCE_S,
        stdin: str | None = None) -> subprocess.CompletedProcess[str]:
    """Run a command that may be run twice; while Slurm is away, up to four times. Each new try is said on stderr.

    Args:
        command: Program and arguments.
        timeout_s: Limit of one try.
        patience_s: Limit of all tries and pauses together.
        stdin: What it reads; nothing by default.
    Returns:
        What it printed; the exit code is 0.
    Raises:
        SlurmAwayError: No try was answered; the message is the last one's, with their number and the time spent.
        SlurmError: It is not installed, or was refused; then it is not tried again.
    """
    began, tries = time.monotonic(), 0
    while True:
        tries += 1
        try:
            return run(command, timeout_s=min(timeout_s, patience_s - (time.monotonic() - began)), stdin=stdin)
        except SlurmAwayError as error:
            spent_s = time.monotonic() - began
            pause_s = PAUSES_S[tries - 1] if tries <= len(PAUSES_S) else math.inf
            if spent_s + pause_s + LEAST_TRY_S > patience_s:
                times = "once" if tries == 1 else f"{tries} times"
                raise SlurmAwayError(f"{error} (tried {times} in {spent_s:.3g} s)") from None
            print(f"{error}; trying again in {pause_s:g} s", file=sys.stderr, flush=True)
            time.sleep(pause_s)
