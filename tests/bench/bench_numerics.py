"""What the setting costs that keeps bits independent of where an array lies (vidmae/start/numerics.py), on this processor.

CPU seconds with one thread, of a square product and of a training step of ViT-B's width (one encoder and one decoder block),
both in float32, in fresh processes with and without the setting; rounds alternate. No target: it is a price, not a gain.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from vidmae.start.numerics import SETTING, VARIABLE

ROOT = Path(__file__).parents[2]
ROUNDS = 5
REPEATS = 5


def results() -> Iterator[dict[str, Any]]:
    """One row for the product, one for the step."""
    spent: dict[str, list[dict[str, float]]] = {SETTING: [], "": []}
    for _ in range(ROUNDS):
        for setting, found in spent.items():
            done = subprocess.run([sys.executable, "-m", "tests.bench.bench_numerics"], cwd=ROOT, check=True, text=True,
                                  stdout=subprocess.PIPE, env={**os.environ, VARIABLE: setting})
            found.append(json.loads(done.stdout))
    for name in ("product", "step"):
        ours, peer = ([each[name] for each in spent[setting]] for setting in (SETTING, ""))
        ratios = [p / o for o, p in zip(ours, peer, strict=True)]
        yield {"name": f"numerics_{name}_fp32", "unit": "CPU s, with and without the setting", "target": None,
               "rounds": ROUNDS, "ours": statistics.median(ours), "peer": statistics.median(peer),
               "ratio": statistics.median(ratios), "ratio_range": [min(ratios), max(ratios)]}


def measure() -> dict[str, float]:
    """CPU seconds of each, the best of some."""
    import torch

    from vidmae.model.mae import MaskedAutoencoder
    from vidmae.model.masking import random_mask
    from vidmae.settings.sizes import model_shape

    torch.set_num_threads(1)
    a = torch.randn(1536, 1536)
    shape = replace(model_shape("mae_vit_base_patch16"), depth=1, decoder_depth=1)
    model = MaskedAutoencoder(shape)
    clips = torch.randint(0, 256, (1, shape.num_frames, shape.img_size, shape.img_size, 3), dtype=torch.uint8)
    mask = random_mask(shape.num_tokens, 0.9, 1, generator=torch.Generator().manual_seed(0))
    return {"product": _best(lambda: torch.mm(a, a)), "step": _best(lambda: model(clips, mask).backward())}


def _best(call: Callable[[], object]) -> float:
    spent = []
    for _ in range(REPEATS):
        started = time.process_time()
        call()
        spent.append(time.process_time() - started)
    return min(spent)


if __name__ == "__main__":
    print(json.dumps(measure()))
