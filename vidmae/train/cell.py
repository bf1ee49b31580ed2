"""Run a cell of a sweep in its run folder: `python -m vidmae.train.cell RUN` on every rank.

run.json says which kind of cell it is. One whose result is there ends before torch is imported.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from vidmae.runs.record import RunFolder, read_json

if TYPE_CHECKING:
    from vidmae.ranks.dist import Ranks
    from vidmae.settings.finetune_config import FinetuneConfig


def main(run_path: str) -> int:
    """Learn and test by the method of config.yaml, or test or probe what has learned; the exit code (see `run_program`)."""
    run = RunFolder(Path(run_path))
    if run.result.exists():
        print(f"{run.result} exists: this cell is done", flush=True)
        return 0
    from vidmae.ranks.program import run_program

    kind = (read_json(run.record) or {}).get("kind")
    if kind == "robustness":
        from vidmae.settings.programs.evaluation_config import RobustnessConfig
        from vidmae.train.robustness_cell import run_robustness

        return run_program(run_path, RobustnessConfig, run_robustness)
    if kind == "temporal":
        from vidmae.settings.programs.temporal_config import TemporalConfig
        from vidmae.train.temporal_cell import run_temporal

        return run_program(run_path, TemporalConfig, run_temporal)
    if kind == "dense":
        from vidmae.settings.programs.dense_config import DenseConfig
        from vidmae.train.dense_cell import run_dense

        return run_program(run_path, DenseConfig, run_dense)
    from vidmae.settings.finetune_config import FinetuneConfig

    return run_program(run_path, FinetuneConfig, learn)


def load_before_fork(device_type: str) -> None:
    """Import nothing for a cell that may start again in place: what it needs depends on its method."""


def load_libraries() -> None:
    """Import what a cell on a CPU needs, in a process from which cells are forked; nothing is computed."""
    import vidmae.train.finetune
    import vidmae.train.probe_cell  # noqa: F401
    from vidmae.ranks.engine import load_deepspeed

    load_deepspeed("cpu")


def learn(run: RunFolder, config: FinetuneConfig, ranks: Ranks, started: float) -> bool:
    """Finetune, or probe frozen features; True once the cell's result is there."""
    if config.method == "finetune":
        from vidmae.train.finetune import finetune

        return finetune(run, config, ranks, started)
    from vidmae.train.probe_cell import probe

    return probe(run, config, ranks, started)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python -m vidmae.train.cell RUN_FOLDER")
    code = main(sys.argv[1])
    if "vidmae.ranks.watchdog" in sys.modules:
        from vidmae.ranks import watchdog

        watchdog.end_process(code)
    sys.exit(code)
