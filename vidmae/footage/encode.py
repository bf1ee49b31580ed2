"""Writes videos: the only import of PyAV beside the readers in decoders/."""

from __future__ import annotations

import io
from fractions import Fraction
from pathlib import Path

import numpy as np

from vidmae.runs.record import write_atomic

CRF = "16"  # of x264: no difference that an eye sees


def write_mp4(frames: np.ndarray, path: Path, fps: float) -> None:
    """Write H.264 in mp4 at once or not at all, readable by its owner alone.

    Args:
        frames: uint8 [T, H, W, 3]; an odd height or width is filled up with white, as H.264's colours need even ones.
        path: `NAME.mp4`.
        fps: Frames per second.
    Raises:
        ValueError: There is no frame.
    """
    import av

    if not len(frames):
        raise ValueError("a video needs at least one frame")
    height, width = frames.shape[1:3]
    frames = np.pad(frames, ((0, 0), (0, height % 2), (0, width % 2), (0, 0)), constant_values=255)
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=Fraction(fps).limit_denominator(1000), options={"crf": CRF})
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "yuv420p"  # what browsers play
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
    write_atomic(path, buffer.getvalue())
