"""One training step (forward and backward) of the model against the textbook form of the same mathematics.

ViT-B/16, decoder 512 x 4, clips of 16 x 224 x 224, batch 2, mask ratio 0.9. Both load the same weights and see the same
clips and mask; loss and gradients must agree before anything is timed. Rounds are interleaved in one process, the one
that starts alternates, and the medians are compared. The model takes uint8 and normalises inside the timed step, the
textbook gets its floats ready-made.

Time: CPU seconds of the process with one thread, which other load on the machine hardly touches, and wall time with two.
Allocator: glibc's default hands the big attention buffers back after each use and pays for fresh pages at the next; the
tuned settings keep them, which helps the textbook most. Both are reported.
Memory: growth of the resident set's peak during one step in a fresh process, weights and gradients being there already
and the code warmed up on a tiny model. Every buffer gets pages of its own (MALLOC_MMAP_THRESHOLD_), so what is counted is
what is alive at the peak, without glibc's fragmentation. Fused attention in every precision, as on a GPU. bf16 is
measured as ZeRO 1-3 trains, with 16-bit weights, and under autocast, as stage 0 does: there the textbook's 16-bit copies
of all weights, 0.19 GiB, count too. Measured for ViT-B/16 as above, and with the paper's 2,048 tokens
and width (ViT-H/14, 4 of its 32 encoder blocks, batch 1), to look at only: the saving grows with L^2.
"""

from __future__ import annotations

import argparse
import dataclasses
import gc
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from jobs.submit.launch import MALLOC
from tests.bench.textbook import Textbook
from vidmae.model.blocks import AttentionKernel
from vidmae.model.mae import MaskedAutoencoder
from vidmae.model.masking import random_mask
from vidmae.runs import cost
from vidmae.settings.sizes import ModelShape, model_shape

ROOT = Path(__file__).parents[2]
MASK_RATIO = 0.9
BASE = model_shape("mae_vit_base_patch16"), 2  # shape, batch
HUGE_4 = dataclasses.replace(model_shape("mae_vit_huge_patch14"), depth=4), 1
TARGETS = {("fp32", "default"): 1.6, ("fp32", "tuned"): 1.15, ("bf16", "default"): 1.0, ("bf16", "tuned"): 1.0}
MEMORY_TARGETS = {("base", "fp32"): 4.0, ("base", "bf16_weights"): 4.0, ("base", "bf16"): 4.0,
                  ("huge4", "fp32"): None, ("huge4", "bf16_weights"): None, ("huge4", "bf16"): None}
OWN_PAGES = {"MALLOC_MMAP_THRESHOLD_": "65536"}  # bytes; buffers above it are mapped and unmapped one by one


def results() -> Iterator[dict[str, Any]]:
    """Every measurement, each in a fresh process."""
    for (dtype, allocator), target in TARGETS.items():
        for clock, threads in (("cpu", 1), ("wall", 2)):
            r = _worker("time", dtype, clock, env=MALLOC if allocator == "tuned" else {})
            yield {"name": f"step_{dtype}_{allocator}_{clock}{threads}", "unit": f"{clock} s, {threads} thread(s)",
                   "target": target if clock == "cpu" else None, **r}
    for (size, dtype), target in MEMORY_TARGETS.items():
        gib = {who: _worker(f"memory-{size}", dtype, who, env=OWN_PAGES) for who in ("ours", "peer")}
        yield {"name": f"memory_{size}_{dtype}", "unit": "GiB of activations", "target": target, "rounds": 1, **gib,
               "ratio": gib["peer"] / gib["ours"]}


