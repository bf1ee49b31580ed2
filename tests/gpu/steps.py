"""Training steps to check and to time: models of one shape, their inputs, the engine around them, and the clock."""

from __future__ import annotations

import gc
import importlib
import importlib.util
import os
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from tests.bench.peers.textbook import Textbook
from tests.gpu.report import seconds_left
from tests.gpu.scales import Scale
from vidmae.model.groups import param_groups
from vidmae.model.mae import MaskedAutoencoder
from vidmae.model.masking import Mask, random_mask
from vidmae.ranks import dist
from vidmae.ranks.engine import Engine
from vidmae.runs import cost
from vidmae.runs.metrics import measure_gemm_flops, peak_memory_gib
from vidmae.settings.config import ModelConfig, TrainConfig
from vidmae.settings.sizes import ModelShape

MODES = {"bf16 weights, ZeRO 1": {"precision": "bf16", "zero_stage": 1}, "autocast, ZeRO 0": {"precision": "bf16", "zero_stage": 0}}
"""How 16-bit training can be arranged: settings of TrainConfig."""
COMPILED, KERNELS = (importlib.import_module(name) if importlib.util.find_spec(name) else None
                     for name in ("vidmae.model.compiled", "vidmae.ranks.kernels"))
"""How a run compiles its blocks, and how it chooses its attention kernel; None in a commit that does not."""
HAS_COMPILE = COMPILED is not None
RESETS = True  # a trainee that ends takes compiled code with it
Inputs = Callable[[int], tuple[Any, ...]]


def clips_of(shape: ModelShape, batch: int, device: torch.device, *, seed: int = 0) -> Tensor:
    """Random uint8 clips [B, T, H, W, C], the same on every device."""
    generator = torch.Generator().manual_seed(seed)
    size = (batch, shape.num_frames, shape.img_size, shape.img_size, 3)
    return torch.randint(0, 256, size, dtype=torch.uint8, generator=generator).to(device)


def mask_of(shape: ModelShape, ratio: float, batch: int, device: torch.device, *, seed: int = 0) -> Mask:
    """A random mask, the same on every device."""
    return random_mask(shape.num_tokens, ratio, batch, generator=torch.Generator().manual_seed(seed)).to(device)


def as_floats(clips: Tensor, dtype: torch.dtype = torch.float32, mean: float = 0.45, std: float = 0.225) -> Tensor:
    """What the textbook takes: normalised [B, C, T, H, W]."""
    return ((clips.to(torch.float64 if dtype == torch.float64 else torch.float32) / 255 - mean) / std).permute(0, 4, 1, 2, 3).to(
        dtype).contiguous()


