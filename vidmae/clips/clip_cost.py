"""CPU time of a clip: a few videos of a manifest are cut as training cuts them, when the manifest is made.

    manifests/s.json    "clip_cost": {"ms_per_clip": {"1": 355.0, "16": 147.0}, "near_ms_per_clip": 60.0, "videos": 8, ...,
                                      "cpu": "AMD EPYC ..."}

A plan compares it with the cores of a job (vidmae/runs/step_time.py). It is CPU time of one core, from the file to uint8
frames of the paper's clip; waiting for the disk is not in it. It is part of no hash. No torch here before a call.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vidmae.footage.killable import KillableProcess
from vidmae.footage.manifest import Manifest, ManifestError, Summary, read_summary, write_summary
from vidmae.settings.config import DataConfig, ModelConfig

if TYPE_CHECKING:
    from vidmae.clips.cutting import Cutter

REPEATS = (1, 16)  # clips per opened video: those of the recipes
CUT = (*((repeats, "own") for repeats in REPEATS), (16, "near"))  # and where their windows are: data.repeat_window
VIDEOS = 8
LIMIT_S = 20.0  # for all of them; one that is begun may take VIDEO_LIMIT_S longer
VIDEO_LIMIT_S = 30.0


def record_clip_cost(path: Path, summary: Summary, known: Summary | None) -> Summary:
    """Measure, and write the result into the totals beside a manifest; take over what is known of the same contents.

    Args:
        path: The manifest.
        summary: Its totals.
        known: The totals that stood there before, or None.
    Returns:
        The totals; without a cost where no video could be read in time.
    """
    if known and known.clip_cost and known.content_sha256 == summary.content_sha256:
        found: dict[str, Any] | None = known.clip_cost
    else:
        found = measure(Manifest.read(path)) if summary.videos else None
    if found:
        summary = replace(summary, clip_cost=found)
        write_summary(path, summary)
    return summary


def known_summary(path: Path) -> Summary | None:
    """The totals of a manifest that may be there."""
    try:
        return read_summary(path)
    except ManifestError:
        return None


def measure(manifest: Manifest, *, videos: int = VIDEOS, limit_s: float = LIMIT_S) -> dict[str, Any] | None:
    """Cut 1 and 16 clips out of some videos, and 16 near each other, in a process that can be killed; take its CPU time.

    Args:
        manifest: Of one row or more.
        videos: At most so many, spread over its rows.
        limit_s: After so many seconds no further video is begun.
    Returns:
        Means over the videos as JSON, or None where none could be read.
    """
    model, data = ModelConfig(), DataConfig()
    process: KillableProcess[tuple[int, int, str], float] = KillableProcess(
        _Timed(manifest), time_limit_s=VIDEO_LIMIT_S, max_growth_bytes=2**40, set_up=_Ready(manifest.decoders))
    ends = time.monotonic() + limit_s
    spread = np.unique(((np.arange(videos) + 0.5) / videos * len(manifest)).astype(int))
    order = np.random.default_rng(0).permutation(spread).tolist()  # where time runs out, those that were cut are spread, too
    found: list[list[float]] = []
    try:
        process((order[0], *CUT[0]))  # the first call of a process pays for what it loads
        for row in order:
            if found and time.monotonic() > ends:
                break
            times_s = [process((row, *how))[0] for how in CUT]
            if None not in times_s:
                found.append([float(s or 0.0) * 1000 / n for s, (n, _) in zip(times_s, CUT, strict=True)])
            elif time.monotonic() > ends:
                break
    finally:
        process.end()
    if not found:
        return None
    *means, near = np.mean(found, axis=0).round(2).tolist()
    return {"ms_per_clip": {str(n): ms for n, ms in zip(REPEATS, means, strict=True)}, "near_ms_per_clip": near,
            "videos": len(found), "num_frames": model.num_frames, "img_size": model.img_size,
            "sampling_rate": data.sampling_rate, "target_fps": data.target_fps, "cpu": cpu_name()}


class _Ready:
    """Sets up the process that cuts: one thread, as in training."""

    def __init__(self, decoders: Sequence[str]) -> None:
        self._decoders = decoders

    def __call__(self) -> None:
        import torch

        import vidmae.clips.cutting  # noqa: F401  # its import is no clip's time
        from vidmae.footage.open_video import import_decoder

        torch.set_num_threads(1)
        for decoder in self._decoders:
            import_decoder(decoder)


class _Timed:
    """CPU seconds of cutting so many clips out of one row; called in a process of its own."""

    def __init__(self, manifest: Manifest) -> None:
        self._manifest = manifest

    def __call__(self, what: tuple[int, int, str]) -> float:
        from vidmae.clips.order import Place

        row, repeats, window = what
        cutter = paper_cutter(self._manifest, window)
        out = [np.empty((repeats, *shape), dtype) for shape, dtype in cutter.outputs]
        places = [Place(0, row, row, repeat) for repeat in range(repeats)]
        began_s = time.process_time()
        cutter.cut(row, places, *out)
        return time.process_time() - began_s


def paper_cutter(manifest: Manifest, window: str = "own") -> Cutter:
    """Cuts the paper's clips: the defaults of the configuration, 16 frames of 224 px at 3.75 fps."""
    from vidmae.clips.cutting import ClipSpec, Cutter

    model, data = ModelConfig(), DataConfig()
    return Cutter(manifest, replace(ClipSpec.of(model, data, model.shape().num_tokens), repeat_window=window), seed=0)


def cpu_name() -> str:
    """What this machine calls its processor; empty where it does not say."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
