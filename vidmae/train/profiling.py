"""What torch's profiler sees of some steps of a real run: log.profile_steps, on rank 0, once per job.

    profile/trace.json.gz    every operation and kernel on a time line; chrome://tracing and ui.perfetto.dev show it
    profile/operations.csv   the slowest operations: calls, milliseconds on the GPU and on the CPU per step

Names of operations and shapes of a model are in them, nothing of the footage.
"""

from __future__ import annotations

import csv
import io
import os
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from vidmae.runs.record import RunFolder, make_private_folder, write_atomic

WARM_UP_STEPS = 3  # compilation, caches and the allocator settle
MOST_OPERATIONS = 50
COLUMNS = ("operation", "calls_per_step", "gpu_ms_per_step", "cpu_ms_per_step", "share_pct")


class StepProfiler:
    """Records steps after a warm-up; with no steps to record it does nothing.

    Args:
        run: Where the files go.
        steps: To record; 0 records none.
        device: Of this rank.
    """

    def __init__(self, run: RunFolder, steps: int, device: torch.device) -> None:
        self._run, self._left, self._steps, self._warm_up = run, steps, 0, WARM_UP_STEPS
        self._activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if device.type == "cuda" else [])]
        self._profile: profile | None = None

    def before_step(self) -> None:
        """Start recording once the warm-up is over."""
        if self._left and self._profile is None:
            if self._warm_up:
                self._warm_up -= 1
                return
            self._profile = profile(activities=self._activities)
            self._profile.start()

    def after_step(self) -> str | None:
        """Count a step; once all are recorded, what was written."""
        if self._profile is None:
            return None
        self._left, self._steps = self._left - 1, self._steps + 1
        return self.finish() if self._left == 0 else None

    def finish(self) -> str | None:
        """Write what was recorded, also of fewer steps than were asked for; None where there is nothing."""
        recorded, self._profile, self._left = self._profile, None, 0
        if recorded is None:
            return None
        recorded.stop()
        if not self._steps:
            return None
        folder = make_private_folder(self._run.profile)
        trace = folder / f".trace.{os.getpid()}.json.gz"
        try:
            recorded.export_chrome_trace(str(trace))
            trace.chmod(0o600)
            trace.replace(folder / "trace.json.gz")
        finally:
            trace.unlink(missing_ok=True)
        rows = operations(recorded.key_averages(), self._steps)
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerows([COLUMNS, *rows])
        write_atomic(folder / "operations.csv", text.getvalue().encode())
        slowest = f"; slowest: {rows[0][0]}, {rows[0][4]} %" if rows else ""
        return f"profile of {self._steps} steps: {folder}/trace.json.gz and operations.csv{slowest}"


def operations(averages: Any, steps: int) -> list[tuple[str, float, float, float, float]]:
    """Rows of operations.csv, the slowest first: by time on the GPU where there is one, else on the CPU.

    Args:
        averages: `key_averages()` of a profile; times of an operation itself, in microseconds.
        steps: Recorded.
    """
    found = [(str(e.key), e.count, float(getattr(e, "self_device_time_total", 0.0)), float(e.self_cpu_time_total))
             for e in averages]
    by_gpu = any(gpu for _, _, gpu, _ in found)
    found.sort(key=lambda row: row[2] if by_gpu else row[3], reverse=True)
    whole = sum(row[2] if by_gpu else row[3] for row in found) or 1.0
    return [(name, round(count / steps, 1), round(gpu / 1e3 / steps, 3), round(cpu / 1e3 / steps, 3),
             round(100 * (gpu if by_gpu else cpu) / whole, 2)) for name, count, gpu, cpu in found[:MOST_OPERATIONS]]
