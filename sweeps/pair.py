"""Pretrain an image model that saw the same frames as a video model: the other half of a comparison.

    python sweeps/pair.py --video pretrain_s_vith14 --match frames --nodes 8 --dry-run
    python sweeps/pair.py --video s-vith14 --match flops --nodes 8 --partition gpu
    python sweeps/pair.py --video demo --data manifests/demo.csv --image demo_image --match clips --cluster local

--video is a recipe, and then both models are pretrained, or a run, finished or not, and then the image model alone. The
image model has the same encoder, data, seed, order and optimisation. Each of its clips is one frame of a clip of the video
model. --match says what is equal: frames, clips, optimizer steps, or the FLOPs of training. The table shows what is equal
and what is not; run.json of the image model keeps it. The same command again submits what is missing; what failed is named
and waits for --retry. On this machine one model is trained after the other. Standard output is the id of every job that was
submitted, one a line.

Exit codes: 0 ok, 1 a run has failed, 2 usage or configuration, 4 Slurm refused or unreachable, 130 Ctrl-C (the jobs go on).
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from pathlib import Path
from typing import Any, get_args

if not __package__:  # a script runs the code of its own clone, wherever the environment's `-e .` points
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from jobs.place.experiment import choose_place, folder_problems, problems, warnings
from jobs.place.launch_flags import RUNS, Parser, add_notify, add_over_budget, add_resources, add_runs_dir, masked_argv
from jobs.place.scheduler import slurm
from jobs.place.speak import answer, say
from jobs.standing.arrays import ARRAYS
from jobs.standing.follow import outcome, wait_for
from jobs.standing.runs import why
from jobs.submit.budget import keep_to_budget, planned_gpu_h
from jobs.submit.submission import one_launcher
from sweeps.grid.states import RETRY
from sweeps.pretraining.matching import PairMatch
from sweeps.pretraining.pairs import Pair, guarantee, read_pair, rows
from sweeps.pretraining.pretrain_jobs import kinds_again, pretrain, pretrain_here, scripts
from sweeps.run.show import ENDED, Unit, show
from vidmae.runs.record import make_private_folder
from vidmae.settings.command_line import with_whole_key
from vidmae.settings.layers import ConfigError

IMAGE_RECIPE = "pretrain_s_image_vith14"


def make_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = Parser(__doc__)
    what = parser.add_argument_group("what")
    what.add_argument("--video", required=True, metavar="RUN|RECIPE",
                      help="the video model: a recipe (in vidmae/recipes, or a .yaml), or a pretraining run, done or not")
    what.add_argument("--match", required=True, choices=get_args(PairMatch),
                      help="what the two models have alike: frames that they see, clips (an image is a clip of one frame), "
                           "optimizer steps, or FLOPs of training; the nearest whole number of steps")
    what.add_argument("--image", default=IMAGE_RECIPE, metavar="NAME|FILE",
                      help="recipe of an image model, whose mask ratio and decoder are taken; the encoder is the video "
                           "model's (default: %(default)s)")
    what.add_argument("--data", metavar="NAME|PATH",
                      help="data set of the catalogue, manifest (.csv), folder or catalogue (.yaml) (default: the recipe's)")
    what.add_argument("--set", action="append", default=[], type=with_whole_key, metavar="KEY=VALUE",
                      help="change a setting of the video model's recipe, and so of both; may be repeated")
    what.add_argument("--image-set", action="append", default=[], type=with_whole_key, metavar="KEY=VALUE",
                      help="change a setting of the image model alone, such as train.global_batch=4096; may be repeated")
    what.add_argument("--name", help="first part of the video run's id (default: the recipe's)")
    add_resources(parser)
    control = parser.add_argument_group("run control")
    control.add_argument("--dry-run", action="store_true", help="show what is equal, and the scripts; write nothing")
    add_over_budget(control)
    control.add_argument("--retry", nargs="?", choices=RETRY, const="all",
                         help="submit again a run that ended so, with no word however it ended; it continues")
    control.add_argument("--wait", action="store_true", help="wait for both (on this machine always)")
    add_notify(control)
    out = parser.add_argument_group("output")
    add_runs_dir(out)
    out.add_argument("--json", action="store_true", help="one JSON object on standard output instead of the job ids")
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run the command line; the exit code."""
    args = make_parser().parse_args(argv)
    return answer(lambda: run(args, list(sys.argv[1:] if argv is None else argv)),
                  interrupted="what was started goes on, and the same command again attaches to it")


