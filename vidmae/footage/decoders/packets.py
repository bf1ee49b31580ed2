"""What a file says without decoding it all: packets, time stamps, size, rotation; and its pictures in order. PyAV."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from vidmae.footage.decoders.reader import DecodeError, Frames, Translate, regular_file

SAME_FPS = 0.01  # a measured rate this close (relative) to the header's is the header's
VFR_SHARE = 0.25  # a frame that lasts this much (relative) longer or shorter than the median one: variable rate
FIRST_PACKETS = 64  # are looked at where the rest is taken from a table
NO_PTS = np.iinfo(np.int64).min
MAY_SKIP = frozenset({"h264", "mpeg1video", "mpeg2video", "mpeg4"})
"""Codecs whose frames say rightly that no other is built on them. HEVC says it of one temporal layer alone; dav1d, which
decodes AV1, then loses frames that are wanted."""


@dataclass(frozen=True)
class VideoInfo:
    """What a file says of itself, with the frames counted and not believed from a header.

    `width` and `height` are those of the shown (rotated) picture; `rotation` is how far a player turns the stored
    picture, in degrees counter-clockwise; `fps` is frames / seconds shown, so of a variable rate it is the mean.
    """

    container: str
    codec: str
    has_b_frames: bool
    width: int
    height: int
    rotation: int
    fps: float
    frames: int
    seconds: float
    vfr: bool
    bytes: int


def probe(path: str | Path) -> VideoInfo:
    """Say what a file holds: the packets are counted and the first frame is decoded, the rest is not.

    Raises:
        DecodeError: it is no video, or its first frame cannot be decoded.
    """
    import av

    path = regular_file(path)
    with Translate(path, (av.FFmpegError, StopIteration), "PyAV"):
        container, stream = av_open(path)
        with container:
            found = scan(container, stream)
            info = (container.format.name.split(",")[0], stream.codec_context.codec.canonical_name)
            has_b_frames = found.reordered or bool(stream.codec_context.has_b_frames)
        container, stream = av_open(path)
        with container:
            first = next(container.decode(stream))
            height, width, _ = Pictures()(first).shape
    frames = len(found.pts)
    return VideoInfo(*info, has_b_frames, width, height, first.rotation % 360, found.fps, frames,
                     frames / found.fps, found.vfr, path.stat().st_size)


@dataclass(frozen=True)
class PacketScan:
    """The packets of one video stream, in the order of the file, without decoding."""

    pts: np.ndarray  # int64 [N], time of showing, NO_PTS where the file gives none
    dts: np.ndarray  # int64 [N], time of decoding
    key: np.ndarray  # bool [N]
    discarded: int  # packets that an edit list hides
    timed: bool  # time stamps name frames: all there, all different, not made up
    fps: float
    vfr: bool

    @property
    def reordered(self) -> bool:
        """Whether frames are shown in another order than they are stored: B-frames."""
        return self.timed and bool((np.diff(self.pts) < 0).any())

    @property
    def key_numbers(self) -> np.ndarray:
        """Numbers, in order of showing, of the key frames."""
        return np.flatnonzero(np.isin(np.sort(self.pts), self.pts[self.key]))


@dataclass(frozen=True)
class Timeline:
    """When each frame of a video is shown, and where decoding can begin.

    Attributes:
        pts: int64 [N], times of showing in order, in units of the stream's time base; meaningless where `timed` is False.
        keys: Numbers of key frames in order of showing; of a file with open GOPs and a table they may be a few too small.
        key_dts: Time of showing of a key frame -> time of decoding.
        timed: Time stamps name frames.
        fps: Frames per second.
    """

    pts: np.ndarray
    keys: np.ndarray
    key_dts: dict[int, int]
    timed: bool
    fps: float


def timeline(container: Any, stream: Any) -> Timeline:
    """Read all packets of a stream of an open file.

    Raises:
        DecodeError: There is none, or no frame rate.
    """
    found = scan(container, stream)
    keys = found.key_numbers if found.timed else np.zeros(1, dtype=np.int64)
    key_dts = dict(zip(found.pts[found.key].tolist(), found.dts[found.key].tolist(), strict=True))
    return Timeline(np.sort(found.pts), keys, key_dts, found.timed, found.fps)


def has_table(container: Any) -> bool:
    """Whether the container is mp4, mov or the like, whose header names all samples."""
    return "mov" in container.format.name


def timeline_of_table(container: Any, stream: Any) -> Timeline | None:
    """The same where `has_table`, without reading all packets: gigabytes of a long recording.

    None where the table does not say it all: frames are not equally far apart, an edit list hides some, the file is written
    in fragments, or nothing shows that B-frames have times of showing. Some packets are read then, so open the file again.
    The check of a manifest compares what comes of a table with a decode of everything.
    """
    if stream.start_time is None:
        return None
    entries = stream.index_entries
    dts = np.fromiter((entry.timestamp for entry in entries), dtype=np.int64, count=len(entries))
    if len(dts) < 2 or len(dts) != stream.frames or any(entry.is_discard for entry in entries):
        return None
    step = int(dts[1] - dts[0])
    pts = stream.start_time + step * np.arange(len(dts), dtype=np.int64)
    first = [packet.pts for packet in islice(container.demux(stream), FIRST_PACKETS) if packet.size]
    if step <= 0 or (np.diff(dts) != step).any() or stream.duration != step * len(dts):
        return None
    if None in first or min(first) != pts[0] or not np.isin(first, pts).all():
        return None
    if stream.codec_context.has_b_frames and not (np.diff(first) < 0).any():
        return None
    keys = np.fromiter((entry.is_keyframe for entry in entries), dtype=bool, count=len(entries)).nonzero()[0]
    fps, _ = _rate(pts, stream)
    return Timeline(pts, keys, dict(zip(pts[keys].tolist(), dts[keys].tolist(), strict=True)), True, fps)


def frames_in_order(path: str | Path) -> Iterator[Callable[[], Frames]]:
    """Decode a whole file from its first frame on; of every frame a call that gives its picture [H, W, 3].

    Raises:
        DecodeError: A frame is damaged or of another size; the message says where.
    """
    import av

    count, size, picture = 0, None, Pictures()
    path = regular_file(path)
    container, stream = av_open(path)
    with container, Translate(path, (av.FFmpegError,), "PyAV", lambda: f"after {count} frames in order"):
        for frame in container.decode(stream):
            if frame.is_corrupt:
                raise DecodeError(f"frame {count} is damaged")
            if size is not None and size != (frame.width, frame.height):
                raise DecodeError(f"the picture size changes at frame {count}")
            size = (frame.width, frame.height)
            yield partial(picture, frame)
            count += 1


def some_in_order(path: str | Path, packets: PacketScan, wanted: np.ndarray, *, skip: bool = True,
                  ) -> Iterator[tuple[int, Callable[[], Frames]]]:
    """Decode a file in order and give some frames, as `frames_in_order` would; the decoder is told what nobody needs.

    Where time stamps say which packet is which frame, `decoded` leaves out what it may: the wanted frames come out the same,
    in about two thirds of the time.

    Args:
        path: The file.
        packets: Of the file, from `scan_packets`.
        wanted: int64, numbers of frames in order of showing, ascending, all different.
        skip: Leave out what nobody needs; else decode everything.
    Yields:
        Number of the frame, and a call that gives its picture [H, W, 3].
    Raises:
        DecodeError: A frame is damaged or of another size, or a wanted one does not come.
    """
    if not packets.timed or not skip:
        needed = set(wanted.tolist())
        yield from ((number, shown) for number, shown in enumerate(frames_in_order(path)) if number in needed)
        return
    import av

    numbers = dict(zip(np.sort(packets.pts)[wanted].tolist(), wanted.tolist(), strict=True))
    path, size, found, picture = regular_file(path), None, 0, Pictures()
    container, stream = av_open(path)
    with container, Translate(path, (av.FFmpegError,), "PyAV", lambda: f"after {found} of {len(wanted)} frames"):
        for frame in decoded(stream, container.demux(stream), lambda: numbers):
            if frame.pts not in numbers:
                continue
            if frame.is_corrupt:
                raise DecodeError(f"frame {numbers[frame.pts]} is damaged")
            if size is not None and size != (frame.width, frame.height):
                raise DecodeError(f"the picture size changes at frame {numbers[frame.pts]}")
            size = (frame.width, frame.height)
            found += 1
            yield numbers[frame.pts], partial(picture, frame)
    if found != len(wanted):
        raise DecodeError(f"{found} of {len(wanted)} frames come out of the decoder")


def decoded(stream: Any, packets: Iterable[Any], wanted: Callable[[], Container[int] | None]) -> Iterator[Any]:
    """Frames of these packets, without those that nobody wants and that no other frame is built on (B-frames, mostly).

    Args:
        stream: That the packets are of.
        packets: In the order of the file.
        wanted: Gives the time stamps that are wanted now; None is all.
    """
    context = stream.codec_context
    skips = context.codec.canonical_name in MAY_SKIP
    for packet in packets:
        now = wanted() if skips and packet.size else None
        context.skip_frame = "DEFAULT" if now is None or packet.pts in now else "NONREF"
        yield from packet.decode()


def scan_packets(path: str | Path) -> tuple[PacketScan, int]:
    """Give the packets and, for mp4 and mov alone (others' headers guess), the number of frames that is promised."""
    import av

    path = regular_file(path)
    with Translate(path, (av.FFmpegError,), "PyAV"):
        container, stream = av_open(path)
        with container:
            return scan(container, stream), stream.frames if "mov" in container.format.name else 0


def scan(container: Any, stream: Any) -> PacketScan:
    """Read all packets of a stream of an open file.

    Raises:
        DecodeError: There is none, or no frame rate.
    """
    pts, dts, key, discarded = [], [], [], 0
    for packet in container.demux(stream):
        if not packet.size:
            continue
        if packet.is_discard:
            discarded += 1
            continue
        pts.append(NO_PTS if packet.pts is None else packet.pts)
        dts.append(pts[-1] if packet.dts is None else packet.dts)
        key.append(packet.is_keyframe)
    if not pts:
        raise DecodeError("it holds no frame")
    shown = np.asarray(pts, dtype=np.int64)
    # AVI has no times of showing, and some writers of mp4 leave them out: B-frames then look as if shown as they are stored
    as_stored = container.format.name == "avi" or bool((np.diff(shown) > 0).all())
    made_up = bool(stream.codec_context.has_b_frames) and as_stored
    timed = not made_up and NO_PTS not in pts and len(np.unique(shown)) == len(shown)
    fps, vfr = _rate(np.sort(shown) if timed else None, stream)
    return PacketScan(shown, np.asarray(dts, dtype=np.int64), np.asarray(key), discarded, timed, fps, vfr)


def _rate(shown: np.ndarray | None, stream: Any) -> tuple[float, bool]:
    """Mean frames per second, and whether it varies; the header's figure where the time stamps agree with it."""
    nominal = float(stream.average_rate or stream.guessed_rate or stream.base_rate or 0)
    if shown is None or len(shown) < 2:
        if nominal <= 0:
            raise DecodeError("neither its header nor its time stamps give a frame rate")
        return nominal, False
    lasts = np.diff(shown) * float(stream.time_base)
    fps = 1.0 / float(lasts.mean())
    median = float(np.median(lasts))
    vfr = bool((np.abs(lasts - median) > VFR_SHARE * median).any())
    return (nominal if nominal > 0 and abs(fps / nominal - 1) < SAME_FPS else fps), vfr


class Pictures:
    """Turns PyAV frames of one file into pictures; keeps the converter, which a frame would make anew (0.4 to 1 ms)."""

    def __init__(self) -> None:
        from av.video.reformatter import VideoReformatter

        self._converter = VideoReformatter()

    def __call__(self, frame: Any) -> Frames:
        """Pixels [H, W, 3] as a player shows them.

        Raises:
            DecodeError: The picture is turned by an odd angle.
        """
        return _turned(self._converter.reformat(frame, format="rgb24").to_ndarray(), frame.rotation)


def _turned(pixels: Frames, rotation: int) -> Frames:
    turns, rest = divmod(rotation, 90)
    if rest:
        raise DecodeError(f"it asks players to turn the picture by {rotation} degrees, only 90, 180, 270 can be")
    return np.rot90(pixels, turns % 4)


def av_open(path: Path) -> tuple[Any, Any]:
    """Open the stream that players choose (not cover art), with one thread; tags in odd encodings do no harm."""
    import av

    av.logging.set_level(None)
    with Translate(path, (av.FFmpegError,), "PyAV"):
        container = av.open(str(path), metadata_errors="ignore")
    stream = container.streams.best("video")
    if stream is None:
        container.close()
        raise DecodeError("it has no video stream")
    stream.codec_context.thread_count = 1
    return container, stream
