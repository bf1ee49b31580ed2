"""Run the same twice and see whether it is the same: the demo's pretraining and one few-shot cell, bit for bit.

    python -m tests.same.run              all legs of the demo's own size
    python -m tests.same.run --short      a tiny model, and all that varies in one leg; under a minute
    make same                             the first of these

Every leg pretrains and finetunes in fresh processes below OUT/LEG, from the same clips: once, once more, with kill -9 at
random moments and --retry after each, and with another number of loader workers. Every file of its two run folders is then
compared with the first leg's (tests/same/compare.py says how, and what may differ).
Exit code 1 where something differs, 2 where a run did not reach its end.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from jobs.demo import clips_folder
from tests.same.breaking import Command, call, run_through
from tests.same.compare import Comparison, compare
from tests.support.footage import small_clips
from tests.support.runs import TINY
from vidmae.runs.record import RunFolder


@dataclass(frozen=True)
class Leg:
    """One time through both runs.

    Attributes:
        name: Its folder.
        workers: data.workers.
        kills: How often pretraining, and how often the cell is killed.
    """

    name: str
    workers: int = 1
    kills: tuple[int, int] = (0, 0)


@dataclass(frozen=True)
class Size:
    """How large the runs are.

    Attributes:
        clips: Labelled ones of each class.
        shots: Of the cell.
        steps: Of pretraining and of the cell.
        pretrain, cell: Settings on top of the recipes.
        legs: The first is what the others are compared with.
        small: Pretraining learns from small clips, which take little to decode.
    """

    clips: int
    shots: int
    steps: tuple[int, int]
    pretrain: tuple[str, ...]
    cell: tuple[str, ...]
    legs: tuple[Leg, ...]
    small: bool = False


LONG = Size(clips=12, shots=10, steps=(220, 120), pretrain=(), cell=("model.img_size=64",), legs=(
    Leg("first"), Leg("again"), Leg("killed", kills=(3, 2)), Leg("2-workers", workers=2)))
SHORT = Size(
    clips=2, shots=2, steps=(20, 6), small=True,
    pretrain=(*(s for s in TINY if not s.startswith(("data.workers", "train.phases", "log."))),
              "train.phases=[{duration: 20 steps, lr: 1.0e-3}]"),
    cell=("model.img_size=32", "model.num_frames=4", "checkpoint.every_steps=2", "log.tensorboard=true",
          "train.phases=[{duration: 6 steps, lr: 1.0e-3}]"),
    legs=(Leg("first"), Leg("killed-2-workers", workers=2, kills=(1, 0))))


def prepare(out: Path, size: Size, *, cell: bool) -> None:
    """List the clips, and for the cell render and list the labelled ones, as the demo does."""
    footage = small_clips()[0].parent if size.small else clips_folder()
    call(out, "jobs/prepare.py", "manifest", str(footage), "--name", "demo", "--no-clip-cost")
    if not cell:
        return
    for folder in call(out, "jobs/submit/example/demo_clips.py", "--out", "clips", "--clips", str(size.clips)).splitlines():
        call(out, "jobs/prepare.py", "manifest", folder, "--labels", "folders", "--name", Path(folder).name)


def pretrain(out: Path, leg: Leg, size: Size, seed: int) -> RunFolder:
    """Pretrain with the demo's recipe; the run folder."""
    words = ("jobs/pretrain.py", "--recipe", "demo", "--data", "demo", "--runs-dir", f"{leg.name}/runs", "--cluster", "local")
    command = Command((*words, *settings(*size.pretrain, f"data.workers={leg.workers}")), ("--retry",),
                      lambda: the_run(out / leg.name, "demo-[0-9a-f]*"), size.steps[0])
    return run_through(command, out, leg.kills[0], seed)


def finetune(out: Path, leg: Leg, size: Size, pretrained: RunFolder, seed: int) -> RunFolder:
    """Finetune the leg's own weights with the demo's recipe; the cell's folder, which keeps its weights."""
    words = ("sweeps/fewshot.py", "--recipe", "finetune_demo", "--data", "motion", "--shots", str(size.shots), "--seeds", "0",
             "--checkpoints", str(pretrained.path), "--runs-dir", f"{leg.name}/runs", "--cluster", "local")
    command = Command((*words, *settings(*size.cell, "keep_weights=true", f"data.workers={leg.workers}")), ("--retry", "all"),
                      lambda: the_run(out / leg.name, "demo-motion-*"), size.steps[1])
    return run_through(command, out, leg.kills[1], seed + 1)


def settings(*given: str) -> Iterator[str]:
    """`--set` before each."""
    return (word for setting in given for word in ("--set", setting))


def the_run(leg: Path, pattern: str) -> RunFolder:
    """The one run of a leg whose id fits."""
    (path,) = (path for path in (leg / "runs").glob(pattern) if (path / "run.json").exists() and (
        "motion" in pattern or "motion" not in path.name))
    return RunFolder(path)


def check(out: Path, size: Size, seed: int, *, cell: bool) -> list[tuple[str, Comparison]]:
    """Run all legs, `cell` with the cell; what each pair of run folders came to."""
    prepare(out, size, cell=cell)
    first: dict[str, RunFolder] = {}
    found = []
    for leg in size.legs:
        began = time.monotonic()
        runs = {"pretraining": pretrain(out, leg, size, seed)}
        if cell:
            runs["cell"] = finetune(out, leg, size, runs["pretraining"], seed)
        print(f"{leg.name}: {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)
        for kind, run in runs.items() if first else ():
            found.append((f"{kind}, {leg.name}", compare(first[kind].path, run.path)))
        first = first or runs
    return found


def table(found: list[tuple[str, Comparison]]) -> str:
    """A line for each pair, and below it what differs."""
    lines = ["| compared with the first | files | differing |", "|---|---:|---:|"]
    lines += [f"| {pair} | {result.files} | {len(result.differing)} |" for pair, result in found]
    return "\n".join([*lines, *(f"{pair}: {what}" for pair, result in found for what in result.differing)])


@contextlib.contextmanager
def folder(given: Path | None) -> Iterator[Path]:
    """The folder to work in: one that goes afterwards, where none is given."""
    if given is not None:
        given.mkdir(parents=True)
        yield given.absolute()
        return
    with tempfile.TemporaryDirectory(prefix="vidmae-same-", ignore_cleanup_errors=True) as made:
        yield Path(made)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--short", action="store_true", help="a tiny model and two legs")
    parser.add_argument("--no-cell", action="store_true", help="pretraining alone")
    parser.add_argument("--seed", type=int, default=0, help="of the moments of the kills (default: %(default)s)")
    parser.add_argument("--out", type=Path, help="a new folder, which stays (default: a temporary one)")
    args = parser.parse_args()
    began = time.monotonic()
    with folder(args.out) as out:
        try:
            found = check(out, SHORT if args.short else LONG, args.seed, cell=not args.no_cell)
        except (RuntimeError, TimeoutError) as error:
            print(f"error: {error}", file=sys.stderr)
            return 2
    print(table(found))
    print(f"{sum(result.files for _, result in found)} files compared, {time.monotonic() - began:.0f} s", file=sys.stderr)
    return 1 if any(result.differing for _, result in found) else 0


if __name__ == "__main__":
    sys.exit(main())
