"""The kept frames of a recording, resized. One of the imports of OpenCV."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from vidmae.footage.open_video import DecodeError, PacketScan, scan_packets, some_in_order
from vidmae.preparing.preparation import Preparation


@dataclass(frozen=True)
class Recording:
    """A recording that is to be prepared: what its row of the manifest says.

    Attributes:
        path: The file; it is only read.
        content: Its content hash.
        frames: How many it has.
        fps: Its rate.
        height, width: Of a frame as shown, px.
    """

    path: str
    content: str
    frames: int
    fps: float
    height: int
    width: int

    @property
    def seconds(self) -> float:
        """How long it is."""
        return self.frames / self.fps


def load_resizer() -> None:
    """Import OpenCV."""
    import cv2

    cv2.setNumThreads(1)


def kept_frames(recording: Recording, how: Preparation, most_s: float = float("inf"), *,
                skip: bool = True) -> tuple[np.ndarray, float, Iterator[tuple[int, np.ndarray]]]:
    """Decode a recording once, in order.

    In order it is PyAV that decodes, whatever decoder the row names: that decoder was compared with PyAV's frames in order
    when the manifest was made.

    Args:
        recording: What to decode.
        how: What to keep.
        most_s: Seconds of footage after which to stop, for an estimate.
        skip: Let the decoder leave out what nobody needs.
    Returns:
        int64 [N], numbers of the kept frames; frames per second; and the frames one by one: place in the list, picture
        uint8 [h, w, 3].
    Raises:
        DecodeError: It is not as it was when its manifest was made, or (while iterating) is damaged.
    """
    packets, _ = scan_packets(recording.path)
    if packets.timed and len(packets.pts) != recording.frames:
        raise DecodeError(f"it has {len(packets.pts)} frames, its manifest says {recording.frames}: make the manifest again")
    numbers = how.frames_of(packets, recording.frames, recording.content)
    if most_s < recording.seconds:
        numbers = numbers[:max(1, int(most_s * how.rate_of(packets.fps)))]
    return numbers, how.rate_of(packets.fps), _pictures(recording, how, packets, numbers, skip)


def _pictures(recording: Recording, how: Preparation, packets: PacketScan,
              numbers: np.ndarray, skip: bool) -> Iterator[tuple[int, np.ndarray]]:
    import cv2

    wanted, counts = np.unique(numbers, return_counts=True)
    place = 0
    for (_, shown), times in zip(some_in_order(recording.path, packets, wanted, skip=skip), counts.tolist(), strict=False):
        picture = shown()
        height, width = how.size_of(*picture.shape[:2])
        if (height, width) != picture.shape[:2]:
            picture = np.asarray(cv2.resize(np.ascontiguousarray(picture), (width, height), interpolation=cv2.INTER_AREA))
        for _ in range(times):
            yield place, picture
            place += 1
    if place != len(numbers):
        raise DecodeError(f"{place} of {len(numbers)} frames can be decoded")
