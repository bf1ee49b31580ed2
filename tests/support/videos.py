"""Makes small videos of many kinds with ffmpeg at test time, and the reference frames to judge readers by.

Reference frames come from ffmpeg's own sequential decode (raw RGB out of a pipe), never from the code under test.
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np

from tests.support.facilities import ffmpeg_exe

X264 = ["-c:v", "libx264", "-pix_fmt", "yuv420p", "-threads", "1"]
VP9 = ["-c:v", "libvpx-vp9", "-pix_fmt", "yuv420p", "-deadline", "realtime", "-cpu-used", "8", "-b:v", "300k"]


def ffmpeg(*args: str | Path, timeout_s: float = 300) -> None:
    """Run ffmpeg quietly; its complaint becomes the error."""
    command = [ffmpeg_exe(), "-hide_banner", "-loglevel", "error", "-nostdin", "-y", *map(str, args)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=timeout_s)
    assert done.returncode == 0, done.stderr


def _source(size: str, fps: float, seconds: float) -> list[str]:
    return ["-f", "lavfi", "-i", f"testsrc2=size={size}:rate={fps}:duration={seconds}"]


def h264(path: Path, *, size: str = "128x96", fps: float = 30, seconds: float = 4, extra: tuple[str, ...] = ()) -> Path:
    """H.264 as x264 makes it: GOP 250, three B-frames."""
    ffmpeg(*_source(size, fps, seconds), *X264, *extra, path)
    return path


def vp9(path: Path) -> Path:
    """Something like an SSV2 clip: VP9 webm, 12 frames a second, 4 seconds."""
    ffmpeg(*_source("106x60", 12, 4), *VP9, path)
    return path


def short_gop(path: Path) -> Path:
    """Closed GOPs of 12 frames with B-frames: many key frames to seek to."""
    return h264(path, extra=("-g", "12", "-bf", "2"))


def open_gop(path: Path) -> Path:
    """Open GOPs: frames shown before a key frame are decoded after it and need the GOP before."""
    return h264(path, seconds=3, extra=("-g", "15", "-bf", "3", "-x264-params", "open-gop=1:scenecut=0"))


def hevc(path: Path) -> Path:
    """H.265 with x265's defaults (open GOPs)."""
    x265 = ["-c:v", "libx265", "-pix_fmt", "yuv420p", "-x265-params", "log-level=error:keyint=20:pools=none"]
    ffmpeg(*_source("128x96", 30, 3), *x265, path)
    return path


def vfr(path: Path) -> Path:
    """Variable frame rate: two of three frames are dropped in the second half."""
    drop = ["-vf", "select='lt(n,60)+not(mod(n,3))'", "-fps_mode", "vfr"]
    ffmpeg(*_source("128x96", 30, 4), *drop, *X264, path)
    return path


def offset(path: Path) -> Path:
    """Time stamps that begin at 5 seconds."""
    ffmpeg(*_source("128x96", 30, 2), "-output_ts_offset", "5", *X264, path)
    return path


def odd_size(path: Path) -> Path:
    """Width and height are odd numbers."""
    cut = ["-vf", "format=yuv444p,crop=127:71:exact=1"]
    ffmpeg(*_source("128x72", 25, 2), *cut, "-c:v", "libx264", "-threads", "1", path)
    return path


def mpeg4_avi(path: Path) -> Path:
    """MPEG-4 part 2 in AVI, as UCF101 has it: no B-frames."""
    ffmpeg(*_source("128x96", 25, 3), "-c:v", "mpeg4", "-g", "12", "-q:v", "4", path)
    return path


def b_frames_avi(path: Path) -> Path:
    """H.264 with B-frames in AVI, which has no times of showing: decord guesses, and not always alike."""
    return h264(path, extra=("-bf", "3", "-g", "50"))


def with_audio(path: Path) -> Path:
    """H.264 with a sound track beside it."""
    tone = ["-f", "lavfi", "-i", "sine=duration=2"]
    ffmpeg(*_source("128x96", 30, 2), *tone, *X264, "-c:a", "aac", "-shortest", path)
    return path


def rotated(path: Path, degrees: int = 90) -> Path:
    """Upright pixels with a display matrix that tells players to turn them by `degrees` counter-clockwise."""
    plain = path.with_name(f"plain-{path.name}")
    h264(plain, seconds=1)
    ffmpeg("-display_rotation", str(degrees), "-i", plain, "-c", "copy", path)
    plain.unlink()
    return path


def audio_only(path: Path) -> Path:
    """An mp4 without a picture."""
    ffmpeg("-f", "lavfi", "-i", "sine=duration=1", "-c:a", "aac", path)
    return path


def empty(path: Path) -> Path:
    """Zero bytes."""
    path.write_bytes(b"")
    return path


def text(path: Path) -> Path:
    """Words under a video's name."""
    path.write_text("this is no video\n" * 100)
    return path


def truncated(path: Path) -> Path:
    """An mp4 that lost its end, and with it its index (the index is written last)."""
    return _cut(h264(path), 0.6)


def truncated_faststart(path: Path) -> Path:
    """An mp4 that lost its end but kept its index, which promises frames that are gone."""
    return _cut(h264(path, size="320x240", extra=("-movflags", "+faststart", "-g", "30")), 0.6)


def damaged(path: Path) -> Path:
    """An mp4 with a hole of zeros in the middle of its pictures."""
    h264(path, size="320x240", extra=("-g", "30",))
    data = bytearray(path.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 6000] = bytes(6000)
    path.write_bytes(data)
    return path


def _cut(path: Path, share: float) -> Path:
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    return path


# name of the file -> how it is made; both backends must read these rightly
GOOD: dict[str, Callable[[Path], Path]] = {
    "h264.mp4": h264,
    "vp9.webm": vp9,
    "short_gop.mp4": short_gop,
    "vfr.mp4": vfr,
    "offset.mp4": offset,
    "odd_size.mp4": odd_size,
    "mpeg4.avi": mpeg4_avi,
    "audio.mkv": with_audio,
    "rotated.mov": rotated,
}

# name of the file -> how it is made; no backend can read these rightly
BAD: dict[str, Callable[[Path], Path]] = {
    "empty.mp4": empty,
    "text.mp4": text,
    "audio_only.mp4": audio_only,
    "truncated.mp4": truncated,
    "truncated_faststart.mp4": truncated_faststart,
    "damaged.mp4": damaged,
}


def reference_frames(path: Path, width: int, height: int) -> np.ndarray:
    """Decode a whole file in order with the ffmpeg program, uint8 [N, H, W, 3], turned as a player turns it."""
    command = [ffmpeg_exe(), "-loglevel", "error", "-nostdin", "-i", str(path), "-map", "0:v:0"]
    command += ["-fps_mode", "passthrough", "-f", "rawvideo", "-pix_fmt", "rgb24", "-"]
    done = subprocess.run(command, capture_output=True, timeout=120)
    frames = np.frombuffer(done.stdout, dtype=np.uint8)
    return frames.reshape(-1, height, width, 3)
