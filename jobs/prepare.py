"""Prepare data, once, before training: `manifest` lists and checks videos, `check` compares the manifests of training and
validation, `shots` draws k clips of every class, `fraction` takes a part of a recording history, `withdraw` takes recordings
out, `footage` decodes everything once and keeps what training reads. `VERB --help` says more.

    python jobs/prepare.py manifest /data/headcam/S --name s
    python jobs/prepare.py check ssv2 ssv2-val
    python jobs/prepare.py shots ssv2 --shots 2,10,50
    python jobs/prepare.py fraction s --fractions 0.001,0.01,0.1
    python jobs/prepare.py withdraw s --files list.txt
    python jobs/prepare.py footage s

Exit codes: 0 ok, 2 the source cannot be used, or usage, 3 not one readable video, 4 Slurm refused
or is away, 130 Ctrl-C.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

if not __package__:  # a script runs the code of its own clone, wherever the environment's `-e .` points
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from jobs.place import prepare_check, prepare_fraction, prepare_shots, prepare_withdraw
from jobs.place.launch_flags import Parser
from jobs.place.scheduler.commands import SlurmError
from jobs.submit import prepare_footage, prepare_manifest
from vidmae.footage.history import FractionError
from vidmae.footage.manifest import ManifestError
from vidmae.footage.recordings import RecordingsError
from vidmae.labels.shots import ShotsError
from vidmae.runs.record import RunLockedError
from vidmae.settings.command_line import text_of
from vidmae.settings.layers import ConfigError

VERBS = {
    "manifest": (prepare_manifest, "list and check the videos of a data set"),
    "check": (prepare_check, "compare the manifests of training and validation"),
    "shots": (prepare_shots, "draw k clips of every class"),
    "fraction": (prepare_fraction, "take a part of a recording history"),
    "withdraw": (prepare_withdraw, "take recordings out of a data set"),
    "footage": (prepare_footage, "decode everything once, and keep what training reads"),
}


def make_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = Parser(__doc__)
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    for name, (verb, summary) in VERBS.items():
        p = verbs.add_parser(name, help=summary, description=verb.HELP)
        verb.add_options(p)
        p.set_defaults(run=verb.run)
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run the command line; 0 done, 2 the source cannot be used, 3 not one readable video, 4 Slurm refused or is away."""
    args = make_parser().parse_args(argv)
    try:
        return int(args.run(args))
    except (ManifestError, ShotsError, FractionError, RecordingsError, ConfigError, RunLockedError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except SlurmError as error:
        print(f"error: {error}", file=sys.stderr)
        return 4
    except OSError as error:
        print(f"error: cannot write {text_of(error)} (change --out)", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
