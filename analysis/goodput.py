"""How often to save: the best checkpoint interval and the goodput to expect, for a job on 1 to 1,024 nodes.

    python analysis/goodput.py --nodes 8 --mtbf-h 300 --save-s 40 --step-s 3.2
    python analysis/goodput.py --mtbf-h 1500 --restart-s 600 --interval-s 1800 --json

Goodput is useful time / wall time: saves, work that is lost and restarts are what is missing to 100 %. Any failing node
ends the job, so a job fails `nodes` times as often as a node; a preemption without warning is a failure, too. Put
EVERY_STEPS into `--set checkpoint.every_steps=N`. Standard output is a table, or with --json one object a line.

Exit codes: 0 ok, 2 a value that cannot be.
"""

from __future__ import annotations

import argparse
import json
import math
import shutil
import sys
from pathlib import Path
from typing import NamedTuple

if not __package__:  # a script runs the code of its own clone, wherever the environment's `-e .` points
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
    import analysis  # noqa: F401  it says which library is missing

import numpy as np

from analysis.results.table_flags import Parser, number

NODES = tuple(2**i for i in range(11))
MOST_ATTEMPTS = 100.0  # a segment that fails this often on average is not simulated: it would take for ever
MOST_SEGMENTS = 10**7  # of a simulated run: memory
HEADER = ("NODES", "MTBF_H", "YOUNG_S", "DALY_S", "INTERVAL_S", "EVERY_STEPS", "GOODPUT", "SIMULATED", "FAILURES")
LESS = ("YOUNG_S", "FAILURES", "MTBF_H", "DALY_S", "EVERY_STEPS")  # what a narrow terminal lacks, the first first


class Row(NamedTuple):
    """One line of the table. Ratios are in 0..1; None where a value was not asked for or not simulated."""

    nodes: int  # of the job
    mtbf_s: float  # of the job: mean time between its failures
    young_s: float  # best interval, first order
    daly_s: float  # best interval, higher order
    interval_s: float  # the interval that is judged: useful work between two saves
    every_steps: int | None  # it in optimizer steps
    goodput: float  # expected, by the closed formula
    simulated: float | None  # over all simulated runs
    standard_error: float | None  # of `simulated`
    failures: float | None  # of a simulated run, on average


def young(mtbf_s: float, save_s: float) -> float:
    """Best interval to first order: sqrt(2 C M). Source: J. W. Young 1974, CACM 17(9)."""
    return math.sqrt(2 * save_s * mtbf_s)


def daly(mtbf_s: float, save_s: float) -> float:
    """Best interval to higher order; M itself where a save takes twice as long as that. Source: Daly 2006, as below."""
    if save_s >= 2 * mtbf_s:
        return mtbf_s
    ratio = save_s / (2 * mtbf_s)
    return math.sqrt(2 * save_s * mtbf_s) * (1 + math.sqrt(ratio) / 3 + ratio / 9) - save_s


def goodput(mtbf_s: float, save_s: float, restart_s: float, interval_s: float) -> float:
    """Expected useful time / wall time of a long run, exact where times between failures are exponential.

    A stretch of length x that is begun again after each failure takes, on average,

        E(x) = integral_0^x (t + E(x)) exp(-t/M)/M dt + x exp(-x/M), so E(x) = M (exp(x/M) - 1).

    A segment is tau of work and a save of C: one attempt of w = tau + C and, where it fails, a stretch of R + w, since
    failures come in restarts, too. An attempt takes M (1 - exp(-w/M)) and fails with chance 1 - exp(-w/M):

        wall = (1 - exp(-w/M)) (M + E(R + w)) = M exp(R/M) (exp(w/M) - 1),   goodput = tau / wall.

    Args:
        mtbf_s: M, mean time between failures of the job.
        save_s: C, how long a save stalls the job.
        restart_s: R, from a failure to the first new step.
        interval_s: tau, useful work between two saves.
    Source: J. T. Daly 2006, A higher order estimate of the optimum checkpoint interval for restart dumps, FGCS 22(3).
    """
    w = (interval_s + save_s) / mtbf_s
    return interval_s / mtbf_s * math.exp(-restart_s / mtbf_s - w) / -math.expm1(-w)  # in a form that cannot overflow


def simulate(mtbf_s: float, save_s: float, restart_s: float, interval_s: float, *, segments: int, runs: int,
             generator: np.random.Generator) -> tuple[float, float, float]:
    """Goodput of runs that are played out: every segment is attempted until no failure comes before its save is over.

    An attempt after a failure begins with the restart. Time to the next failure is drawn anew for each attempt, as
    exponential times allow.

    Args:
        mtbf_s, save_s, restart_s, interval_s: As in `goodput`.
        segments: Of each run.
        runs: How many, 2 or more.
        generator: Source of randomness.
    Returns:
        Useful time / wall time over all runs, its standard error, failures per run.
    """
    wall_s, failures = np.zeros(runs), 0
    for run in range(runs):
        left, length_s = segments, interval_s + save_s
        while left:
            failure_s = generator.exponential(mtbf_s, left)
            wall_s[run] += np.minimum(failure_s, length_s).sum()
            left = int((failure_s < length_s).sum())
            failures += left
            length_s = restart_s + interval_s + save_s
    ratio = segments * interval_s / float(wall_s.mean())
    return ratio, ratio * float(wall_s.std(ddof=1) / wall_s.mean()) / math.sqrt(runs), failures / runs


