"""Saves a small network while it trains and lets a save fail; prints what happened as JSON; started by test_checkpoint.py."""

import json
import resource
import sys
from pathlib import Path

from tests.support.programs.engine import batch, build, lr_at
from vidmae.ranks import dist
from vidmae.ranks.engine import Engine
from vidmae.ranks.saving.checkpoint import CheckpointError, Saver, restore
from vidmae.ranks.watchdog import end_process
from vidmae.runs.record import RunFolder
from vidmae.settings.config import TrainConfig
from vidmae.settings.keeping_config import CheckpointConfig


def step(engine: Engine, ranks: dist.Ranks, n: int, busy: float) -> float:
    """One update of eight clips; the mean of all ranks' `busy`."""
    engine.set_lr(lr_at(n))
    x, y = batch(n)
    share = 8 // ranks.world_size
    engine.backward(x[ranks.rank * share:][:share], y[ranks.rank * share:][:share])
    return engine.update(extra=[busy])[2][0]


def break_disk(fault: str, run: RunFolder, ranks: dist.Ranks) -> None:
    """From now on the last rank can write small files only, or the disk is full for all."""
    if fault == "limit" and ranks.rank == ranks.world_size - 1:
        resource.setrlimit(resource.RLIMIT_FSIZE, (2048, resource.RLIM_INFINITY))
    if fault == "full" and ranks.is_main:
        with (run.checkpoints / "filler").open("wb", buffering=0) as file:
            try:
                while True:
                    file.write(bytes(1024))
            except OSError:
                pass


def main(path: str, stage: str, fault: str, background: str) -> None:
    """Save step 1, break the disk, save step 2 while steps 3 and 4 are trained, then look for the newest checkpoint."""
    ranks, run = dist.init("cpu"), RunFolder(Path(path))
    train = TrainConfig(zero_stage=int(stage), precision="fp32", clip_grad=0.5)  # type: ignore[arg-type]
    engine = Engine(*build(), train, ranks, micro_batch=8 // ranks.world_size, grad_accum=1)
    said: list[str] = []
    keep = CheckpointConfig(every_steps=1, keep_last=2, background=background == "true")
    saver = Saver(engine, run, train, ranks, keep=keep, say=said.append)
    saver.prepare(0, 2)
    step(engine, ranks, 0, 0.0)
    saver.save(1)
    step(engine, ranks, 1, 0.0)
    break_disk(fault, run, ranks)
    error = ""
    try:
        saver.begin(2)
        for n in (2, 3):
            saver.settle(step(engine, ranks, n, saver.busy))
        saver.save(2)
    except CheckpointError as e:
        error = str(e)
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    (run.checkpoints / "filler").unlink(missing_ok=True)
    ranks.barrier()
    left = sorted(p.name for p in run.checkpoints.iterdir())
    newest = restore(engine, run, train, ranks, said.append)
    print(json.dumps({"error": error, "left": left, "newest": newest, "said": said, "slowest_s": saver.slowest_s,
                      "bytes": engine.checkpoint_bytes}))
    dist.close()
    end_process(0)


if __name__ == "__main__":
    main(*sys.argv[1:])
