"""The encoder of a trained model, a run, an export or a file, pretrained or finetuned. Its sizes are those of its tensors.

    load_trained_encoder("runs/s-1a2b3c4d")            a finished run, pretraining or few-shot with keep_weights
    load_trained_encoder("weights.safetensors")        an export
    load_trained_encoder("ssv2-10shot.pth")            a released file, pretrained or finetuned; also of an image MAE,
                                                       VideoMAE or V-JEPA
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import torch

from vidmae.model.classifier import Pool, VideoClassifier, build_classifier
from vidmae.model.conv_net import Classifier, build_conv
from vidmae.model.formats.file_model import FileModel, Known, model_in, model_of, said_of
from vidmae.model.formats.keys import shapes_of
from vidmae.model.formats.weight_files import FILES_OF_FOLDER, holds_weights
from vidmae.model.weights import load_encoder, load_state, read_metadata
from vidmae.runs.record import RunFolder, read_json
from vidmae.settings.config import DataConfig, PretrainConfig
from vidmae.settings.finetune_config import FinetuneConfig
from vidmae.settings.layers import Layer, build, load


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


def load_trained_encoder(path: str | Path, *, device: torch.device | str = "cpu", known: Known | None = None,
                         ) -> TrainedEncoder:
    """Open the encoder of a trained model; a decoder or a head is left out.

    Args:
        path: A run folder, a `.safetensors` export, a released file of any known layout, or a folder; see `load_state`.
        device: Where it shall compute.
        known: What is known of the model beside its tensors; see `file_model`.
    Raises:
        ValueError: The run is not finished or did not keep its weights, or the file has no encoder of this suite.
    """
    file = weights_of(Path(path))
    data = _sampling_of(RunFolder(Path(path))) if file != Path(path) else None
    header = read_metadata(file)
    if data is None and "sampling" in header:
        data = build(DataConfig, [Layer("the file's header", json.loads(header["sampling"]))])[0]
    found = file_model(file, known)
    if found.conv:
        raise ValueError(f"{file} is {found}; it has no tokens and no attention to look at; allowed: transformers")
    model = encoder_for(found)
    assert isinstance(model, VideoClassifier)
    load_encoder(model, file, known=known)
    return TrainedEncoder(model.eval().to(device), data, found.pretrained)


def weights_of(path: Path) -> Path:
    """The weights that a path means: of a run its export, else the path itself.

    Raises:
        ValueError: A folder is neither a finished run that kept its weights nor one of weights.
    """
    run = RunFolder(path)
    if not path.is_dir() or (holds_weights(path) and not run.config.is_file()):
        return path
    if not run.config.is_file():
        raise ValueError(f"{path} is no run folder, for it has no config.yaml, and no folder of weights, for it has none of "
                         f"{', '.join(FILES_OF_FOLDER)} and no shards of deepspeed")
    if not run.weights.is_file():
        kept = " or did not keep its weights (--set keep_weights=true)" if _kind(run) == "fewshot" else ""
        raise ValueError(f"{path} has no weights.safetensors: the run is not finished{kept} (python jobs/status.py "
                         f"{path.name})")
    return run.weights


def file_model(file: Path, known: Known | None = None) -> FileModel:
    """What the tensors of a file are; see `file_model.model_of`.

    Raises:
        ValueError: It cannot be read, or holds none that this suite has; names the file.
    """
    try:
        return model_in(file, known) or model_of(shapes_of(load_state(file)), {**said_of(file), **(known or {})})
    except ValueError as error:
        raise ValueError(str(error) if str(file) in str(error) else f"{file}: {error}") from None


def encoder_for(found: FileModel, *, num_classes: int | None = None, pool: Pool | None = None) -> Classifier:
    """An encoder of the sizes of a file, without its weights; the convolutional net where it holds one.

    Args:
        found: What the file holds.
        num_classes: Of a head; None builds none.
        pool: What its features are; None: the class token, or the mean where the file has none or was finetuned so.
    """
    s = found.shape
    if found.conv:
        return build_conv(s.name, img_size=s.img_size, num_frames=s.num_frames, t_patch_size=s.t_patch_size,
                          num_classes=num_classes)
    return build_classifier(s.name, img_size=s.img_size, num_frames=s.num_frames, t_patch_size=s.t_patch_size,
                            positions=s.positions, num_classes=num_classes, pool=pool or ("mean" if found.pooled else "cls"),
                            temporal_positions=s.temporal_positions)


def _kind(run: RunFolder) -> str:
    return str((read_json(run.record) or {}).get("kind", "pretrain"))


def _sampling_of(run: RunFolder) -> DataConfig:
    return load(FinetuneConfig if _kind(run) == "fewshot" else PretrainConfig, run.config).data
