"""A run that is interrupted must end as if nothing had happened: how to interrupt one, and what is compared."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy
import torch

from vidmae.runs.metrics import read_metrics
from vidmae.runs.record import RunFolder

TIMINGS = {"step_s", "save_s", "data_wait", "clips_per_s", "mfu", "peak_gib", "slowest_rank", "straggle"}


def untimed(run: RunFolder) -> list[dict[str, Any]]:
    """metrics.jsonl less the timings."""
    return [{k: v for k, v in m.items() if k not in TIMINGS} for m in read_metrics(run)]


def weights(run: RunFolder) -> dict[str, np.ndarray]:
    return safetensors.numpy.load_file(run.weights)


def last_checkpoint(run: RunFolder) -> Path:
    return max(run.checkpoints.glob("step_*"))


def differences(run: RunFolder, whole: RunFolder) -> list[str]:
    """What of a run is not bit for bit that of another: metrics, exported weights, every tensor of the last checkpoint."""
    found = [] if untimed(run) == untimed(whole) else ["metrics.jsonl"]
    ours, theirs = weights(run), weights(whole)
    found += [f"weights {name}" for name in theirs if not np.array_equal(ours.get(name), theirs[name])]
    mine, others = last_checkpoint(run), last_checkpoint(whole)
    shards = sorted(str(p.relative_to(others)) for p in others.rglob("*.pt"))
    if mine.name != others.name or shards != sorted(str(p.relative_to(mine)) for p in mine.rglob("*.pt")):
        return [*found, f"the last checkpoint is {mine.name}, not {others.name}, or has other files"]
    for shard in shards:
        states = [torch.load(folder / shard, weights_only=False, map_location="cpu") for folder in (mine, others)]
        found += [f"{shard}: {where}" for where in _unequal(*states)]
    return found


def _unequal(a: Any, b: Any, where: str = "") -> list[str]:
    """Paths inside two nested states at which they are not the same, tensors bit for bit."""
    if isinstance(b, torch.Tensor):
        same = isinstance(a, torch.Tensor) and a.dtype == b.dtype and a.shape == b.shape and torch.equal(_bits(a), _bits(b))
        return [] if same else [where]
    if isinstance(b, dict):
        if not isinstance(a, dict) or list(map(str, a)) != list(map(str, b)):
            return [where]
        return [path for key in b for path in _unequal(a[key], b[key], f"{where}.{key}")]
    if isinstance(b, (list, tuple)):
        if len(a) != len(b):
            return [where]
        return [path for i, (x, y) in enumerate(zip(a, b, strict=True)) for path in _unequal(x, y, f"{where}.{i}")]
    plain = (int, float, str, bool, type(None), torch.Size, torch.dtype)
    return [] if not isinstance(b, plain) or a == b else [where]


def _bits(tensor: torch.Tensor) -> torch.Tensor:
    """Bytes, of which NaN is equal to itself: deepspeed's padding is never written and may be anything."""
    return tensor.detach().contiguous().reshape(-1).view(torch.uint8)


def wait_for_step(run: RunFolder, step: int, *, timeout_s: float = 120, alive: Callable[[], bool] = lambda: True) -> None:
    """Wait until metrics.jsonl has the line of a step.

    Raises:
        TimeoutError: It does not come, or what should write it is no longer alive.
    """
    deadline = time.monotonic() + timeout_s
    while True:
        lines = run.metrics.read_text().splitlines() if run.metrics.exists() else []
        if lines and lines[-1].endswith("}") and json.loads(lines[-1])["step"] >= step:
            return
        if time.monotonic() > deadline or not alive():
            raise TimeoutError(f"{run.path.name} does not reach step {step}: {lines[-1:]}")
        time.sleep(0.02)