def _worker(*args: str, env: dict[str, str] | None = None) -> Any:
    command = [sys.executable, "-m", "tests.bench.bench_step", *args]
    clean = {key: value for key, value in os.environ.items() if key not in MALLOC}
    done = subprocess.run(command, cwd=ROOT, env=clean | (env or {}), stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


class Pair:
    """Both models with the same weights, clips and mask.

    dtype: `fp32`, `bf16` (fp32 weights under autocast) or `bf16_weights` (no autocast).
    """

    def __init__(self, dtype: str, s: ModelShape, batch: int, attention: AttentionKernel = "auto",
                 only: str | None = None) -> None:
        torch.manual_seed(0)
        self.dtype = dtype
        model = MaskedAutoencoder(s, attention=attention)
        clips = torch.randint(0, 256, (batch, s.num_frames, s.img_size, s.img_size, 3), dtype=torch.uint8)
        mask = random_mask(s.num_tokens, MASK_RATIO, batch, generator=torch.Generator().manual_seed(0))
        peer = Textbook(s)
        peer.load_state_dict(model.state_dict())
        floats = ((clips.float() / 255 - model.mean) / model.std).permute(0, 4, 1, 2, 3).contiguous()
        both = {"ours": (model, clips, mask), "peer": (peer, floats, mask)}
        self.parts = {who: part for who, part in both.items() if only in (None, who)}
        if dtype == "bf16_weights":
            self.parts = {who: (m.bfloat16(), c if who == "ours" else c.bfloat16(), mask)
                          for who, (m, c, mask) in self.parts.items()}

    def step(self, who: str) -> torch.Tensor:
        model, clips, mask = self.parts[who]
        with torch.autocast("cpu", torch.bfloat16, enabled=self.dtype == "bf16"):
            loss = model(clips, mask)
        loss.backward()
        return loss.detach()

    def timed(self, who: str, clock: str) -> float:
        self.parts[who][0].zero_grad(set_to_none=True)
        read = time.process_time if clock == "cpu" else time.perf_counter
        began = read()
        self.step(who)
        return read() - began

    def check_equal(self) -> None:
        """Loss and gradients agree: to rounding in fp32, to bf16's rounding otherwise. This is the warm-up too."""
        ours, peer = self.step("ours"), self.step("peer")
        loss_tol, grad_tol = (1e-5, 1e-4) if self.dtype == "fp32" else (5e-3, 0.1)
        assert abs(ours - peer) <= loss_tol * abs(peer), (ours, peer)
        others = dict(self.parts["peer"][0].named_parameters())
        for name, param in self.parts["ours"][0].named_parameters():
            if name.endswith("attn.k.bias"):
                continue  # softmax ignores a shift: the true gradient is zero, what is left is rounding
            a, b = param.grad, others[name].grad
            assert (a - b).norm() <= grad_tol * b.norm(), (name, float((a - b).norm() / b.norm()))


def measure_time(dtype: str, clock: str) -> dict[str, Any]:
    """Medians over interleaved rounds, and the share of this machine's GEMM peak that each reaches."""
    torch.set_num_threads(1 if clock == "cpu" else 2)
    rounds = 3 if clock == "cpu" else 5
    pair = Pair(dtype, *BASE)
    pair.check_equal()
    times: dict[str, list[float]] = {"ours": [], "peer": []}
    for i in range(rounds):
        for who in sorted(times, reverse=bool(i % 2)):
            times[who].append(pair.timed(who, clock))
    median = {who: statistics.median(t) for who, t in times.items()}
    ratios = [p / o for o, p in zip(times["ours"], times["peer"], strict=True)]
    peak = gemm_flops(dtype, clock)
    shape, batch = BASE
    flops = {"ours": cost.train_flops_per_clip(shape), "peer": cost.train_flops_per_clip(shape, textbook=True)}
    mfu = {who: batch * flops[who] / median[who] / peak for who in median}
    return {**median, "ratio": median["peer"] / median["ours"], "ratio_range": [min(ratios), max(ratios)],
            "rounds": rounds, "gemm_gflops": peak / 1e9, "mfu_ours": mfu["ours"], "mfu_peer": mfu["peer"]}


def gemm_flops(dtype: str, clock: str, n: int = 2048) -> float:
    """The best rate of a square matrix product on the same clock and threads."""
    a, b = (torch.randn(n, n, dtype=torch.bfloat16 if dtype == "bf16" else torch.float32) for _ in range(2))
    read = time.process_time if clock == "cpu" else time.perf_counter
    best = float("inf")
    for _ in range(8):
        began = read()
        torch.mm(a, b)
        best = min(best, read() - began)
    return 2 * n**3 / best


def measure_memory(size: str, dtype: str, who: str) -> float:
    """GiB that the resident set grows by, at its peak, in one step."""
    torch.set_num_threads(2)
    Pair(dtype, model_shape("mae_vit_tiny_patch16", img_size=64), 2, attention="sdpa", only=who).step(who)
    pair = Pair(dtype, *(BASE if size == "base" else HUGE_4), attention="sdpa", only=who)
    for param in pair.parts[who][0].parameters():
        param.grad = torch.zeros_like(param)
        param.grad.fill_(0)  # touched, so that its pages count before the step
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak so far
    before = _status("VmRSS")
    pair.step(who)
    return (_status("VmHWM") - before) / 2**20


def _status(key: str) -> int:
    """A line of /proc/self/status, kB."""
    line = next(x for x in Path("/proc/self/status").read_text().splitlines() if x.startswith(key + ":"))
    return int(line.split()[1])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="one measurement, as JSON on the last line")
    parser.add_argument("what", choices=["time", "memory-base", "memory-huge4"])
    parser.add_argument("dtype", choices=["fp32", "bf16", "bf16_weights"])
    parser.add_argument("how", help="time: cpu or wall; memory: ours or peer")
    args = parser.parse_args()
    what, _, size = args.what.partition("-")
    print(json.dumps(measure_memory(size, args.dtype, args.how) if size else measure_time(args.dtype, args.how)))
