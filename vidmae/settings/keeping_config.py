"""What a run keeps, survives and writes while it trains: sections of its schema that change nothing learned."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from vidmae.settings.layers import ConfigError, check
from vidmae.settings.signals import DEFAULT_SIGNALS, number_of


@dataclass(frozen=True)
class CheckpointConfig:
    """When the state of a run is saved."""

    every_steps: int = 1000
    """Optimizer steps between checkpoints; the last step is always saved."""
    keep_last: int = 2
    """Newest complete checkpoints that are kept."""
    keep_every: int = 0
    """Checkpoints of the steps that it divides are kept for good; a multiple of every_steps; 0 keeps none of them."""
    memory_steps: int = 0
    """Optimizer steps between copies of the state in the memory of the nodes, each on a second node, too; a run goes on from
    them after a killed rank or a lost node. 0 makes none."""
    background: bool = True
    """Train on while a checkpoint is written, from a copy in host memory; false stops training meanwhile."""

    def __post_init__(self) -> None:
        check(self.every_steps >= 1, "checkpoint.every_steps", self.every_steps, "1 or more steps")
        check(self.keep_last >= 1, "checkpoint.keep_last", self.keep_last, "1 or more checkpoints")
        check(self.memory_steps >= 0, "checkpoint.memory_steps", self.memory_steps, "0 (none) or more steps")
        check(self.keep_every >= 0 and self.keep_every % self.every_steps == 0, "checkpoint.keep_every", self.keep_every,
              f"0 (none) or a multiple of checkpoint.every_steps {self.every_steps}")


@dataclass(frozen=True)
class RecoveryConfig:
    """How a run meets signals, peers that hang or are slow, and numbers that are not finite."""

    signals: tuple[str, ...] = DEFAULT_SIGNALS
    """Signals that ask the run to save and leave; Slurm sends the first of them before the time limit."""
    start_limit_s: float = 1800.0
    """Longest time for the start, the first step, a look at a cell's model, the beginning of a save, a save that training
    waits for, or the export; then the rank ends itself; 0 waits for ever."""
    step_limit_s: float = 600.0
    """Longest time for any later step, also while a save goes on in the background; then the rank ends itself and the job is
    requeued; 0 waits for ever."""
    checks: Literal["off", "warn", "enforce", False] = "warn"
    """Before the first step the nodes check themselves and each other. warn: what is wrong or too slow is named and noted.
    enforce: the job is requeued without such nodes. off: nothing is checked."""
    max_skips: int = 3
    """Global batches that may be left out after a loss or gradient that was not finite; one more and the run fails."""
    compare_steps: int = 20
    """Steps between two comparisons of what the ranks of a run take for their own part of a step: waiting for clips, and
    computing. 0: none."""
    slow_pct: float = 20.0
    """A node is named as holding up the others from where steps take so much longer because of it, percent."""
    leave_out_pct: float = 0.0
    """A node because of which steps take so much longer, percent, for leave_out_s is left out when the job next stops: the
    job then needs another one. 0: it is named and stays."""
    leave_out_s: float = 1800.0
    """How long a node must be that slow, with leave_out_pct."""
    restarts_in_place: int = 0
    """How often one start of a job may start all ranks again on the nodes that it has, after a rank was killed, lost another
    one or hung, such as 3; then the job is requeued. 0: it is requeued at once."""

    def __post_init__(self) -> None:
        if self.checks is False:  # what YAML reads where `off` stands without quotes
            object.__setattr__(self, "checks", "off")
        check(len(self.signals) >= 1, "recovery.signals", list(self.signals), "at least one, such as USR2")
        for name in self.signals:
            try:
                number_of(name)
            except ValueError as error:
                raise ConfigError(f"recovery.signals is {list(self.signals)!r}: {error}") from error
        check(self.start_limit_s >= 0, "recovery.start_limit_s", self.start_limit_s, "0 (no limit) or more seconds")
        check(self.step_limit_s >= 0, "recovery.step_limit_s", self.step_limit_s, "0 (no limit) or more seconds")
        check(self.max_skips >= 0, "recovery.max_skips", self.max_skips, "0 or more")
        check(self.compare_steps >= 0, "recovery.compare_steps", self.compare_steps, "0 (never) or more steps")
        check(self.slow_pct > 0, "recovery.slow_pct", self.slow_pct, "more than 0 percent")
        check(self.leave_out_pct == 0 or self.leave_out_pct >= self.slow_pct, "recovery.leave_out_pct", self.leave_out_pct,
              f"0 (never) or recovery.slow_pct {self.slow_pct:g} and more")
        check(self.leave_out_s >= 0, "recovery.leave_out_s", self.leave_out_s, "0 or more seconds")
        check(self.restarts_in_place >= 0, "recovery.restarts_in_place", self.restarts_in_place, "0 (never) or more")


@dataclass(frozen=True)
class LogConfig:
    """What a run writes while it works."""

    every_s: float = 10.0
    """Seconds between two lines in the log; metrics.jsonl has every step."""
    tensorboard: bool = True
    """Write TensorBoard event files to tensorboard/ in the run folder."""
    tracker: Literal["none", "wandb", "mlflow", "trackio"] = "none"
    """A tracker of experiments that draws the curves, too; `pip install` it."""
    tracker_project: str = "vidmae"
    """The tracker's project (of mlflow: experiment)."""
    tracker_online: bool = False
    """Send to the tracker's server while the run trains. Off: it writes files to tracker/ in the run folder alone."""
    picture: bool = False
    """Write a picture of masked input, reconstruction and original at the end. Off: footage may be private."""
    profile_steps: int = 0
    """Steps that rank 0 records with torch's profiler after a warm-up, once per job, to profile/; 0 is off."""

    def __post_init__(self) -> None:
        check(self.every_s > 0, "log.every_s", self.every_s, "more than 0 s")
        check(bool(self.tracker_project), "log.tracker_project", self.tracker_project, "a name")
        check(0 <= self.profile_steps <= 100, "log.profile_steps", self.profile_steps, "0 (off) to 100 steps")
