"""One line about how a run or an array ended, sent by the job itself at its very end (--notify webhook, command).

    runs/<run>/submit/notify.json      whom to tell, readable by the owner alone: the address of a webhook is a secret
    runs/arrays/<array>/submit/        the same of an array; <A>_<a>/over: task a is over for good; told.<A>: it was sent

A run is told of once its end is final, not when it is requeued. An array is told of by that of its tasks which ends last.
What cannot be sent is said in the log and changes no exit code. The line holds the run's name and numbers: no path, no data,
no message of an error. mail is Slurm's: it also tells of a job that was killed before it could do this.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from pathlib import Path
from typing import Any, ParamSpec
from urllib.parse import urlsplit

from jobs.place.notify_ways import HERE, Notify, problem_of
from jobs.place.scheduler import slurm
from jobs.standing.arrays import CELLS, cells_of
from jobs.standing.runs import format_seconds, progress
from vidmae.runs.attempts import read_attempts
from vidmae.runs.record import CANCELLED, SCHEMA, RunFolder, read_json, write_json

WAYS, OVER = "notify.json", "over"
P = ParamSpec("P")
SEND_LIMIT_S, COMMAND_LIMIT_S = 10.0, 30.0


def keep_ways(submit: Path, notify: Notify, cluster: str) -> None:
    """Note in the folder of the jobs whom they tell; what an earlier submission noted goes.

    Args:
        submit: Of a run or an array; it exists.
        notify: Who is told.
        cluster: slurm or local, where no mail is sent.
    """
    if notify.mail is not None and cluster == "local":
        print("note: --notify mail is sent by Slurm; nobody is written to about a job on this machine", file=sys.stderr)
    if notify.sends:
        commands = [list(words) for words in notify.commands]
        write_json(submit / WAYS, {"schema": SCHEMA, "webhooks": list(notify.webhooks), "commands": commands})
    else:
        (submit / WAYS).unlink(missing_ok=True)


def never_fails(act: Callable[P, None]) -> Callable[P, None]:
    """What a job does besides: an error in it is said, and the job ends as it would."""

    @wraps(act)
    def tried(*args: P.args, **named: P.kwargs) -> None:
        try:
            act(*args, **named)
        except Exception as error:
            print(f"warning: --notify failed ({type(error).__name__})", flush=True)

    return tried


@never_fails
def run_ended(run: RunFolder, job_id: str) -> None:
    """Tell of a run whose job has ended for good."""
    if (run.submit / WAYS).exists():
        send(run.submit / WAYS, line_of_run(run, job_id))


@never_fails
def task_ended(array: RunFolder, job_id: str) -> None:
    """Note that a task of an array is over for good, and tell of the array where it was the last.

    Args:
        array: Its folder.
        job_id: Of the task, `<A>_<a>`.
    """
    if not (array.submit / WAYS).exists():
        return
    with contextlib.suppress(OSError):
        (array.submit / job_id / OVER).touch()
    if _others_over(array, job_id):
        array_ended(array, slurm.base_id(job_id))


@never_fails
def array_ended(array: RunFolder, array_id: str) -> None:
    """Tell of an array that is over; once, whoever notices."""
    if not (array.submit / WAYS).exists():
        return
    try:
        os.close(os.open(array.submit / f"told.{array_id}", os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    except OSError:
        return
    send(array.submit / WAYS, line_of_array(array, array_id))


def _others_over(array: RunFolder, job_id: str) -> bool:
    """Whether no other task of the array will do anything more: it is done, has said so, or is not in the queue."""
    array_id = slurm.base_id(job_id)
    ids = [f"{array_id}_{i}" for i, run in enumerate(cells_of(array.path)) if not run.result.exists()]
    open_ids = {i for i in ids if i != job_id and not (array.submit / i / OVER).exists()}
    if not open_ids:
        return True
    try:
        return not any(job.active and job.id in open_ids for job in slurm.queued([array_id]))
    except slurm.SlurmError:
        return False  # the one that comes last knows without asking


def line_of_run(run: RunFolder, job_id: str) -> str:
    """How a run ended, in one line: name, outcome, steps, result, time that its jobs have worked."""
    result = _read(run.result)
    parts = [_outcome(run, job_id)]
    beat = progress(run)
    step, of = result.get("steps", beat.get("step")), result.get("steps", beat.get("total_steps"))
    if isinstance(step, int) and isinstance(of, int):
        parts.append(f"{step:,} of {of:,} steps")
    for key, text in (("top1_pct", "top-1 {:.2f} %"), ("last_loss", "loss {:.4g}")):
        if (value := _number(result, key)) is not None:
            parts.append(text.format(value))
    worked_s = sum(max(0.0, attempt.updated - attempt.started) for attempt in _attempts(run))
    parts += [f"{format_seconds(worked_s)} of work"] if worked_s else []
    return f"{run.path.name}: {', '.join(parts)}"


def line_of_array(array: RunFolder, array_id: str) -> str:
    """How an array ended, in one line: name, how many cells ended how, the span of their accuracies."""
    runs = cells_of(array.path)
    counts = Counter(_outcome(run, f"{array_id}_{i}").partition(" ")[0] for i, run in enumerate(runs))
    said = ", ".join(f"{counts[word]} {word}" for word in ("done", "failed", "cancelled", "unfinished") if counts[word])
    found = [value for run in runs if (value := _number(_read(run.result), "top1_pct")) is not None]
    span = f", top-1 {min(found):.2f} to {max(found):.2f} %" if found else ""
    return f"{array.path.name}: {said} of {len(runs)} cells{span}"


def _outcome(run: RunFolder, job_id: str) -> str:
    """done, cancelled, failed (and of what kind), or unfinished."""
    if run.result.exists():
        return "done"
    if (run.submit / job_id / CANCELLED).exists():
        return "cancelled"
    failure = _read(run.failure)
    if str(failure.get("job_id")) != job_id:
        return "unfinished" if _attempts(run) else "failed"
    kind = str(failure.get("error", ""))
    return f"failed (rank {failure.get('rank')}, {kind})" if kind.isidentifier() else "failed"


def send(ways: Path, line: str) -> None:
    """Send a line to all that are noted; what does not work is said, without the address."""
    try:
        record = read_json(ways) or {}
        webhooks, commands = list(record["webhooks"]), list(record["commands"])
    except (OSError, ValueError, KeyError, TypeError):
        print(f"warning: {ways.name} cannot be read, so nobody is told", flush=True)
        return
    acts = [("webhook", post, url) for url in webhooks] + [("command", call, words) for words in commands]
    for kind, act, to in acts:
        try:
            problem = act(to, line)
        except Exception as error:  # one that fails keeps no other from being told
            problem = f"it failed ({type(error).__name__})"
        print(f"warning: --notify {kind}: {problem}" if problem else f"told by {kind}: {line}", flush=True)


def post(url: str, line: str) -> str:
    """Post a line to a webhook; why it did not work, without the address, or nothing."""
    import urllib.error  # here: every rank loads this module, and HTTP takes longer than all the rest of it
    import urllib.request

    class NoRedirect(urllib.request.HTTPRedirectHandler):
        """An answer that sends elsewhere is a failure: elsewhere may not be https."""

        def redirect_request(self, *_: Any) -> None:
            return None

    if problem := problem_of(url):
        return problem
    data = json.dumps({"text": line}).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json", "User-Agent": "vidmae"})
    own = [urllib.request.ProxyHandler({})] if urlsplit(url).hostname in HERE else []  # a proxy has another localhost
    try:
        with urllib.request.build_opener(NoRedirect, *own).open(request, timeout=SEND_LIMIT_S):
            return ""
    except urllib.error.HTTPError as error:
        return f"it answered with HTTP {error.code}"
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        return f"it could not be reached ({getattr(reason, 'strerror', None) or type(reason).__name__})"


def call(words: Sequence[str], line: str) -> str:
    """Give a line to a program on its standard input; why it did not work, or nothing."""
    try:
        done = subprocess.run(list(words), input=f"{line}\n", text=True, stdout=subprocess.DEVNULL,
                              stderr=subprocess.DEVNULL, timeout=COMMAND_LIMIT_S)
    except subprocess.TimeoutExpired:
        return f"it took more than {COMMAND_LIMIT_S:g} s"
    except (OSError, ValueError) as error:
        return f"it could not be started ({getattr(error, 'strerror', None) or type(error).__name__})"
    return f"it ended with exit code {done.returncode}" if done.returncode else ""


def is_array(path: Path) -> bool:
    """Whether a folder is that of an array."""
    return (path / CELLS).exists()


def _read(path: Path) -> dict[str, Any]:
    try:
        return read_json(path) or {}
    except (OSError, ValueError):
        return {}


def _attempts(run: RunFolder) -> Sequence[Any]:
    try:
        return read_attempts(run)
    except (OSError, ValueError, TypeError):
        return ()


def _number(record: Mapping[str, Any], key: str) -> float | None:
    value = record.get(key)
    return float(value) if isinstance(value, (int, float)) and math.isfinite(value) else None
