"""One training step (forward and backward) of the model against other forms of it.

Peers, in tests/bench/peers/textbook.py, of the same mathematics: `textbook`, whose attention keeps its scores in memory, as the
first released code; and `fused`, which calls torch's fused attention, as the author's code does since 2024. Both embed
and predict all tokens. Every ratio names its peer. `decoder50` is this model with model.decoder_mask_ratio 0.5, which is
other mathematics, against the model without.

ViT-B/16, decoder 512 x 4, clips of 16 x 224 x 224, batch 2, mask ratio 0.9; decoder50 with ViT-H/14, too, batch 1. All
load the same weights and see the same clips and mask; loss and gradients of those of the same mathematics must agree
before anything is timed. Rounds are interleaved in one process, the one that starts rotates, and the medians are
compared. The model takes uint8 and normalises inside the timed step, the peers get their floats ready-made.

Time: CPU seconds of the process with one thread, which other load on the machine hardly touches, and wall time with two.
Allocator: glibc's default hands the big attention buffers back after each use and pays for fresh pages at the next; the
tuned settings keep them, which helps the textbook most. Both are reported.
Memory: growth of the resident set's peak during one step in a fresh process, weights and gradients being there already
and the code warmed up on a tiny model. Every buffer gets pages of its own (MALLOC_MMAP_THRESHOLD_), so what is counted is
what is alive at the peak, without glibc's fragmentation. Fused attention in every precision, as on a GPU. bf16 is
measured as ZeRO 1-3 trains, with 16-bit weights, and under autocast, as stage 0 does: there the peers' 16-bit copies of
all weights, 0.19 GiB, count too. Measured for ViT-B/16 as above, and with the paper's 2,048 tokens and width (ViT-H/14,
4 of its 32 encoder blocks, batch 1), to look at only: the saving over the textbook grows with L^2.
Profile: where the time goes (tests/bench/peers/step_parts.py), which says what a ratio can be at most.
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
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from jobs.submit.launch import MALLOC
from tests.bench.peers.step_parts import Parts, median_parts, parts_of
from tests.bench.peers.textbook import Textbook
from vidmae.model.blocks import AttentionKernel
from vidmae.model.mae import MaskedAutoencoder
from vidmae.model.masking import random_mask
from vidmae.runs import cost
from vidmae.settings.sizes import ModelShape, model_shape

ROOT = Path(__file__).parents[2]
MASK_RATIO = 0.9
PROFILED = 3  # steps of each, interleaved
SIZES = {"base": (model_shape("mae_vit_base_patch16"), 2), "huge": (model_shape("mae_vit_huge_patch14"), 1),  # and batch
         "huge4": (dataclasses.replace(model_shape("mae_vit_huge_patch14"), depth=4), 1)}
PEERS = ("textbook", "fused")
TARGETS = {  # of each peer
    ("fp32", "default"): {"textbook": 1.6, "fused": None}, ("fp32", "tuned"): {"textbook": 1.15, "fused": 1.10},
    ("bf16", "default"): {"textbook": 1.0, "fused": None}, ("bf16", "tuned"): {"textbook": 1.0, "fused": 1.05}}
DECODER_TARGETS = {("base", "fp32"): 1.45, ("base", "bf16"): None, ("huge", "fp32"): 1.12}
MEMORY_TARGETS = {("base", "fp32"): {"textbook": 4.0, "fused": 1.25},
                  ("base", "bf16_weights"): {"textbook": 4.0, "fused": 1.25},
                  ("base", "bf16"): {"textbook": 4.0, "fused": 1.25},
                  ("huge4", "fp32"): {"textbook": None, "fused": None},
                  ("huge4", "bf16_weights"): {"textbook": None, "fused": None},
                  ("huge4", "bf16"): {"textbook": None, "fused": None}}
OWN_PAGES = {"MALLOC_MMAP_THRESHOLD_": "65536"}  # bytes; buffers above it are mapped and unmapped one by one


def results() -> Iterator[dict[str, Any]]:
    """Every measurement, each in a fresh process."""
    for (dtype, allocator), targets in TARGETS.items():
        for clock, threads in (("cpu", 1), ("wall", 2)):
            found = _worker("time", "base", dtype, clock, "ours", *PEERS, env=MALLOC if allocator == "tuned" else {})
            for peer, target in targets.items():
                yield {"name": f"step_{dtype}_{allocator}_{clock}{threads}_over_{peer}",
                       "unit": f"{clock} s, {threads} thread(s)", "target": target if clock == "cpu" else None,
                       **compare(found, "ours", peer)}
    for (size, dtype), target in DECODER_TARGETS.items():
        found = _worker("time", size, dtype, "cpu", "decoder50", "ours", env=MALLOC)
        yield {"name": f"decoder50_{size}_{dtype}_tuned_cpu1_over_plain", "unit": "cpu s, 1 thread(s)", "target": target,
               **compare(found, "decoder50", "ours")}
    for (size, dtype), targets in MEMORY_TARGETS.items():
        gib = {who: _worker("memory", size, dtype, "rss", who, env=OWN_PAGES) for who in ("ours", *PEERS)}
        for peer, target in targets.items():
            yield {"name": f"memory_{size}_{dtype}_over_{peer}", "unit": "GiB of activations", "target": target,
                   "rounds": 1, "ours": gib["ours"], "peer": gib[peer], "ratio": gib[peer] / gib["ours"]}
    for dtype in ("fp32", "bf16"):
        yield {"name": f"profile_{dtype}_tuned_cpu1_over_fused", "target": None, "unit": "cpu s, 1 thread(s)",
               **_worker("profile", "base", dtype, "cpu", "ours", "fused", env=MALLOC)}


def compare(found: dict[str, Any], ours: str, peer: str) -> dict[str, Any]:
    """One row of two contestants of `measure_time`: medians, and the range of the ratio over the rounds."""
    times = found["times"]
    ratios = [p / o for o, p in zip(times[ours], times[peer], strict=True)]
    one, other = (statistics.median(times[who]) for who in (ours, peer))
    return {"ours": one, "peer": other, "ratio": other / one, "ratio_range": [min(ratios), max(ratios)],
            "rounds": len(ratios), "gemm_gflops": found["gemm_flops"] / 1e9,
            "mfu_ours": found["flops"][ours] / one / found["gemm_flops"],
            "mfu_peer": found["flops"][peer] / other / found["gemm_flops"]}


def _worker(*args: str, env: dict[str, str] | None = None) -> Any:
    command = [sys.executable, "-m", "tests.bench.bench_step", *args]
    clean = {key: value for key, value in os.environ.items() if key not in MALLOC}
    done = subprocess.run(command, cwd=ROOT, env=clean | (env or {}), stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


class Contest:
    """Contestants with the same weights, clips and mask.

    dtype: `fp32`, `bf16` (fp32 weights under autocast) or `bf16_weights` (no autocast).
    """

    def __init__(self, dtype: str, s: ModelShape, batch: int, names: Sequence[str], attention: AttentionKernel = "auto") -> None:
        torch.manual_seed(0)
        self.dtype = dtype
        model = MaskedAutoencoder(s, attention=attention)
        clips = torch.randint(0, 256, (batch, s.num_frames, s.img_size, s.img_size, 3), dtype=torch.uint8)
        self.mask = random_mask(s.num_tokens, MASK_RATIO, batch, generator=torch.Generator().manual_seed(0))
        floats = ((clips.float() / 255 - model.mean) / model.std).permute(0, 4, 1, 2, 3).contiguous()
        self.models: dict[str, Any] = {}
        for name in names:
            if name in PEERS:
                self.models[name] = Textbook(s, fused=name == "fused")
                self.models[name].load_state_dict(model.state_dict())
            else:
                self.models[name] = model  # one for both of ours: ViT-H with gradients has 5 GiB
        if dtype == "bf16_weights":
            self.models, floats = {who: m.bfloat16() for who, m in self.models.items()}, floats.bfloat16()
        self.clips = {who: floats if who in PEERS else clips for who in names}
        ratios = {"decoder50": 0.5}
        self.shapes = {who: dataclasses.replace(s, decoder_mask_ratio=ratios.get(who, 0.0)) for who in names}

    def step(self, who: str) -> torch.Tensor:
        model = self.models[who]
        model.shape = self.shapes[who]
        with torch.autocast("cpu", torch.bfloat16, enabled=self.dtype == "bf16"):
            loss = model(self.clips[who], self.mask)
        loss.backward()
        return loss.detach()

    def timed(self, who: str, clock: str) -> float:
        self.models[who].zero_grad(set_to_none=True)
        read = time.process_time if clock == "cpu" else time.perf_counter
        began = read()
        self.step(who)
        return read() - began

    def check_equal(self) -> None:
        """Loss and gradients agree: to rounding in fp32, to bf16's rounding otherwise. This is the warm-up too."""
        losses = {who: self.step(who) for who in self.models}
        loss_tol, grad_tol = (1e-5, 1e-4) if self.dtype == "fp32" else (5e-3, 0.1)
        for peer in PEERS:
            if peer not in self.models:
                continue
            assert abs(losses["ours"] - losses[peer]) <= loss_tol * abs(losses[peer]), (peer, losses)
            others = dict(self.models[peer].named_parameters())
            for name, param in self.models["ours"].named_parameters():
                if name.endswith("attn.k.bias"):
                    continue  # softmax ignores a shift: the true gradient is zero, what is left is rounding
                a, b = param.grad, others[name].grad
                assert (a - b).norm() <= grad_tol * b.norm(), (peer, name, float((a - b).norm() / b.norm()))


