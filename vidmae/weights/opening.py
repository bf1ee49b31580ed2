"""Open any weights as an encoder: what `vidmae.load` does.

    model = vidmae.load("hvm1@448_none")           # or a file, a folder of a hub, a run, hf://owner/name/file
    vectors = model.features(clips)                # uint8 [B, T, H, W, 3] to [B, D]
    tokens = model.tokens(clips)                   # [B, L, D], after the last norm

The model is built without numbers and takes the tensors of the file as they lie on the disk (memory-mapped): there is no
second copy in memory, and what is not used is not read.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch

from vidmae.model.classifier import Pool
from vidmae.model.conv_net import Classifier
from vidmae.model.formats.file_model import FileModel
from vidmae.model.formats.translate import Inflate
from vidmae.model.trained_encoder import encoder_for, file_model, weights_of
from vidmae.model.weights import load_encoder
from vidmae.settings.sizes import encoder_shape
from vidmae.weights.finding import find


def load(
    source: str | Path, *, img_size: int | None = None, num_frames: int | None = None, pool: Pool | None = None,
    inflated: Inflate = "no", device: torch.device | str = "cpu", runs_dir: str | Path = "runs",
    say: Callable[[str], object] = lambda _: None,
) -> Classifier:
    """Open weights as an encoder, in evaluation mode.

    Args:
        source: A name of published weights (`python jobs/weights.py list`), `hf://owner/name/file`, a file, a folder of a
            hub or of deepspeed's checkpoints, or a run by its folder or name.
        img_size: Side of the clips in px; None: that of the file. Another one interpolates the positions.
        num_frames: Frames of a clip; None: those of the file. Another number interpolates the positions.
        pool: What `features` are: cls or mean; None: the class token, or the mean of the patch tokens where the file has no
            class token or was finetuned so.
        inflated: How a model of several frames takes an image model: centre or mean; with num_frames.
        device: Where it shall compute.
        runs_dir: Where runs are looked for by name.
        say: Told what is downloaded and what was loaded; `print` will do.
    Returns:
        The encoder, with the head that a finetuned file has: `model(clips)` are its class scores.
    Raises:
        ValueError: There are no such weights, or they are of no model that this suite has; one message says what to do.
    """
    found = find(source, runs_dir=Path(runs_dir), say=say)
    path = weights_of(found.path)
    of_file = file_model(path, found.known)
    wanted = _resized(of_file, img_size, num_frames, inflated)
    with torch.device("meta"):
        model = encoder_for(wanted, num_classes=of_file.head or None, pool=pool)
    report = load_encoder(model, path, known=found.known, assign=True, inflated=inflated,
                          resize_positions=wanted.shape != of_file.shape)
    say(f"{found.name}: {wanted}; {report}")
    return model.eval().to(device)


def _resized(found: FileModel, img_size: int | None, num_frames: int | None, inflated: Inflate) -> FileModel:
    s = found.shape
    if inflated != "no" and s.num_frames != 1:
        raise ValueError(f"inflated is {inflated!r}, allowed with weights of a model of {s.num_frames} frames: no; "
                         "centre and mean are for those of an image model")
    u = s.t_patch_size if inflated == "no" else 2
    if found.conv and (img_size or s.img_size, num_frames or s.num_frames) != (s.img_size, s.num_frames):
        raise ValueError(f"img_size {img_size} and num_frames {num_frames} cannot be changed: the weights are of {found}, "
                         "whose width goes with them; allowed: None")
    shape = encoder_shape(s.name, t_patch_size=u, positions=s.positions, temporal_positions=s.temporal_positions,
                          img_size=s.img_size if img_size is None else img_size,
                          num_frames=s.num_frames if num_frames is None else num_frames)
    return replace(found, shape=shape)
