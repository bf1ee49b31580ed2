"""What happens to a clip and not to a picture: dropped frames, compression, a camera that shakes. PyAV encodes in memory."""

from __future__ import annotations

from fractions import Fraction
from itertools import pairwise

import numpy as np

from vidmae.evaluate.corruptions.kinds import Kind
from vidmae.evaluate.corruptions.pixels import moved

FPS = 25  # what the encoder is told; the rate control of x264 looks at it
KEPT = 0.7  # share of a shaking camera's offset that is left in the next frame


def frame_drop(frames: np.ndarray, share: float, rng: np.random.Generator) -> np.ndarray:
    """Show the last frame that came in place of frames that did not; the first always comes.

    Args:
        frames: uint8 [T, H, W, 3].
        share: Of the frames after the first, rounded to whole frames.
        rng: Source of randomness.
    Returns:
        uint8 [T, H, W, 3].
    """
    shown = np.arange(len(frames))
    shown[1 + rng.permutation(len(frames) - 1)[:round(share * (len(frames) - 1))]] = 0
    return frames[np.maximum.accumulate(shown)]


def compression(frames: np.ndarray, crf: int, _rng: np.random.Generator) -> np.ndarray:
    """Encode a clip as H.264 with x264, and decode it.

    Args:
        frames: uint8 [T, H, W, 3]; an odd height or width is filled up with its last row or column for the encoder.
        crf: Constant rate factor, 0 (no loss) to 51.
    Returns:
        uint8 [T, H, W, 3].
    """
    import av

    height, width = frames.shape[1:3]
    even = np.pad(frames, ((0, 0), (0, height % 2), (0, width % 2), (0, 0)), mode="edge")
    encoder = av.CodecContext.create("libx264", "w")
    encoder.height, encoder.width = even.shape[1:3]
    encoder.pix_fmt = "yuv420p"
    encoder.framerate, encoder.time_base = Fraction(FPS), Fraction(1, FPS)
    encoder.thread_count = 1  # the same bytes on every machine
    # without x264's own assembly, whose bytes differ now and then (AVX-512: in 1 to 3 of 100 encodings of one clip)
    encoder.options = {"crf": str(crf), "x264-params": "asm=0"}
    decoder = av.CodecContext.create("h264", "r")
    decoder.thread_count = 1
    packets = []
    for number, frame in enumerate(even):
        picture = av.VideoFrame.from_ndarray(frame, format="rgb24")
        picture.pts = number
        packets += encoder.encode(picture)
    packets += encoder.encode(None)
    decoded = [picture for packet in [*packets, None] for picture in decoder.decode(packet)]
    return np.stack([picture.to_ndarray(format="rgb24")[:height, :width] for picture in decoded])


def shake(frames: np.ndarray, constants: tuple[float, float], rng: np.random.Generator) -> np.ndarray:
    """Move and turn the camera along a drawn path that starts where the first frame is; the border is a mirror.

    Args:
        frames: uint8 [T, H, W, 3].
        constants: Standard deviation of the path per axis in percent of the short side, and of the angle in degrees.
        rng: Source of randomness.
    Returns:
        uint8 [T, H, W, 3].
    """
    path = shake_path(len(frames), constants, min(frames.shape[1:3]), rng)
    height, width = frames.shape[1:3]
    middle = np.array([(width - 1) / 2, (height - 1) / 2])
    out = np.empty_like(frames)
    for frame, (x, y, angle_deg), shown in zip(frames, path, out, strict=True):
        cos, sin = np.cos(np.deg2rad(angle_deg)), np.sin(np.deg2rad(angle_deg))
        turn = np.array([[cos, -sin], [sin, cos]])
        shown[...] = moved(frame, np.column_stack([turn, middle - turn @ middle + [x, y]]))
    return out


def shake_path(count: int, constants: tuple[float, float], side_px: int, rng: np.random.Generator) -> np.ndarray:
    """Where the picture of each frame goes: x px, y px and degrees, float64 [count, 3]; the first is 0."""
    share_pct, angle_deg = constants
    path = rng.standard_normal((count, 3))
    for before, here in pairwise(path):
        here *= (1 - KEPT**2) ** 0.5
        here += KEPT * before
    return np.asarray((path - path[0]) * [share_pct / 100 * side_px, share_pct / 100 * side_px, angle_deg])


KINDS = {
    "frame_drop": Kind("video", frame_drop, (0.125, 0.25, 0.5, 0.75, 0.875), "share of frames",
                       "frames are missing, the last one stays", "own"),
    "compression": Kind("video", compression, (28, 34, 40, 46, 51), "constant rate factor of x264", "H.264", "own",
                        drawn=False),
    "shake": Kind("video", shake, ((1, 0.5), (2, 1), (4, 2), (6, 3), (8, 4)), "path in % of the short side, degrees",
                  "the camera shakes", "own"),
}
