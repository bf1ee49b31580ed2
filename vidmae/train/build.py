"""From a configuration to the objects of a run: model, clips, FLOPs. What several loops share."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch

from vidmae.clips.cutting import ClipSpec
from vidmae.clips.loader import Batch, make_loader
from vidmae.clips.order import FramesOfClips, Order, ShuffledVideos
from vidmae.footage.manifest import Manifest, content_hash
from vidmae.footage.open_video import ARCHIVE, Stager, file_of, use_copies
from vidmae.mixtures.mixture import Footage, sampling_of
from vidmae.mixtures.mixture_order import MixtureOrder, turns_per_epoch
from vidmae.model.classifier import build_classifier
from vidmae.model.conv_net import Classifier, build_conv
from vidmae.model.feature_prediction import FeaturePredictor
from vidmae.model.mae import MaskedAutoencoder
from vidmae.model.weights import load_encoder
from vidmae.ranks.dist import Ranks
from vidmae.runs import cost
from vidmae.runs.metrics import measure_gemm_flops
from vidmae.runs.plan import Plan, make_plan
from vidmae.settings.config import DataConfig, FootageConfig, PretrainConfig, RunConfig
from vidmae.settings.finetune_config import FinetuneConfig, FinetuneTrainConfig
from vidmae.settings.layers import ConfigError

RUN = "run:"  # of a train.init_content that names a run by its signature


def build_model(config: PretrainConfig) -> MaskedAutoencoder:
    """The model of a configuration, its weights drawn from the seed."""
    torch.manual_seed(config.seed)
    m = config.model
    if m.target == "features":
        return FeaturePredictor(m.shape(), feature_loss=m.feature_loss, attention=m.attention,
                                activation_checkpointing=m.activation_checkpointing)
    return MaskedAutoencoder(config.model.shape(), norm_pix_loss=m.norm_pix_loss, attention=m.attention,
                             activation_checkpointing=m.activation_checkpointing)


def build_classifier_for(config: FinetuneConfig, num_classes: int | None, *, start: bool = True,
                         say: Callable[[str], object] = lambda _: None) -> Classifier:
    """The classifier of a cell, its new weights drawn from the seed.

    Args:
        config: Of the cell.
        num_classes: Width of the head; None builds none.
        start: Load the encoder that the cell starts from (train.init).
        say: Told what was loaded.
    Raises:
        ValueError: The weights are not those that the cell was made for, or do not fit.
    """
    torch.manual_seed(config.seed)
    m = config.model
    model: Classifier
    if m.net == "conv":
        model = build_conv(m.name, num_classes=num_classes, img_size=m.img_size, num_frames=m.num_frames,
                           t_patch_size=m.t_patch_size, dropout=m.dropout, drop_path=m.drop_path,
                           activation_checkpointing=m.activation_checkpointing)
    else:
        model = build_classifier(m.name, num_classes=num_classes, img_size=m.img_size, num_frames=m.num_frames,
                                 t_patch_size=m.t_patch_size, positions=m.positions, pool=m.pool, dropout=m.dropout,
                                 drop_path=m.drop_path, temporal_positions=m.temporal_positions,
                                 attention=m.attention, activation_checkpointing=m.activation_checkpointing)
    if start and config.train.init:
        check_init(config.train)
        report = load_encoder(model, config.train.init, new_head=True, resize_positions=config.train.resize_positions,
                              inflated=config.train.inflated)
        say(f"start: {config.train.init_name}: {report}")
    elif start:
        say("start: from scratch")
    return model


def check_init(train: FinetuneTrainConfig) -> None:
    """Refuse weights that are not those of the cell's signature: a run by its signature, a file by its content.

    Raises:
        ValueError: They are not there or others.
    """
    path, expected = Path(train.init), train.init_content
    if not path.is_file():
        raise ValueError(f"train.init is {path}, which does not exist (a run writes it when it is done)")
    found = RUN + path.parent.name.rpartition("-")[2] if expected.startswith(RUN) else content_hash(path)
    if expected and found != expected:
        raise ValueError(f"{path} is {found}, and this cell was made for {expected}: the weights are others by now; start "
                         "the sweep again")


def footage_plan(config: PretrainConfig, footage: Footage, world_size: int) -> Plan:
    """The derived numbers of a run on some footage.

    Raises:
        ValueError: See `make_plan`, and `turns_per_epoch`.
    """
    visits = sum(turns_per_epoch(part.stock, config.data) for part in footage.parts) or None
    return make_plan(config, videos=len(footage.manifest), world_size=world_size, visits=visits,
                     once=config.data.order == "single-pass")


def mixture_order(config: PretrainConfig, footage: Footage, plan: Plan) -> MixtureOrder | None:
    """The order of the clips; None where each video comes once in an epoch, shuffled."""
    if not footage.parts:
        return None
    return MixtureOrder.of(footage, config.data, seed=config.seed, run_clips=config.data.window_clips or plan.total_clips)


def footage_order(config: PretrainConfig, footage: Footage, plan: Plan) -> Order | None:
    """What comes when: the order of the clips, or of the frames of them that an image model sees (data.window_frames)."""
    order, data = mixture_order(config, footage, plan), config.data
    if not data.window_frames:
        return order
    of_clips = order or ShuffledVideos(len(footage.manifest), data.repeat_aug, config.seed)
    return FramesOfClips(of_clips, data.window_frames, data.window_clips, config.seed)


def clip_spec(config: RunConfig, noise: int, footage: Footage | None = None) -> ClipSpec:
    """What a clip of this configuration is; `noise` numbers are drawn with each, for its mask."""
    data, more = config.data, dict[str, Any]()
    if isinstance(data, FootageConfig):
        more |= {"clip": data.clip, "window_frames": data.window_frames, "resize": data.resize}
        if data.sources and footage:
            own = [sampling_of(source, data) for source in data.sources]
            more["sampling"] = tuple((first, *one) for first, one in zip(footage.firsts, own, strict=True))
    return ClipSpec.of(config.model, data, noise, **more)


def clip_loader(config: RunConfig, manifest: Manifest, plan: Plan, *, rank: int, start: int, stop: int, workers: int,
                noise: int = 0, skipped: tuple[int, ...] = (), unreadable: Mapping[int, str] = MappingProxyType({}),
                pin_memory: bool = False, footage: Footage | None = None, order: Order | None = None) -> Iterable[Batch]:
    """One rank's micro-batches of the steps `start` to `stop` (excluded).

    `noise` numbers come with each clip, for its mask; `skipped` windows of data are left out, `unreadable` rows are
    replaced without a try. `order` is that of `footage`, from `footage_order`.
    """
    return make_loader(
        manifest, clip_spec(config, noise, footage), seed=config.seed, global_batch=config.train.global_batch,
        micro_batch=plan.micro_batch, grad_accum=plan.grad_accum, rank=rank, world_size=plan.world_size,
        start_step=start, stop_step=stop, skipped=skipped, workers=workers, read_limit_s=config.data.read_limit_s,
        read_retries=config.data.read_retries,
        recheck_pct=config.data.recheck_pct, unreadable=unreadable, pin_memory=pin_memory, order=order)


def stage(data: DataConfig, manifest: Manifest, ranks: Ranks, say: Callable[[str], object]) -> None:
    """Where data.stage says so, begin to copy the archives of a manifest to a disk of this node, and read the copies.

    Args:
        data: The settings.
        manifest: Of the run.
        ranks: All ranks; one of each node copies.
        say: Told how it ended.
    Raises:
        ConfigError: data.stage is no absolute path on this node.
    """
    folder = Path(os.path.expandvars(data.stage)).expanduser() if data.stage else None
    if folder and not folder.is_absolute():
        raise ConfigError(f"data.stage {data.stage!r} is {str(folder)!r} on this node, allowed: an absolute path; is the "
                          "variable set there? (--stage)")
    use_copies(folder)
    if folder and ranks.local_rank == 0:
        archives = [row for row in range(len(manifest)) if manifest.decoder(row) == ARCHIVE]
        Stager(lambda: dict.fromkeys(file_of(manifest.path(row)) for row in archives), folder,
               data.stage_gib, say)


def peak_flops(config: RunConfig, ranks: Ranks) -> float | None:
    """Peak FLOP/s of a rank's device: the data sheet's for a GPU, measured for a CPU, None where unknown."""
    if ranks.device.type == "cuda":
        tflops = cost.gpu_peak_tflops(torch.cuda.get_device_name(ranks.device))
        return tflops * 1e12 if tflops else None
    return measure_gemm_flops(ranks.device, torch.bfloat16 if config.train.precision == "bf16" else torch.float32)
