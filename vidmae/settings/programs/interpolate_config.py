"""The schema of an interpolation: which clips are filled in by which model. No torch: the launcher reads it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from vidmae.settings.clips_config import ClipsConfig, check


@dataclass(frozen=True)
class InterpolateConfig(ClipsConfig):
    """One model, one mask, the clips of one or several sets of videos."""

    settings: tuple[str, ...] = ()
    """`model.key=value`, for what a released file does not say."""
    videos: dict[str, str] = field(default_factory=dict)
    """Name of each set of videos (domain) and its manifest."""
    videos_content: dict[str, str] = field(default_factory=dict)
    """Hash of the contents of each, so that results of other videos under the same name are not taken for these."""
    mask: Literal["center", "temporal", "random", "tube"] = "center"
    """What is hidden; see masking.py."""
    ratio: float = 0.25
    """Share of the tokens that is hidden."""
    seed: int = 0
    """Of the masks `random` and `tube`, and of the untrained model."""
    per_video: int = 1
    """Clips of each video, evenly spread."""
    image: str = ""
    """Image MAE that fills in frame by frame, as a baseline: run folder, export or released .pth; empty: none."""
    image_content: str = ""
    """Hash of its weights."""
    untrained: bool = False
    """Score the model as it was before training, too."""
    true_stats: bool = False
    """Let a model of normalised patches (norm_pix_loss) take brightness and contrast from the hidden patches."""
    track: int = 0
    """Scenes of each path of the tracking probe (tracking_probe.py); 0: none."""
    pictures: int = 0
    """Clips of each set whose pictures and videos are written. 0: none, footage may be private."""
    names: bool = False
    """Write the files' paths into the tables. Off: they may be private."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check(bool(self.videos), "--videos", self.videos, "at least one set of videos")
        check(0 < self.ratio < 1, "--ratio", self.ratio, "between 0 and 1, both excluded")
        check(self.per_video >= 1, "--per-video", self.per_video, "1 or more clips per video")
        check(self.track >= 0, "--track", self.track, "0 (none) or more scenes of each path")
        check(self.pictures >= 0, "--clips", self.pictures, "0 (none) or more clips")
