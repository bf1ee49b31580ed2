"""Preparing footage without processes of its own: each would load OpenCV, scikit-image and PyAV anew, for a second of a core."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from vidmae.footage import killable
from vidmae.footage.killable import Outcome
from vidmae.preparing import prepare_archives


def _map_here(function: Any, items: Any, **_: Any) -> Iterator[Outcome[Any]]:
    for index, item in enumerate(items):
        try:
            yield Outcome(index, function(item), None)
        except Exception as error:
            yield Outcome(index, None, str(error))


@contextmanager
def in_this_process() -> Iterator[None]:
    """While it is entered, recordings are checked and prepared in this process."""
    with pytest.MonkeyPatch.context() as patch:
        for module in (prepare_archives, killable):
            patch.setattr(module, "map_killable", _map_here)
        yield
