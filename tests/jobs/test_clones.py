"""Two clones and one environment: a script runs the code of the clone that it lies in."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from jobs.standing.runs import all_runs, state_of
from tests.support.labelled import write_labelled
from tests.support.launching import CELL_STAND_IN, ROOT, STAND_IN, write_manifest
from vidmae.runs.record import RunFolder, read_json

WINGS = ("vidmae", "jobs", "sweeps", "analysis")


def make_clone(path: Path) -> Path:
    """A repository of its own: this tree, with stand-ins for training that leave the path of the file that ran."""
    for wing in WINGS:
        shutil.copytree(ROOT / wing, path / wing, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "requirements.txt", "Makefile"):
        shutil.copyfile(ROOT / name, path / name)
    (path / "tests/setup").mkdir(parents=True)
    shutil.copyfile(ROOT / "tests/setup/check_venv.py", path / "tests/setup/check_venv.py")
    shutil.copyfile(ROOT / "tests/requirements.txt", path / "tests/requirements.txt")
    (path / "vidmae/train/pretrain.py").write_text(f"CLONE = {path.name!r}\n{STAND_IN}")
    (path / "vidmae/train/cell.py").write_text(f"CLONE = {path.name!r}\n{CELL_STAND_IN}")
    (path / "vidmae/mark.py").write_text(f'"""Of this clone alone."""\n\nprint("this is clone {path.name}")\n')
    recipe = path / "vidmae/recipes/demo.yaml"
    recipe.write_text(recipe.read_text().replace("name: demo", f"name: of-{path.name}", 1))
    for command in (["init", "-q"], ["add", "-A"], ["-c", "user.name=t", "-c", "user.email=t@t", "commit", "-qm", path.name]):
        subprocess.run(["git", "-C", str(path), *command], check=True)
    return path


@pytest.fixture(scope="module")
def clones(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("clones")
    return make_clone(folder / "a"), make_clone(folder / "b")


@pytest.fixture
def env(clones: tuple[Path, Path]) -> dict[str, str]:
    """An environment that finds the wings in clone B, whatever it has installed, as an `-e .` of B does."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("VIDMAE_", "SLURM_"))}
    return {**clean, "PYTHONPATH": str(clones[1])}


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    write_manifest(tmp_path / "manifests/demo.csv")
    write_labelled(tmp_path / "manifests")
    (tmp_path / "say.pth").write_bytes(b"weights")
    yield tmp_path


def typed(clone: Path, script: str, *args: str, cwd: Path, env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, str(clone / script), *args], cwd=cwd, env=env, capture_output=True, text=True,
                          timeout=60, stdin=subprocess.DEVNULL)


