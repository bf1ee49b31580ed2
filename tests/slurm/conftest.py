"""One real Slurm cluster for all tests of this folder: started on first use, stopped at the end whatever happens."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.slurm import cluster as slurm
from tests.support.facilities import need

PREFIX = f"vidmae-slurm-pytest-{os.getuid()}-"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark every test of this folder, so that `-m "not slurm"` leaves them out."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker("slurm")


@pytest.fixture(scope="session")
def cluster() -> Iterator[slurm.Cluster]:
    """A running cluster: 4 nodes cn1..cn4 with 2 pretend GPUs each; SLURM_CONF is set for the whole session.

    A test that breaks something (kills a node, stops the controller) puts it right again before it ends.
    """
    need("slurm")
    slurm.sweep(f"{PREFIX}*")  # clusters of sessions that were killed
    folder = Path(tempfile.mkdtemp(prefix=PREFIX))
    try:
        running = slurm.start(folder)
    except slurm.Unavailable as error:
        folder.rmdir()
        need("slurm", str(error))
    except (RuntimeError, subprocess.SubprocessError) as error:
        pytest.fail(f"Slurm is installed but does not start: {error}", pytrace=False)
    saved = dict(os.environ)
    # a session that itself runs in a job must not look like one to the jobs it submits
    for name in [name for name in saved if name.startswith(("SLURM_", "SLURMD_", "SBATCH_", "SRUN_"))]:
        del os.environ[name]
    os.environ.update(running.env)
    try:
        yield running
    finally:
        slurm.stop(folder)
        os.environ.clear()
        os.environ.update(saved)
