"""What it costs to compare the ranks while they train: steps with and without, eight ranks on this machine.

One engine of eight ranks (gloo, ZeRO 2, float32, a tiny model on clips of 64 px, one thread each) goes through blocks of as
many steps as lie between two comparisons (recovery.compare_steps). Every other block has what a run has: hooks that time the
forward passes, one gather of three numbers of each rank, and rank 0 that judges them a step later. A pair is two neighbouring
blocks, in turn with the one and the other first. The wall clock of rank 0 and the CPU time of all ranks are compared, as
medians of pairs; `inside_share` is the share of the steps' time that passes inside the comparison's own functions.
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

from tests.support.ranks import free_port

ROOT = Path(__file__).parents[2]
RANKS, PAIRS, WARM_UP = 8, int(os.environ.get("PAIRS", "60")), 2
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
    wall, cpu = ([p / o for o, p in zip(found[f"{what}_ours"], found[f"{what}_peer"], strict=True)] for what in ("wall", "cpu"))
    yield {"name": "straggler_cost", "unit": f"wall s for {found['steps']} steps of {RANKS} ranks; peer: not compared",
           "target": TARGET, "rounds": PAIRS, "ours": statistics.median(found["wall_ours"]),
           "peer": statistics.median(found["wall_peer"]), "ratio": statistics.median(wall),
           "ratio_range": statistics.quantiles(wall, n=4)[::2], "ratio_95": interval(wall),
           "cpu_ratio": statistics.median(cpu), "cpu_ratio_95": interval(cpu), "inside_share": found["inside_share"]}


def interval(values: list[float]) -> list[float]:
    """95 % of the median, by the order of the values."""
    half = 0.98 * len(values) ** 0.5
    ordered = sorted(values)
    return [ordered[max(0, int(len(values) / 2 - half))], ordered[min(len(values) - 1, int(len(values) / 2 + half))]]


def measure(folder: Path) -> dict[str, Any]:
    """Seconds of each block on rank 0's clock and in all ranks' processors, and the share inside the comparison."""
    import torch

    from vidmae.model.groups import param_groups
    from vidmae.model.mae import MaskedAutoencoder
    from vidmae.model.masking import random_mask
    from vidmae.ranks import dist
    from vidmae.ranks.engine import Engine
    from vidmae.ranks.health.pace import Pace
    from vidmae.runs.record import RunFolder
    from vidmae.settings.config import TrainConfig
    from vidmae.settings.keeping_config import RecoveryConfig
    from vidmae.settings.sizes import model_shape

    ranks, recovery = dist.init("cpu"), RecoveryConfig()
    torch.set_num_threads(1)
    shape = model_shape("mae_vit_tiny_patch16", img_size=64, num_frames=8, pred_t_dim=8, decoder_embed_dim=96, decoder_num_heads=3)
    train, model = TrainConfig(zero_stage=2, precision="fp32"), MaskedAutoencoder(shape)
    engine = Engine(model, param_groups(model, train.weight_decay), train, ranks, micro_batch=2, grad_accum=1)
    clips = torch.randint(0, 256, (2, shape.num_frames, shape.img_size, shape.img_size, 3), dtype=torch.uint8)
    mask = random_mask(shape.num_tokens, 0.9, 2, generator=torch.Generator().manual_seed(0))
    pace = Pace(RunFolder(folder), recovery, ranks, engine.module, zero_stage=2, say=lambda _: None)
    hooks = [(each, dict(each)) for each in (engine.module._forward_pre_hooks, engine.module._forward_hooks)]
    engine.set_lr(1e-4)
    done, inside_s = 0, 0.0

    def block(compared: bool) -> tuple[float, float]:
        nonlocal done, inside_s
        for here, those in hooks:
            here.clear()
            here.update(those if compared else {})
        ranks.barrier()
        began, cpu_began = time.perf_counter(), time.process_time()
        for _ in range(recovery.compare_steps):
            step_began = time.perf_counter()
            engine.backward(clips, mask)
            engine.update(extra=[0.0])
            if compared:
                asked = time.perf_counter()
                done += 1
                pace.waited(0.0)
                pace.step_done(done, asked - step_began)
                inside_s += time.perf_counter() - asked
        spent = time.perf_counter() - began, time.process_time() - cpu_began
        return spent[0], ranks.sum([spent[1]])[0]

    found: dict[str, list[float]] = {f"{what}_{who}": [] for what in ("wall", "cpu") for who in ("ours", "peer")}
    for pair in range(WARM_UP + PAIRS):
        for compared in (True, False) if pair % 2 else (False, True):
            inside_s = 0.0 if pair < WARM_UP else inside_s
            wall_s, cpu_s = block(compared)
            if pair >= WARM_UP:
                found[f"wall_{'ours' if compared else 'peer'}"].append(wall_s)
                found[f"cpu_{'ours' if compared else 'peer'}"].append(cpu_s)
    dist.close()
    return {**found, "steps": recovery.compare_steps, "inside_share": inside_s / sum(found["wall_ours"])}


if __name__ == "__main__":
    from vidmae.ranks.watchdog import end_process

    print(json.dumps(measure(Path(sys.argv[1]))), flush=True)
    end_process(0)
