"""The program of a rank, in a process that this task watches where the run may start its ranks again in place."""

from __future__ import annotations

import importlib
import signal
import time

from jobs.submit.recover import is_stuck, judge
from vidmae.ranks.preempt import EXIT_PREEMPTED
from vidmae.runs.attempts import read_attempts
from vidmae.runs.nodes.left_out import nodes_left_out
from vidmae.runs.record import RunFolder, why_not_writable
from vidmae.settings.keeping_config import RecoveryConfig
from vidmae.settings.layers import ConfigError, Layer, build, read_yaml


def run_watched(program: str, run: RunFolder, job_id: str) -> int:
    """Run the `main` of a module; with recovery.restarts_in_place under an agent (vidmae/ranks/health/in_place.py).

    Args:
        program: The module. One that can be started again has `load_before_fork`, which an agent calls once.
        run: The run folder.
        job_id: Of this job.
    Returns:
        Its exit code; 128 + N where signal N killed it.
    """
    began, module = time.time(), importlib.import_module(program)
    try:
        recovery, device = _settings(run)
    except ValueError:  # the program reads them again, and records what is wrong
        return int(module.main(str(run.path)))
    if not recovery.restarts_in_place or not hasattr(module, "load_before_fork"):
        return int(module.main(str(run.path)))
    from vidmae.ranks.health import in_place

    what = in_place.Watched(program, run, recovery, in_place.device_type(device))
    return in_place.watch(what, lambda code: is_worth_a_restart(run, job_id, code, since=began))


def _settings(run: RunFolder) -> tuple[RecoveryConfig, str]:
    """What a run of any kind says of its recovery, and its train.device.

    Raises:
        ValueError: Its configuration is wrong there.
    """
    values = read_yaml(run.config).values if run.config.exists() else {}
    sections = [values.get(name) or {} for name in ("recovery", "train")]
    if not all(isinstance(section, dict) for section in sections):
        raise ConfigError(f"{run.config}: recovery and train must hold `key: value` lines")
    recovery = build(RecoveryConfig, [Layer(str(run.config), sections[0])])[0]
    return recovery, sections[1].get("device", "auto")


def is_worth_a_restart(run: RunFolder, job_id: str, code: int, *, since: float = 0.0) -> bool:
    """Whether the ranks of a job shall start again in place: where it would be requeued because a rank was lost.

    Not where this start of the job has left out a node, which only a requeue gets rid of, not after three attempts without a
    new checkpoint, since other nodes may do better, and not where the run folder takes no more files.

    Args:
        run: The run folder.
        job_id: Of the job.
        code: Exit code of the rank that failed, 128 + N where signal N killed it.
        since: When this start of the job began, seconds since 1970: it does without the nodes left out before.
    """
    return (code != EXIT_PREEMPTED and judge(run, job_id, code, restarts=0, max_requeues=1).requeue
            and not nodes_left_out(run, job_id, since=since) and not is_stuck(run, read_attempts(run))
            and not why_not_writable(run.path))


def is_worth_a_restart_here(run: RunFolder, job_id: str, code: int) -> bool:
    """The same for a process of this machine, whose controller lives on: not where a person interrupted it, and not where
    records are damaged.

    Args:
        run: The run folder.
        job_id: Of the job.
        code: Exit code of the process, -N where signal N killed it.
    """
    try:
        return code != -signal.SIGINT and is_worth_a_restart(run, job_id, code if code >= 0 else 128 - code)
    except (OSError, ValueError, TypeError):
        return False