def measure_time(size: str, dtype: str, clock: str, names: Sequence[str]) -> dict[str, Any]:
    """Seconds of each round, FLOPs of a step, and this machine's peak for matrix products."""
    torch.set_num_threads(1 if clock == "cpu" else 2)
    rounds = 3 if clock == "cpu" else 5
    shape, batch = SIZES[size]
    contest = Contest(dtype, shape, batch, names)
    contest.check_equal()
    times: dict[str, list[float]] = {who: [] for who in names}
    for i in range(rounds):
        for place in range(len(names)):
            who = names[(i + place) % len(names)]
            times[who].append(contest.timed(who, clock))
    flops = {who: batch * cost.train_flops_per_clip(contest.shapes[who], textbook=who in PEERS) for who in names}
    return {"times": times, "flops": flops, "gemm_flops": gemm_flops(dtype, clock)}


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
    Contest(dtype, model_shape("mae_vit_tiny_patch16", img_size=64), 2, [who], attention="sdpa").step(who)
    contest = Contest(dtype, *SIZES[size], [who], attention="sdpa")
    for param in contest.models[who].parameters():
        param.grad = torch.zeros_like(param)
        param.grad.fill_(0)  # touched, so that its pages count before the step
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak so far
    before = _status("VmRSS")
    contest.step(who)
    return (_status("VmHWM") - before) / 2**20


