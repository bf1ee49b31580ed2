"""What a run measures while it trains: metrics.jsonl, TensorBoard, the log and the heartbeat.

metrics.jsonl holds one JSON object per optimizer step:

    step          updates done, from 1          epoch        passes over the data done, fractional
    loss          mean over the step's clips    lr           learning rate of the update
    grad_norm     before clipping               phase        index of the recipe's phase
    step_s        whole step, seconds           save_s       lost to checkpoints just before, seconds
    data_wait     share of the step spent       clips_per_s  over all ranks
                  waiting for clips, 0 to 1     mfu          model FLOPs / peak FLOPs, 0 to 1; null: peak unknown
    peak_gib      device memory (CPU: process)  skipped      updates skipped so far by fp16's loss scaler
    substituted   clips of other videos, in place of videos that cannot be read (quarantine.csv lists them)
    rechecked     clips that a second decoder read again (data.recheck_pct)
    differing     of those the rows of the manifest, from 1, where the two decoders differ
    slowest_rank  every recovery.compare_steps steps: the rank whose own part of a step took longest
    straggle      with it: share of a step that is lost because that rank is slower than the median, 0 to 1
    staged        with data.stage: share of the bytes of archives that came from copies on a disk of the node, 0 to 1
    seen          of a mixture (data.sources): clips of each source up to this step
    target_std    with model.target features: standard deviation of the teacher's features over all tokens of a
                  micro-batch, mean of the channels; near 0 the features have collapsed and say nothing
    target_std_between  the same over the clips at each place; near 0 features say where a token is, not what it shows
"""

from __future__ import annotations

import json
import resource
import time
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import torch

from vidmae.runs.attempts import AttemptLog
from vidmae.runs.record import RunFolder, touch_heartbeat, write_atomic

HEARTBEAT_S = 5.0
SCALARS = ("loss", "lr", "grad_norm", "step_s", "data_wait", "clips_per_s", "mfu", "peak_gib", "substituted", "straggle",
           "target_std", "target_std_between")


def peak_memory_gib(device: torch.device) -> float:
    """Most memory used so far: of the GPU, or of this process on the CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def measure_gemm_flops(device: torch.device, dtype: torch.dtype, size: int = 1024, repeats: int = 5) -> float:
    """Multiply-add rate of a square matrix product on this machine, in FLOP/s: what MFU is a share of on a CPU."""
    a = torch.randn(size, size).to(device, dtype)
    best = float("inf")
    for _ in range(repeats):
        started = time.perf_counter()
        torch.mm(a, a)
        best = min(best, time.perf_counter() - started)
    return 2 * size**3 / best


def read_metrics(run: RunFolder) -> list[dict[str, Any]]:
    """All whole lines of metrics.jsonl; a last line that was cut off is left out."""
    records = []
    if run.metrics.exists():
        with run.metrics.open(encoding="utf-8") as f:
            for line in f:
                try:
                    records.append(json.loads(line))
                except json.JSONDecodeError:
                    break
    return records


class Board(Protocol):
    """Draws curves besides."""

    def add(self, step: int, values: Mapping[str, float]) -> None:
        """Add the numbers of one step."""

    def close(self) -> None:
        """Write what is left."""


class MetricsWriter:
    """Writes the metrics of rank 0.

    Args:
        run: The run folder.
        log: The account of this attempt, kept up to date with every step.
        start_step: Updates done at the start; later lines of an earlier attempt are dropped, for they come again.
        total_steps: Updates of the whole run.
        log_every_s: Seconds between two lines in the log.
        boards: Draw the curves, too.
    """

    def __init__(self, run: RunFolder, log: AttemptLog, *, start_step: int, total_steps: int, log_every_s: float,
                 boards: Sequence[Board] = ()) -> None:
        self._run, self._log, self._total, self._log_every_s = run, log, total_steps, log_every_s
        kept = [r for r in read_metrics(run) if r["step"] <= start_step]
        write_atomic(run.metrics, "".join(json.dumps(r) + "\n" for r in kept).encode())
        self._file = run.metrics.open("a", encoding="utf-8")
        self._last_log = self._last_beat = -float("inf")
        self._done_here = 0
        self._started = time.monotonic()
        self._boards = boards

    def write(self, record: dict[str, Any]) -> None:
        """Add one step."""
        self._file.write(json.dumps(record) + "\n")
        self._file.flush()
        self._log.step_done(record)
        self._done_here += 1
        step, now = record["step"], time.monotonic()
        left = self._total - step
        eta_s = (now - self._started) / self._done_here * left
        if now - self._last_beat >= HEARTBEAT_S or not left:
            self._last_beat = now
            touch_heartbeat(self._run, state="training", step=step, total_steps=self._total, loss=record["loss"],
                            clips_per_s=record["clips_per_s"], eta_s=eta_s,
                            **({"staged": record["staged"]} if "staged" in record else {}))
            self._log.write()
        if now - self._last_log >= self._log_every_s or not left:
            self._last_log = now
            print(line_of(record, self._total, eta_s), flush=True)
        for board in self._boards:
            board.add(step, {key: record[key] for key in SCALARS if record.get(key) is not None})

    def close(self) -> None:
        """Flush and close the files."""
        self._file.close()
        for board in self._boards:
            board.close()


def line_of(record: dict[str, Any], total_steps: int, eta_s: float) -> str:
    """One step as a line for people."""
    mfu = "" if record["mfu"] is None else f"  MFU {100 * record['mfu']:.0f} %"
    spread = "" if record.get("target_std") is None else f" of features, which spread {record['target_std']:.2f}"
    return (f"step {record['step']}/{total_steps}  epoch {record['epoch']:.2f}  loss {record['loss']:.4f}{spread}  "
            f"lr {record['lr']:.3g}  grad {record['grad_norm']:.3g}  {record['clips_per_s']:.1f} clips/s  "
            f"waiting {100 * record['data_wait']:.0f} %{mfu}  {record['peak_gib']:.1f} GiB  left {clock(eta_s)}")


def clock(seconds: float) -> str:
    """Seconds as H:MM:SS."""
    s = round(seconds)
    return f"{s // 3600}:{s // 60 % 60:02d}:{s % 60:02d}"
