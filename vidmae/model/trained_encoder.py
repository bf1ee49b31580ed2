"""The encoder of a trained model, a run, an export or a file, pretrained or finetuned. Its sizes are those of its tensors.

    load_trained_encoder("runs/s-1a2b3c4d")            a finished run, pretraining or few-shot with keep_weights
    load_trained_encoder("weights.safetensors")        an export
    load_trained_encoder("ssv2-10shot.pth")            a released file, pretrained or finetuned; also one of an image MAE
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from vidmae.model.classifier import VideoClassifier, build_classifier
from vidmae.model.keys import clip_sizes, looks_like
from vidmae.model.released_image import is_released_image, under_our_names
from vidmae.model.weights import load_encoder, load_state, read_metadata
from vidmae.runs.record import RunFolder, read_json
from vidmae.settings.config import DataConfig, PretrainConfig
from vidmae.settings.finetune_config import FinetuneConfig
from vidmae.settings.layers import Layer, build, load
from vidmae.settings.sizes import ENCODER_SIZES, EncoderShape, encoder_shape


@dataclass(frozen=True)
class TrainedEncoder:
    """An encoder and how the clips were cut that it saw in training.

    Attributes:
        model: Without a head, in evaluation mode.
        data: Sampling rate and frame rate of training; None where the file does not say.
        pretrained: The file has a decoder: it is of a masked autoencoder, whose class token says little in the last block.
    """

    model: VideoClassifier
    data: DataConfig | None
    pretrained: bool


def load_trained_encoder(path: str | Path, *, device: torch.device | str = "cpu") -> TrainedEncoder:
    """Open the encoder of a trained model; a decoder or a head is left out.

    Args:
        path: A run folder, a `.safetensors` export or a released `.pth`.
        device: Where it shall compute.
    Raises:
        ValueError: The run is not finished or did not keep its weights, or the file has no encoder of this suite.
    """
    path = Path(path)
    data, file = (_of_run(path), RunFolder(path).weights) if path.is_dir() else (None, path)
    state, header = load_state(file), read_metadata(file)
    if data is None and "sampling" in header:
        data = build(DataConfig, [Layer("the file's header", json.loads(header["sampling"]))])[0]
    try:
        shape = shape_of(state)
        model = build_classifier(shape.name, img_size=shape.img_size, num_frames=shape.num_frames,
                                 t_patch_size=shape.t_patch_size, num_classes=None)
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from None
    load_encoder(model, file)
    return TrainedEncoder(model.eval().to(device), data, "mask_token" in state)


def shape_of(state: Mapping[str, Tensor]) -> EncoderShape:
    """The sizes of an encoder, from the shapes of its tensors.

    Raises:
        ValueError: They are not those of a video encoder that this suite knows.
    """
    if is_released_image(state):
        state = under_our_names(state, 0, 1)  # shapes alone are looked at
    name = looks_like(state).removeprefix("mae_")
    if name.split("_")[:-1] not in [["vit", size] for size in ENCODER_SIZES]:
        raise ValueError(f"it holds no video encoder of this suite: it looks like {name}")
    img_size, num_frames, t_patch_size = clip_sizes(state)
    return encoder_shape(name, img_size=img_size, num_frames=num_frames, t_patch_size=t_patch_size)


def _of_run(path: Path) -> DataConfig:
    run = RunFolder(path)
    if not run.config.is_file():
        raise ValueError(f"{path} is no run folder: it has no config.yaml")
    fewshot = (read_json(run.record) or {}).get("kind") == "fewshot"
    if not run.weights.is_file():
        kept = " or did not keep its weights (--set keep_weights=true)" if fewshot else ""
        raise ValueError(f"{path} has no weights.safetensors: the run is not finished{kept} (python jobs/status.py "
                         f"{path.name})")
    return load(FinetuneConfig, run.config).data if fewshot else load(PretrainConfig, run.config).data
