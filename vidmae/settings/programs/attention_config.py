"""The schema of attention maps: which model looks at which clips. No torch: the command line reads it."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf

from vidmae.settings.clips_config import ClipsConfig, check


@dataclass(frozen=True)
class AttentionConfig(ClipsConfig):
    """One model, the clips of one set of videos."""

    videos: str = ""
    """Manifest of the videos."""
    videos_content: str = ""
    """Hash of its contents, so that results of other videos under the same name are not taken for these; empty takes any."""
    rollout: bool = False
    """Attention rollout through all blocks, too; see attention.py."""
    moving_px: float = 1.0
    """Optical flow in px per frame of the clip above which a pixel moves."""
    relative: bool = False
    """Take each frame's median flow off first: motion against the picture as a whole."""
    per_video: int = 1
    """Clips of each video, evenly spread."""
    pictures: int = 0
    """Clips whose pictures and videos are written. 0: none, footage may be private."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check(bool(self.videos), "--videos", self.videos, "a set of videos")
        check(0 < self.moving_px < inf, "--moving-px", self.moving_px, "more than 0 px per frame")
        check(self.per_video >= 1, "--per-video", self.per_video, "1 or more clips per video")
        check(self.pictures >= 0, "--clips", self.pictures, "0 (none) or more clips")
