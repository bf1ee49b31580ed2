"""What a checkpoint costs the training: written in the background against written in the foreground.

ViT-B/16 on clips of 16 x 64 x 64, ZeRO-2 on one rank in float32: 1.5 GB on disk, real deepspeed, real fsync. Rounds
alternate on one engine; each saves once and trains on. The stall is what the saver reports as lost, which is the whole save
in the foreground. Lost altogether adds what the steps slowed down while the writer was at work beside them: on a CPU they
share the cores, so that is to look at only.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
ROUNDS, STEPS = 3, 6
TARGET = 3.0


def results() -> Iterator[dict[str, Any]]:
    """The stall per save, and what is lost with slower steps counted in."""
    done = subprocess.run([sys.executable, "-m", "tests.bench.bench_save"], cwd=ROOT, stdout=subprocess.PIPE, text=True,
                          check=True, env={**os.environ, "OMP_NUM_THREADS": str(os.cpu_count())})
    found = json.loads(done.stdout.splitlines()[-1])
    for name, target in (("stall", TARGET), ("lost", None)):
        ours, peer = (found[mode][name] for mode in ("background", "foreground"))
        ratios = [p / o for o, p in zip(ours, peer, strict=True)]
        yield {"name": f"save_{name}", "unit": f"s per save of {found['gib']:.2f} GiB", "target": target, "rounds": ROUNDS,
               "ours": statistics.median(ours), "peer": statistics.median(peer), "ratio": statistics.median(ratios),
               "ratio_range": [min(ratios), max(ratios)]}


def measure() -> dict[str, Any]:
    """Seconds of each round, by mode."""
    import torch

    from vidmae import dist
    from vidmae.checkpoint import Saver
    from vidmae.config import CheckpointConfig, TrainConfig
    from vidmae.engine import Engine
    from vidmae.masking import random_mask
    from vidmae.model import MaskedAutoencoder, param_groups
    from vidmae.record import RunFolder
    from vidmae.sizes import model_shape

    ranks = dist.init("cpu")
    shape = model_shape("mae_vit_base_patch16", img_size=64)
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
        savers = {mode: Saver(engine, RunFolder(Path(folder) / mode), train, ranks, say=lambda _: None,
                              keep=CheckpointConfig(keep_last=1, background=mode == "background"))
                  for mode in ("background", "foreground")}
        found: dict[str, Any] = {mode: {"stall": [], "lost": []} for mode in savers}
        for saver in savers.values():
            saver.prepare(0, 1)
        alone = []
        for _ in range(2 * STEPS):
            began = time.monotonic()
            step(savers["foreground"])
            alone.append(time.monotonic() - began)
        for n in range(ROUNDS):
            for mode in sorted(savers, reverse=bool(n % 2)):
                os.sync()
                began, steps = time.monotonic(), 0
                stall_s = savers[mode].begin(n + 1)
                while steps < STEPS or savers[mode].busy:
                    stall_s += step(savers[mode])
                    steps += 1
                stall_s += savers[mode].save(n + 1)
                found[mode]["stall"].append(stall_s)
                found[mode]["lost"].append(time.monotonic() - began - steps * statistics.median(alone))
    dist.close()
    return {**found, "gib": engine.checkpoint_bytes / 2**30}


if __name__ == "__main__":
    print(json.dumps(measure()))
