"""A Python without this project's libraries: one line that says which one to take, and no traceback. Stdlib only.

Commands import what they need at their top, so nothing of theirs runs before this is met. `jobs/__init__.py` calls it, which
every command of jobs/ and sweeps/ imports first.
"""

from __future__ import annotations

import sys
from pathlib import Path
from types import TracebackType

ROOT = Path(__file__).resolve().parents[2]
WINGS = ("jobs", "sweeps", "analysis", "vidmae")
EXIT_USAGE = 2


def say_what_is_missing() -> None:
    """Where a command of this clone runs, let it end with a sentence if a library is missing. Others are left alone."""
    script = getattr(sys.modules.get("__main__"), "__file__", None)
    if script and Path(script).resolve().parent in {ROOT / "jobs", ROOT / "sweeps"}:
        sys.excepthook = _hook


def _hook(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    name = (error.name or "").partition(".")[0] if isinstance(error, ModuleNotFoundError) else ""
    if not name or name in WINGS:  # a mistake in the code, with its traceback
        sys.__excepthook__(kind, error, trace)
        return
    environment = ROOT / ".venv/bin/python"
    take = f"use {environment}" if environment.exists() else \
        f"install what is needed (pip install --requirement {ROOT / 'requirements.txt'})"
    print(f"error: the library {name} is missing in {sys.executable}; {take}, or activate the environment that has it",
          file=sys.stderr, flush=True)
    sys.exit(EXIT_USAGE)
