"""A training step (forward and backward) with compiled blocks against the same step without, on the CPU.

ViT-B/16 with clips of 16 x 224 x 224, batch 2, and a tiny model with clips of 64 px, batch 8, where small operations weigh
more; float32 and bf16 under autocast. One process, equal weights, clips and masks, interleaved rounds after a warm-up, and
loss and gradients that must agree before anything is timed. To look at only: train.compile is meant for GPUs, and this says
what it is worth on a CPU. `compile_s` is the first step with an empty cache.
"""

from __future__ import annotations

import argparse
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

import torch

from jobs.submit.launch import MALLOC
from vidmae.model import compiled
from vidmae.model.mae import MaskedAutoencoder
from vidmae.model.masking import random_mask
from vidmae.settings.sizes import model_shape

ROOT = Path(__file__).parents[2]
SIZES = {"tiny": (model_shape("mae_vit_tiny_patch8", img_size=64, decoder_embed_dim=96, decoder_num_heads=3), 8, 15),
         "base": (model_shape("mae_vit_base_patch16"), 2, 5)}  # shape, batch, rounds


def results() -> Iterator[dict[str, Any]]:
    """Every measurement in a fresh process with a cache of its own, glibc tuned as in a job."""
    for size in SIZES:
        for dtype in ("fp32", "bf16"):
            with tempfile.TemporaryDirectory() as cache:
                command = [sys.executable, "-m", "tests.bench.bench_compile", size, dtype]
                env = {**os.environ, **MALLOC, compiled.CACHE: cache}
                done = subprocess.run(command, cwd=ROOT, env=env, stdout=subprocess.PIPE, text=True, check=True)
            yield {"name": f"compile_{size}_{dtype}", "unit": "wall s, 2 thread(s); peer: eager", "target": None,
                   **json.loads(done.stdout.splitlines()[-1])}


def measure(size: str, dtype: str) -> dict[str, Any]:
    """Medians of interleaved rounds."""
    torch.set_num_threads(2)
    compiled.use_own_cache(0)
    shape, batch, rounds = SIZES[size]
    clips = torch.randint(0, 256, (batch, shape.num_frames, shape.img_size, shape.img_size, 3), dtype=torch.uint8)
    mask = random_mask(shape.num_tokens, 0.9, batch, generator=torch.Generator().manual_seed(0))
    torch.manual_seed(0)
    models = {"ours": MaskedAutoencoder(shape), "peer": MaskedAutoencoder(shape)}
    models["peer"].load_state_dict(models["ours"].state_dict())
    compiled.compile_blocks(models["ours"])

    def timed(who: str) -> float:
        models[who].zero_grad(set_to_none=True)
        began = time.perf_counter()
        with torch.autocast("cpu", torch.bfloat16, enabled=dtype == "bf16"):
            loss = models[who](clips, mask)
        loss.backward()
        losses[who] = float(loss)
        return time.perf_counter() - began

    losses: dict[str, float] = {}
    first_s = {who: timed(who) for who in models}
    assert abs(losses["ours"] - losses["peer"]) <= (1e-5 if dtype == "fp32" else 5e-3) * losses["peer"], losses
    others = dict(models["peer"].named_parameters())
    for name, param in models["ours"].named_parameters():
        if not name.endswith("attn.k.bias"):  # the true gradient is zero, what is left is rounding
            a, b = param.grad, others[name].grad
            assert a is not None and b is not None and (a - b).norm() <= (1e-4 if dtype == "fp32" else 0.1) * b.norm(), name
    times: dict[str, list[float]] = {"ours": [], "peer": []}
    for i in range(rounds):
        for who in sorted(times, reverse=bool(i % 2)):
            times[who].append(timed(who))
    median = {who: statistics.median(t) for who, t in times.items()}
    ratios = [p / o for o, p in zip(times["ours"], times["peer"], strict=True)]
    return {**median, "ratio": median["peer"] / median["ours"], "ratio_range": [min(ratios), max(ratios)], "rounds": rounds,
            "compile_s": first_s["ours"] - median["ours"]}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="one measurement, as JSON on the last line")
    parser.add_argument("size", choices=sorted(SIZES))
    parser.add_argument("dtype", choices=["fp32", "bf16"])
    args = parser.parse_args()
    print(json.dumps(measure(args.size, args.dtype)))