def measure_parts(size: str, dtype: str, names: Sequence[str]) -> dict[str, Any]:
    """Seconds of each part of a step, ours and a peer's, and what the ratio would be if all but products took no time."""
    torch.set_num_threads(1)
    shape, batch = SIZES[size]
    contest = Contest(dtype, shape, batch, names)
    contest.check_equal()
    peak = gemm_flops(dtype, "cpu")
    found: dict[str, list[Parts]] = {who: [] for who in names}
    for _ in range(PROFILED):
        for who in names:
            contest.models[who].zero_grad(set_to_none=True)
            found[who].append(parts_of(lambda who=who: contest.step(who), shape, batch, peak, textbook=who in PEERS))
    parts = {who: median_parts(each) for who, each in found.items()}
    ours, peer = ({part: each["s"] for part, each in parts[who].items()} for who in names)
    products = ours["linear layers"] + ours["attention"]
    return {"ours": sum(ours.values()), "peer": sum(peer.values()), "ratio": sum(peer.values()) / sum(ours.values()),
            "ceiling": sum(peer.values()) / products, "gemm_gflops": peak / 1e9, "parts": parts, "rounds": PROFILED}


def _status(key: str) -> int:
    """A line of /proc/self/status, kB."""
    line = next(x for x in Path("/proc/self/status").read_text().splitlines() if x.startswith(key + ":"))
    return int(line.split()[1])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="one measurement, as JSON on the last line")
    parser.add_argument("what", choices=["time", "memory", "profile"])
    parser.add_argument("size", choices=[*SIZES])
    parser.add_argument("dtype", choices=["fp32", "bf16", "bf16_weights"])
    parser.add_argument("clock", choices=["cpu", "wall", "rss"])
    parser.add_argument("who", nargs="+", choices=["ours", *PEERS, "decoder50"])
    args = parser.parse_args()
    if args.what == "memory":
        print(json.dumps(measure_memory(args.size, args.dtype, *args.who)))
    elif args.what == "profile":
        print(json.dumps(measure_parts(args.size, args.dtype, args.who)))
    else:
        print(json.dumps(measure_time(args.size, args.dtype, args.clock, args.who)))
