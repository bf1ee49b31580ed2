"""Weights in and out: released checkpoints of several families, folders of deepspeed, safetensors exports.

A released file opens in one call:

    model = build_mae("mae_vit_huge_patch14")
    print(load_weights(model, "say.pth"))     # 595 tensors loaded

`load_weights` wants every tensor; `load_encoder` starts a classifier from a pretraining file or another classifier.
Parameter names of the model are those of released ST-MAE, so nothing is mapped there; `formats/` translates the encoders of
VideoMAE, V-JEPA and image MAEs. What does not fit is an error that names the groups; nothing is skipped in silence.
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
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from vidmae.model.encoder import Encoder
from vidmae.model.formats.file_model import Known, file_in, said_of
from vidmae.model.formats.keys import FIXED, PATCH_EMBED, TEMPORAL, by_group, clip_sizes, groups, looks_like, shapes_of
from vidmae.model.formats.layouts import LAYOUTS, OURS, layout_of
from vidmae.model.formats.tensor_shapes import PAYLOADS, clean_name
from vidmae.model.formats.translate import FRAMES16, SPATIAL, Inflate, inflate, translate
from vidmae.model.formats.weight_files import MODEL_FILE, RANK_FILE, shards_in
from vidmae.model.formats.zero_shards import read_shards
from vidmae.runs.record import fsync_folder, make_private_folder

State = dict[str, Tensor]

PRETRAINING_ONLY = ("decoder_", "mask_token")  # a masked autoencoder has them, a classifier has not


@dataclass(frozen=True)
class LoadReport:
    """What went into a model.

    Attributes:
        loaded: Tensors copied.
        resized: Position tables interpolated to another image size or number of frames, as `name 256 -> 1024`.
        missing: Allowed names that the file lacks; the model keeps its own values.
        ignored: Allowed names that the model has no place for.
        reshaped: Names of the model whose tensor was cut, folded or computed from what another layout has.
        layout: In words, whose layout the file had where it was not this suite's.
    """

    loaded: int
    resized: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    ignored: tuple[str, ...] = ()
    reshaped: tuple[str, ...] = ()
    layout: str = ""

    def __str__(self) -> str:
        lines = [f"{self.loaded} tensors loaded" + (f" from the layout of {self.layout}" if self.layout else "")]
        lines += [f"{line} of them cut or computed" for line in by_group(self.reshaped)]
        lines += [f"{line} ({_how(line)})" for line in self.resized]
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
    inflated: Inflate = "no", known: Known | None = None, assign: bool = False,
) -> LoadReport:
    """Start a classifier from a pretrained model or from another classifier. To evaluate one, use `load_weights`.

    Every tensor of the encoder must fit; a decoder is left out. Files of other families come under our names
    (formats/translate.py): VideoMAE, V-JEPA, V-JEPA 2, image MAEs. A head is loaded where the file and the model have one of
    the same classes. Where the file has none the model keeps its own, where the model has none the file's is left out,
    and the report says so.

    Args:
        model: A `VideoClassifier` or a `ConvClassifier`, not sharded.
        path: The weights.safetensors of a run, a released file or a folder, pretrained or finetuned; see `load_state`.
        new_head: Leave the file's head out, whatever its classes: the model keeps its own.
        resize_positions: See `load_into`.
        inflated: How a model of several frames takes an image model; see `translate.inflate`. no refuses it.
        known: What is known of the file's model beside its tensors, such as img_size and num_frames.
        assign: See `load_into`.
    Returns:
        What was loaded; print it.
    Raises:
        ValueError: The file cannot be used or does not fit; says by how much and what the file looks like.
    """
    state, own = load_state(path), model.state_dict()
    whose, reshaped, left_out = "", set[str](), list[str]()
    if isinstance(model, Encoder):
        try:
            state, whose, reshaped, left_out = _under_our_names(state, model, {**said_of(Path(path)), **(known or {})},
                                                                inflated)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from None
    head = [name for name in state if name.startswith("head.")]
    left_out += head if new_head or "head.weight" not in own else []
    wanted = {name: t for name, t in state.items() if name not in left_out}
    try:
        report = load_into(model, wanted, allow_missing=() if set(head) - set(left_out) else ("head.",),
                           allow_unexpected=PRETRAINING_ONLY, resize_positions=resize_positions, assign=assign)
    except ValueError as error:
        encoder = [name for name in own if not name.startswith("head.")]
        fitting = sum(name in state and state[name].shape == own[name].shape for name in encoder)
        raise ValueError(f"{path}: {fitting} of {len(encoder)} encoder tensors fit, the file looks like "
                         f"{whose or looks_like(state)}; {error}") from None
    reshaped &= wanted.keys()
    return replace(report, ignored=(*report.ignored, *left_out), reshaped=tuple(sorted(reshaped)), layout=whose)


def _under_our_names(state: State, model: Encoder, known: Known, inflated: Inflate,
                     ) -> tuple[State, str, set[str], list[str]]:
    """The tensors of a file for a model; whose layout they had, which are not the file's as they are, which stay out."""
    whose, reshaped, left_out = "", set[str](), list[str]()
    key, shape = layout_of(shapes_of(state)), model.shape
    if key != OURS:
        found = translate(state, mean=model.mean, std=model.std, known=known)
        whose, reshaped, left_out = LAYOUTS[key].title, set(found.reshaped), list(found.left_out)
        if found.model.shape.positions != shape.positions:
            raise ValueError(f"it is a model with {found.model.shape.positions} positions ({whose}), and this one has "
                             f"{shape.positions} positions (model.positions)")
        state = found.state
    if shape.num_frames != 1 and _takes_one_frame(state):
        if inflated == "no":
            raise ValueError("the weights are of an image model, which sees one frame, and the model takes clips of "
                             f"{shape.num_frames} frames (model.num_frames); {FRAMES16}; or let them see several frames "
                             "(inflated: centre or mean)")
        state = inflate(state, inflated, num_frames=shape.num_frames, t_patch_size=shape.t_patch_size)
        reshaped |= {PATCH_EMBED, TEMPORAL}
    return state, whose, reshaped, left_out


