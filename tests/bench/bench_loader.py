"""Reading clips through a process that can be killed, against reading them in the loader's own; and what memory it takes.

Real clips, 16 x 224 x 224, as many repeats of each opened video as the paper's recipe (16) and none (1, where a clip costs
most messages per pixel). Both read the same places of the data order in interleaved rounds of whole epochs, the one that
starts alternates; their clips must be equal. CPU seconds count the reader process too and are hardly touched by other load
on the machine; wall time shows what waiting for each other costs.

Memory: resident set of a loader worker and its reader together, while both have nothing to do (frames that are being cut
do not count), the highest of the eight micro-batches before the count.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from tests.support.facilities import demo_clips
from tests.support.runs import make_manifest
from vidmae.clips.cutting import ClipSpec
from vidmae.clips.loader import Batch, make_loader
from vidmae.footage.manifest import Manifest

ROOT = Path(__file__).parents[2]
ROUNDS = 24  # of 8 the ratio went from 0.86 to 0.94 for the same code: an epoch has few clips and its windows vary
MICRO_BATCH = 16
EARLY, LATE = 200, 2000  # clips
WINDOW = 8  # micro-batches whose highest memory counts: two epochs of the four videos
IDLE_S = 0.5


def results() -> Iterator[dict[str, Any]]:
    """Every measurement, each in a fresh process."""
    with TemporaryDirectory() as folder:
        manifest = str(make_manifest(Path(folder), demo_clips()))
        for repeats in (16, 1):
            r = _worker("speed", manifest, str(repeats))
            for clock, target in (("cpu", 0.95), ("wall", None)):
                yield {"name": f"loader_repeat{repeats}_{clock}", "unit": f"clips per {clock} s", "target": target,
                       "rounds": ROUNDS, **r[clock]}
        yield {"name": "loader_memory", "unit": f"GiB after {LATE} clips, peer after {EARLY}", "target": 0.91, "rounds": 1,
               **_worker("memory", manifest, "16")}


def _worker(*args: str) -> Any:
    done = subprocess.run([sys.executable, "-m", "tests.bench.bench_loader", *args], cwd=ROOT, stdout=subprocess.PIPE,
                          text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def loader(manifest: Path, repeats: int, *, read_limit_s: float, workers: int) -> Iterator[Batch]:
    spec = ClipSpec(num_frames=16, sampling_rate=8, target_fps=30.0, img_size=224, crop_area=(0.5, 1.0),
                    crop_aspect=(0.75, 1.333), flip_prob=0.5, repeat_aug=repeats, repeat_window="own",
                    num_tokens=2048)
    return iter(make_loader(
        Manifest.read(manifest), spec, seed=0, global_batch=MICRO_BATCH, micro_batch=MICRO_BATCH, grad_accum=1, rank=0,
        world_size=1, start_step=0, stop_step=LATE // MICRO_BATCH, workers=workers, read_limit_s=read_limit_s, read_retries=1))


def measure_speed(manifest: Path, repeats: int) -> dict[str, Any]:
    """Clips per second of both, on both clocks."""
    torch.set_num_threads(1)
    both = {"ours": loader(manifest, repeats, read_limit_s=60, workers=0),
            "peer": loader(manifest, repeats, read_limit_s=0, workers=0)}
    micro_batches = max(1, 4 * repeats // MICRO_BATCH)  # a whole epoch of the four videos, or four
    for _ in range(micro_batches):  # the warm-up too
        assert torch.equal(next(both["ours"]).clips, next(both["peer"]).clips)
    spent: dict[str, dict[str, list[float]]] = {clock: {who: [] for who in both} for clock in ("cpu", "wall")}
    for i in range(ROUNDS):
        for who in sorted(both, reverse=bool(i % 2)):
            cpu, wall = _cpu_s(), time.perf_counter()
            for _ in range(micro_batches):
                next(both[who])
            spent["wall"][who].append(time.perf_counter() - wall)
            spent["cpu"][who].append(_cpu_s() - cpu)
    return {clock: _compare(micro_batches * MICRO_BATCH, of["ours"], of["peer"]) for clock, of in spent.items()}


def _compare(clips: int, ours: list[float], peer: list[float]) -> dict[str, Any]:
    rate = {"ours": clips / statistics.median(ours), "peer": clips / statistics.median(peer)}
    ratios = [p / o for o, p in zip(ours, peer, strict=True)]
    return {**rate, "ratio": rate["ours"] / rate["peer"], "ratio_range": [min(ratios), max(ratios)]}


def _descendants(pid: int) -> list[int]:
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [pid, *(p for child in children for p in _descendants(int(child)))]


def _cpu_s() -> float:
    """CPU time of this process and of those that it runs."""
    return time.process_time() + _ticks() / os.sysconf("SC_CLK_TCK")


def _ticks() -> int:
    ticks = 0
    for pid in _descendants(os.getpid())[1:]:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks


def measure_memory(manifest: Path, repeats: int) -> dict[str, Any]:
    """GiB of the processes that load, late and early."""
    pages: dict[int, list[int]] = {EARLY: [], LATE: []}
    for done, _ in enumerate(loader(manifest, repeats, read_limit_s=60, workers=1), start=1):
        for clips, seen in pages.items():
            if clips // MICRO_BATCH - WINDOW < done <= clips // MICRO_BATCH:
                seen.append(_idle_pages())
    early, late = max(pages[EARLY]), max(pages[LATE])
    gib = os.sysconf("SC_PAGE_SIZE") / 2**30
    return {"ours": late * gib, "peer": early * gib, "ratio": early / late}


def _idle_pages() -> int:
    """Resident pages of the processes that load, once they have read ahead as far as they may."""
    before = -1
    while before != (before := _ticks()):
        time.sleep(IDLE_S)
    return sum(int(Path(f"/proc/{pid}/statm").read_text().split()[1]) for pid in _descendants(os.getpid())[1:])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="one measurement, as JSON on the last line")
    parser.add_argument("what", choices=["speed", "memory"])
    parser.add_argument("manifest", type=Path)
    parser.add_argument("repeats", type=int)
    args = parser.parse_args()
    print(json.dumps((measure_speed if args.what == "speed" else measure_memory)(args.manifest, args.repeats)))
