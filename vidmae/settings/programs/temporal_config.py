"""The schema of temporal probes: one frozen encoder, the recordings of one manifest. No torch here."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, get_args

from vidmae.settings.finetune_config import FinetuneConfig, Method
from vidmae.settings.layers import check, unsigned

TimeProbe = Literal["halves", "halves-apart", "arrow", "speed", "first"]
TIME_PROBES: tuple[str, ...] = get_args(TimeProbe)


@dataclass(frozen=True)
class TimeProbesConfig:
    """What is asked of an encoder, and of which moments of which recordings."""

    probes: tuple[TimeProbe, ...] = get_args(TimeProbe)
    """What is asked; vidmae/evaluate/temporal/time_tasks.py says how."""
    set_name: str = ""
    """What the tables call the recordings."""
    manifest: str = unsigned("")
    """The recordings. The windows that are drawn in them are signed."""
    drawn: str = ""
    """Hash of those windows; filled in by the launcher."""
    num_frames: int = 16
    """Frames of a clip for an image model, which sees them one by one; a video model has its own number."""
    windows: int = 2000
    """Windows in all, at most."""
    per_recording: int = 20
    """Windows of a recording, at most."""
    gap_s: tuple[float, float] = (2.0, 300.0)
    """first: seconds between the end of one clip and the beginning of the other, least and most."""
    select_share: float = 0.2
    """Share of the recordings on which the penalty is chosen."""
    test_share: float = 0.4
    """Share of the recordings on which the probe is tested."""

    def __post_init__(self) -> None:
        check(len(self.probes) >= 1, "temporal.probes", list(self.probes), f"one or more of {', '.join(TIME_PROBES)}")
        check(self.num_frames >= 2 and self.num_frames % 2 == 0, "temporal.num_frames", self.num_frames,
              "an even number of frames")
        check(self.windows >= 1, "temporal.windows", self.windows, "1 or more")
        check(self.per_recording >= 1, "temporal.per_recording", self.per_recording, "1 or more")
        least, most = self.gap_s
        check(0 <= least <= most, "temporal.gap_s", list(self.gap_s), "0 <= least <= most seconds")
        check(0 < self.select_share < 1, "temporal.select_share", self.select_share, "between 0 and 1, both excluded")
        check(0 < self.test_share < 1, "temporal.test_share", self.test_share, "between 0 and 1, both excluded")
        check(self.select_share + self.test_share < 1, "temporal.test_share", self.test_share,
              f"less than {1 - self.select_share:g}, so that recordings to learn from are left")


@dataclass(frozen=True)
class TemporalConfig(FinetuneConfig):
    """One encoder and some recordings: the settings of a probe, and what it is asked of time."""

    name: str = "time"
    """First part of the run folder's name; the sweep puts model, recordings and seed there."""
    method: Method = "linear"
    """Always linear: the probe is a logistic regression on pooled features."""
    temporal: TimeProbesConfig = field(default_factory=TimeProbesConfig)

    def __post_init__(self) -> None:
        super().__post_init__()
        check(self.method == "linear", "method", self.method, "linear")

    @property
    def clip_frames(self) -> int:
        """T, frames of a clip."""
        return self.model.num_frames if self.model.num_frames > 1 else self.temporal.num_frames
