"""Who may run beside whom: `make test` gives each file to one of two processes (pytest-xdist), the Slurm tests to one.

And what `make check` runs: `pytest --quick` leaves out the files that need more than a few seconds, or another program.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

if "PYTEST_XDIST_WORKER" in os.environ:  # processes share the cores, and threads of OpenMP spin while they wait for each other
    os.environ.setdefault("OMP_NUM_THREADS", "1")

import vidmae  # noqa: F401  (sets vidmae/start/numerics.py before a test loads torch)

SLURM = "tests/slurm"
# those that take minutes begin first, so that no process is left alone with one of them at the end
LONG = (SLURM, "tests/gpu/test_kit.py", *(f"tests/{room}/test_{name}.py" for room, name in (
    ("vidmae/train", "recovery"), ("jobs", "cancel"), ("vidmae/footage", "manifest_build"), ("vidmae/train", "pretrain"),
    ("same", "same"), ("vidmae/train", "finetune"))))
# What `--quick` leaves out, folders or files, none of them imported: what takes about 10 s of CPU time or more, or waits for
# jobs. tests/house takes 20 s and stays. The rest took 180 s of CPU time in two processes on a busy machine
SLOW = (SLURM, "tests/bench", "tests/gpu", "tests/same", "tests/vidmae/train", *LONG, *(f"tests/{room}/test_{name}.py" for room, names in {
    "jobs": ("cancel", "commands", "demo_clips", "prepare"), "sweeps": ("fewshot", "scaling"),
    "analysis": ("scaling_figures",), "analysis/page": ("report",),
    "vidmae/footage": ("archives", "manifest", "manifest_build", "open_video"),
    "vidmae/clips": ("loader", "reading", "recheck"), "vidmae/evaluate": ("extract", "predict"),
    "vidmae/ranks": ("checkpoint", "engine", "numerics", "precision"),
    "vidmae/insight": ("attention", "embed", "embeddings", "interpolate", "tracking"),
}.items() for name in names))


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--quick`."""
    parser.addoption("--quick", action="store_true", help="leave out the test files that take long (SLOW in tests/conftest.py)")


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leave out what is slow where `--quick` asks for it."""
    return True if config.getoption("quick") and collection_path in {config.rootpath / path for path in SLOW} else None


@pytest.fixture(scope="session", autouse=True)
def _temporary(tmp_path_factory: pytest.TempPathFactory) -> None:
    """What tests of a process share lies where pytest tidies up, should the process be killed."""
    from tests.support.facilities import TEMPORARY

    TEMPORARY[:] = [tmp_path_factory.getbasetemp()]


def group(nodeid: str) -> str:
    """Tests of a group run in one process, in their order: they share what a file makes once, or the one cluster."""
    return SLURM if nodeid.startswith(f"{SLURM}/") else nodeid.partition("::")[0]


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """`--dist loadfile` with all files of the Slurm tests as one.

    pytest-xdist's marks for groups (`--dist loadgroup`) are not used: 3.8 does not see them with pytest 9.2.
    """
    from xdist.scheduler import LoadFileScheduling

    class Scheduling(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return group(nodeid)

    return Scheduling(config, log) if config.getoption("dist") == "loadfile" else None


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Put the long ones first where several processes share the work."""
    if hasattr(config, "workerinput"):
        items.sort(key=lambda item: LONG.index(group(item.nodeid)) if group(item.nodeid) in LONG else len(LONG))
