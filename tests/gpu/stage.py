"""One stage in a process of its own: `python -m tests.gpu.stage NAME DEVICE SCALE`, started by run.py."""

from __future__ import annotations

import importlib
import os
import sys
from pathlib import Path

import vidmae  # noqa: F401  (sets what must be set before torch is loaded)
from tests.gpu.report import PARTIAL
from vidmae.runs.record import write_json


def main(name: str, device: str, scale: str) -> int:
    import torch

    from tests.gpu.scales import SCALES

    found = importlib.import_module(f"tests.gpu.stages.{name}").run(torch.device(device), SCALES[scale])
    write_json(Path(os.environ[PARTIAL]), found | {"finished": True})
    return 0


if __name__ == "__main__":
    code = main(*sys.argv[1:])
    from vidmae.ranks.watchdog import end_process

    end_process(code)
