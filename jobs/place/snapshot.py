"""The code of a run: a copy of the wings in code/, and which commit it is. No footage, no .git, nothing but source."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

from vidmae.runs.record import RunFolder, make_private_folder

ROOT = Path(__file__).resolve().parents[2]
WINGS = ("vidmae", "jobs", "sweeps", "analysis")
SUFFIXES = (".py", ".yaml")
GIT_TIMEOUT_S = 20.0
PACKAGES = ("torch", "deepspeed", "numpy", "safetensors", "decord", "av", "torchcodec", "opencv-python-headless", "submitit")
"""Whose versions a run notes: what its numbers may depend on."""


@dataclass(frozen=True)
class CodeState:
    """Where the code stands: commit (None outside of git), whether it was changed since, and the change."""

    commit: str | None
    dirty: bool
    diff: str = ""

    def record(self) -> dict[str, Any]:
        """What run.json keeps of it."""
        return {key: value for key, value in asdict(self).items() if key != "diff"}


def code_state(root: Path = ROOT) -> CodeState:
    """Commit of the code, and the difference from it of what would be copied."""
    commit = _git(root, "rev-parse", "HEAD")
    if commit is None:
        return CodeState(None, False)
    paths = [wing for wing in WINGS if (root / wing).is_dir()] + ["pyproject.toml"]
    changed = _git(root, "status", "--porcelain", "--", *paths) or ""
    diff = (_git(root, "diff", "HEAD", "--", *paths) or "") if changed.strip() else ""
    return CodeState(commit.strip(), bool(changed.strip()), diff)


@cache
def environment() -> dict[str, Any]:
    """Versions of Python and of PACKAGES where the launcher runs, for run.json; a package that is not installed is left out.

    Ranks have the same, unless the profile's `python` starts another one, such as that of a container. torch's version has
    the CUDA version that it was built with (`+cu126`) where its wheel says so.
    """
    found = {}
    for name in PACKAGES:
        with suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return {"of": "the launcher", "python": platform.python_version(), "packages": found}


def take_snapshot(run: RunFolder, state: CodeState, root: Path = ROOT) -> None:
    """Copy the wings to code/, in place of an older copy. Untracked source files are copied too."""
    fresh = run.path / ".code.new"
    shutil.rmtree(fresh, ignore_errors=True)
    make_private_folder(fresh)
    for wing in WINGS:
        for source in sorted((root / wing).rglob("*")):
            if source.is_file() and source.suffix in SUFFIXES and "__pycache__" not in source.parts:
                target = fresh / source.relative_to(root)
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(source, target)
    shutil.copyfile(root / "pyproject.toml", fresh / "pyproject.toml")
    if state.commit:
        (fresh / "COMMIT").write_text(state.commit + "\n")
    if state.diff:
        (fresh / "DIRTY.diff").write_text(state.diff)
    _put(fresh, run)


def share_snapshot(run: RunFolder, other: RunFolder) -> None:
    """The snapshot of another array of the same call, in place of an older copy: hard links of its files, where the file
    system has them. A hundred arrays would otherwise copy a hundred times."""
    fresh = run.path / ".code.new"
    shutil.rmtree(fresh, ignore_errors=True)
    shutil.copytree(other.code, fresh, copy_function=_link_or_copy, ignore=shutil.ignore_patterns("__pycache__"))
    fresh.chmod(0o700)
    _put(fresh, run)


def _link_or_copy(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def _put(fresh: Path, run: RunFolder) -> None:
    """A new snapshot in place of the one before."""
    old = run.path / ".code.old"
    shutil.rmtree(old, ignore_errors=True)
    if run.code.exists():
        run.code.rename(old)
    fresh.rename(run.code)
    shutil.rmtree(old, ignore_errors=True)


def _git(root: Path, *args: str) -> str | None:
    """Output of a git command on the repository that `root` is the top of, or None."""
    if not (root / ".git").exists():
        return None
    try:
        done = subprocess.run(["git", "-C", str(root), *args], capture_output=True, text=True, errors="replace",
                              timeout=GIT_TIMEOUT_S, stdin=subprocess.DEVNULL)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None
