"""Run the benchmarks and hold them to their targets.

    python tests/bench/run.py             all of them, about 25 minutes on 2 quiet cores
    python tests/bench/run.py step        one of them: tests/bench/bench_step.py

A benchmark is a file `bench_NAME.py` whose `results()` yields measurements, each taken in a fresh process: name, ours,
peer, ratio (how many times better), unit, target (least ratio, or None to look at only), rounds, and what it likes to
add. Every measurement becomes bench-results/MEASUREMENT.json. Exit code 1 where a ratio misses its target, 2 where
another run of this checkout is under way: the two would share cores and overwrite each other's files.
"""

from __future__ import annotations

import argparse
import fcntl
import importlib
import json
import os
import platform
import sys
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))


def main() -> int:
    known = sorted(p.stem.removeprefix("bench_") for p in Path(__file__).parent.glob("bench_*.py"))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"benchmarks to run: {', '.join(known)} (default: all)")
    parser.add_argument("--out", type=Path, default=ROOT / "bench-results", help="folder of the JSON files")
    args = parser.parse_args()
    if unknown := set(args.names) - set(known):
        parser.error(f"no benchmark {', '.join(sorted(unknown))}; there are: {', '.join(known)}")
    with Path(__file__).open() as own_file:
        try:
            fcntl.flock(own_file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            parser.error("another benchmark of this checkout is running; wait for it: both would measure each other")
        return run(args.names or known, args.out)


def run(names: list[str], out: Path) -> int:
    out.mkdir(exist_ok=True)
    rows = []
    for name in names:
        for row in importlib.import_module(f"tests.bench.bench_{name}").results():
            row |= {"met": row["target"] is None or row["ratio"] >= row["target"],
                    "command": f"python tests/bench/run.py {name}", "machine": machine(),
                    "date": datetime.now(timezone.utc).isoformat(timespec="seconds")}
            (out / f"{row['name']}.json").write_text(json.dumps(row, indent=2) + "\n")
            print(f"{row['name']}: {row['ratio']:.2f}x", file=sys.stderr, flush=True)
            rows.append(row)
    console = Console(width=None if sys.stdout.isatty() else 150)
    console.print(table(rows))
    for row in rows:
        if "parts" in row:
            console.print(parts_table(row))
    missed = [row["name"] for row in rows if not row["met"]]
    if missed:
        print(f"targets missed: {', '.join(missed)}", file=sys.stderr)
    return 1 if missed else 0


def machine() -> dict[str, Any]:
    """What the figures belong to; the load tells how quiet it was."""
    import torch

    from vidmae.clips.clip_cost import cpu_name

    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return {"cpu": cpu_name() or platform.machine(), "cores": os.cpu_count(), "memory_gib": round(memory, 1), "load_1min": round(os.getloadavg()[0], 2),
            "python": platform.python_version(), "torch": torch.__version__}


def table(rows: list[dict[str, Any]]) -> Table:
    shown = Table("measurement", "ours", "peer", "ratio", "range", "target", "met", "load", "GEMM peak", "MFU ours", "MFU peer",
                  "unit")
    for row in rows:
        shown.add_row(
            row["name"], f"{row['ours']:.3g}", f"{row['peer']:.3g}", f"{row['ratio']:.2f}x",
            "{:.2f}-{:.2f}".format(*row["ratio_range"]) if "ratio_range" in row else "",
            f">= {row['target']:g}x" if row["target"] is not None else "",
            "" if row["target"] is None else "yes" if row["met"] else "NO",
            f"{row['machine']['load_1min']:.1f}", f"{row['gemm_gflops']:.0f} GF/s" if "gemm_gflops" in row else "",
            *(f"{row[key]:.0%}" if key in row else "" for key in ("mfu_ours", "mfu_peer")), row["unit"])
    return shown


def parts_table(row: dict[str, Any]) -> Table:
    """Where the time of a step goes, for each contestant; and what the ratio can be at most."""
    shown = Table("part", *(f"{who}, {what}" for who in row["parts"] for what in ("s", "share", "of GEMM peak")),
                  title=f"{row['name']}: {row['ceiling']:.2f}x if all but our attention and linear layers took no time")
    for part in next(iter(row["parts"].values())):
        cells = []
        for parts in row["parts"].values():
            whole, one = sum(each["s"] for each in parts.values()), parts[part]
            cells += [f"{one['s']:.3f}", f"{one['s'] / whole:.1%}", f"{one['of_peak']:.0%}" if "of_peak" in one else ""]
        shown.add_row(part, *cells)
    return shown


if __name__ == "__main__":
    sys.exit(main())