def run(args: argparse.Namespace, argv: list[str]) -> int:
    """Resolve, check, show; then print the scripts, or submit and wait."""
    place = choose_place(args)
    say(f"cluster: {place.cluster} ({place.why})")
    slurm.leave_surrounding_job()
    again, command = kinds_again(args.retry), ["python", "sweeps/pair.py", *masked_argv(argv)]
    if args.dry_run:
        pair = checked(args, place)
        texts = scripts(pair.own, again, 0, place.cluster)
        print(json.dumps({**to_json(pair), "scripts": texts}) if args.json else "\n".join(texts),
              end="\n" if texts or args.json else "")
        name_ended(pair)
        say("dry run: nothing was written or submitted")
        return 0
    runs_dir, jobs = args.runs_dir.expanduser().absolute(), list[str]()
    if found := folder_problems(runs_dir):
        raise ConfigError(found[0])

    def note(job_ids: list[str]) -> None:
        jobs.extend(job_ids)
        for job_id in job_ids if not args.json else []:
            print(job_id, flush=True)

    with one_launcher(make_private_folder(runs_dir / ARRAYS)):
        pair = checked(args, place)
        if place.cluster == "slurm":
            pair = pair.with_runs(pretrain(pair.own, again, 0, command, say, note))
    if place.cluster == "local":
        pair = pair.with_runs(pretrain_here(pair.own, again, command, say, note))
    if not jobs:
        say("nothing to submit")
    if args.json:
        print(json.dumps({**to_json(pair), "jobs": jobs}), flush=True)
    name_ended(pair)
    say(next_commands(pair, args))
    code = wait(pair) if args.wait else 0
    return 1 if any(one.kind in ENDED for one in (pair.video, pair.image)) else code


def checked(args: argparse.Namespace, place: Any) -> Pair:
    """The pair, shown; an error where one of its runs cannot run."""
    pair, unasked = read_pair(args, place)
    for problem in unasked:
        say(f"note: {problem}")
    if wrong := list(dict.fromkeys(problem for one in pair.own for problem in problems(one.experiment))):
        raise ConfigError("\nerror: ".join(wrong))
    first = pair.image.experiment
    unit = Unit(on_cpu=first.on_cpu, gpu_type=first.resources.gpu_type)
    show(list(rows(pair, unit.text)))
    say(unit.basis())
    for line in [guarantee(pair), *dict.fromkeys(f"warning: {w}" for one in pair.own for w in warnings(one.experiment))]:
        say(line)
    wanted = sum(planned_gpu_h(one.experiment) for one in pair.own if one.kind in kinds_again(args.retry))
    keep_to_budget(first.profile, args.runs_dir.expanduser().absolute(), wanted, over=args.over_budget, dry_run=args.dry_run)
    return pair


def name_ended(pair: Pair) -> None:
    """Name a run that ended without a result and is not submitted again."""
    for one in (pair.video, pair.image):
        if one.kind in ENDED and one.state:
            again = "--retry submits it again" if one in pair.own else "continue it: python jobs/pretrain.py --retry"
            say(f"{one.kind}: {one.run.path.name}: {why(one.state)}; {again}")


def next_commands(pair: Pair, args: argparse.Namespace) -> str:
    """What to type next: the comparison, which starts once both models are there."""
    where = "" if args.runs_dir == RUNS else f" --runs-dir {shlex.quote(str(args.runs_dir))}"
    names = ",".join(one.run.path.name for one in (pair.video, pair.image))
    after = ",".join(one.run.path.name for one in (pair.video, pair.image) if one.kind != "done")
    waits = f" --after {after}" if after else ""
    return (f"next:\n  python jobs/status.py{where}\n  python sweeps/fewshot.py --shots 2,10,50 --method "
            f"finetune,linear,knn,attentive --checkpoints {names},scratch{waits}{where}")


def wait(pair: Pair) -> int:
    """Wait for the runs that are under way; 0 if both are done."""
    ended = [outcome(wait_for(one.run, show=False)) for one in (pair.video, pair.image) if one.kind == "active"]
    for _, line in ended:
        say(line)
    return max((code for code, _ in ended), default=0)


def to_json(pair: Pair) -> dict[str, Any]:
    """The pair as JSON."""
    found = {name: {"run": one.run.path.name, "path": str(one.run.path), "state": one.kind, **shown.amounts,
                    "global_batch": shown.global_batch, "job_id": one.state.job_id or None if one.state else None}
             for name, one, shown in zip(("video", "image"), (pair.video, pair.image), pair.shown, strict=True)}
    return {"match": pair.match, **found}


if __name__ == "__main__":
    sys.exit(main())
