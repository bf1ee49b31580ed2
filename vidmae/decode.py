"""The only import of the video decoders: a file and frame numbers in, pictures out.

Frames are asked for by number in the order in which a player shows them, 0 to num_frames - 1. What was measured:
decord gives wrong frames without a word in files with open GOPs, edit lists or packed B-frames, where PyAV by
number is right or says so; a decoder can also hang. So `verify.py` compares a backend with a decode in order when the
manifest is made, in a process that can be killed (dmlc/decord#220, #269, #363).

One rule for rotation, whatever the backend: pictures come as a player shows them, turned by the display matrix.
Messages hold no file name (names of children's footage are private); callers say which manifest row it was.

Shape letters: T frames asked for, N frames in the file, H W height and width in pixels as shown, 3 = red green blue.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

Frames = np.ndarray  # uint8 [T, H, W, 3]

SAME_FPS = 0.01  # a measured rate this close (relative) to the header's is the header's
VFR_SHARE = 0.25  # a frame that lasts this much (relative) longer or shorter than the median one: variable rate
NO_PTS = np.iinfo(np.int64).min


class DecodeError(ValueError):
    """A video cannot be read, or would be read wrongly. The message holds the reason, not the file's name."""


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


class VideoReader(ABC):
    """One open video. Use it as a context manager, in the process that opened it (a forked copy hangs or aborts)."""

    num_frames: int
    fps: float

    @staticmethod
    @abstractmethod
    def load_library() -> None:
        """Import the decoder: seconds on a cold file system, that the first video would have to wait for."""

    @abstractmethod
    def _read_sorted(self, indices: np.ndarray) -> Frames:
        """Give the frames of a sorted list of different numbers."""

    @abstractmethod
    def close(self) -> None:
        """Let go of the file."""

    def read(self, indices: Sequence[int] | np.ndarray) -> Frames:
        """Decode frames by number.

        Args:
            indices: Frame numbers in [0, num_frames), in any order; a number may come more than once.
        Returns:
            uint8 [T, H, W, 3], one picture per entry of `indices`, in that order.
        Raises:
            DecodeError: a number is out of range, or the file is damaged there.
        """
        asked = np.asarray(indices, dtype=np.int64)
        if asked.ndim != 1 or asked.size == 0:
            raise DecodeError(f"frame numbers must be a list of at least one, got shape {asked.shape}")
        if asked.min() < 0 or asked.max() >= self.num_frames:
            raise DecodeError(f"frames {asked.min()} to {asked.max()} are asked, the video has [0, {self.num_frames})")
        wanted, place = np.unique(asked, return_inverse=True)
        frames = self._read_sorted(wanted)
        return frames if np.array_equal(wanted, asked) else frames[place]

    @property
    def width(self) -> int:
        """Width in pixels of the picture as shown."""
        return self._size()[1]

    @property
    def height(self) -> int:
        """Height in pixels of the picture as shown."""
        return self._size()[0]

    def _size(self) -> tuple[int, int]:
        if not hasattr(self, "_shown_size"):
            frame = self.read([0])
            self._shown_size = (int(frame.shape[1]), int(frame.shape[2]))
        return self._shown_size

    def __enter__(self) -> VideoReader:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()


class _DecordReader(VideoReader):
    """decord: fast on short clips; scans the file at each open (11 ms a minute of video)."""

    @staticmethod
    def load_library() -> None:
        import decord  # noqa: F401

    def __init__(self, path: Path) -> None:
        # DECORD_EOF_RETRY_MAX stays at decord's 10,240: the retries count time, not attempts, and at 256 ordinary mp4
        # files failed on a busy machine. What stalls all the same is found and killed when the manifest is made.
        import decord

        decord.logging.set_level(decord.logging.QUIET)
        self._path = path
        # decord writes the name of a file that it cannot open to stderr: it gets one that says nothing
        self._file = path.open("rb")
        nameless = Path(f"/proc/self/fd/{self._file.fileno()}")
        with self._failure_as_decode_error(decord):
            # one thread: with its default of all cores decord fails on every real SSV2 webm that was tried
            self._reader: Any = decord.VideoReader(str(nameless if nameless.exists() else path), ctx=decord.cpu(0),
                                                   num_threads=1)
            self.num_frames = len(self._reader)
            self.fps = float(self._reader.get_avg_fps())
        if self.num_frames < 1:
            raise DecodeError("decord finds no frame")

    def _failure_as_decode_error(self, decord: Any) -> _Translate:
        return _Translate(self._path, (decord.DECORDError, RuntimeError, IndexError), "decord")

    def _read_sorted(self, indices: np.ndarray) -> Frames:
        import decord

        with self._failure_as_decode_error(decord):
            frames = self._reader.get_batch(indices.tolist()).asnumpy()
            self._reader.seek(0)  # else it decodes ahead and keeps the frames (dmlc/decord#197, #208)
        return frames

    def close(self) -> None:
        self._reader = None
        self._file.close()


