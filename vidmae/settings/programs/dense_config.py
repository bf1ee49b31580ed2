"""The schema of a dense probe: one encoder, or a control, on one set of sequences. No torch here."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from vidmae.settings.finetune_config import FinetuneConfig
from vidmae.settings.layers import check, unsigned

SetKind = Literal["davis", "tapvid", "generated"]
FeatureKind = Literal["encoder", "pixels", "mean", "static", "oracle", "ceiling"]


@dataclass(frozen=True)
class DenseProbeConfig:
    """What is looked at, and how labels and points are carried."""

    features: FeatureKind = "encoder"
    """encoder: patch tokens of the model; pixels: colours of patches; mean: the mean colour of the frame; static: nothing
    moves; oracle, ceiling: the truth, in small cells, and in cells of the model's size."""
    kind: SetKind = "generated"
    """Layout of the set; filled in by the sweep."""
    set_name: str = unsigned("generated")
    """What the tables call it."""
    path: str = unsigned("")
    """The set. Its content, not its path, is signed."""
    content: str = ""
    """Content hash of the set."""
    clip: Literal["sliding", "still"] = "sliding"
    """Clip of a frame: sliding, the frames around it; still, copies of it. An image model sees the frame alone."""
    window_step: int = 1
    """Frames from one frame of a sliding clip to the next."""
    last_frames: int = 7
    """Masks: labels are taken from so many frames before, and from the first."""
    radius: int = 12
    """Masks: labels are taken from no farther away, in cells along each axis."""
    neighbours: int = 5
    """Masks: labels are taken from so many cells, the most alike."""
    temperature: float = 0.1
    """Masks: of the softmax over their likeness."""
    point_radius: int = 2
    """Points: cells around the best one whose mean is the place."""
    point_temperature: float = 0.05
    """Points: of the softmax over their likeness."""
    scenes: int = 24
    """Set generated: scenes."""
    scene_frames: int = 24
    """Set generated: frames of a scene."""
    scene_px: int = 128
    """Set generated: side of a frame."""
    scene_seed: int = 0
    """Set generated: of the scenes."""
    tuning_scenes: int = 8
    """Rendered scenes, none of which is in a set, on which it is chosen when a point is hidden."""

    def __post_init__(self) -> None:
        for name in ("window_step", "last_frames", "radius", "neighbours", "scenes", "tuning_scenes"):
            check(getattr(self, name) >= 1, f"dense.{name}", getattr(self, name), "1 or more")
        for name in ("temperature", "point_temperature"):
            check(getattr(self, name) > 0, f"dense.{name}", getattr(self, name), "more than 0")
        check(self.point_radius >= 0, "dense.point_radius", self.point_radius, "0 or more")
        check(self.scene_frames >= 3, "dense.scene_frames", self.scene_frames, "3 or more")
        check(self.scene_px >= 32, "dense.scene_px", self.scene_px, "32 or more")
        check(0 <= self.scene_seed < 2**32, "dense.scene_seed", self.scene_seed, "0 to 4294967295")


@dataclass(frozen=True)
class DenseConfig(FinetuneConfig):
    """One cell: the settings of an encoder as a few-shot cell has them, and the probe."""

    name: str = "dense"
    """First part of the run folder's name."""
    dense: DenseProbeConfig = field(default_factory=DenseProbeConfig)
