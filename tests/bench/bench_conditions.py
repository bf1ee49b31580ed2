"""What corrupting costs beside the model: pictures under the 75 conditions of ImageNet-C, ViT-B/16 on single frames of 224 px.

One process and one thread do everything, decoding, cutting, corrupting and the forward passes, so the CPU time of each can be
told apart. PICTURES stand for the 1,000 of a real test: every one is seen under all conditions, so the shares are those of
more pictures. Precision is what `train.precision: auto` takes on this processor: where 16 bits are fast the model takes less
time, and corrupting a larger share. A picture must be decoded once for all of its conditions.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

ROOT = Path(__file__).parents[2]
PICTURES, WIDTH_PX, HEIGHT_PX = 4, 500, 375
BATCH = 15
MOST_SHARE = 0.3  # of the CPU time of the pass


def results() -> Iterator[dict[str, Any]]:
    """The share of corrupting in the CPU time of a pass, as the ratio of what it may be to what it is."""
    done = subprocess.run([sys.executable, "-m", "tests.bench.bench_conditions"], cwd=ROOT, stdout=subprocess.PIPE, text=True,
                          check=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["decoded"] == found["pictures"], f"each picture is decoded once: {found}"
    share = found["corrupting_s"] / found["pass_s"]
    yield {"name": "conditions_share", "unit": "ms of corrupting a picture, peer: 30 % of the pass", "target": 1.0, "rounds": 1,
           "ours": 1000 * found["corrupting_s"] / found["seen"], "peer": 1000 * MOST_SHARE * found["pass_s"] / found["seen"],
           "ratio": MOST_SHARE / share, "share": share, **found}


def measure() -> dict[str, Any]:
    """CPU seconds by part."""
    import numpy as np
    import torch
    from PIL import Image
    from skimage import data as pictures

    from vidmae.clips.views import ViewSpec
    from vidmae.evaluate import condition_loader
    from vidmae.evaluate.condition_pass import evaluate_under
    from vidmae.evaluate.corruptions.conditions import Condition, parse_conditions
    from vidmae.evaluate.predict import arithmetic_of_test, testing
    from vidmae.footage.decoders import with_pillow
    from vidmae.footage.manifest import Check, Manifest, Source
    from vidmae.footage.manifest_build import build
    from vidmae.labels.label_map import make_label_map
    from vidmae.model.classifier import build_classifier
    from vidmae.ranks import dist
    from vidmae.ranks.precision import choose, measured_rates
    from vidmae.settings.config import DataConfig

    torch.set_num_threads(1)
    spent: dict[str, float] = defaultdict(float)
    of_condition: dict[str, float] = defaultdict(float)
    counted: Counter[str] = Counter()

    def timed(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **more: Any) -> Any:
            began = time.process_time()
            try:
                return function(*args, **more)
            finally:
                took = time.process_time() - began
                spent[name] += took
                counted[name] += 1
                if args and isinstance(args[0], Condition):
                    of_condition[args[0].name] += took
        return call

    ranks = dist.init("cpu")
    precision = choose(measured_rates(ranks))
    with TemporaryDirectory() as folder:
        sources = []
        for number in range(PICTURES):  # parts of photographs, no two alike
            whole = (pictures.astronaut(), pictures.coffee(), pictures.chelsea())[number % 3][number:, number:]
            path = Path(folder) / f"{number}.jpg"
            Image.fromarray(whole).resize((WIDTH_PX, HEIGHT_PX), Image.Resampling.LANCZOS).save(path, quality=95)
            sources.append(Source(str(path), "ab"[number % 2]))
        build(sources, Path(folder) / "m.csv", Check("pillow", True), workers=1, time_limit_s=60, progress=lambda *_: None)
        manifest, conditions = Manifest.read(Path(folder) / "m.csv"), parse_conditions("imagenet-c")
        model = build_classifier("vit_base_patch16", num_frames=1, t_patch_size=1, num_classes=1000)
        condition_loader.views_under = timed("corrupting", condition_loader.views_under)  # type: ignore[assignment]
        with_pillow.PillowReader._read_sorted = timed("decoding", with_pillow.PillowReader._read_sorted)  # type: ignore[method-assign]

        def says(clips: torch.Tensor) -> np.ndarray:
            with testing(model), arithmetic_of_test(model, precision, ranks.device):
                found: np.ndarray = model(clips).double().softmax(1).numpy()
            return found

        classes = ["a", "b", *(f"c{i}" for i in range(998))]
        began = time.process_time()
        evaluate_under(timed("model", says), manifest, np.arange(PICTURES), make_label_map("ab", classes), conditions,
                       ViewSpec(num_frames=1, sampling_rate=8, target_fps=30.0, img_size=224), ranks, batch=BATCH,
                       data=DataConfig(workers=0, read_limit_s=0.0))
        whole_s = time.process_time() - began
    slowest = sorted(of_condition.items(), key=lambda each: -each[1])
    return {"pictures": PICTURES, "conditions": len(conditions), "seen": counted["corrupting"], "decoded": counted["decoding"],
            "precision": precision, "pass_s": whole_s, **{f"{name}_s": value for name, value in spent.items()},
            "corrupting_ms": {name: round(1000 * took / (5 * PICTURES), 2) for name, took in slowest}}


if __name__ == "__main__":
    print(json.dumps(measure()))
