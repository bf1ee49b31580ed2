"""What it costs to compare the ranks while they train: steps with and without, eight ranks on this machine.

One engine of eight ranks (gloo, ZeRO 2, float32, a tiny model on clips of 64 px, one thread each) makes steps that are
compared and steps that are not, in turn. The difference of their wall times is said (`wall_95`), but steps of eight ranks on
two cores vary by more than the cost that is looked for. So its parts are measured: what a comparison does on rank 0 in a
real step; what three more numbers of each rank take in a sum over the ranks, sums with and without them in turn; and what a
run does in every step (hooks that time the forward pass, sums). The first two count once in `recovery.compare_steps` steps.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tests.support.ranks import free_port

ROOT = Path(__file__).parents[2]
RANKS, PAIRS, WARM_UP, SUMS = 8, 40, 2, 1000
TARGET = 1 / 1.001


def results() -> Iterator[dict[str, Any]]:
    """One measurement of eight processes."""
    env = {**os.environ, "OMP_NUM_THREADS": "1", "WORLD_SIZE": str(RANKS), "MASTER_ADDR": "127.0.0.1",
           "MASTER_PORT": str(free_port()), "DS_ACCELERATOR": "cpu"}
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "tests.bench.bench_stragglers", folder]
        ranks = [subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True,
                                  env={**env, "RANK": str(rank), "LOCAL_RANK": str(rank)}) for rank in range(RANKS)]
        out, *_ = [process.communicate()[0] for process in ranks]
    assert not any(process.returncode for process in ranks)
    found = json.loads(out.splitlines()[-1])
    step_s, every = statistics.median(found["plain_s"]), found["compare_steps"]
    sums = [longer - shorter for longer, shorter in zip(found["long_sum_s"], found["short_sum_s"], strict=True)]
    own_s = statistics.median(found["own_s"])
    cost, low, high = ((own_s + max(0.0, sum_s)) / every + found["each_step_s"] for sum_s in (statistics.median(sums), *interval(sums)))
    wall = [plain / compared for plain, compared in zip(found["plain_s"], found["compared_s"], strict=True)]
    yield {"name": "straggler_cost", "unit": f"s a step of {RANKS} ranks, one of {every} compared; peer: none compared",
           "target": TARGET, "rounds": PAIRS, "ours": step_s + cost, "peer": step_s, "ratio": step_s / (step_s + cost),
           "ratio_95": [step_s / (step_s + high), step_s / (step_s + low)], "own_s": own_s, "sum_s": statistics.median(sums),
           "each_step_s": found["each_step_s"], "wall_95": interval(wall)}


def interval(values: list[float]) -> list[float]:
    """95 % of the median, by the order of the values."""
    half = 0.98 * len(values) ** 0.5
    ordered = sorted(values)
    return [ordered[max(0, int(len(values) / 2 - half))], ordered[min(len(values) - 1, int(len(values) / 2 + half))]]


def measure(folder: Path) -> dict[str, Any]:
    """Seconds of the steps on rank 0's clock, and what the hooks and sums of a step that is not compared take."""
    import torch

    from vidmae.model.groups import param_groups
    from vidmae.model.mae import MaskedAutoencoder
    from vidmae.model.masking import random_mask
    from vidmae.ranks import dist
    from vidmae.ranks.engine import Engine
    from vidmae.ranks.health.pace import MEASURED, Pace
    from vidmae.runs.record import RunFolder
    from vidmae.settings.config import TrainConfig
    from vidmae.settings.keeping_config import RecoveryConfig
    from vidmae.settings.sizes import model_shape

    ranks = dist.init("cpu")
    torch.set_num_threads(1)
    shape = model_shape("mae_vit_tiny_patch16", img_size=64, num_frames=8, pred_t_dim=8, decoder_embed_dim=96, decoder_num_heads=3)
    train, model = TrainConfig(zero_stage=2, precision="fp32"), MaskedAutoencoder(shape)
    engine = Engine(model, param_groups(model, train.weight_decay), train, ranks, micro_batch=2, grad_accum=1)
    clips = torch.randint(0, 256, (2, shape.num_frames, shape.img_size, shape.img_size, 3), dtype=torch.uint8)
    mask = random_mask(shape.num_tokens, 0.9, 2, generator=torch.Generator().manual_seed(0))

    def pace_of(module: torch.nn.Module, compare_steps: int) -> Pace:
        return Pace(RunFolder(folder), RecoveryConfig(compare_steps=compare_steps), ranks, module, zero_stage=2, say=lambda _: None)

    pace = pace_of(engine.module, 1)
    hooks = [(each, dict(each)) for each in (engine.module._forward_pre_hooks, engine.module._forward_hooks)]
    engine.set_lr(1e-4)
    done, own_s = 0, list[float]()

    def step_s(compared: bool) -> float:
        nonlocal done
        for here, those in hooks:
            here.clear()
            here.update(those if compared else {})
        ranks.barrier()
        began = time.perf_counter()
        engine.backward(clips, mask)
        if not compared:
            engine.update(extra=[0.0])
            return time.perf_counter() - began
        done += 1
        pace.waited(0.0)
        asked = time.perf_counter()
        numbers = pace.to_sum(done)
        own = time.perf_counter() - asked
        _, _, (_, *averages) = engine.update(extra=[0.0, *numbers])
        asked = time.perf_counter()
        pace.step_done(asked - began)
        pace.compare(averages)
        own_s.append(own + time.perf_counter() - asked)
        return time.perf_counter() - began

    def sum_s(length: int) -> float:
        numbers = torch.zeros(length, dtype=torch.float64)
        began = time.perf_counter()
        ranks.sum_tensor(numbers)
        return time.perf_counter() - began

    found: dict[bool, list[float]] = {True: [], False: []}
    for pair in range(WARM_UP + PAIRS):
        for compared in (True, False) if pair % 2 else (False, True):
            found[compared].append(step_s(compared))
    sums: dict[int, list[float]] = {2: [], 2 + MEASURED * RANKS: []}
    for pair in range(SUMS):
        for length in sorted(sums, reverse=bool(pair % 2)):
            sums[length].append(sum_s(length))
    of_each_step_s = each_step_s(pace_of)
    dist.close()
    return {"compared_s": found[True][WARM_UP:], "plain_s": found[False][WARM_UP:], "own_s": own_s[WARM_UP:],
            "short_sum_s": sums[2], "long_sum_s": sums[2 + MEASURED * RANKS], "each_step_s": of_each_step_s,
            "compare_steps": RecoveryConfig().compare_steps}


def each_step_s(pace_of: Callable[[Any, int], Any]) -> float:
    """Seconds that a step which is not compared spends in the hooks of its forward pass and on the sums."""
    import torch

    module, steps = torch.nn.Identity(), 10_000
    began = time.perf_counter()
    for _ in range(steps):
        module(0)
    plain_s, pace = time.perf_counter() - began, pace_of(module, steps + 1)
    began = time.perf_counter()
    for step in range(steps):
        module(0)
        pace.waited(0.0)
        pace.to_sum(step + 1)
        pace.step_done(0.1)
        pace.compare([])
    return (time.perf_counter() - began - plain_s) / steps


if __name__ == "__main__":
    from vidmae.ranks.watchdog import end_process

    print(json.dumps(measure(Path(sys.argv[1]))), flush=True)
    end_process(0)