def randomised(model: nn.Module, seed: int = 1) -> nn.Module:
    """Small random numbers for what starts as zero: position tables, biases."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim < 2 or parameter.shape[0] == 1:
                parameter.add_(torch.randn(parameter.shape, generator=generator).to(parameter) * 0.02)
    return model


WHO: dict[str, Callable[[ModelShape], nn.Module]] = {
    "ours": MaskedAutoencoder, "fused": partial(Textbook, fused=True), "textbook": Textbook}


class Trainee:
    """A model under the engine, that takes whole steps at any micro-batch.

    Args:
        who: A key of WHO.
        config: The model's.
        ranks: From `dist.init`.
        compiled: With torch.compile: ours as a run does it, the peers block by block, too.
        graphs: Ours compiled with train.compile graphs.
        batch: Clips that attention kernels are compared with.
        settings: Of TrainConfig.
    Attributes:
        attention: Which kernel it takes, and why.
    """

    def __init__(self, who: str, config: ModelConfig, ranks: dist.Ranks, *, compiled: bool = False, graphs: bool = False,
                 batch: int = 8, **settings: Any) -> None:
        self.who, self.config, self.shape, self._ranks = who, config, config.shape(), ranks
        train = TrainConfig(**settings)
        with ranks.device:
            torch.manual_seed(0)
            model = WHO[who](self.shape)
        self.attention = choose_attention(self.shape, batch, ranks.device) if who == "ours" else any_attention()
        if graphs:
            COMPILED.compile_blocks(model, graphs=True)  # type: ignore[union-attr]
        elif compiled and who == "ours":
            COMPILED.compile_blocks(model)  # type: ignore[union-attr]
        elif compiled:
            for block in [*model.blocks, *model.decoder_blocks]:  # type: ignore[misc,operator]
                block.compile(dynamic=False)
        self.engine = Engine(model, param_groups(model, 0.05), train, ranks, micro_batch=batch, grad_accum=1)
        self._floats = torch.bfloat16 if train.precision == "bf16" and train.zero_stage else torch.float32
        self._inputs: dict[int, tuple[Any, ...]] = {}

    def step(self, batch: int) -> float:
        """One step of forward, backward and update; the loss."""
        if batch not in self._inputs:
            clips, mask = (make(batch) for make in (self._clips, self._mask))
            self._inputs = {batch: (clips, mask)}
        self.engine.set_lr(1e-5)
        self.engine.backward(*self._inputs[batch])
        return self.engine.update(extra=[])[0]

    def _clips(self, batch: int) -> Tensor:
        few = clips_of(self.shape, min(batch, 8), self._ranks.device)  # to draw a thousand takes longer than to time them
        clips = few.repeat(-(-batch // len(few)), 1, 1, 1, 1)[:batch]
        return clips if self.who == "ours" else as_floats(clips, self._floats)

    def _mask(self, batch: int) -> Mask:
        return mask_of(self.shape, self.config.mask_ratio, batch, self._ranks.device)


@contextmanager
def trainee(*args: Any, **kwargs: Any) -> Iterator[Trainee]:
    """A Trainee whose memory is free again afterwards, also where it did not fit."""
    made: list[Trainee] = []
    try:
        made.append(Trainee(*args, **kwargs))
        yield made[0]
    finally:
        for each in made:
            each.engine._engine.destroy()
            each.__dict__.clear()
        made.clear()
        if RESETS:
            torch.compiler.reset()  # torch makes 8 forms of a function at most, and each model and micro-batch needs its own
        free()


def choose_attention(shape: ModelShape, batch: int, device: torch.device) -> str:
    """The attention kernel that a run would take, in bf16; on a CPU, where nothing is chosen, the same lines with made-up times."""
    if KERNELS is None:
        return any_attention()
    shapes = [(shape.num_heads, shape.num_kept + 1, shape.embed_dim // shape.num_heads),
              (shape.decoder_num_heads, shape.num_tokens + 1, shape.decoder_embed_dim // shape.decoder_num_heads)]
    seconds = None if device.type == "cuda" else lambda *_: 1.0
    kernel, said = KERNELS.fastest_attention(shapes, batch, torch.bfloat16, device, deterministic=False, seconds=seconds)
    KERNELS.use_attention(kernel)
    return f"{kernel} ({said})"


def any_attention() -> str:
    """Leave the choice to torch, as it is without a word."""
    for switch in (torch.backends.cuda.enable_flash_sdp, torch.backends.cuda.enable_cudnn_sdp,
                   torch.backends.cuda.enable_mem_efficient_sdp, torch.backends.cuda.enable_math_sdp):
        switch(True)
    return "torch's choice"


def graphs_and_breaks() -> tuple[int, int]:
    """What torch.compile has made in this process so far: graphs, and places where it could not go on."""
    from torch._dynamo.utils import counters  # takes long to import, and only one stage asks

    return counters["stats"]["unique_graphs"], sum(counters["graph_break"].values())


def free() -> None:
    """Give memory back that nobody holds."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def synchronise(device: torch.device) -> None:
    """Wait until the device has done all that it was asked for."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def timed(call: Callable[[], object], device: torch.device, scale: Scale, *, warm: int = 2) -> dict[str, float]:
    """Median seconds of a call after some to warm up, and the peak of memory that the device had, GiB."""
    for _ in range(warm):
        call()
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    spent: list[float] = []
    while len(spent) < scale.least_steps or (sum(spent) < scale.timed_s and len(spent) < 200):
        synchronise(device)
        began = time.perf_counter()
        call()
        synchronise(device)
        spent.append(time.perf_counter() - began)
    return {"seconds": statistics.median(spent), "steps": len(spent), "peak_gib": peak_memory_gib(device)}


def step_figures(one: Trainee, batch: int, device: torch.device, scale: Scale, peak: float) -> dict[str, float]:
    """A step's clips per second, MFU and memory at a micro-batch, beside what cost.py estimates.

    Raises:
        RuntimeError: It does not fit (see `is_full`); the trainee is of no use any more.
    """
    if scale.name == "smoke" and batch > scale.most_batch:
        one.engine.module.patch_embed.register_forward_hook(_full_card)
    found = timed(lambda: one.step(batch), device, scale)
    rate = batch / found["seconds"]
    flops = cost.train_flops_per_clip(one.shape, textbook=one.who != "ours")
    train = one.engine._train
    estimate = (cost.state_gib(one.shape, zero_stage=train.zero_stage, precision=train.precision, world_size=1)
                + cost.activation_gib(one.shape, micro_batch=batch, precision=train.precision, checkpointing=False))
    return {"batch": batch, "clips_per_s": rate, "mfu_pct": 100 * rate * flops / peak, "peak_gib": found["peak_gib"],
            "estimate_gib": estimate, "step_s": found["seconds"]}


def _full_card(module: nn.Module, inputs: Any, output: Any) -> None:
    raise torch.OutOfMemoryError("the smoke run stops in the middle of a forward pass, as a full card would")


def peak_of(device: torch.device) -> float:
    """Dense bf16 FLOP/s: of the data sheet for a GPU, measured for a CPU."""
    if device.type == "cpu":
        return measure_gemm_flops(device, torch.bfloat16, size=256)
    name = torch.cuda.get_device_name(device)
    tflops = cost.gpu_peak_tflops(name)
    if tflops is None:
        raise ValueError(f"vidmae/runs/cost.py has no peak for {name}: add it to GPU_PEAK_TFLOPS")
    return tflops * 1e12


def in_time(seconds: float) -> bool:
    """Whether the stage has so many seconds left."""
    return seconds_left() > seconds


def join(device: torch.device) -> dist.Ranks:
    """This process as the only rank: NCCL on a GPU, gloo on a CPU."""
    for name in ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT", "LOCAL_RANK"):
        os.environ.pop(name, None)
    return dist.init(device.type)


def set_up_compile(scale: Scale, *, smoke_backend: str = "aot_eager") -> None:
    """At the smoke scale torch.compile goes through its front end and autograd, generates no code, and compiles nothing twice.

    Args:
        scale: Says whether it generates code.
        smoke_backend: `eager` leaves autograd out, too, which takes a third of the time: where another stage has been through it.
    """
    global RESETS
    RESETS = scale.inductor
    if not scale.inductor:
        whole = torch.compile

        def quick(*args: Any, **kwargs: Any) -> Any:
            return whole(*args, **kwargs | {"backend": smoke_backend, "mode": None})

        torch.compile = quick  # type: ignore[assignment]