def judge(nodes: int, args: argparse.Namespace) -> Row:
    """The line of the table for a number of nodes."""
    mtbf_s = args.mtbf_h * 3600 / nodes
    best_s = daly(mtbf_s, args.save_s)
    interval_s, steps = args.interval_s or best_s, None
    if args.step_s:  # a save comes after a whole step: that interval is judged
        steps = max(1, round(interval_s / args.step_s))
        interval_s = steps * args.step_s
    setting = (mtbf_s, args.save_s, args.restart_s, interval_s)
    simulated: tuple[float | None, ...] = (None, None, None)
    if (args.restart_s + interval_s + args.save_s) / mtbf_s < math.log(MOST_ATTEMPTS):
        segments = max(1, round(args.hours * 3600 / interval_s))
        if segments > MOST_SEGMENTS:
            raise ValueError(f"{args.hours:g} h at intervals of {interval_s:.3g} s are {segments:,} segments, allowed: "
                             f"up to {MOST_SEGMENTS:,} (--hours, --interval-s)")
        generator = np.random.default_rng([args.seed, nodes])  # a line does not depend on the others
        simulated = simulate(*setting, segments=segments, runs=args.runs, generator=generator)
    return Row(nodes, mtbf_s, young(mtbf_s, args.save_s), best_s, interval_s, steps, goodput(*setting), *simulated)


def make_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = Parser(__doc__)
    what = parser.add_argument_group("what")
    what.add_argument("--nodes", type=number(1, 10**6, "nodes"), nargs="+", default=NODES, metavar="N",
                      help="nodes of the job, one number or several (default: the powers of two from 1 to 1024)")
    what.add_argument("--mtbf-h", type=number(0.001, 1e9, "h"), default=6300.0, metavar="HOURS",
                      help="mean time between failures of one node (default: %(default)g, from the training of Llama 3: 419 "
                      "unplanned interruptions of 2,048 nodes in 54 days, arXiv 2407.21783)")
    what.add_argument("--save-s", type=number(0.001, 1e9, "s"), default=40.0, metavar="S",
                      help="seconds for which a save stalls training (default: %(default)g)")
    what.add_argument("--restart-s", type=number(0.0, 1e9, "s"), default=300.0, metavar="S",
                      help="seconds from a failure to the first new step: requeueing, waiting, starting, restoring "
                      "(default: %(default)g)")
    what.add_argument("--interval-s", type=number(0.001, 1e9, "s"), metavar="S",
                      help="judge this many seconds of work between two saves (default: the best, DALY_S)")
    what.add_argument("--step-s", type=number(0.001, 1e9, "s"), metavar="S",
                      help="seconds of an optimizer step; the interval is then whole steps and EVERY_STEPS says how many")
    control = parser.add_argument_group("simulation")
    control.add_argument("--hours", type=number(0.001, 1e6, "h"), default=168.0, metavar="HOURS",
                         help="useful work of each simulated run, to whole intervals (default: %(default)g)")
    control.add_argument("--runs", type=number(2, 10**6, "runs"), default=2000, metavar="N",
                         help="simulated runs for each number of nodes (default: %(default)s)")
    control.add_argument("--seed", type=number(0, 2**63), default=0, metavar="N", help="of the simulation (default: 0)")
    out = parser.add_argument_group("output")
    out.add_argument("--json", action="store_true", help="one JSON object a line instead of the table")
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run the command line; the exit code."""
    args = make_parser().parse_args(argv)
    try:
        rows = [judge(nodes, args) for nodes in args.nodes]
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    if args.json:
        for row in rows:
            print(json.dumps(row._asdict()))
    else:
        width = shutil.get_terminal_size().columns if sys.stdout.isatty() else sys.maxsize
        print("\n".join(table([HEADER, *map(cells, rows)], width)))
    for row in rows:
        if row.simulated is None:
            print(f"note: {row.nodes} nodes are not simulated: the job fails about every {row.mtbf_s:.3g} s, so an interval "
                  f"would take over {MOST_ATTEMPTS:.0f} attempts", file=sys.stderr)
    return 0


def table(lines: list[tuple[str, ...]], width: int) -> list[str]:
    """Lines of the table; columns of LESS are left out until it fits the width."""
    widths = {name: max(len(line[place]) for line in lines) for place, name in enumerate(HEADER)}
    for name in LESS:
        if sum(widths.values()) + 2 * (len(widths) - 1) <= width:
            break
        del widths[name]
    return ["  ".join(f"{line[HEADER.index(name)]:>{wide}}" for name, wide in widths.items()) for line in lines]


def cells(row: Row) -> tuple[str, ...]:
    """A line of the table as text."""
    simulated = f"{row.simulated:.2%} ± {row.standard_error:.2%}" if row.simulated is not None else "-"
    return (f"{row.nodes}", f"{row.mtbf_s / 3600:.3g}", f"{row.young_s:.0f}", f"{row.daly_s:.0f}", f"{row.interval_s:.0f}",
            f"{row.every_steps or '-'}", f"{row.goodput:.2%}", simulated,
            f"{row.failures:.1f}" if row.failures is not None else "-")


if __name__ == "__main__":
    sys.exit(main())