def _takes_one_frame(state: Mapping[str, Tensor]) -> bool:
    try:
        return state[PATCH_EMBED].ndim == 5 and clip_sizes(state)[1] == 1
    except (KeyError, ValueError):
        return False


def load_state(path: str | Path) -> State:
    """Read the tensors of a checkpoint under clean names.

    Pickled files are opened without running code from them (weights_only); the argparse.Namespace that released files
    carry is the one class allowed. Names lose `module.` and `_orig_mod.`; `head.projection.*` becomes `head.*`.

    Args:
        path: A `.safetensors` file; a pickled one that holds the state dict itself or under one of
            `tensor_shapes.PAYLOADS`; a folder with model.safetensors, as hubs have it; a folder of deepspeed's
            checkpoints, of any ZeRO stage.
    Returns:
        Names and CPU tensors, memory-mapped where the format allows.
    Raises:
        ValueError: No such file, one of the shards of a checkpoint, or no state dict inside.
    """
    path = Path(path)
    if path.is_dir():
        shards = shards_in(path)
        state = read_shards(shards) if shards else _load_file(file_in(path)[0])
    elif MODEL_FILE.match(path.name) or RANK_FILE.match(path.name):
        raise ValueError(f"{path} belongs to a DeepSpeed checkpoint, over whose shards the weights are spread; give its "
                         f"folder, {path.parent}")
    else:
        state = _load_file(path)
    clean = {clean_name(name): t for name, t in state.items()}
    if len(clean) != len(state):
        raise ValueError(f"{path} holds the same tensor under several names once prefixes are stripped")
    return clean


def _load_file(path: Path) -> State:
    if not path.is_file():
        raise ValueError(f"{path} does not exist; give a .pth or .safetensors file, or a folder with one")
    if path.suffix != ".safetensors":
        return _load_pickled(path)
    try:
        return load_file(path)
    except (SafetensorError, ValueError) as error:
        raise ValueError(f"{path} cannot be read as a checkpoint: it is cut off, damaged or no safetensors file ({error})"
                         ) from error


def read_metadata(path: str | Path) -> dict[str, str]:
    """The strings in the header of a `.safetensors` file, or of that in a folder of a hub; empty for other files."""
    path = Path(path)
    if path.is_dir() and not shards_in(path):
        path = file_in(path)[0]
    if path.suffix != ".safetensors":
        return {}
    with safe_open(path, "pt") as file:
        return dict(file.metadata() or {})


