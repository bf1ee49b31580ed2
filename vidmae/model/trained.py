"""A trained masked autoencoder from a run folder, an export or a released file, ready to fill in.

    load_trained("runs/s-1a2b3c4d")                                      a finished run
    load_trained("runs/s-1a2b3c4d/weights.safetensors")                  its export, wherever it was copied
    load_trained("say.pth")                                              a released file: its sizes are read off its tensors
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor

from vidmae.model.formats.keys import PATCH_EMBED, clip_sizes, looks_like
from vidmae.model.formats.weight_files import holds_weights
from vidmae.model.mae import MaskedAutoencoder
from vidmae.model.weights import load_into, load_state, read_metadata
from vidmae.runs.record import RunFolder, read_json
from vidmae.settings.config import DataConfig, ModelConfig, PretrainConfig
from vidmae.settings.layers import Layer, build, load, parse_set

T = TypeVar("T")


@dataclass(frozen=True)
class Trained:
    """A trained model and how its clips were cut.

    Attributes:
        model: In evaluation mode.
        config: Its sizes and objective.
        data: Sampling rate and frame rate of training; None where the file does not say.
        origin: Where its sizes are from, in words.
    """

    model: MaskedAutoencoder
    config: ModelConfig
    data: DataConfig | None
    origin: str


def load_trained(path: str | Path, settings: Sequence[str] = (), *, device: torch.device | str = "cpu") -> Trained:
    """Open a trained model.

    Args:
        path: A run folder, a `.safetensors` export, a folder of one, or a released `.pth`.
        settings: `model.key=value`, for what a released file does not say: heads of the decoder, norm_pix_loss.
        device: Where it shall compute.
    Raises:
        ValueError: The run is not finished, the file cannot be used or has no decoder, or the settings do not fit it.
    """
    path, data = Path(path), None
    if path.is_dir() and (RunFolder(path).config.is_file() or not holds_weights(path)):
        config, data, origin = *_of_run(path), "the run's config.yaml"
        path = RunFolder(path).weights
    state = load_state(path)
    if "mask_token" not in state:
        raise ValueError(f"{path} has no decoder, so it cannot fill in: it looks like {looks_like(state)}; give a "
                         "pretraining run, its weights.safetensors, or a released pretraining file")
    if data is None:
        header = read_metadata(path)
        origin = "the file's header" if "config" in header else "the shapes of the file's tensors"
        config = _read(ModelConfig, header["config"], origin) if "config" in header else model_config(state)
        data = _read(DataConfig, header["sampling"], origin) if "sampling" in header else None
    config = _with(config, settings)
    if config.target != "pixels":
        raise ValueError(f"{path} predicts features (model.target {config.target}) and has no pixel decoder, so it cannot "
                         "fill in; give a run or a file of model.target pixels")
    model = untrained(config)
    try:
        load_into(model, state)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    return Trained(model.to(device), config, data, origin)


def untrained(config: ModelConfig, seed: int = 0) -> MaskedAutoencoder:
    """A model of this configuration as it is before training, in evaluation mode."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return MaskedAutoencoder(config.shape(), norm_pix_loss=config.norm_pix_loss, attention=config.attention).eval()


def model_config(state: Mapping[str, Tensor]) -> ModelConfig:
    """The sizes of a masked autoencoder, from the shapes of its tensors.

    Two things leave no trace: how many heads the decoder has (taken: 16, as released) and norm_pix_loss (taken: off).

    Raises:
        ValueError: They are not those of a model that this suite knows.
    """
    name = looks_like(state)
    if not name.startswith("mae_vit_"):
        raise ValueError(f"the file looks like {name}, not like a video MAE of this suite")
    blocks = {match[1] for key in state if (match := re.match(r"decoder_blocks\.(\d+)\.", key))}
    img_size, num_frames, t_patch_size = clip_sizes(state)
    patch, slots = state[PATCH_EMBED].shape[-1], num_frames // t_patch_size
    return ModelConfig(
        name=name, img_size=img_size, num_frames=num_frames, t_patch_size=t_patch_size,
        decoder_embed_dim=state["mask_token"].shape[-1], decoder_depth=len(blocks),
        pred_t_dim=state["decoder_pred.weight"].shape[0] // (patch * patch * 3) * slots)


def _of_run(path: Path) -> tuple[ModelConfig, DataConfig]:
    run = RunFolder(path)
    if not run.config.is_file():
        raise ValueError(f"{path} is no run folder: it has no config.yaml")
    if not run.weights.is_file():
        raise ValueError(f"{path} has no weights.safetensors: the run is not finished (python jobs/status.py {path.name})")
    kind = (read_json(run.record) or {}).get("kind", "pretrain")
    if kind != "pretrain":
        raise ValueError(f"{path} is a {kind} run, whose model has no decoder and cannot fill in; give a pretraining run")
    config = load(PretrainConfig, run.config)
    return config.model, config.data


def _read(cls: type[T], text: str, origin: str) -> T:
    return build(cls, [Layer(origin, json.loads(text))])[0]


def _with(config: ModelConfig, settings: Sequence[str]) -> ModelConfig:
    """The configuration with `model.key=value` settings on top."""
    @dataclass(frozen=True)
    class _Settings:
        model: ModelConfig

    if not settings:
        return config
    return build(_Settings, [Layer("the model", {"model": asdict(config)}), *parse_set(settings)])[0].model
