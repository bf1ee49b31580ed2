"""From a configuration to the objects of a run: model, clips, FLOPs. What several loops share."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType

import torch

from vidmae import cost
from vidmae.config import PretrainConfig, RunConfig
from vidmae.cutting import ClipSpec
from vidmae.dist import Ranks
from vidmae.loader import Batch, make_loader
from vidmae.manifest import Manifest
from vidmae.metrics import measure_gemm_flops
from vidmae.model import MaskedAutoencoder
from vidmae.plan import Plan


def build_model(config: PretrainConfig) -> MaskedAutoencoder:
    """The model of a configuration, its weights drawn from the seed."""
    torch.manual_seed(config.seed)
    m = config.model
    return MaskedAutoencoder(config.model.shape(), norm_pix_loss=m.norm_pix_loss, attention=m.attention,
                             activation_checkpointing=m.activation_checkpointing)


def clip_spec(config: RunConfig, noise: int) -> ClipSpec:
    """What a clip of this configuration is; `noise` numbers are drawn with each, for its mask."""
    m, d = config.model, config.data
    return ClipSpec(
        num_frames=m.num_frames, sampling_rate=d.sampling_rate, target_fps=d.target_fps, img_size=m.img_size,
        crop_area=d.crop_area, crop_aspect=d.crop_aspect, flip_prob=d.flip_prob, repeat_aug=d.repeat_aug,
        repeat_window=d.repeat_window, backend=d.decoder, num_tokens=noise)


def clip_loader(config: RunConfig, manifest: Manifest, plan: Plan, *, rank: int, start: int, stop: int, workers: int,
                noise: int = 0, skipped: tuple[int, ...] = (), unreadable: Mapping[int, str] = MappingProxyType({}),
                pin_memory: bool = False) -> Iterable[Batch]:
    """One rank's micro-batches of the steps `start` to `stop` (excluded).

    `noise` numbers come with each clip, for its mask; `skipped` windows of data are left out, `unreadable` rows are
    replaced without a try.
    """
    return make_loader(
        manifest, clip_spec(config, noise), seed=config.seed, global_batch=config.train.global_batch,
        micro_batch=plan.micro_batch, grad_accum=plan.grad_accum, rank=rank, world_size=plan.world_size,
        start_step=start, stop_step=stop, skipped=skipped, workers=workers, read_limit_s=config.data.read_limit_s,
        read_retries=config.data.read_retries, unreadable=unreadable, pin_memory=pin_memory)


def peak_flops(config: RunConfig, ranks: Ranks) -> float | None:
    """Peak FLOP/s of a rank's device: the data sheet's for a GPU, measured for a CPU, None where unknown."""
    if ranks.device.type == "cuda":
        tflops = cost.gpu_peak_tflops(torch.cuda.get_device_name(ranks.device))
        return tflops * 1e12 if tflops else None
    return measure_gemm_flops(ranks.device, torch.bfloat16 if config.train.precision == "bf16" else torch.float32)
