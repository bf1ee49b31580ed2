"""Any weights as one file of this suite: `.safetensors`, this suite's names, sizes in the header.

    convert(find("videomae-base"), Path("videomae-base.safetensors"))

A masked autoencoder of this suite or a released ST-MAE keeps its decoder, a finetuned file its head; of other families the
encoder is kept, and a head that fits.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import torch
from torch import Tensor

from vidmae.model.classifier import VideoClassifier
from vidmae.model.formats.keys import by_group
from vidmae.model.formats.layouts import LAYOUTS, OURS
from vidmae.model.formats.translate import as_ours
from vidmae.model.trained import model_config
from vidmae.model.trained_encoder import encoder_for, file_model, weights_of
from vidmae.model.weights import load_state, read_metadata, save_safetensors
from vidmae.weights.finding import Found


def convert(found: Found, out: Path) -> str:
    """Write weights under this suite's names.

    Args:
        found: From `finding.find`.
        out: `NAME.safetensors`; must not be there.
    Returns:
        What was written, in words.
    Raises:
        ValueError: The weights cannot be used, or `out` is there or of another form.
    """
    if out.suffix != ".safetensors":
        raise ValueError(f"--out {out} must end in .safetensors")
    if out.exists():
        raise ValueError(f"--out {out} is there already; give another name, or remove it")
    path = weights_of(found.path)
    state, header, how = as_one_of_ours(found)
    save_safetensors(state, out, header)
    return f"{len(state)} tensors from the layout of {LAYOUTS[file_model(path, found.known).layout].title}{how}"


def as_one_of_ours(found: Found) -> tuple[dict[str, Tensor], dict[str, str], str]:
    """Weights under this suite's names.

    Args:
        found: From `finding.find`.
    Returns:
        Tensors, what the header of a file of them says, and in words what was changed or left out.
    Raises:
        ValueError: The weights cannot be used.
    """
    path = weights_of(found.path)
    model = file_model(path, found.known)
    state, s = load_state(path), model.shape
    header = {key: value for key, value in read_metadata(path).items() if key != "format"}
    config = {"name": s.name, "img_size": s.img_size, "num_frames": s.num_frames, "t_patch_size": s.t_patch_size,
              "positions": s.positions, **({"pool": "mean"} if model.pooled and s.class_tokens else {}), **model.controls}
    how = ""
    if model.layout != OURS:
        with torch.device("meta"):
            encoder = encoder_for(model, num_classes=model.head or None)
        assert isinstance(encoder, VideoClassifier), "the convolutional net has this suite's layout"
        fits = encoder.state_dict()
        made = as_ours(state, model, mean=encoder.mean, std=encoder.std)
        if made.state.keys() != fits.keys():
            raise ValueError(f"{path}: missing or of no known meaning: "
                             f"{', '.join(by_group(made.state.keys() ^ fits.keys()))}")
        state = made.state
        how = f", {len(made.reshaped)} of them cut or computed, {len(made.left_out)} of other parts left out"
    elif model.pretrained:
        config = json.loads(header["config"]) if "config" in header else asdict(model_config(state))
    return state, {**header, "model": str(config["name"]), "config": json.dumps(config)}, how
