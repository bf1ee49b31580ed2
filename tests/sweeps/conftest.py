"""What the tests of sweeps share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from jobs import cancel
from jobs.standing.runs import all_runs, states


@pytest.fixture
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The current folder is empty and no site is known; cells that a test leaves behind are ended."""
    monkeypatch.chdir(tmp_path)
    for name in ("VIDMAE_PROFILE", "VIDMAE_DATA"):
        monkeypatch.delenv(name, raising=False)
    yield tmp_path
    for state in states(all_runs(tmp_path / "runs"))[0]:
        if state.cluster == "local" and state.active:
            cancel.cancel(state)
