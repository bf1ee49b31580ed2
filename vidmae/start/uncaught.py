"""What a command says that ends by what nobody caught: a library that is missing, and Ctrl-C. A sentence, no traceback.

Stdlib only. Commands import what they need at their top, so nothing of theirs runs before a missing library is met.
`jobs/__init__.py` and `analysis/__init__.py` call this; each command imports one of them before any library.
"""

from __future__ import annotations

import sys
from pathlib import Path
from types import TracebackType

ROOT = Path(__file__).resolve().parents[2]
COMMANDS = ("jobs", "sweeps", "analysis")  # the wings with commands at their top
EXIT_USAGE, EXIT_INTERRUPTED = 2, 130


def end_with_a_sentence() -> None:
    """Where a command of this clone runs, let it end so. Other programs are left alone."""
    script = getattr(sys.modules.get("__main__"), "__file__", None)
    if script and Path(script).resolve().parent in {ROOT / wing for wing in COMMANDS}:
        sys.excepthook = _hook


def _hook(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    if isinstance(error, KeyboardInterrupt):
        print("\ninterrupted", file=sys.stderr, flush=True)
        sys.exit(EXIT_INTERRUPTED)
    name = (error.name or "").partition(".")[0] if isinstance(error, ModuleNotFoundError) else ""
    if not name or name in (*COMMANDS, "vidmae"):  # a mistake in the code, with its traceback
        sys.__excepthook__(kind, error, trace)
        return
    environment = ROOT / ".venv/bin/python"
    take = f"use {environment}" if environment.exists() else \
        f"install what is needed (pip install --requirement {ROOT / 'requirements.txt'})"
    print(f"error: the library {name} is missing in {sys.executable}; {take}, or activate the environment that has it",
          file=sys.stderr, flush=True)
    sys.exit(EXIT_USAGE)
