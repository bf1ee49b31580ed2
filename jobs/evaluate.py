"""Test a finetuned file on a labelled set of clips: the same numbers every time.

    python jobs/evaluate.py --weights ssv2-50shot.pth --data ssv2-val --out results/ssv2-50shot
    python jobs/evaluate.py --weights kinetics-50shot.pth --data kinetics-val --views 10x3 --out results/kinetics-10x3
    python jobs/evaluate.py --run s-vith14-ssv2-10shot-seed0-finetune --data ssv2-val --views 10x3 --out results/again

Every clip counts once. The model's sizes are read off its tensors; its classes must be those of the clips. predictions.npz
keeps what it says of every clip, for python analysis/classes.py OUT. Cells of a sweep test themselves; this is for files
from elsewhere, or for other views (a cell keeps its weights with --set keep_weights=true). Runs on this machine; standard
output is the folder alone.

Exit codes: 0 ok, 1 failed, 2 usage or configuration, 130 Ctrl-C.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

if not __package__:  # a script runs the code of its own clone, wherever the environment's `-e .` points
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from jobs.place.catalogue import environment_catalogue, find_data
from jobs.place.launch_flags import Parser, add_runs_dir
from jobs.place.speak import answer, console, say
from jobs.standing.runs import find_weights
from vidmae.clips.clips_flags import add_model
from vidmae.footage.manifest import content_hash
from vidmae.ranks.local_program import prepare_folder, run_program
from vidmae.runs.record import RunFolder, read_json
from vidmae.settings.layers import Layer, build, parse_set, to_yaml
from vidmae.settings.programs.evaluation_config import EvaluationConfig


def make_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = Parser(__doc__)
    what = parser.add_argument_group("what")
    add_model(what, "a cell that kept its weights: its id, the start of it, its folder")
    what.add_argument("--data", required=True, metavar="NAME|PATH", help="labelled data set of the catalogue, or a manifest")
    what.add_argument("--views", default="center", metavar="VIEWS", help="center, random, TxS such as 10x3, or frames16: "
                      "16 frames one by one, for models of single frames (default: %(default)s)")
    what.add_argument("--set", action="append", default=[], metavar="KEY=VALUE",
                      help="change a setting, such as data.sampling_rate=4 or evaluate.batch=64; may be repeated")
    control = parser.add_argument_group("run control")
    control.add_argument("--device", choices=("auto", "cuda", "cpu"), help="default: auto")
    control.add_argument("--workers", type=int, metavar="N", help="processes that read clips (default: the settings')")
    control.add_argument("--dry-run", action="store_true", help="print the configuration; write nothing")
    out = parser.add_argument_group("output")
    out.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="where the results go")
    add_runs_dir(out)
    out.add_argument("--json", action="store_true", help="print result.json instead of the folder")
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run the command line; the exit code."""
    args = make_parser().parse_args(argv)
    return answer(lambda: run(args), interrupted="nothing was written")


def run(args: argparse.Namespace) -> int:
    """Resolve, start the program, show its progress and the accuracy."""
    config, folder = resolve(args), RunFolder(args.out.absolute())
    if args.dry_run:
        print(to_yaml(config), end="")
        return 0
    prepare_folder(folder.path, config)
    code = run_program("vidmae.evaluate.evaluation", [str(folder.path)], console(), "batches",
                       workers=config.data.workers)
    result = read_json(folder.result)
    if code or result is None:
        return code or 1
    say("\n".join(line_of(result, k) for k in (1, 5)))
    print(json.dumps(result) if args.json else folder.path, flush=True)
    return 0


def resolve(args: argparse.Namespace) -> EvaluationConfig:
    """The configuration.

    Raises:
        ConfigError: There is no such run, file or data set, or a value is out of range.
    """
    weights = find_weights(args)[1]
    data = find_data(args.data, args.data, environment_catalogue())
    given = {"weights": str(weights), "weights_content": content_hash(weights), "evaluate": {"views": args.views},
             "data": {"name": data.name, "manifest": str(data.manifest)}}
    flags = {**({"device": args.device} if args.device else {}),
             **({"data": {"workers": args.workers}} if args.workers is not None else {})}
    layers = [Layer("the command line", given), *parse_set(args.set), Layer("the command line", flags)]
    return build(EvaluationConfig, layers)[0]


def line_of(result: dict[str, Any], k: int) -> str:
    """An accuracy with its interval over clips."""
    low, high = result[f"top{k}_ci_pct"]
    return (f"top-{k} {result[f'top{k}_pct']:.3f} % [{low:.3f}, {high:.3f}] of {result['clips']} clips, "
            f"{result['classes']} classes, {result['views']} view")


if __name__ == "__main__":
    sys.exit(main())
