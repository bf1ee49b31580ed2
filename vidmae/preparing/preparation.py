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
QUALITY = 90  # of labelled clips, and of chunks
FOOTAGE_QUALITY = 80
"""Of archives of footage: two thirds of the bytes of 90 and a tenth less time to read, for 2 dB."""
PHASES = 4  # of windows, between two frames of a clip of a sweep
ROOM = 256 / 224  # short side of a frame for each px of a clip, as in the paper
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

    @staticmethod
    def for_clips(img_size: int, clip_fps: float, short_side_px: int = 0) -> Preparation:
        """How labelled clips are prepared for the cells of a sweep.

        Frames are kept at four times the rate that a clip has, so that a window begins at four places between two of them; a
        recording with fewer frames a second keeps all of its own. The short side leaves room for the crop.

        Args:
            img_size: Of a clip, px.
            clip_fps: Frames per second of a clip: target_fps / sampling_rate.
            short_side_px: Of a kept frame, at most; 0: 256 for clips of 224 px, and in proportion.
        Raises:
            PrepareError: A value is out of range.
        """
        return Preparation(PHASES * clip_fps, short_side_px or 2 * round(img_size * ROOM / 2))

    @property
    def name(self) -> str:
        """What tables and folders call it."""
        return f"{self.short_side_px}px-{self.fps:g}fps-q{self.quality}"

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