def load_into(
    model: nn.Module, state: Mapping[str, Tensor], *, allow_missing: Sequence[str] = (),
    allow_unexpected: Sequence[str] = (), resize_positions: bool = False, assign: bool = False,
) -> LoadReport:
    """Copy a state dict into a model, all of it or with a named exception.

    Args:
        model: Not sharded; on the meta device only with `assign`.
        state: Names and tensors; cast to the model's dtype.
        allow_missing: Beginnings of names that the state may lack, such as `head.`.
        allow_unexpected: Beginnings of names that the model may lack, such as `decoder_`.
        resize_positions: Interpolate position tables where the image size (bicubic) or the number of frames (linear)
            differs.
        assign: The tensors become the model's own and are not copied, so a mapped file is read when it is used.
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
    if assign:
        chosen = {name: tensor.to(own[name].dtype).contiguous() for name, tensor in chosen.items()}
    model.load_state_dict(chosen, strict=False, assign=assign)
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
        elif resize and _is_table(name, have, want):
            chosen[name] = _resized(state[name], have, want, name)
            resized.append(f"{name} {have[1]} -> {want[1]}" if FIXED not in name else
                           f"{name} {have[0]} x {have[1]} -> {want[0]} x {want[1]}")
        else:
            misfits[name] = f"{name} is {have}, the model has {want}{_hint(name, have, want)}"
    lines = []
    for group, names in groups(misfits).items():
        shown = misfits[max(names, key=lambda name: own[name].ndim)]  # a weight says more than a bias
        lines.append(shown if len(names) == 1 else f"{group}: {len(names)} tensors of another shape, such as: {shown}")
    return chosen, resized, lines


def _hint(name: str, have: tuple[int, ...], want: tuple[int, ...]) -> str:
    """What is behind two shapes that differ, where one setting can be named."""
    if _is_table(name, have, want):
        what = "num_frames" if name.endswith(TEMPORAL) or (name == FIXED and have[1] == want[1]) else "image size"
        return f" (another {what}: pass resize_positions=True)"
    if name.startswith("decoder_pred.") and have[1:] == want[1:]:
        return " (another pred_t_dim)"
    if name.startswith("head.") and have[1:] == want[1:]:
        return " (other classes: load_encoder with new_head=True leaves the file's head out)"
    return ""


def _is_table(name: str, have: tuple[int, ...], want: tuple[int, ...]) -> bool:
    """Whether a tensor is a table of positions that can be interpolated to another image size or number of frames."""
    if len(have) != 3 or len(want) != 3 or have[2] != want[2]:
        return False
    if name.endswith(TEMPORAL):
        return have[0] == want[0] == 1
    return (name.endswith(SPATIAL) or name == FIXED) and bool(_side(have) and _side(want))


def _resized(table: Tensor, have: tuple[int, ...], want: tuple[int, ...], name: str) -> Tensor:
    """A table of positions for another image size (bicubic) or number of frames (linear)."""
    if name.endswith(TEMPORAL):
        return _over_time(table, want[1])
    if have[1] != want[1]:
        table = _resize_table(table, _side(have), _side(want))
    return _over_time(table.transpose(0, 1), want[0]).transpose(0, 1) if have[0] != want[0] else table


def _how(resized: str) -> str:
    """How a table was interpolated that a line of `LoadReport.resized` tells of."""
    sizes = re.search(r" (\d+) x (\d+) -> (\d+) x (\d+)$", resized)
    if sizes is None:
        return "linear" if TEMPORAL in resized else "bicubic"
    ways = ("linear", sizes[1], sizes[3]), ("bicubic", sizes[2], sizes[4])
    return ", ".join(way for way, have, want in ways if have != want)


def _over_time(table: Tensor, slots: int) -> Tensor:
    """[n, T, D] to [n, slots, D]."""
    return F.interpolate(table.float().transpose(1, 2), size=slots, mode="linear", align_corners=False).transpose(1, 2)


def _resize_table(table: Tensor, side: int, new_side: int) -> Tensor:
    """[n, side^2, D] to [n, new_side^2, D]."""
    image = table.float().unflatten(1, (side, side)).permute(0, 3, 1, 2)
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
    state = next((content[key] for key in PAYLOADS if isinstance(content.get(key), dict)), content)
    if not state or not all(isinstance(t, Tensor) for t in state.values()):
        raise ValueError(f"{path} has no state dict: its keys are {sorted(map(str, content))[:8]}, expected tensors, or "
                         f"them under one of {', '.join(PAYLOADS)}")
    return dict(state)


def _name_of(model: nn.Module) -> str:
    return str(getattr(getattr(model, "shape", None), "name", type(model).__name__))

