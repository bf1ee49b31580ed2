"""The door to video decoders: a file and frame numbers in, pictures out.

Frames are asked for by number in the order in which a player shows them, 0 to num_frames - 1. No decoder reads all files
rightly. What was measured: decord gives wrong frames without a word in files with open GOPs, edit lists or packed B-frames,
and at random where time stamps do not name frames; PyAV by number is right more often or says so; each may hang. So which
decoder reads a file is decided when the manifest is made (`verify.py`), in processes that can be killed (dmlc/decord#220,
#269, #363), and stands in the file's row.

One rule for rotation, whatever the decoder: pictures come as a player shows them, turned by the display matrix.
A picture (JPEG, PNG, WebP, BMP) is a video of one frame, read by Pillow (`with_pillow.py`).
Messages hold no file name (names of children's footage are private); callers say which manifest row it was.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

from vidmae.footage.archives.archive_layout import DECODER as ARCHIVE
from vidmae.footage.archives.archive_layout import file_of
from vidmae.footage.archives.archive_reader import ArchivePillowReader, ArchiveReader
from vidmae.footage.archives.staging import Stager, bytes_read
from vidmae.footage.archives.staging import use as use_copies
from vidmae.footage.decoders.packets import PacketScan, VideoInfo, frames_in_order, probe, scan_packets, some_in_order
from vidmae.footage.decoders.reader import DecodeError, Frames, VideoReader, regular_file
from vidmae.footage.decoders.with_decord import DecordReader
from vidmae.footage.decoders.with_pillow import PILLOW, PillowReader
from vidmae.footage.decoders.with_pyav import PyAvEarlierReader, PyAvReader
from vidmae.footage.decoders.with_torchcodec import TorchcodecReader
from vidmae.footage.manifest import AUTO

__all__ = ["ARCHIVE", "DECODERS", "PILLOW", "DecodeError", "Frames", "PacketScan", "Stager", "VideoInfo", "VideoReader",
           "bytes_read", "candidates", "file_of", "frames_in_order", "import_decoder", "is_installed", "may_hang",
           "open_video", "probe", "refuses", "scan_packets", "second_decoder", "some_in_order", "use_copies"]

DECODERS = ("pyav", "decord", "torchcodec")
"""Of videos, in the order in which they are tried: PyAV reads least of a file (`decoders/packets.py`)."""
_READERS: dict[str, type[VideoReader]] = {
    "pyav": PyAvReader, "decord": DecordReader, "torchcodec": TorchcodecReader, "pyav_earlier": PyAvEarlierReader,
    ARCHIVE: ArchiveReader, "archive_pillow": ArchivePillowReader, PILLOW: PillowReader}
_OF_ARCHIVES = (ARCHIVE, "archive_pillow")
_LIBRARIES = {"decord": "decord", "pyav": "av", "pyav_earlier": "av", "torchcodec": "torchcodec"}


def candidates(asked: str) -> tuple[str, ...]:
    """The decoders that may read a file, in the order in which they are tried.

    Args:
        asked: Some of DECODERS with commas between them, PILLOW for pictures, or auto: all of DECODERS. Of several those
            that are installed (decord and torchcodec need not be).
    Raises:
        ValueError: There is no such decoder.
    """
    names = DECODERS if asked == AUTO else tuple(asked.split(","))
    for name in names:
        _reader(name)
    return tuple(name for name in names if len(names) == 1 or name == "pyav" or is_installed(name))


def is_installed(decoder: str) -> bool:
    """Whether the library of a decoder is there; those of pictures and archives always are. Nothing is loaded."""
    return decoder not in _LIBRARIES or importlib.util.find_spec(_LIBRARIES[decoder]) is not None


def second_decoder(first: str) -> str:
    """Another way than `first` to read a file, right on about every file: PyAV, or PyAV from an earlier key frame on.

    Of a recording in an archive: Pillow instead of simplejpeg, with a look at what the tar file itself says. A picture is
    read by Pillow again: there is no frame number that it could take for another.
    """
    if first == ARCHIVE:
        return "archive_pillow"
    if first == PILLOW:
        return PILLOW
    return "pyav_earlier" if first == "pyav" else "pyav"


def open_video(path: str | Path, decoder: str) -> VideoReader:
    """Open a video for reading frames by number.

    Args:
        path: The file. It is made absolute, so that a name with a colon is not taken for a network address. Of a recording
            in an archive: `ARCHIVE.tar#KEY`.
        decoder: One of DECODERS, PILLOW or ARCHIVE.
    Returns:
        A reader; use it in a `with` block, in this process.
    Raises:
        ValueError: There is no such decoder.
        DecodeError: The file cannot be read; the message does not hold its name.
    """
    return _reader(decoder)(Path(path) if decoder in _OF_ARCHIVES else regular_file(path))


def may_hang(decoder: str) -> bool:
    """Whether only a process that can be killed bounds it: all that decode video, not what reads pictures, also of archives.

    Every picture was decoded in a process that can be killed when its manifest was made.
    """
    return decoder not in (*_OF_ARCHIVES, PILLOW)


def refuses(decoder: str, packets: PacketScan) -> str | None:
    """Why a decoder must never read a kind of file, however often it was right; None where it may."""
    return _reader(decoder).refuses(packets)


def import_decoder(decoder: str) -> None:
    """Import what a decoder needs, before the first video does.

    Raises:
        ValueError: There is no such decoder.
        ImportError: It is not installed, or lacks a library.
    """
    _reader(decoder).load_library()


def _reader(name: str) -> type[VideoReader]:
    if name not in _READERS:
        raise ValueError(f"decoder {name!r} is unknown; known: {', '.join(DECODERS)} (set data.decoder)")
    return _READERS[name]
