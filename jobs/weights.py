"""Published weights: list what there is, show one, download it, turn a file of any known layout into one of this suite.

    python jobs/weights.py list
    python jobs/weights.py show hvm1@448_none
    python jobs/weights.py show say.pth
    python jobs/weights.py get hvm1@448_none
    python jobs/weights.py convert say.pth --out say.safetensors
    python jobs/weights.py export s-vith14 --out s-vith14-export --licence cc-by-4.0
    python jobs/weights.py push s-vith14-export me/s-vith14

A name can stand wherever a file of weights can: --weights, --checkpoints, --set train.init=NAME, vidmae.load(NAME). So can
hf://owner/name/file for any other file of the hub. Launchers take what is here and download nothing; get does that through
huggingface_hub. HF_HUB_OFFLINE=1 forbids it; VIDMAE_WEIGHTS is a folder for files that you bring yourself. export writes a
folder with weights, sizes and a model card, without names of files or data; push shows what it would send, and asks.
Standard output is names (list), what is known (show), a path (get, convert), paths (export) or an address (push).

Exit codes: 0 ok, 1 push was not agreed to, 2 there is no such name or file, or it is not here and cannot be downloaded or
written, 130 Ctrl-C.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

if not __package__:  # a script runs the code of its own clone, wherever the environment's `-e .` points
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from jobs.place.launch_flags import Parser, add_runs_dir
from jobs.place.speak import answer, say
from vidmae.settings.layers import ConfigError
from vidmae.weights.finding import Found, find
from vidmae.weights.hub import NotHereError
from vidmae.weights.released_weights import Published, entry_of, published

FORMS = ("vidmae", "mae_st", "transformers", "program")


def make_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = Parser(__doc__)
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    listed = verbs.add_parser("list", help="what is published, and what of it is here")
    shown = verbs.add_parser("show", help="all that is known of one; of a file what its tensors say")
    got = verbs.add_parser("get", help="download it, unless it is here; its path")
    made = verbs.add_parser("convert", help="write a file of this suite's layout")
    exported = verbs.add_parser("export", help="a folder for others: weights, sizes, model card")
    pushed = verbs.add_parser("push", help="send an exported folder to the hub, after asking")
    for verb in (shown, got, made, exported):
        verb.add_argument("name", metavar="NAME|FILE", help="a name of `list`, a path, a run, or hf://owner/name/file")
        add_runs_dir(verb)
    listed.add_argument("--json", action="store_true", help="print one object instead of names")
    shown.add_argument("--json", action="store_true", help="print one object")
    exported.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="which must not be there")
    exported.add_argument("--form", choices=FORMS, default=FORMS[0],
                          help="who shall read it: vidmae.load, the released code of ST-MAE, transformers, or torch alone "
                               "(a program of torch.export); default: %(default)s")
    exported.add_argument("--licence", default="", metavar="ID",
                          help="as hubs name it, such as cc-by-4.0 (default: unknown)")
    exported.add_argument("--title", default="", metavar="NAME",
                          help="of the model card (default: sizes and the run's signature; names of runs and files may tell "
                               "of data)")
    pushed.add_argument("folder", type=Path, metavar="FOLDER", help="made by export")
    pushed.add_argument("repo", metavar="OWNER/NAME", help="repository of the hub; made where there is none")
    pushed.add_argument("--public", action="store_true",
                        help="a new repository is seen by everybody (default: by you alone)")
    pushed.add_argument("--yes", action="store_true", help="do not ask")
    made.add_argument("--out", type=Path, required=True, metavar="FILE", help="NAME.safetensors, which must not be there")
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run the command line; the exit code."""
    args = make_parser().parse_args(argv)
    verb = {"list": show_all, "show": show_one, "get": get, "convert": write_converted, "export": write_exported,
            "push": send}[args.verb]
    return answer(lambda: verb(args), interrupted="the same command goes on")


def show_all(args: argparse.Namespace) -> int:
    """Every name on standard output; for people a line about each."""
    entries = list(published().values())
    if args.json:
        print(json.dumps({entry.name: asdict(entry) for entry in entries}))
        return 0
    width = max(len(entry.name) for entry in entries)
    group = ""
    for entry in entries:
        if entry.group != group:
            say(f"\n{entry.title}; licence: {entry.licence}; {entry.source}")
            group = entry.group
        what = f"{entry.trained_on}{f', finetuned on {entry.tuned_on}' if entry.tuned_on else ''}"
        say(f"  {entry.name:<{width}}  {'here' if here(entry) else '-   '}  {what}")
    print("\n".join(entry.name for entry in entries), flush=True)
    return 0


