"""Weights in and out: released checkpoints, safetensors exports.

A released file opens in one call:

    model = build_mae("mae_vit_huge_patch14")
    print(load_weights(model, "say.pth"))     # 595 tensors loaded

`load_weights` wants every tensor; `load_encoder` starts a classifier from a pretraining file or another classifier.
Parameter names of the model are those of the files, so nothing is mapped. What does not fit is an error that names the
groups; nothing is skipped in silence.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import tempfile
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from vidmae.model.encoder import Encoder
from vidmae.model.keys import by_group, groups, looks_like
from vidmae.model.released_image import fit_names
from vidmae.runs.record import fsync_folder, make_private_folder

State = dict[str, Tensor]

PAYLOAD_KEYS = ("model", "model_state")  # the released files; files in the style of PySlowFast
PRETRAINING_ONLY = ("decoder_", "mask_token")  # a masked autoencoder has them, a classifier has not
WRAPPERS = re.compile(r"^(?:module\.|_orig_mod\.)+")  # left by DistributedDataParallel and torch.compile


@dataclass(frozen=True)
class LoadReport:
    """What went into a model.

    Attributes:
        loaded: Tensors copied.
        resized: Position tables interpolated to another image size, as `name 256 -> 1024`.
        missing: Allowed names that the file lacks; the model keeps its own values.
        ignored: Allowed names that the model has no place for.
    """

    loaded: int
    resized: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    ignored: tuple[str, ...] = ()

    def __str__(self) -> str:
        lines = [f"{self.loaded} tensors loaded"]
        lines += [f"{name} (bicubic)" for name in self.resized]
        lines += [f"{line} missing, left as they were" for line in by_group(self.missing)]
        lines += [f"{line} ignored" for line in by_group(self.ignored)]
        return "; ".join(lines)


def load_weights(
    model: nn.Module, path: str | Path, *, allow_missing: Sequence[str] = (), allow_unexpected: Sequence[str] = (),
    resize_positions: bool = False,
) -> LoadReport:
    """Load a released checkpoint or an export into a model, in one call.

    Args:
        model: For example `build_mae("mae_vit_huge_patch14")`; not sharded (load before the engine wraps it).
        path: `.pth`/`.pt` or `.safetensors`, see `load_state`.
        allow_missing, allow_unexpected, resize_positions: See `load_into`.
    Returns:
        What was loaded; print it.
    Raises:
        ValueError: The file cannot be used or does not fit.
    Example:
        `load_weights(build_mae("mae_vit_huge_patch14", img_size=448), "say.pth", resize_positions=True)`
    """
    state = load_state(path)
    try:
        return load_into(model, state, allow_missing=allow_missing, allow_unexpected=allow_unexpected,
                         resize_positions=resize_positions)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def load_encoder(
    model: nn.Module, path: str | Path, *, new_head: bool = False, resize_positions: bool = False,
) -> LoadReport:
    """Start a classifier from a pretrained model or from another classifier. To evaluate one, use `load_weights`.

    Every tensor of the encoder must fit; a decoder is left out. A released image MAE comes under our names
    (released_image.py) and fits a model of one frame. A head is loaded where the file and the model have one of
    the same classes. Where the file has none the model keeps its own, where the model has none the file's is left out,
    and the report says so.

    Args:
        model: A `VideoClassifier`, not sharded.
        path: The weights.safetensors of a run or a released file, pretrained or finetuned; see `load_state`.
        new_head: Leave the file's head out, whatever its classes: the model keeps its own.
        resize_positions: See `load_into`.
    Returns:
        What was loaded; print it.
    Raises:
        ValueError: The file cannot be used or does not fit; says by how much and what the file looks like.
    """
    state, own = load_state(path), model.state_dict()
    if isinstance(model, Encoder):
        try:
            state = dict(fit_names(state, num_frames=model.shape.num_frames, mean=model.mean, std=model.std))
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from None
    head = [name for name in state if name.startswith("head.")]
    left_out = head if new_head or "head.weight" not in own else []
    wanted = {name: t for name, t in state.items() if name not in left_out}
    try:
        report = load_into(model, wanted, allow_missing=() if len(head) > len(left_out) else ("head.",),
                           allow_unexpected=PRETRAINING_ONLY, resize_positions=resize_positions)
    except ValueError as error:
        encoder = [name for name in own if not name.startswith("head.")]
        fitting = sum(name in state and state[name].shape == own[name].shape for name in encoder)
        raise ValueError(f"{path}: {fitting} of {len(encoder)} encoder tensors fit, the file looks like "
                         f"{looks_like(state)}; {error}") from None
    return replace(report, ignored=(*report.ignored, *left_out))


def load_state(path: str | Path) -> State:
    """Read the tensors of a checkpoint under clean names.

    Pickled files are opened without running code from them (weights_only); the argparse.Namespace that released files
    carry is the one class allowed. Names lose `module.` and `_orig_mod.`; `head.projection.*` becomes `head.*`.

    Args:
        path: A `.safetensors` file, or a pickled one that holds the state dict itself or under `model`/`model_state`.
    Returns:
        Names and CPU tensors, memory-mapped where the format allows.
    Raises:
        ValueError: No such file, a DeepSpeed checkpoint folder or one of its shards, or no state dict inside.
    """
    path = Path(path)
    if path.is_dir() or re.search(r"(mp_rank_\d+_model|_optim)_states\.pt$", path.name):
        raise ValueError(f"{path} belongs to a DeepSpeed checkpoint, whose weights are spread over shards; give "
                         f"the weights.safetensors that a finished run exports, or a released .pth file")
    if not path.is_file():
        raise ValueError(f"{path} does not exist; give a .pth or .safetensors file")
    state = load_file(path) if path.suffix == ".safetensors" else _load_pickled(path)
    clean = {re.sub(r"^head\.projection\.", "head.", WRAPPERS.sub("", name)): t for name, t in state.items()}
    if len(clean) != len(state):
        raise ValueError(f"{path} holds the same tensor under several names once prefixes are stripped")
    return clean


def read_metadata(path: str | Path) -> dict[str, str]:
    """The strings in the header of a `.safetensors` file; empty for other files, which have none."""
    if Path(path).suffix != ".safetensors":
        return {}
    with safe_open(path, "pt") as file:
        return dict(file.metadata() or {})


def load_into(
    model: nn.Module, state: Mapping[str, Tensor], *, allow_missing: Sequence[str] = (),
    allow_unexpected: Sequence[str] = (), resize_positions: bool = False,
) -> LoadReport:
    """Copy a state dict into a model, all of it or with a named exception.

    Args:
        model: Not sharded, not on the meta device.
        state: Names and tensors; cast to the model's dtype.
        allow_missing: Beginnings of names that the state may lack, such as `head.`.
        allow_unexpected: Beginnings of names that the model may lack, such as `decoder_`.
        resize_positions: Interpolate spatial position tables (bicubic) where the image size differs.
    Returns:
        What was loaded.
    Raises:
        ValueError: Missing or unexpected names or shapes that differ, by group; the model is untouched then.
    """
    own = model.state_dict()
    missing, unexpected = sorted(own.keys() - state.keys()), sorted(state.keys() - own.keys())
    chosen, resized, misfits = _fit(own, state, resize_positions)
    problems = [f"{line} missing" for line in by_group([n for n in missing if not n.startswith(tuple(allow_missing))])]
    problems += [f"{line} unexpected"
                 for line in by_group([n for n in unexpected if not n.startswith(tuple(allow_unexpected))])]
    if problems or misfits:
        raise ValueError(f"the weights do not fit {_name_of(model)}: {'; '.join(problems + misfits)}")
    model.load_state_dict(chosen, strict=False)
    return LoadReport(len(chosen), tuple(resized), tuple(missing), tuple(unexpected))


def save_safetensors(state: Mapping[str, Tensor], path: str | Path, metadata: Mapping[str, str]) -> None:
    """Write weights as float32, at once or not at all.

    The file appears by rename after it has reached the disk, readable by its owner alone; a folder made for it too. Equal
    weights and metadata give equal bytes.

    Args:
        state: Names and tensors of any float dtype and device.
        path: `NAME.safetensors`.
        metadata: Strings for the file's header beside `format: pt`, such as the model's name and options.
    """
    path = Path(path)
    make_private_folder(path.parent)
    tensors = {name: t.detach().to("cpu", torch.float32).contiguous() for name, t in state.items()}
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")  # made with mode 0600
    os.close(handle)
    temporary = Path(name)
    try:
        save_file(tensors, temporary, metadata={"format": "pt", **metadata})
        _sort_metadata(temporary)
        temporary.chmod(0o600)
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
        fsync_folder(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def _sort_metadata(path: Path) -> None:
    """Put the header of a safetensors file into a fixed order, so that equal weights are equal bytes.

    The library keeps the metadata in a hash map and writes it in another order in each process. The header is 8 bytes of
    length, then JSON that may end in blanks; it keeps its length, for the tensors' offsets count from its end.
    """
    with path.open("r+b") as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length))
        header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
        text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
        assert len(text) <= length, "the same values in another order are no longer"
        file.seek(8)
        file.write(text.ljust(length))


def _fit(own: Mapping[str, Tensor], state: Mapping[str, Tensor], resize: bool) -> tuple[State, list[str], list[str]]:
    """Tensors that fit the model, position tables that were resized, shapes that do not fit by group."""
    chosen, resized, misfits = {}, [], {}
    for name in sorted(own.keys() & state.keys()):
        have, want = tuple(state[name].shape), tuple(own[name].shape)
        if have == want:
            chosen[name] = state[name]
        elif resize and _is_spatial_table(name, have, want):
            chosen[name] = _resize_table(state[name], _side(have), _side(want))
            resized.append(f"{name} {have[1]} -> {want[1]}")
        else:
            misfits[name] = f"{name} is {have}, the model has {want}{_hint(name, have, want)}"
    lines = []
    for group, names in groups(misfits).items():
        shown = misfits[max(names, key=lambda name: own[name].ndim)]  # a weight says more than a bias
        lines.append(shown if len(names) == 1 else f"{group}: {len(names)} tensors of another shape, such as: {shown}")
    return chosen, resized, lines


def _hint(name: str, have: tuple[int, ...], want: tuple[int, ...]) -> str:
    """What is behind two shapes that differ, where one setting can be named."""
    if _is_spatial_table(name, have, want):
        return " (another image size: pass resize_positions=True)"
    if name.endswith("pos_embed_temporal") and have[2:] == want[2:]:
        return " (another num_frames / t_patch_size: time slots are not interpolated)"
    if name.startswith("decoder_pred.") and have[1:] == want[1:]:
        return " (another pred_t_dim)"
    if name.startswith("head.") and have[1:] == want[1:]:
        return " (other classes: load_encoder with new_head=True leaves the file's head out)"
    return ""


def _is_spatial_table(name: str, have: tuple[int, ...], want: tuple[int, ...]) -> bool:
    alike = len(have) == len(want) == 3 and have[2] == want[2]
    return name.endswith("pos_embed_spatial") and alike and bool(_side(have) and _side(want))


def _resize_table(table: Tensor, side: int, new_side: int) -> Tensor:
    """[1, side^2, D] to [1, new_side^2, D]."""
    image = table.float().reshape(1, side, side, -1).permute(0, 3, 1, 2)
    image = F.interpolate(image, size=(new_side, new_side), mode="bicubic", align_corners=False)
    return image.flatten(2).transpose(1, 2)


def _side(shape: tuple[int, ...]) -> int:
    """Side of a square table [1, side^2, D], 0 where it is not square."""
    side = round(shape[1] ** 0.5)
    return side if side * side == shape[1] else 0


def _load_pickled(path: Path) -> State:
    with torch.serialization.safe_globals([argparse.Namespace]):
        try:
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
        except Exception as error:  # its text advises to load it unsafely
            raise ValueError(f"{path} cannot be read as a checkpoint ({type(error).__name__}): it is damaged, no file of "
                             "torch.save, or holds other things than tensors") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} holds a {type(content).__name__}, expected a dict of tensors")
    state = next((content[key] for key in PAYLOAD_KEYS if isinstance(content.get(key), dict)), content)
    if not state or not all(isinstance(t, Tensor) for t in state.values()):
        raise ValueError(f"{path} has no state dict: its keys are {sorted(map(str, content))[:8]}, expected tensors, or "
                         f"them under one of {', '.join(PAYLOAD_KEYS)}")
    return dict(state)


def _name_of(model: nn.Module) -> str:
    return str(getattr(getattr(model, "shape", None), "name", type(model).__name__))

