"""What a checkpoint costs the training: written in the background against written in the foreground.

ViT-B/16 on clips of 16 x 32 x 32, ZeRO-2 on one rank in float32: 1.5 GiB on disk, real deepspeed, real fsync. Rounds
alternate on one engine; each saves once and trains on until the checkpoint is complete. The stall is what the saver reports
as lost, which is the whole save in the foreground. That the steps meanwhile are slower where the writer shares their cores
is not counted: on a node with GPUs it does not.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
ROUNDS = 3
TARGET = 3.0


def results() -> Iterator[dict[str, Any]]:
    """The stall per save."""
    done = subprocess.run([sys.executable, "-m", "tests.bench.bench_save"], cwd=ROOT, stdout=subprocess.PIPE, text=True,
                          check=True, env={**os.environ, "OMP_NUM_THREADS": str(os.cpu_count())})
    found = json.loads(done.stdout.splitlines()[-1])
    ratios = [p / o for o, p in zip(found["background"], found["foreground"], strict=True)]
    yield {"name": "save_stall", "unit": f"s per save of {found['gib']:.2f} GiB", "target": TARGET, "rounds": ROUNDS,
           "ours": statistics.median(found["background"]), "peer": statistics.median(found["foreground"]),
           "ratio": statistics.median(ratios), "ratio_range": [min(ratios), max(ratios)]}


def measure() -> dict[str, Any]:
    """Seconds that each round lost, by mode."""
    import torch

    from vidmae.model.groups import param_groups
    from vidmae.model.mae import MaskedAutoencoder
    from vidmae.model.masking import random_mask
    from vidmae.ranks import dist
    from vidmae.ranks.engine import Engine
    from vidmae.ranks.saving.checkpoint import Saver
    from vidmae.runs.record import RunFolder
    from vidmae.settings.config import TrainConfig
    from vidmae.settings.keeping_config import CheckpointConfig
    from vidmae.settings.sizes import model_shape

    ranks = dist.init("cpu")
    shape = model_shape("mae_vit_base_patch16", img_size=32)
    train = TrainConfig(zero_stage=2, precision="fp32")
    model = MaskedAutoencoder(shape)
    engine = Engine(model, param_groups(model, train.weight_decay), train, ranks, micro_batch=2, grad_accum=1)
    clips = torch.randint(0, 256, (2, shape.num_frames, shape.img_size, shape.img_size, 3), dtype=torch.uint8)
    mask = random_mask(shape.num_tokens, 0.9, 2, generator=torch.Generator().manual_seed(0))

    def step(saver: Saver) -> float:
        """One step; seconds that a save under way cost it at its end."""
        engine.backward(clips, mask)
        return saver.settle(engine.update(extra=[saver.busy])[2][0])

    with tempfile.TemporaryDirectory() as folder:
        said: dict[str, list[str]] = {"background": [], "foreground": []}
        savers = {mode: Saver(engine, RunFolder(Path(folder) / mode), train, ranks, say=said[mode].append,
                              keep=CheckpointConfig(keep_last=1, background=mode == "background"))
                  for mode in said}
        found: dict[str, Any] = {mode: [] for mode in savers}
        for saver in savers.values():
            saver.prepare(0, 1)
        step(savers["foreground"])  # AdamW's averages are there from now on
        for n in range(ROUNDS):
            for mode in sorted(savers, reverse=bool(n % 2)):
                os.sync()
                stall_s = savers[mode].begin(n + 1)
                while len(said[mode]) <= n:  # until the saver says that the checkpoint is complete
                    stall_s += step(savers[mode])
                found[mode].append(stall_s)
    dist.close()
    return {**found, "gib": engine.checkpoint_bytes / 2**30}


if __name__ == "__main__":
    print(json.dumps(measure()))
