"""What copies of the state in the memory of two nodes cost the training: a copy every 5 steps against none.

ViT-S/16 on clips of 16 x 112 x 112, ZeRO-2 in float32 on two ranks with a thread each, which stand for two nodes. Rounds of
five steps alternate on one engine; a round with copies makes one in its first step, and the next such round waits for it
where it must. On a CPU the thread that writes, hashes and sends takes its time from the steps; beside a GPU it does not, and
what is left is the stall: the copy to host memory. Wall time is of steps and stalls, CPU time of all threads of both ranks.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

STEPS, ROUNDS = 5, 3


def results() -> Iterator[dict[str, Any]]:
    """The time of a step, and the stall of a copy."""
    from tests.support.ranks import run_ranks

    with tempfile.TemporaryDirectory() as folder:
        found = run_ranks("tests.bench.bench_copies", folder, world_size=2, timeout_s=3000)
    for name, what, of_ranks in (("copies_wall", "wall_s", max), ("copies_cpu", "cpu_s", sum)):
        with_copies, without = ([of_ranks(times) / STEPS for times in zip(*(rank[what][mode] for rank in found), strict=True)]
                                for mode in ("copies", "none"))
        ratios = [peer / ours for ours, peer in zip(with_copies, without, strict=True)]
        yield {"name": name, "unit": f"s per step, a copy of {found[0]['gib']:.2f} GiB in {STEPS} steps",
               "target": None, "rounds": ROUNDS, "ours": statistics.median(with_copies), "peer": statistics.median(without),
               "ratio": statistics.median(ratios), "ratio_range": [min(ratios), max(ratios)],
               "stall_s": statistics.median(max(stalls) for stalls in zip(*(rank["stall_s"] for rank in found), strict=True))}


def measure(folder: Path) -> dict[str, Any]:
    """Seconds of each round on this rank, by mode."""
    import torch

    from vidmae.model.groups import param_groups
    from vidmae.model.mae import MaskedAutoencoder
    from vidmae.model.masking import random_mask
    from vidmae.ranks import dist
    from vidmae.ranks.engine import Engine
    from vidmae.ranks.saving.memory_copies import FOLDER
    from vidmae.ranks.saving.memory_saver import MemorySaver
    from vidmae.runs.record import RunFolder
    from vidmae.settings.config import TrainConfig
    from vidmae.settings.sizes import model_shape

    os.environ["SLURMD_NODENAME"] = f"node{os.environ['RANK']}"
    os.environ.setdefault(FOLDER, str(folder / "memory") if not Path("/dev/shm").is_dir() else "/dev/shm")
    torch.set_num_threads(1)
    ranks, train = dist.init("cpu"), TrainConfig(zero_stage=2, precision="fp32")
    shape = model_shape("mae_vit_small_patch16", img_size=112)
    model = MaskedAutoencoder(shape)
    engine = Engine(model, param_groups(model, train.weight_decay), train, ranks, micro_batch=4, grad_accum=1)
    clips = torch.randint(0, 256, (4, shape.num_frames, shape.img_size, shape.img_size, 3), dtype=torch.uint8)
    mask = random_mask(shape.num_tokens, 0.9, 4, generator=torch.Generator().manual_seed(0))
    copies = MemorySaver(RunFolder(folder / "run"), train, ranks, every_steps=1, say=lambda _: None)
    copies.prepare(engine, 0)

    def steps(number: int, copy_at: int = 0) -> float:
        """Train; seconds that a copy in the first step stalled it."""
        stall_s = 0.0
        for n in range(number):
            engine.backward(clips, mask)
            engine.update(extra=[])
            stall_s += copies.begin(copy_at) if copy_at and n == 0 else 0.0
        return stall_s

    steps(1)  # AdamW's averages are there from now on
    found: dict[str, Any] = {"wall_s": {"copies": [], "none": []}, "cpu_s": {"copies": [], "none": []}, "stall_s": []}
    for n in range(ROUNDS):
        for mode in sorted(found["wall_s"], reverse=bool(n % 2)):
            ranks.barrier()
            wall_s, cpu_s = time.perf_counter(), time.process_time()
            stall_s = steps(STEPS, copy_at=n + 1 if mode == "copies" else 0)
            if mode == "copies":
                found["stall_s"].append(stall_s + copies.finish())
            found["wall_s"][mode].append(time.perf_counter() - wall_s)
            found["cpu_s"][mode].append(time.process_time() - cpu_s)
    copies.remove()
    dist.close()
    return {**found, "gib": engine.checkpoint_bytes / 2**30}


if __name__ == "__main__":
    from vidmae.ranks.watchdog import end_process

    print(json.dumps(measure(Path(sys.argv[1]))))
    end_process(0)
