"""Weights for others: a folder with weights, what says their sizes, and a model card.

    export(find("s-vith14"), Path("s-vith14-export"), form="vidmae", card=card_of(find("s-vith14")))

    vidmae         model.safetensors and config.json: `vidmae.load(FOLDER)`; decoder and head are kept
    mae_st         weights.pth, a dict with `model`: the released code of ST-MAE loads it; decoder and head are kept
    transformers   model.safetensors, config.json, preprocessor_config.json: `AutoModel.from_pretrained(FOLDER)`; of models
                   with VideoMAE's fixed positions, which that library represents exactly
    program        encoder.pt2: `torch.export.load(FILE).module()(clips)`, clips uint8 [B, T, H, W, 3] to features [B, D], or
                   to class scores where there is a head

A folder appears whole or not at all, and what was written is read again and compared before it does.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import torch
from torch import Tensor

from vidmae.model.classifier import VideoClassifier
from vidmae.model.formats.file_model import FileModel, target_of
from vidmae.model.trained_encoder import encoder_for, file_model, weights_of
from vidmae.model.weights import load_encoder, load_state, save_safetensors
from vidmae.runs.record import fsync_folder, make_private_folder, write_atomic, write_json
from vidmae.weights.converting import as_one_of_ours
from vidmae.weights.finding import Found
from vidmae.weights.model_card import Card, to_markdown
from vidmae.weights.videomae_out import videomae_config, videomae_state

WEIGHTS, RELEASED, PROGRAM, CONFIG, README = "model.safetensors", "weights.pth", "encoder.pt2", "config.json", "README.md"
CLOSE = 1e-5  # of a feature, between a program and the model that it was made of


def export(found: Found, out: Path, *, form: str, card: Card) -> list[Path]:
    """Write a folder for others.

    Args:
        found: From `finding.find`.
        out: The folder; must not be there.
        form: One of `FORMS`.
        card: What the model card says.
    Returns:
        The files, the model card last.
    Raises:
        ValueError: The weights cannot be used, the form does not represent them, or `out` is there.
    """
    if form not in FORMS:
        raise ValueError(f"--form {form} is unknown; allowed: {', '.join(FORMS)}")
    if out.exists():
        raise ValueError(f"--out {out} is there already; give another folder, or remove it")
    path = weights_of(found.path)
    try:
        model = file_model(path, found.known)
        make_private_folder(out.absolute().parent)
        made = Path(mkdtemp(dir=out.absolute().parent, prefix=f".{out.name}."))
        try:
            FORMS[form](found, model, made)
            write_atomic(made / README, to_markdown(card, model, form).encode())
            made.replace(out)
        finally:
            shutil.rmtree(made, ignore_errors=True)
        fsync_folder(out.absolute().parent)
    except (KeyError, RuntimeError) as error:
        raise ValueError(f"{path}: {error}") from error
    return sorted(out.iterdir(), key=lambda file: (file.name == README, file.name))


def sizes_of(model: FileModel, encoder: VideoClassifier) -> dict[str, Any]:
    """config.json of this suite's form: what the tensors say, and how pixels are normalised."""
    s = model.shape
    return {"model_type": "vidmae", "name": s.name, "image_size": s.img_size, "num_frames": s.num_frames,
            "tubelet_size": s.t_patch_size, "patch_size": s.patch_size, "hidden_size": s.embed_dim,
            "num_hidden_layers": s.depth, "num_attention_heads": s.num_heads, "positions": s.positions,
            "pool": encoder.pool, "hidden_act": "gelu", "image_mean": encoder.mean, "image_std": encoder.std,
            "num_classes": model.head, **model.controls}


def _vidmae(found: Found, model: FileModel, made: Path) -> None:
    state, header, _ = as_one_of_ours(found)
    save_safetensors(state, made / WEIGHTS, header)
    write_json(made / CONFIG, sizes_of(model, _encoder(model)))
    _same(load_state(made), state, "what was read again")


def _mae_st(found: Found, model: FileModel, made: Path) -> None:
    if not model.shape.class_tokens:
        raise ValueError(f"it has {model.shape.positions} positions and no class token, other than the released code of "
                         "ST-MAE; allowed: --form vidmae, program, or transformers of VideoMAE")
    if not model.shape.temporal_positions:
        raise ValueError("it has no table of positions in time, which the released code of ST-MAE has; allowed: --form "
                         "vidmae or program")
    if model.pooled:
        raise ValueError("its features are the mean of the tokens, which a file of this form cannot say; allowed: --form "
                         "vidmae or program")
    if target_of(weights_of(found.path)) != "pixels":
        raise ValueError("it predicts features (model.target), which the released code of ST-MAE does not; allowed: --form "
                         "vidmae or program")
    _encoder(model)
    state = {name: tensor.contiguous() for name, tensor in as_one_of_ours(found)[0].items()}
    file = made / RELEASED
    torch.save({"model": state}, file)
    file.chmod(0o600)
    _same(load_state(file), state, "what was read again")


def _transformers(found: Found, model: FileModel, made: Path) -> None:
    state = as_one_of_ours(found)[0]
    encoder = _encoder(model)
    save_safetensors(videomae_state(state, model, mean=encoder.mean, std=encoder.std), made / WEIGHTS, {})
    config, pixels = videomae_config(model)
    write_json(made / CONFIG, config)
    write_json(made / "preprocessor_config.json", pixels)
    again = file_model(made)
    if asdict(again.shape) != asdict(model.shape) or again.head != model.head:
        raise ValueError(f"read again, it is {again}, and it was {model}")


def _program(found: Found, model: FileModel, made: Path) -> None:
    encoder = _encoder(model, num_classes=model.head or None)
    load_encoder(encoder, weights_of(found.path), known=found.known, assign=True)
    encoder.eval().requires_grad_(False)
    s = model.shape
    generator = torch.Generator().manual_seed(0)
    clips = torch.randint(0, 256, (3, s.num_frames, s.img_size, s.img_size, 3), dtype=torch.uint8, generator=generator)
    program = torch.export.export(encoder, (clips[:2],), dynamic_shapes=({0: torch.export.Dim.AUTO},))
    torch.export.save(program, made / PROGRAM)
    (made / PROGRAM).chmod(0o600)
    with torch.inference_mode():
        theirs, ours = torch.export.load(made / PROGRAM).module()(clips), encoder(clips)
    if (far := float((theirs - ours).abs().max())) > CLOSE:
        raise ValueError(f"the program gives other features: up to {far:.2g} apart, allowed: {CLOSE:g}")
    write_json(made / CONFIG, sizes_of(model, encoder))


FORMS: Mapping[str, Callable[[Found, FileModel, Path], None]] = {
    "vidmae": _vidmae, "mae_st": _mae_st, "transformers": _transformers, "program": _program}
"""What a folder is made for."""


def _encoder(model: FileModel, num_classes: int | None = None) -> VideoClassifier:
    with torch.device("meta"):
        encoder = encoder_for(model, num_classes=num_classes)
    if not isinstance(encoder, VideoClassifier):
        raise ValueError("it is a convolutional net, which has none of these forms")
    return encoder


def _same(one: Mapping[str, Tensor], other: Mapping[str, Tensor], what: str) -> None:
    wrong = [name for name in one.keys() | other.keys() if name not in one or name not in other
             or not torch.equal(one[name], other[name].to(one[name].dtype))]
    if wrong:
        raise ValueError(f"{what} differs in {len(wrong)} tensors, such as {min(wrong)}")
