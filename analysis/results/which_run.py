"""Which run a user means, where no job is asked about: by its folder, its id or the start of it."""

from __future__ import annotations

from pathlib import Path

from vidmae.runs.record import runs_that_fit

SHOWN = 10  # of many runs in a message


def find_run(given: str, runs_dir: Path) -> Path:
    """The folder of the run that a user means.

    Raises:
        ValueError: None or several fit; the message names them.
    """
    if Path(given).is_dir():
        return Path(given).absolute()
    names = sorted(path.parent.name for path in runs_dir.glob("*/run.json"))
    fit = runs_that_fit(given, names)
    if len(fit) != 1:
        shown = ", ".join(fit[:SHOWN]) + (" ..." if len(fit) > SHOWN else "")
        raise ValueError(f"{given!r} fits {len(fit)} runs: {shown}; give more of the name" if fit else
                         f"no run {given!r} in {runs_dir}, which has {len(names)} (--runs-dir names another folder)")
    return (runs_dir / fit[0]).absolute()
