"""Where what was measured of the videos of a manifest lies, and the program that measures them where that was not done."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

from vidmae.footage.manifest import read_summary
from vidmae.ranks.local_program import run_program


def features_of(manifest: Path, out: Path, sample: int) -> Path:
    """Where what was measured of a version of a manifest lies."""
    return out / f"features-{manifest.stem}-{read_summary(manifest).content_sha256[:8]}-{sample}.csv"


def look(manifest: Path, out: Path, sample: int, *, workers: int, time_limit_s: float) -> int:
    """Measure the videos where that was not done before; the exit code.

    Args:
        manifest: Of the videos.
        out: Folder of what is measured; it exists, and is the owner's alone.
        sample: Moments of a video at most.
        workers: Processes that read videos.
        time_limit_s: For a video, before it is left out.
    """
    features = features_of(manifest, out, sample)
    if features.exists():
        return 0
    words = [str(manifest), str(features.absolute()), "--sample", str(sample), "--workers", str(workers),
             "--time-limit-s", str(time_limit_s)]
    return run_program("vidmae.insight.footage_survey", words, Console(stderr=True), "recordings", workers=workers)