def show_one(args: argparse.Namespace) -> int:
    """All that is known of a name, or what the tensors of a file say."""
    entry = None if Path(args.name).expanduser().exists() else entry_of(args.name)
    if entry is None:
        return show_file(args)
    if args.json:
        print(json.dumps(asdict(entry)))
        return 0
    sizes = ", ".join(f"{key} {value}" for key, value in entry.sizes.items()) or "from its tensors"
    rows = {"name": entry.name, "title": entry.title, "trained on": entry.trained_on, "finetuned on": entry.tuned_on or "-",
            "classes": entry.classes or "-", "sizes": sizes, "clips": entry.sampling, "licence": entry.licence,
            "paper": entry.paper, "source": entry.source, "file": entry.address,
            "settings": " ".join(entry.settings) or "-", "here": here(entry) or "no (python jobs/weights.py get)"}
    _print_rows(rows)
    return 0


def show_file(args: argparse.Namespace) -> int:
    """What the tensors of a file, a folder or a run say of its model."""
    from vidmae.model.trained_encoder import file_model, weights_of  # here: torch

    found = _found(args, download=False)
    try:
        path = weights_of(found.path)
        model = file_model(path, found.known)
    except ValueError as error:
        raise ConfigError(str(error)) from error
    rows = {"name": found.name, "file": str(path), "model": str(model), "classes": model.head or "-",
            "decoder": "yes" if model.pretrained else "no"}
    if args.json:
        print(json.dumps({**rows, "classes": model.head, "decoder": model.pretrained, "settings": model.settings}))
    else:
        _print_rows(rows)
    return 0


def get(args: argparse.Namespace) -> int:
    """Download, unless it is here."""
    print(_found(args, download=True).path, flush=True)
    return 0


def write_converted(args: argparse.Namespace) -> int:
    """Write a file of this suite's layout."""
    from vidmae.weights.converting import convert  # here: torch

    try:
        say(convert(find(args.name, runs_dir=args.runs_dir, download=False), args.out))
    except ValueError as error:
        raise ConfigError(str(error)) from error
    print(args.out.absolute(), flush=True)
    return 0


def write_exported(args: argparse.Namespace) -> int:
    """Write a folder for others; the paths of its files."""
    from vidmae.weights.exporting import export  # here: torch
    from vidmae.weights.model_card import card_of

    found = _found(args, download=False)
    try:
        files = export(found, args.out, form=args.form, card=card_of(found, args.licence, args.title))
    except ValueError as error:
        raise ConfigError(str(error)) from error
    if not args.licence and found.entry is None:
        say("its model card says that the licence is unknown (--licence)")
    print("\n".join(str(file.absolute()) for file in files), flush=True)
    return 0


def send(args: argparse.Namespace) -> int:
    """Send an exported folder to the hub; its address."""
    from vidmae.weights.pushing import push

    def agreed(what: str) -> bool:
        say(what)
        if args.yes:
            return True
        if not sys.stdin.isatty():
            raise ConfigError("nobody can be asked here: there is no terminal (--yes sends without a question)")
        say("Send it? [y/N]")
        return sys.stdin.readline().strip().lower() in ("y", "yes")

    try:
        address = push(args.folder, args.repo, public=args.public, agreed=agreed)
    except ValueError as error:
        raise ConfigError(str(error)) from error
    print(address or "nothing was sent", flush=True)
    return 0 if address else 1


def here(entry: Published) -> Path | None:
    """Where a published file is on this machine, or None."""
    try:
        return find(entry.name, download=False).path
    except NotHereError:
        return None


def _found(args: argparse.Namespace, *, download: bool) -> Found:
    try:
        return find(args.name, runs_dir=args.runs_dir, say=say, download=download)
    except ValueError as error:
        raise ConfigError(str(error)) from error


def _print_rows(rows: Mapping[str, object]) -> None:
    print("\n".join(f"{key:<13} {value}" for key, value in rows.items()), flush=True)


if __name__ == "__main__":
    sys.exit(main())
