"""Writes videos: the only import of PyAV beside the readers in decoders/."""

from __future__ import annotations

import io
from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path

import numpy as np

from vidmae.runs.record import write_atomic

CRF = "16"  # of x264: no difference that an eye sees
SMALL_GOP = 16  # frames: what is decoded at most before the first frame of a clip


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


def write_chunk(frames: Iterable[np.ndarray], path: Path, fps: float, *, crf: int) -> int:
    """Write H.264 from which a clip is read quickly: a key frame every SMALL_GOP frames, no filter that costs time.

    Args:
        frames: uint8 [H, W, 3] each; of an odd height or width the last row or column is left out.
        path: `NAME.mp4`; written at once or not at all.
        fps: Frames per second.
        crf: Quality of x264, 0 (the best) to 51.
    Returns:
        How many frames there were.
    """
    import av

    buffer, count = io.BytesIO(), 0
    options = {"crf": str(crf), "tune": "fastdecode", "g": str(SMALL_GOP), "sc_threshold": "0"}
    with av.open(buffer, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=Fraction(fps).limit_denominator(1000), options=options)
        stream.pix_fmt = "yuv420p"
        stream.codec_context.thread_count = 1  # the same bytes on every machine
        for frame in frames:
            even = np.ascontiguousarray(frame[:frame.shape[0] // 2 * 2, :frame.shape[1] // 2 * 2])
            if not count:
                stream.height, stream.width = even.shape[:2]
            count += 1
            container.mux(stream.encode(av.VideoFrame.from_ndarray(even, format="rgb24")))
        container.mux(stream.encode())
    write_atomic(path, buffer.getvalue())
    return count
