"""Who may run beside whom: `make test` gives each file to one of two processes (pytest-xdist), the Slurm tests to one."""

from __future__ import annotations

from typing import Any

import pytest

import vidmae  # noqa: F401  (sets vidmae/numerics.py before a test loads torch)

SLURM = "tests/slurm"
# those that take minutes begin first, so that no process is left alone with one of them at the end
LONG = (SLURM, *(f"tests/vidmae/{room}/test_{name}.py" for room, name in (
    ("train", "recovery"), ("train", "pretrain"), ("ranks", "checkpoint"), ("ranks", "engine"), ("clips", "reading"))))


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
