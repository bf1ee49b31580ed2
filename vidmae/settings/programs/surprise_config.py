"""The schema of a comparison of possible and impossible videos by a model's surprise. No torch: the launcher reads it."""

from __future__ import annotations

from dataclasses import dataclass

from vidmae.settings.clips_config import ClipsConfig, check


@dataclass(frozen=True)
class SurpriseConfig(ClipsConfig):
    """One model, and pairs of videos or generated scenes."""

    settings: tuple[str, ...] = ()
    """`model.key=value`, for what a released file does not say."""
    pairs: str = ""
    """List of pairs (pair_list.py); empty: generated scenes."""
    pairs_content: str = ""
    """Hash of the list and of the sizes of its videos."""
    scenes: int = 0
    """Generated scenes of each concept (violations.py), each of two pairs; 0: none."""
    backgrounds: str = ""
    """Manifest of the videos that scenes are made of; empty: noise."""
    backgrounds_content: str = ""
    """Hash of its contents."""
    context_frames: tuple[int, ...] = ()
    """How many frames of a window are seen, several lengths; empty: a quarter, a half and three quarters of a clip."""
    window_step: int = 2
    """Frames, at the model's rate, from one window to the next."""
    seed: int = 0
    """Of generated scenes and of the untrained model."""
    batch: int = 16
    """Windows of a forward pass."""
    names: bool = False
    """Write the videos' paths into the tables. Off: they may be private."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check(self.scenes >= 0, "--scenes", self.scenes, "1 or more of each concept")
        check(bool(self.pairs) != bool(self.scenes), "--scenes", self.scenes, "1 or more of each concept, or --pairs")
        check(bool(self.scenes) or not self.backgrounds, "--backgrounds", self.backgrounds, "only with --scenes")
        check(self.window_step >= 1, "--window-step", self.window_step, "1 or more frames")
        check(self.batch >= 1, "--batch", self.batch, "1 or more windows")
        check(all(c >= 1 for c in self.context_frames), "--context-frames", self.context_frames, "1 or more frames each")
