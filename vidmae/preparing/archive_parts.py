"""One recording becomes a part of an archive, in a process that can be killed: decode, resize, encode, read back, compare.

    OUT/parts/KEY.tar, KEY.npy     the frames
    OUT/parts/KEY.json             what came of it; written last: its existence means that the part is whole
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from vidmae.footage.archives import jpeg
from vidmae.footage.archives.archive_layout import index_path, row_path
from vidmae.footage.archives.archive_reader import ArchiveReader
from vidmae.footage.archives.archive_writer import ArchiveWriter
from vidmae.footage.decoders.reader import DecodeError
from vidmae.footage.open_video import import_decoder
from vidmae.preparing.kept_frames import Recording, kept_frames, load_resizer
from vidmae.preparing.preparation import Preparation
from vidmae.runs.record import read_json, write_json

SAMPLE_EVERY, MOST_SAMPLES = 500, 8  # frames of a recording that are compared with the resized source: one, and one per 500
READ_BACK = 64  # frames at a time


@dataclass(frozen=True)
class Part:
    """What came of a recording.

    Attributes:
        frames: Kept.
        fps: Of them.
        height, width: Of a frame, px.
        bytes: Of the JPEGs.
        psnr_db: Of some frames against the resized source, their mean; 100 where they are equal.
        ssim: Of one of them.
    """

    frames: int
    fps: float
    height: int
    width: int
    bytes: int
    psnr_db: float
    ssim: float


@dataclass(frozen=True)
class Lost:
    """Why a recording could not be prepared, without its name; `stop`: no other can be either."""

    reason: str
    stop: bool = False


@dataclass(frozen=True)
class PartMaker:
    """Makes parts: picklable, called in a process of its own."""

    folder: Path
    how: Preparation
    most_s: float = float("inf")

    def __call__(self, recording: Recording) -> tuple[Part | Lost, float]:
        """Make one part; and the CPU seconds that it took."""
        return timed(lambda skip: self._make(recording, skip))

    def _make(self, recording: Recording, skip: bool) -> Part:
        key = self.how.key_of(recording.content)
        archive = part_path(self.folder, key)
        numbers, fps, pictures = kept_frames(recording, self.how, self.most_s, skip=skip)
        samples = 1 + min(MOST_SAMPLES - 1, len(numbers) // SAMPLE_EVERY)
        chosen = set(np.linspace(0, len(numbers) - 1, samples).astype(int).tolist())
        sources: dict[int, np.ndarray] = {}
        size = 0
        with ArchiveWriter(archive) as writer:
            for place, picture in pictures:
                encoded = jpeg.encode(picture, self.how.quality)
                writer.add(key, place, encoded, fps=fps, source=int(numbers[place]))
                size += len(encoded)
                if place in chosen:
                    sources[place] = picture
        height, width = next(iter(sources.values())).shape[:2]
        part = Part(len(numbers), fps, height, width, size, *_read_back(archive, key, len(numbers), sources))
        write_json(record_path(archive), asdict(part))
        return part


def timed(make: Callable[[bool], Part]) -> tuple[Part | Lost, float]:
    """Call `make(skip)`, and once more with everything decoded where that fails; the CPU seconds that it took."""
    _load_libraries()  # before the clock: once in a process
    began = time.process_time()
    try:
        try:
            made: Part | Lost = make(True)
        except DecodeError:  # a decoder that leaves out more than it should
            made = make(False)
    except DecodeError as error:
        made = Lost(str(error))
    except OSError as error:
        made = Lost(f"cannot write: {error.strerror}", stop=True)
    except Exception as error:
        made = Lost(type(error).__name__)  # its text may hold the file's name
    return made, time.process_time() - began


def _load_libraries() -> None:
    import skimage.metrics  # noqa: F401

    jpeg.load_coder()
    import_decoder("pyav")
    load_resizer()


def part_path(folder: Path, key: int) -> Path:
    """The archive of one recording."""
    return folder / f"{key:016x}.tar"


def record_path(archive: Path) -> Path:
    """The record beside a part or an archive, which says that it is whole."""
    return archive.with_suffix(".json")


def read_part(archive: Path) -> Part | None:
    """What came of a recording, or None where it is still to be made."""
    record = read_json(record_path(archive))
    return Part(**record) if record else None


def remove_part(archive: Path) -> None:
    """Remove a part, its record first."""
    for path in (record_path(archive), index_path(archive), archive):
        path.unlink(missing_ok=True)


def _read_back(archive: Path, key: int, frames: int, sources: dict[int, np.ndarray]) -> tuple[float, float]:
    """Decode all that was written; PSNR and SSIM of the frames whose source is known.

    Raises:
        DecodeError: Something else comes back.
    """
    from skimage.metrics import structural_similarity

    with ArchiveReader(Path(row_path(archive, key))) as reader:
        if reader.num_frames != frames:
            raise DecodeError(f"{reader.num_frames} of {frames} frames were written")
        near_db, ssim = [], 1.0
        for first in range(0, frames, READ_BACK):
            pictures = reader.read(np.arange(first, min(first + READ_BACK, frames)))
            for place in sources.keys() & set(range(first, first + len(pictures))):
                near_db.append(psnr_db(sources[place], pictures[place - first]))
                if place == min(sources) and min(pictures.shape[1:3]) >= 7:
                    ssim = float(structural_similarity(sources[place], pictures[place - first], channel_axis=2))
    return float(np.mean(near_db)), ssim


def psnr_db(a: np.ndarray, b: np.ndarray) -> float:
    """How near two pictures are, in dB; 100 where they are equal."""
    mse = float(np.mean((a.astype(np.float32) - b) ** 2))
    return min(100.0, 10 * np.log10(255**2 / mse)) if mse else 100.0
