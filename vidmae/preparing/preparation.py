"""How footage is prepared: the settings, what they make of a recording's content hash, and which frames are kept.

    time          0 s        1 s        2 s        3 s
    recording     |....|....|....|....|....|....|....      every frame, at the recording's own rate
    kept            |    |    |    |    |    |    |        at times (phase + k) / fps: the frame that is shown then

The phase, 0 to 1, is drawn for each recording from the seed and its content: without it every recording would begin with its
first frame, and none would ever be seen between two kept ones. One draw per recording is enough where there are many; who
has few recordings, or wants windows to begin at more places, keeps a multiple of the rate (--fps 7.5 keeps two phases). A
recording with fewer frames a second than asked keeps all of them at its own rate; no frame is shown twice.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass

import numpy as np

from vidmae.footage.archives.jpeg import CODER
from vidmae.footage.decoders.packets import PacketScan
from vidmae.footage.manifest import ManifestError

FPS = 3.75
"""Frame stride 8 at 30 fps, which training samples."""
SHORT_SIDE_PX = 256
"""For clips of 224 px; 512 for 448."""
QUALITY = 90
SAME_FPS = 0.01  # a rate this near (relative) to the recording's own is the recording's own
SOON_S = 1e-6  # time stamps are rounded


class PrepareError(ManifestError):
    """Footage cannot be prepared as asked; the message says why and what would do."""


@dataclass(frozen=True)
class Preparation:
    """What is kept of a recording.

    Attributes:
        fps: Frames per second, at most.
        short_side_px: Of a frame, at most; smaller ones stay as they are.
        quality: Of JPEG, 1 to 100; of mp4 (chunks), the same scale turned into a crf.
        seed: Of the phase.
        form: archives or chunks.
    """

    fps: float = FPS
    short_side_px: int = SHORT_SIDE_PX
    quality: int = QUALITY
    seed: int = 0
    form: str = "archives"

    def __post_init__(self) -> None:
        """Refuse what cannot be.

        Raises:
            PrepareError: A value is out of range.
        """
        if not 0.1 <= self.fps <= 240:
            raise PrepareError(f"--fps {self.fps:g} is not allowed: 0.1 to 240 frames per second; 3.75 is what training "
                               "samples")
        if not 16 <= self.short_side_px <= 4096:
            raise PrepareError(f"--short-side {self.short_side_px} is not allowed: 16 to 4096 px; 256 for clips of 224 px")
        if not 1 <= self.quality <= 100:
            raise PrepareError(f"--quality {self.quality} is not allowed: 1 to 100")
        if self.seed < 0:
            raise PrepareError(f"--seed {self.seed} must be 0 or more")

    def record(self) -> dict[str, object]:
        """For a summary."""
        return {**asdict(self), "coder": CODER if self.form == "archives" else "libx264, GOP 16", "resize": "area"}

    def key_of(self, content: str) -> int:
        """Content hash of a recording as prepared, from that of the recording as it is (16 hex digits)."""
        text = json.dumps([content, self.record()], sort_keys=True)
        return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big")

    def phase_of(self, content: str) -> float:
        """Phase of a recording, in [0, 1)."""
        return float(np.random.default_rng((self.seed, int(content, 16))).random())

    def size_of(self, height: int, width: int) -> tuple[int, int]:
        """Height and width of a prepared frame, px: both even where it is made smaller."""
        short = min(height, width)
        if short <= self.short_side_px:
            return height, width
        return _even(height * self.short_side_px / short), _even(width * self.short_side_px / short)

    def rate_of(self, fps: float) -> float:
        """Frames per second that are kept of a recording of `fps`."""
        return fps if self.fps >= fps * (1 - SAME_FPS) else self.fps

    def frames_of(self, packets: PacketScan, frames: int, content: str) -> np.ndarray:
        """Which frames are kept.

        Args:
            packets: Of the recording.
            frames: How many it has.
            content: Its content hash.
        Returns:
            int64, numbers of frames in order of time; one comes twice only where it lasts longer than 1 / fps.
        """
        if self.rate_of(packets.fps) == packets.fps:
            return np.arange(frames)
        lasts_s = frames / packets.fps
        count = max(1, int(np.ceil(lasts_s * self.fps - self.phase_of(content))))
        asked_s = (self.phase_of(content) + np.arange(count)) / self.fps
        numbers = np.searchsorted(frame_times_s(packets, frames), asked_s + SOON_S, side="right") - 1
        return np.clip(numbers, 0, frames - 1)


def frame_times_s(packets: PacketScan, frames: int) -> np.ndarray:
    """When each frame begins to be shown, float64 [N] in seconds from the first one."""
    if not packets.timed or frames < 2 or frames != len(packets.pts):
        return np.arange(frames) / packets.fps
    shown = np.sort(packets.pts) - packets.pts.min()
    return np.asarray(shown / shown[-1] * ((frames - 1) / packets.fps))


def _even(length: float) -> int:
    return 2 * round(length / 2)