def commit_of(clone: Path) -> str:
    return subprocess.run(["git", "-C", str(clone), "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()


def ended(run: RunFolder) -> str:
    deadline = time.monotonic() + 60
    while state_of(run).active and time.monotonic() < deadline:
        time.sleep(0.1)
    return state_of(run).state


LOCAL = ["--cluster", "local", "--gpus-per-node", "0", "--cpus-per-task", "1"]


def test_a_run_has_the_recipe_the_code_and_the_commit_of_the_clone_that_was_typed(clones, env, folder) -> None:
    done = typed(clones[0], "jobs/pretrain.py", "--recipe", "demo", *LOCAL, cwd=folder, env=env)
    assert done.returncode == 0, done.stderr
    (run,) = all_runs(folder / "runs")
    assert ended(run) == "COMPLETED" and run.path.name.startswith("of-a-")
    record = read_json(run.record) or {}
    assert (record["commit"], record["dirty"]) == (commit_of(clones[0]), False) and commit_of(clones[0]) != commit_of(clones[1])
    seen = json.loads(next(run.path.glob("seen.*.json")).read_text())
    assert seen["file"] == str(run.code / "vidmae/train/pretrain.py") and "CLONE = 'a'" in Path(seen["file"]).read_text()


def test_the_cells_of_an_array_run_the_code_of_the_clone_that_was_typed(clones, env, folder) -> None:
    done = typed(clones[0], "sweeps/fewshot.py", "--recipe", "finetune_demo", "--checkpoints", "say.pth", "--shots", "2", "--seeds",
                 "0", "--data", "toys", *LOCAL, cwd=folder, env=env)
    assert done.returncode == 0, done.stderr
    (run,) = all_runs(folder / "runs")
    assert ended(run) == "COMPLETED" and (read_json(run.record) or {})["commit"] == commit_of(clones[0])
    seen = json.loads(next(run.path.glob("seen.*.json")).read_text())
    assert seen["file"] == str((run.code / "vidmae/train/cell.py").resolve()) and "CLONE = 'a'" in Path(seen["file"]).read_text()


def test_a_program_that_a_script_starts_is_of_the_same_clone(clones, env, folder) -> None:
    code = (f"import sys; sys.path.insert(0, {str(clones[0])!r}); from rich.console import Console\n"
            "from vidmae.ranks.local_program import run_program\nrun_program('vidmae.mark', [], Console(), 'clips', workers=1)")
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, env=env, capture_output=True, text=True, timeout=60)
    assert "this is clone a" in done.stdout, done.stderr


def test_a_clone_needs_no_installation(clones, folder) -> None:
    """Libraries alone: -S leaves out what finds an installed clone, and a folder with the libraries comes back."""
    libraries = [path for path in sys.path if path.endswith("site-packages")]
    clean = {"PATH": os.environ["PATH"], "PYTHONPATH": os.pathsep.join(libraries)}
    for script in ("jobs/status.py", "sweeps/fewshot.py", "analysis/goodput.py"):
        done = subprocess.run([sys.executable, "-S", str(clones[0] / script), "--help"], cwd=folder, env=clean,
                              capture_output=True, text=True, timeout=60)
        assert done.returncode == 0 and done.stdout.startswith("usage:"), done.stderr


@pytest.mark.parametrize(("script", "first"), [("jobs/pretrain.py", "yaml"), ("jobs/prepare.py", "yaml"),
                                               ("sweeps/fewshot.py", "yaml"), ("analysis/collect.py", "pandas")])
def test_a_missing_library_is_a_sentence_and_a_mistake_in_the_code_is_not(clones, folder, script, first) -> None:
    command, env = [sys.executable, "-S", str(clones[0] / script), "--help"], {"PATH": os.environ["PATH"]}
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert re.match(rf"error: the library \w+ is missing in {re.escape(sys.executable)}; .*{re.escape(str(clones[0]))}/requirements.txt", done.stderr)
    (folder / "rich").mkdir()
    (folder / f"{first}.py").write_text("import vidmae.nothing\n")
    done = subprocess.run(command, cwd=folder, env={**env, "PYTHONPATH": str(folder)}, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1 and "Traceback" in done.stderr and "vidmae.nothing" in done.stderr


@pytest.mark.parametrize(("installed", "refused"), [("b", True), ("a", False), ("gone", False), (None, False)])
def test_make_does_not_repoint_the_environment_of_another_clone(clones, tmp_path, installed, refused) -> None:
    venv = tmp_path / "shared"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(venv)], check=True)
    (venv / "bin/pip").write_text(f"#!/bin/sh\necho \"$@\" > '{tmp_path}/installs'\n")  # no network: it notes what it would do
    (venv / "bin/pip").chmod(0o755)
    if installed:
        (site,) = venv.glob("lib/python*/site-packages")
        (site / "vidmae-0.1.0.dist-info").mkdir()
        (site / "vidmae-0.1.0.dist-info/METADATA").write_text("Metadata-Version: 2.1\nName: vidmae\nVersion: 0.1.0\n")
        url = {"url": (clones[0].parent / installed).as_uri(), "dir_info": {"editable": True}}
        (site / "vidmae-0.1.0.dist-info/direct_url.json").write_text(json.dumps(url))
    done = subprocess.run(["make", f"VENV={venv}", "PYTHON=true", f"{venv}/.ready"], cwd=clones[0], capture_output=True, text=True)
    assert (done.returncode != 0) == refused, done.stderr
    assert (tmp_path / "installs").exists() != refused and (venv / ".ready").exists() != refused
    if refused:
        assert f"runs the code of {clones[1]}" in done.stderr and f"pip install --editable {clones[0]}" in done.stderr
