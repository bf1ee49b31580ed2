"""A manifest of a million rows: what reading it costs a node on which eight processes do so at the same time.

The rows are made up: 60-second segments of 50 children, with dates and ages. Memory is proportional set size, in which pages
that several processes map count once, less what the processes have before they read; beside it stands what they would have with
the arrays to themselves (the folder cannot be written, and nothing is stored). Every value is touched.
"""

from __future__ import annotations

import multiprocessing
import random
import statistics
import tempfile
import time
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

ROWS, WORKERS, ROUNDS = 1_000_000, 8, 3
LIMIT_S, LIMIT_MIB, LIMIT_MORE_MIB = 5.0, 200.0, 400.0
MIB = 2**20


def results() -> Iterator[dict[str, Any]]:
    """Seconds and MiB of a node against their limits."""
    with tempfile.TemporaryDirectory() as folder:
        manifest = Path(folder, "manifests/s.csv")
        write(manifest)
        shared = [read_by_many(manifest, WORKERS) for _ in range(ROUNDS)]
        one = [read_by_many(manifest, 1) for _ in range(ROUNDS)]
        own_s, own_mib = read_by_many(manifest, WORKERS, shared=False)
    seconds = [took_s for took_s, _ in shared]
    many_mib, one_mib = (max(mib for _, mib in calls) for calls in (shared, one))
    yield {"name": "manifest_seconds", "unit": f"s for {ROWS:,} rows, {WORKERS} processes at once, the slowest", "target": 1.0,
           "rounds": ROUNDS, "ours": statistics.median(seconds), "peer": LIMIT_S, "ratio": LIMIT_S / statistics.median(seconds),
           "ratio_range": [LIMIT_S / max(seconds), LIMIT_S / min(seconds)], "without_sharing_s": own_s}
    yield {"name": "manifest_memory", "unit": f"MiB of {WORKERS} processes together", "target": 1.0, "rounds": ROUNDS,
           "ours": many_mib, "peer": LIMIT_MIB, "ratio": LIMIT_MIB / many_mib, "without_sharing_mib": own_mib}
    more_mib = max(many_mib - one_mib, 1.0)
    yield {"name": "manifest_memory_more", "unit": f"MiB of {WORKERS} processes more than of one", "target": 1.0,
           "rounds": ROUNDS, "ours": more_mib, "peer": LIMIT_MORE_MIB, "ratio": LIMIT_MORE_MIB / more_mib, "one_mib": one_mib}


def write(manifest: Path) -> None:
    """The made-up manifest."""
    from vidmae.footage.known.facts import Facts
    from vidmae.footage.manifest import Check, Row, write_manifest

    draw = random.Random(0)
    rows = [Row(f"/data/headcam/{i % 50:02d}/{i % 50:02d}_20{13 + i // 50 // 8000:02d}{i // 50 % 12 + 1:02d}{i // 600 % 28 + 1:02d}_segment{i}.mp4",
                "", 1800, 30.0, 60.0, 10**7 + i, 640, 480, "h264", 0, 1, 0, f"{draw.getrandbits(64):016x}", 17 + i, "decord",
                Facts(f"child{i % 50:02d}", f"2013-{i % 12 + 1:02d}-{i % 28 + 1:02d}", f"{6 + i % 26}", f"s{i // 60}"))
            for i in range(ROWS)]
    write_manifest(manifest, sorted(rows, key=lambda row: row.path), [], Check("decord", True))


def read_by_many(manifest: Path, processes: int, *, shared: bool = True) -> tuple[float, float]:
    """Seconds of the slowest of processes that read at the same time, and MiB that all have more than before."""
    context = multiprocessing.get_context("spawn")
    pipes, started = [], []
    for _ in range(processes):
        ours, theirs = context.Pipe()
        started.append(context.Process(target=_read, args=(theirs, str(manifest), shared), daemon=True))
        started[-1].start()
        pipes.append(ours)
    before = sum(pipe.recv() for pipe in pipes)
    for pipe in pipes:
        pipe.send("read")
    took_s = max(pipe.recv() for pipe in pipes)
    for pipe in pipes:
        pipe.send("measure")
    after = sum(pipe.recv() for pipe in pipes)
    for pipe, process in zip(pipes, started, strict=True):
        pipe.send("end")
        process.join()
    return took_s, (after - before) / MIB


def _read(pipe: Connection, manifest: str, shared: bool) -> None:
    from vidmae.footage import manifest as m
    from vidmae.footage import manifest_pages

    if not shared:
        manifest_pages.SHARED_FROM_ROWS = 10**9
    pipe.send(_bytes())
    pipe.recv()
    began = time.perf_counter()
    found = m.Manifest.read(Path(manifest))
    total = sum(int(array.view("uint8")[::512].sum()) for name, array in vars(found).items()
                if name not in ("summary", "children", "decoders"))  # touches every page
    pipe.send(time.perf_counter() - began)
    assert total and len(found) == ROWS and found.path(ROWS - 1).endswith(".mp4")
    pipe.recv()
    pipe.send(_bytes())
    pipe.recv()


def _bytes() -> int:
    """Proportional set size of this process."""
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))
