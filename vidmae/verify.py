"""Whether a decoder can be trusted with a file: its frames by number against a decode in order."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from vidmae.decode import DecodeError, frames_in_order, open_video, scan_packets


def verify(path: str | Path, backend: str = "decord") -> str | None:
    """Say why a backend cannot be trusted with a file, or None where it can.

    The file is decoded once in order; the backend must count as many frames, read the last one, and give the same
    pictures when frames are asked singly and backwards: near key frames (where open GOPs go wrong) and spread out.

    Args:
        path: The file.
        backend: The backend that will read it, see `open_video`.
    Returns:
        A reason in plain words without the file's name, or None.
    """
    try:
        return _count_and_compare(Path(path), backend)
    except DecodeError as error:
        return str(error)


def _count_and_compare(path: Path, backend: str) -> str | None:
    scan, promised = scan_packets(path)
    probes = _probes(len(scan.pts), scan.key_numbers)
    thumbs, count = _thumbnails_in_order(path, probes)
    if promised and promised != len(scan.pts) + scan.discarded:
        return f"the file is cut: its header promises {promised} frames, {len(scan.pts)} are there"
    if scan.timed and count != len(scan.pts):
        return f"{count} of {len(scan.pts)} frames can be decoded"
    with open_video(path, backend) as reader:
        if reader.num_frames != count:
            return f"{backend} counts {reader.num_frames} frames, {count} can be decoded in order"
        probes = [index for index in probes if index < count]
        at_once = reader.read(probes)
        for index, frame in zip(probes, at_once, strict=True):
            if reason := _wrong(thumbs, index, frame):
                return f"{backend} reads a wrong frame: {reason}"
        for index in sorted({*probes[::2], count - 1}, reverse=True):
            if reason := _wrong(thumbs, index, reader.read([index])[0]):
                return f"{backend} reads a wrong frame when it seeks: {reason}"
    return None


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
    cut = picture[: height // rows * rows, : width // columns * columns].astype(np.float32)
    return cut.reshape(height // rows, rows, width // columns, columns, 3).mean(axis=(1, 3))


def _wrong(thumbs: dict[int, np.ndarray], index: int, picture: np.ndarray, tolerance: float = 3.0) -> str | None:
    """Compare with the frame decoded in order: it must be near, and no neighbour clearly nearer (mean grey levels)."""
    seen, right = _thumbnail(picture), thumbs[index]
    if seen.shape != right.shape:
        return f"frame {index} has another size ({picture.shape[1]} x {picture.shape[0]} px)"
    distance = float(np.abs(seen - right).mean())
    if distance > tolerance:
        return f"frame {index} differs by {distance:.1f} grey levels from the one decoded in order"
    for near in range(index - 2, index + 3):
        other = float(np.abs(seen - thumbs[near]).mean()) if near in thumbs else distance
        if distance - other > max(0.05, distance / 2):
            return f"frame {near} comes for frame {index}"
    return None
