"""The command `vidmae`, which pip installs: a short name for each script that lies at the top of a wing.

    vidmae                                    all commands, by wing
    vidmae pretrain --nodes 8 --partition gpu
                                              the same as python jobs/pretrain.py --nodes 8 --partition gpu
    vidmae status --help                      the same text as python jobs/status.py --help
    vidmae --version

`vidmae` is replaced by Python with the script (exec): arguments, output, signals and exit code are the script's own. It
runs the scripts of the clone that it was installed from; `python jobs/pretrain.py` runs those of the clone at hand.

To complete commands and flags with TAB, add one line to the start file of your shell:

    eval "$(vidmae completion bash)"          ~/.bashrc
    eval "$(vidmae completion zsh)"           ~/.zshrc, after `autoload -U compinit && compinit`
    vidmae completion fish | source           ~/.config/fish/config.fish

Exit codes: 0 ok, 2 no such command; else those of the command.
"""

from __future__ import annotations

import argparse
import ast
import os
import runpy
import shutil
import sys
import textwrap
from pathlib import Path
from typing import NoReturn

import vidmae
from jobs.place.snapshot import ROOT
from vidmae.settings.layers import nearest

WINGS = {
    "jobs": "start work on a cluster or on this machine, and look after it",
    "sweeps": "many runs as Slurm arrays",
    "analysis": "results to tables, figures and pages",
}
OTHER_NAMES = {"sweeps/pretrain.py": "pretrain-grid", "analysis/scaling.py": "scaling-figures",
               "analysis/robustness.py": "robustness-tables"}
"""Commands that are not called as their script, since another wing has the name."""
SHELLS = ("bash", "zsh", "fish")


def commands(root: Path = ROOT) -> dict[str, Path]:
    """Every command and its script, in the order of the wings."""
    scripts = [path for wing in WINGS for path in sorted((root / wing).glob("*.py")) if path.name != "__init__.py"]
    return {OTHER_NAMES.get(path.relative_to(root).as_posix(), path.stem): path for path in scripts}


def summary(script: Path) -> str:
    """The first line of a script's docstring; where the sentence goes on in the next line, what comes before its colon."""
    line = (ast.get_docstring(ast.parse(script.read_text(encoding="utf-8"))) or "").partition("\n")[0]
    return line if line.endswith((".", "?")) else line.partition(":")[0] + "."


def overview() -> str:
    """What `vidmae` alone shows; as wide as the terminal."""
    known = commands()
    width = max(map(len, known))
    columns = shutil.get_terminal_size().columns if sys.stdout.isatty() else sys.maxsize
    lines = ["usage: vidmae COMMAND ...", "       vidmae COMMAND --help", "       vidmae --version"]
    for wing, what in WINGS.items():
        lines += ["", f"{wing}: {what}"]
        lines += [textwrap.fill(f"  {name:<{width}}  {summary(path)}", columns, subsequent_indent=" " * (width + 4))
                  for name, path in known.items() if path.parent.name == wing]
    return "\n".join([*lines, "", f"completion in the shell: vidmae completion {'|'.join(SHELLS)}"])


def main(argv: list[str] | None = None) -> int:
    """Show the commands, or become one of them; the exit code."""
    if "_ARGCOMPLETE" in os.environ:
        complete()
    first, *more = (sys.argv[1:] if argv is None else argv) or ["--help"]
    if first in ("-h", "--help"):
        print(overview())
        return 0
    if first == "--version":
        print(f"vidmae {vidmae.__version__}")
        return 0
    if first == "completion":
        return print_completion(more)
    script = commands().get(first)
    if script is not None:
        os.execv(sys.executable, [sys.executable, str(script), *more])
    print(f"error: unknown command {first!r}{nearest(first, [*commands(), 'completion'])} (vidmae lists the commands)",
          file=sys.stderr)
    return 2


def completion_parser() -> argparse.ArgumentParser:
    """The command line of `vidmae completion`."""
    parser = argparse.ArgumentParser("vidmae completion", description="Print what a shell needs to complete vidmae.")
    parser.add_argument("shell", choices=SHELLS)
    return parser


def print_completion(argv: list[str]) -> int:
    """Print the lines that a shell evaluates to complete `vidmae`."""
    from argcomplete.shell_integration import shellcode

    print(shellcode(["vidmae"], shell=completion_parser().parse_args(argv).shell))
    return 0


def complete() -> NoReturn:
    """Answer the shell that asks for completions, and leave. The shell tells in variables what is typed so far."""
    import argcomplete
    from argcomplete.lexers import split_line

    words = split_line(os.environ["COMP_LINE"], int(os.environ["COMP_POINT"]))[3]  # those before the one at the cursor
    if len(words) < 2:
        argcomplete.autocomplete(first_word_parser(), always_complete_options=False)
    elif parser := command_parser(words[1]):
        os.environ["_ARGCOMPLETE"] = "2"  # the command line begins at the second word
        argcomplete.autocomplete(parser, always_complete_options="long")
    sys.exit(1)  # nothing to offer


def command_parser(name: str) -> argparse.ArgumentParser | None:
    """The parser of a command; None where there is no such command."""
    if name == "completion":
        return completion_parser()
    script = commands().get(name)
    if script is None:
        return None
    parser: argparse.ArgumentParser = runpy.run_path(str(script), run_name="completed")["make_parser"]()
    return parser


def first_word_parser() -> argparse.ArgumentParser:
    """A parser that knows the names of the commands."""
    parser = argparse.ArgumentParser("vidmae")
    parser.add_argument("--version", action="store_true")
    verbs = parser.add_subparsers()
    for name, script in commands().items():
        verbs.add_parser(name, help=summary(script))
    verbs.add_parser("completion", help="Print what a shell needs to complete vidmae.")
    return parser


if __name__ == "__main__":
    sys.exit(main())