class _PyAvReader(VideoReader):
    """PyAV by number: seek to the key frame at or before the frame, decode on, recognise frames by their time stamp.

    Where time stamps are missing, double or made up (AVI with B-frames), it decodes from the first frame and counts:
    slow on long files, but right.
    """

    @staticmethod
    def load_library() -> None:
        import av  # noqa: F401

    def __init__(self, path: Path) -> None:
        self._path = path
        self._frames: Iterator[Any] = iter(())
        self._next = 0  # number of the frame that `_frames` gives next
        self._open()
        with self._failure_as_decode_error():
            scan = _scan(self._container, self._stream)
            self.fps = scan.fps
            self._timed = scan.timed
            self._pts = np.sort(scan.pts)
            self._keys = np.flatnonzero(np.isin(self._pts, scan.pts[scan.key])) if scan.timed else np.zeros(1, int)
            self._key_dts = dict(zip(scan.pts[scan.key].tolist(), scan.dts[scan.key].tolist(), strict=True))
            self._restart()
            self.num_frames = len(scan.pts) if scan.timed else sum(1 for _ in self._frames)
        if self.num_frames < 1:
            raise DecodeError("it holds no frame")
        self._next = self.num_frames

    def _failure_as_decode_error(self) -> _Translate:
        import av

        return _Translate(self._path, (av.FFmpegError, StopIteration), "PyAV")

    def _open(self) -> None:
        self._container, self._stream = _av_open(self._path)

    def _restart(self) -> None:
        self.close()
        self._open()
        self._frames, self._next = self._container.decode(self._stream), 0

    def _read_sorted(self, indices: np.ndarray) -> Frames:
        out: Frames | None = None
        with self._failure_as_decode_error():
            for place, index in enumerate(indices.tolist()):
                picture = _picture(self._timed_frame(index) if self._timed else self._counted_frame(index))
                if out is None:
                    out = np.empty((len(indices), *picture.shape), dtype=np.uint8)
                if picture.shape != out.shape[1:]:
                    raise DecodeError(f"the picture size changes at frame {index}")
                out[place] = picture
        assert out is not None
        return out

    def _counted_frame(self, index: int) -> Any:
        if index < self._next:
            self._restart()
        while True:
            frame = next(self._frames)
            self._next += 1
            if self._next > index:
                return frame

    def _timed_frame(self, index: int) -> Any:
        key = int(np.searchsorted(self._keys, index, side="right")) - 1
        ahead = self._next <= index and (key < 0 or self._keys[key] <= self._next)
        if ahead and (frame := self._decode_on(index)) is not None:
            return frame
        while key > 0:  # a container may land later than asked: then try the key frame before
            if self._seek(int(self._keys[key])) and (frame := self._decode_on(index)) is not None:
                return frame
            key -= 1
        self._restart()
        if (frame := self._decode_on(index)) is None:
            raise DecodeError(f"frame {index} of {self.num_frames} does not come out of the decoder")
        return frame

    def _decode_on(self, index: int) -> Any:
        target = int(self._pts[index])
        for frame in self._frames:
            if frame.pts is None or frame.pts > target:
                break
            if frame.pts == target:
                self._next = index + 1
                return frame
        self._next = self.num_frames  # the position is lost: the next read seeks
        return None

    def _seek(self, index: int) -> bool:
        pts = int(self._pts[index])
        # mov's index is in decode times, a little before the times of showing; others index by time of showing
        goal = self._key_dts.get(pts, pts) if "mov" in self._container.format.name else pts
        self._container.seek(goal, stream=self._stream, backward=True)
        packets = self._container.demux(self._stream)
        first = next(packets)
        if first.pts is None or first.pts > pts:
            return False  # beyond the key frame: frames shown before the next one would be built on nothing
        self._frames = (frame for packet in _chain(first, packets) for frame in packet.decode())
        self._next = index
        return True

    def close(self) -> None:
        self._frames = iter(())
        self._container.close()


_BACKENDS: dict[str, type[VideoReader]] = {"decord": _DecordReader, "pyav": _PyAvReader}
BACKENDS = tuple(_BACKENDS)


def open_video(path: str | Path, backend: str = "decord") -> VideoReader:
    """Open a video for reading frames by number.

    Args:
        path: The file. It is made absolute, so that a name with a colon is not taken for a network address.
        backend: `decord` (default; fast on short clips) or `pyav` (right on more files, faster on long recordings).
    Returns:
        A reader; use it in a `with` block, in this process.
    Raises:
        ValueError: there is no such backend.
        DecodeError: the file cannot be read; the message does not hold its name.
    """
    return _backend(backend)(_regular_file(path))


def import_backend(backend: str) -> None:
    """Import what a backend needs, before the first video does.

    Raises:
        ValueError: there is no such backend.
    """
    _backend(backend).load_library()


