"""Whether a decoder can be trusted with a file: its frames by number against a decode in order, more than once."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from vidmae.footage.frame_numbers import clip_indices
from vidmae.footage.open_video import DecodeError, PacketScan, frames_in_order, open_video, refuses, scan_packets

CLIP_FRAMES, CLIP_S = 16, 16 * 8 / 30  # of the clips that are tried: those of the paper
FRESH_READERS = 2  # for each of the clips
CLEARLY = 0.05  # grey levels that another frame must be nearer by


def verify(path: str | Path, decoder: str) -> str | None:
    """Say why a decoder cannot be trusted with a file, or None where it can.

    The file is decoded once in order. The decoder must count as many frames and give the same pictures: near key frames
    (where open GOPs go wrong) and spread out, at once and singly; and the last frames in the order of a clip, by fresh
    readers, since a decoder that races is right now and then.

    Args:
        path: The file.
        decoder: The decoder that will read it, see `open_video`.
    Returns:
        A reason in plain words without the file's name, or None.
    Raises:
        DecodeError: The file itself is damaged: no decoder can be trusted with it.
    """
    path = Path(path)
    packets, promised = scan_packets(path)
    refuse_cut(packets, promised)
    probes = _probes(len(packets.pts), packets.key_numbers)
    ends = _clips_at_the_end(len(packets.pts), packets.fps)
    thumbs, count = _thumbnails_in_order(path, sorted({*probes, *np.concatenate(ends).tolist()}))
    if packets.timed and count != len(packets.pts):
        raise DecodeError(f"{count} of {len(packets.pts)} frames can be decoded")
    if reason := refuses(decoder, packets):
        return reason
    try:
        return _compare(path, decoder, thumbs, count, [index for index in probes if index < count],
                        [np.minimum(clip, count - 1) for clip in ends])
    except DecodeError as error:
        return str(error)


def refuse_cut(packets: PacketScan, promised: int) -> None:
    """Refuse a file that lost its end.

    Args:
        packets: What is there.
        promised: Frames by its header, see `scan_packets`; of a file in fragments those of the first one alone.
    Raises:
        DecodeError: Fewer are there.
    """
    if promised > len(packets.pts) + packets.discarded:
        raise DecodeError(f"the file is cut: its header promises {promised} frames, {len(packets.pts)} are there")


def _compare(path: Path, decoder: str, thumbs: dict[int, np.ndarray], count: int, probes: list[int],
             ends: list[np.ndarray]) -> str | None:
    with open_video(path, decoder) as reader:
        if reader.num_frames != count:
            return f"{decoder} counts {reader.num_frames} frames, {count} can be decoded in order"
        if reason := _first_wrong(thumbs, probes, reader.read(probes)):
            return f"{decoder} reads a wrong frame: {reason}"
        for index in sorted({*probes[::2], count - 1}, reverse=True):
            if reason := _first_wrong(thumbs, [index], reader.read([index])):
                return f"{decoder} reads a wrong frame when it seeks: {reason}"
    for clip in ends * FRESH_READERS:
        with open_video(path, decoder) as reader:
            if reason := _first_wrong(thumbs, clip.tolist(), reader.read(clip)):
                return f"{decoder} reads a wrong frame at the end: {reason}"
    return None


def _clips_at_the_end(count: int, fps: float) -> list[np.ndarray]:
    """Frame numbers, int64 [T], of the last clip, of one that passes the end, and of the last frames one by one."""
    span = CLIP_S * fps
    starts = (max(count - span, 0), max(count - span / 2, 0))
    clips = [clip_indices(start, span, CLIP_FRAMES, count) for start in starts]
    return [*clips, np.arange(max(count - CLIP_FRAMES, 0), count)]


def _probes(count: int, keys: np.ndarray, spread: int = 6, near_keys: int = 3) -> list[int]:
    """Frame numbers worth a look: first, last, spread out, and around some key frames."""
    rng = np.random.default_rng(count)
    chosen = {0, count - 1, *rng.integers(0, max(count, 1), spread).tolist()}
    for key in rng.permutation(keys[keys > 0])[:near_keys].tolist():
        chosen.update(range(key - 3, key + 2))
    return sorted(index for index in chosen if 0 <= index < count)


def _thumbnails_in_order(path: Path, probes: list[int]) -> tuple[dict[int, np.ndarray], int]:
    """Decode everything in order; keep small pictures of the probes and of two neighbours on each side."""
    keep = {near for index in probes for near in range(index - 2, index + 3)}
    thumbs: dict[int, np.ndarray] = {}
    count = 0
    for count, picture in enumerate((picture for picture in frames_in_order(path)), 1):
        if count - 1 in keep:
            thumbs[count - 1] = _thumbnail(picture())
    return thumbs, count


def _thumbnail(picture: np.ndarray, cells: int = 32) -> np.ndarray:
    """Mean colour of `cells` x `cells` blocks (of single pixels where the picture is small)."""
    height, width, _ = picture.shape
    rows, columns = max(height // cells, 1), max(width // cells, 1)
    cut = picture[: height // rows * rows, : width // columns * columns]
    blocks = cut.reshape(height // rows, rows, width // columns, columns, 3)
    sums = blocks.sum(axis=1, dtype=np.uint32).sum(axis=2)  # 4 to 12 times as fast as the mean over both axes in float32
    return np.asarray(sums / (rows * columns), dtype=np.float32)


def _first_wrong(thumbs: dict[int, np.ndarray], indices: Sequence[int], pictures: np.ndarray) -> str | None:
    return next(filter(None, (_wrong(thumbs, *pair) for pair in zip(indices, pictures, strict=True))), None)


def _wrong(thumbs: dict[int, np.ndarray], index: int, picture: np.ndarray, tolerance: float = 3.0) -> str | None:
    """Compare with the frame decoded in order: it must be near, and no neighbour clearly nearer (mean grey levels)."""
    seen, right = _thumbnail(picture), thumbs[index]
    if seen.shape != right.shape:
        return f"frame {index} has another size ({picture.shape[1]} x {picture.shape[0]} px)"
    distance = float(np.abs(seen - right).mean())
    if distance > tolerance:
        return f"frame {index} differs by {distance:.1f} grey levels from the one decoded in order"
    if distance <= CLEARLY:
        return None
    for near in range(index - 2, index + 3):
        other = float(np.abs(seen - thumbs[near]).mean()) if near in thumbs else distance
        if distance - other > max(CLEARLY, distance / 2):
            return f"frame {near} comes for frame {index}"
    return None
