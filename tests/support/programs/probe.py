"""Probe several cells at once, each in a process of its own that is forked off this one: one import of torch for all.

    python -m tests.support.programs.probe '[{"RANK": "0", ...}, ...]' RUN...     one environment and one run folder a process
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import torch

from vidmae.ranks import dist, watchdog
from vidmae.runs.record import RunFolder
from vidmae.settings.finetune_config import FinetuneConfig
from vidmae.settings.layers import load
from vidmae.train.probe_cell import probe


def run_cell(path: str) -> None:
    torch.set_num_threads(1)
    run = RunFolder(Path(path))
    assert probe(run, load(FinetuneConfig, run.config), dist.init("cpu"), 0.0)


def main() -> int:
    children = []
    for env, path in zip(json.loads(sys.argv[1]), sys.argv[2:], strict=True):
        child = os.fork()
        if child == 0:
            code = 1
            try:
                os.environ.update(env)
                run_cell(path)
                code = 0
            finally:
                watchdog.end_process(code)
        children.append(child)
    return max(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children)


if __name__ == "__main__":
    sys.exit(main())