def _backend(name: str) -> Any:
    if name not in _BACKENDS:
        raise ValueError(f"decoder backend {name!r} is unknown; known: {', '.join(_BACKENDS)} (set data.decoder)")
    return _BACKENDS[name]


def probe(path: str | Path) -> VideoInfo:
    """Say what a file holds: the packets are counted and the first frame is decoded, the rest is not.

    Raises:
        DecodeError: it is no video, or its first frame cannot be decoded.
    """
    import av

    path = _regular_file(path)
    with _Translate(path, (av.FFmpegError, StopIteration), "PyAV"):
        container, stream = _av_open(path)
        with container:
            scan = _scan(container, stream)
            info = (container.format.name.split(",")[0], stream.codec_context.codec.canonical_name)
            has_b_frames = scan.reordered or bool(stream.codec_context.has_b_frames)
        container, stream = _av_open(path)
        with container:
            first = next(container.decode(stream))
            height, width, _ = _picture(first).shape
    frames = len(scan.pts)
    return VideoInfo(*info, has_b_frames, width, height, first.rotation % 360, scan.fps, frames, frames / scan.fps,
                     scan.vfr, path.stat().st_size)


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


def frames_in_order(path: str | Path) -> Iterator[Callable[[], Frames]]:
    """Decode a whole file from its first frame on; of every frame a call that gives its picture [H, W, 3].

    Raises:
        DecodeError: A frame is damaged or of another size; the message says where.
    """
    import av

    count, size = 0, None
    path = _regular_file(path)
    container, stream = _av_open(path)
    with container, _Translate(path, (av.FFmpegError,), "PyAV", lambda: f"after {count} frames in order"):
        for frame in container.decode(stream):
            if frame.is_corrupt:
                raise DecodeError(f"frame {count} is damaged")
            if size is not None and size != (frame.width, frame.height):
                raise DecodeError(f"the picture size changes at frame {count}")
            size = (frame.width, frame.height)
            yield partial(_picture, frame)
            count += 1


def scan_packets(path: str | Path) -> tuple[PacketScan, int]:
    """Give the packets and, for mp4 and mov alone (others' headers guess), the number of frames that is promised."""
    import av

    path = _regular_file(path)
    with _Translate(path, (av.FFmpegError,), "PyAV"):
        container, stream = _av_open(path)
        with container:
            return _scan(container, stream), stream.frames if "mov" in container.format.name else 0


def _scan(container: Any, stream: Any) -> PacketScan:
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
    made_up = container.format.name == "avi" and bool(stream.codec_context.has_b_frames)
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


def _picture(frame: Any) -> np.ndarray:
    """Pixels of a PyAV frame as a player shows them."""
    pixels: np.ndarray = frame.to_ndarray(format="rgb24")
    turns, rest = divmod(frame.rotation, 90)
    if rest:
        raise DecodeError(f"it asks players to turn the picture by {frame.rotation} degrees, only 90, 180, 270 can be")
    return np.rot90(pixels, turns % 4)


def _av_open(path: Path) -> tuple[Any, Any]:
    """Open the stream that players choose (not cover art), with one thread; tags in odd encodings do no harm."""
    import av

    av.logging.set_level(None)
    with _Translate(path, (av.FFmpegError,), "PyAV"):
        container = av.open(str(path), metadata_errors="ignore")
    stream = container.streams.best("video")
    if stream is None:
        container.close()
        raise DecodeError("it has no video stream")
    stream.codec_context.thread_count = 1
    return container, stream


def _chain(first: Any, rest: Iterator[Any]) -> Iterator[Any]:
    yield first
    yield from rest


def _regular_file(path: str | Path) -> Path:
    """Make the path absolute; refuse what is no file with bytes in it (opening a pipe would wait for ever)."""
    path = Path(path).absolute()
    try:
        if not path.is_file():
            raise DecodeError("no regular file" if path.exists() else "no such file")
        if not path.stat().st_size:
            raise DecodeError("the file is empty (0 bytes)")
        with path.open("rb"):
            return path
    except OSError as error:
        raise DecodeError(f"the file cannot be opened: {error.strerror}") from None


class _Translate:
    """Turns a library's exceptions into DecodeError without the file's name."""

    def __init__(
        self, path: Path, kinds: tuple[type[BaseException], ...], who: str, where: Callable[[], str] | None = None
    ) -> None:
        self._path, self._kinds, self._who, self._where = path, kinds, who, where

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if error is None or isinstance(error, DecodeError) or not isinstance(error, self._kinds):
            return
        said = getattr(error, "strerror", None) or str(error) or "the video ends too early"
        # decord's lines: "[time] source.cc:151: Check failed: ... ERROR cannot find video stream"
        said = re.sub(rf"\[\d\d:\d\d:\d\d\] \S+: |\[?\S*({re.escape(self._path.name)}|/proc/self/fd/)\S*\]?", "", said)
        where = f" {self._where()}" if self._where else ""
        raise DecodeError(f"{self._who} cannot read it{where}: {' '.join(said.split())[:160]}") from None
