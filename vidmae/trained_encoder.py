"""A trained encoder from whatever holds one: a run, a cell, an export, a released file, pretrained or finetuned.

    load_trained_encoder("runs/s-1a2b3c4d")                       a finished run or finetuned cell
    load_trained_encoder("say.pth")                               any file of weights: its sizes are read off its tensors

Decoder and head are left out.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import torch

from vidmae.classifier import VideoClassifier, build_classifier
from vidmae.config import DataConfig, PretrainConfig
from vidmae.finetune_config import FinetuneConfig
from vidmae.keys import clip_sizes, looks_like
from vidmae.layers import Layer, build, load
from vidmae.record import RunFolder, read_json
from vidmae.sizes import ENCODER_SIZES
from vidmae.weights import load_encoder, load_state, read_metadata


@dataclass(frozen=True)
class TrainedEncoder:
    """An encoder and how its clips were cut.

    Attributes:
        model: Without a head, in evaluation mode.
        data: Sampling rate, frame rate and decoder of training; None where nothing says.
    """

    model: VideoClassifier
    data: DataConfig | None


def load_trained_encoder(path: str | Path, *, device: torch.device | str = "cpu") -> TrainedEncoder:
    """Open a trained encoder.

    Args:
        path: A run folder, or a file of weights.
        device: Where it shall compute.
    Raises:
        ValueError: The run is not finished, or the file holds no encoder of this suite or not all of it.
    """
    path, data = Path(path), None
    if path.is_dir():
        data, path = _data_of_run(path), RunFolder(path).weights
    state = load_state(path)
    name = looks_like(state).removeprefix("mae_")
    if name.split("_")[:-1] not in [["vit", size] for size in ENCODER_SIZES]:
        raise ValueError(f"{path} holds no video encoder of this suite: it looks like {name}")
    try:
        img_size, num_frames, t_patch_size = clip_sizes(state)
        model = build_classifier(name, num_classes=None, img_size=img_size, num_frames=num_frames, t_patch_size=t_patch_size)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    del state
    load_encoder(model, path)
    header = read_metadata(path)
    if data is None and "sampling" in header:
        data = build(DataConfig, [Layer("the file's header", json.loads(header["sampling"]))])[0]
    return TrainedEncoder(model.eval().to(device), data)


def _data_of_run(path: Path) -> DataConfig:
    run = RunFolder(path)
    if not run.config.is_file():
        raise ValueError(f"{path} is no run folder: it has no config.yaml")
    if not run.weights.is_file():
        raise ValueError(f"{path} has no weights.safetensors: the run is not finished, or is a probe, which has no weights "
                         f"of its own (python jobs/status.py {path.name})")
    kind = (read_json(run.record) or {}).get("kind", "pretrain")
    return load(PretrainConfig if kind == "pretrain" else FinetuneConfig, run.config).data
