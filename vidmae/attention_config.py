"""The schema of attention maps: which model looks at which clips. No torch: the command line reads it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from vidmae.interpolate_config import check


@dataclass(frozen=True)
class AttentionConfig:
    """One model, the clips of one set of videos."""

    weights: str = ""
    """Run folder, .safetensors export or released .pth."""
    weights_content: str = ""
    """Hash of the weights, so that results of other weights under the same path are not taken for these."""
    videos: str = ""
    """Manifest of the videos."""
    rollout: bool = False
    """Attention rollout through all blocks, too; see attention.py."""
    moving_px: float = 1.0
    """Optical flow in px per frame of the clip above which a pixel moves."""
    relative: bool = False
    """Take each frame's median flow off first: motion against the picture as a whole."""
    sampling_rate: int = 0
    """Frame stride at 30 fps; 0 takes the one that the model was trained with."""
    per_video: int = 1
    """Clips of each video, evenly spread."""
    pictures: int = 0
    """Clips whose pictures and videos are written. 0: none, footage may be private."""
    decoder: Literal["", "decord", "pyav"] = ""
    """Video reader; empty takes the one of training, or decord."""
    device: Literal["auto", "cuda", "cpu"] = "auto"
    """auto takes a GPU where there is one."""
    workers: int = 1
    """Processes that read videos."""
    read_limit_s: float = 60.0
    """Seconds for reading one clip; then its process is killed and the clip is left out. 0: no limit and no such process."""

    def __post_init__(self) -> None:
        check(bool(self.weights), "--weights", self.weights, "a run folder or a file")
        check(bool(self.videos), "--videos", self.videos, "a set of videos")
        check(self.moving_px > 0, "--moving-px", self.moving_px, "more than 0 px per frame")
        check(self.sampling_rate >= 0, "--sampling-rate", self.sampling_rate, "1 or more frames, or 0 (that of training)")
        check(self.per_video >= 1, "--per-video", self.per_video, "1 or more clips per video")
        check(self.pictures >= 0, "--clips", self.pictures, "0 (none) or more clips")
        check(self.workers >= 1, "--workers", self.workers, "1 or more processes")
        check(self.read_limit_s >= 0, "read_limit_s", self.read_limit_s, "0 (no limit) or more seconds")
