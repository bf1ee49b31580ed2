"""What model a file or a folder of weights holds, and what clips it takes: from its tensors, before anything is loaded.

    model_in("hvm1@448_none.pth")        vit_huge_patch14, 448 px, 16 frames
    model_in("videomae-base/")           a folder as transformers writes it: config.json beside the weights; both must agree

No torch here: launchers ask.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vidmae.model.formats.keys import CONV_STEM, FIXED, PATCH_EMBED, TEMPORAL, Shapes, clip_sizes, depth_of, looks_like
from vidmae.model.formats.layouts import LAYOUTS, OURS, common_names, layout_of
from vidmae.model.formats.tensor_shapes import header_strings, tensor_shapes
from vidmae.model.formats.weight_files import FILES_OF_FOLDER, shards_in
from vidmae.settings.sizes import CHANNELS, ENCODER_SIZES, EncoderShape, ModelShape, Positions, encoder_shape, size_of

Known = Mapping[str, Any]
"""What is known of a model beside its tensors: name, img_size, num_frames, t_patch_size, heads, pool, net,
temporal_positions."""
SIZES = ("name", "img_size", "num_frames", "t_patch_size")
IN_CONFIG = {  # of config.json as transformers writes it -> what we call it
    "image_size": "img_size", "crop_size": "img_size", "num_frames": "num_frames", "frames_per_clip": "num_frames",
    "tubelet_size": "t_patch_size", "patch_size": "patch_size", "hidden_size": "width", "num_hidden_layers": "depth",
    "num_attention_heads": "heads"}
IN_OURS = ("name", "positions", "pool", "temporal_positions")
"""What config.json of an export has besides, as we call it."""


@dataclass(frozen=True)
class FileModel:
    """The encoder of a file.

    Attributes:
        layout: Of its names; a key of `layouts.LAYOUTS`.
        shape: Sizes.
        pretrained: It has a decoder: it is of a masked autoencoder.
        head: Classes of its head; 0: it has none that fits.
        pooled: Its norm belongs behind the mean of the tokens (`fc_norm`, or its header says so).
        taken: What its tensors do not say and was taken as in the released models, such as `224 px`; or empty.
        conv: It is the convolutional net that takes the FLOPs of a transformer of this shape.
    """

    layout: str
    shape: EncoderShape
    pretrained: bool = False
    head: int = 0
    pooled: bool = False
    taken: str = ""
    conv: bool = False

    @property
    def settings(self) -> dict[str, Any]:
        """As the section `model` of a recipe."""
        s = self.shape
        more = {**({} if s.class_tokens else {"positions": s.positions}), **({"pool": "mean"} if self.pooled else {}),
                **self.controls}
        return {"name": s.name, "img_size": s.img_size, "num_frames": s.num_frames, "t_patch_size": s.t_patch_size, **more}

    @property
    def controls(self) -> dict[str, Any]:
        """Of these settings what is not as usual: another kind of network, no table of time."""
        return {**({"net": "conv"} if self.conv else {}),
                **({} if self.shape.temporal_positions else {"temporal_positions": False})}

    def __str__(self) -> str:
        s = self.shape
        if self.conv:
            return (f"a convolutional net of the FLOPs of {s.name}, {s.num_frames} frame{'s' * (s.num_frames > 1)} of "
                    f"{s.img_size} px")
        taken = f" ({self.taken}: taken, the file does not say)" if self.taken else ""
        return (f"{s.name}, {s.num_frames} frame{'s' * (s.num_frames > 1)} of {s.img_size} px, {s.t_patch_size} per token"
                f"{taken}; {LAYOUTS[self.layout].title}")


def model_in(path: Path, known: Known | None = None) -> FileModel | None:
    """The encoder that a file or folder holds; None where its tensors cannot be listed (a pickle of old or no kind,
    shards of deepspeed).

    Args:
        path: A file, or a folder with config.json.
        known: More that is known of it, such as what a catalogue says.
    Raises:
        ValueError: It holds none that this suite has, or what is known contradicts its tensors.
    """
    if shards_in(path):
        return None
    file, said = file_in(path)
    shapes = tensor_shapes(file)
    return model_of(shapes, {**said, **(known or {})}) if shapes else None


def file_in(path: Path) -> tuple[Path, Known]:
    """The file of weights that a path means, and what stands beside or in front of it about the model.

    Raises:
        ValueError: A folder has no weights, or config.json is damaged or of another kind of model.
    """
    if not path.is_dir():
        beside = path.parent / "config.json"
        return path, _of_config(beside) if path.name in FILES_OF_FOLDER and beside.is_file() else _of_header(path)
    file = next((path / name for name in FILES_OF_FOLDER if (path / name).is_file()), None)
    if file is None and shards_in(path):
        raise ValueError(f"{path} has shards of a DeepSpeed checkpoint, and one file is needed here (python jobs/weights.py "
                         "convert makes one of them)")
    if file is None:
        parts = sorted(each.name for each in path.glob("model-*-of-*.safetensors"))
        raise ValueError(f"{path} has no {' and no '.join(FILES_OF_FOLDER)}, nor shards of a DeepSpeed checkpoint that can "
                         "be joined" + (f"; it has {len(parts)} parts of one, which are not joined here" if parts else ""))
    return file, _of_config(path / "config.json") if (path / "config.json").is_file() else _of_header(file)


def said_of(path: Path) -> Known:
    """What stands beside or in front of weights about their model; of shards of deepspeed nothing does.

    Raises:
        ValueError: As `file_in`.
    """
    return {} if shards_in(path) else file_in(path)[1]


def init_problem(path: Path, shape: ModelShape, *, resize: bool) -> str | None:
    """Why a masked autoencoder cannot start from a file, or None; what the job itself would find out.

    Args:
        path: A file or folder that can be read.
        shape: Of the model.
        resize: Position tables may be interpolated (train.resize_positions).
    """
    try:
        found = model_in(path)
    except ValueError as error:
        return str(error)
    if found is None:
        return None
    if not found.pretrained or found.layout != OURS:
        return f"it is {found}, without the decoder of an ST-MAE; allowed: a pretraining run, or a released ST-MAE"
    shapes = tensor_shapes(file_in(path)[0])
    decoder = depth_of(name.removeprefix("decoder_") for name in shapes if name.startswith("decoder_"))
    said, width = target_of(path), shapes["decoder_pred.weight"][0]
    if said != shape.target:
        predicts: tuple[str, Any, Any] = "model.target", said, shape.target
    elif said == "features":
        predicts = "channels of features", width, shape.pred_dim
    else:
        predicts = "model.pred_t_dim", width // (CHANNELS * found.shape.patch_size**2) * shape.grid[0], shape.pred_t_dim
    pairs = [("model.name", found.shape.name, shape.name.removeprefix("mae_")),
             ("model.temporal_positions", found.shape.temporal_positions, shape.temporal_positions),
             ("model.t_patch_size", found.shape.t_patch_size, shape.t_patch_size),
             ("model.decoder_embed_dim", shapes["mask_token"][-1], shape.decoder_embed_dim),
             predicts,
             ("model.decoder_depth", decoder, shape.decoder_depth)]
    sizes = [("model.img_size", found.shape.img_size, shape.img_size),
             ("model.num_frames", found.shape.num_frames, shape.num_frames)]
    wrong = [f"{key} {have} (the run has {want})" for key, have, want in pairs if have != want]
    other = [f"{key} {have} (the run has {want})" for key, have, want in sizes if have != want]
    if wrong or (other and not resize):
        hint = "; --set train.resize_positions=true interpolates the positions" if other and not wrong else ""
        return f"it has {', '.join(wrong + other)}{hint}"
    return None


def target_of(path: Path) -> str:
    """What the decoder of a file predicts, pixels or features: the header of an export says so, and other files predict
    pixels."""
    try:
        return str(json.loads(header_strings(file_in(path)[0])["config"]).get("target", "pixels"))
    except (KeyError, ValueError, AttributeError):
        return "pixels"


def model_of(shapes: Shapes, known: Known | None = None) -> FileModel:
    """The encoder that tensors of these names and shapes make.

    Raises:
        ValueError: None that this suite has, or `known` contradicts them.
    """
    known = known or {}
    if CONV_STEM in shapes:
        return _conv(shapes, known)
    layout = layout_of(shapes)
    found = _ours(shapes, known) if layout == OURS else _of_layout(layout, shapes, known)
    _agree(found.shape, known)
    return found


def _ours(shapes: Shapes, known: Known) -> FileModel:
    name = looks_like(shapes).removeprefix("mae_")
    if name.split("_")[:-1] not in [["vit", size] for size in ENCODER_SIZES]:
        raise ValueError(f"it holds no video encoder of this suite: it looks like {name}")
    positions: Positions = "learned" if "cls_token" in shapes or "pos_embed_spatial" in shapes else \
        "fixed" if FIXED in shapes else "rotary"
    if positions == "rotary" and not any(part.startswith("blocks.0.") for part in shapes):
        raise ValueError("it holds no blocks")
    taken, timeless = "", positions == "learned" and TEMPORAL not in shapes and known.get("temporal_positions") is False
    if positions == "rotary":
        sizes, taken = _rotary_sizes(shapes, known)
    elif timeless and "num_frames" in known:  # which the table of time would say
        patch, side = shapes[PATCH_EMBED], round(shapes["pos_embed_spatial"][1] ** 0.5)
        sizes = side * patch[-1], int(known["num_frames"]), patch[2]
    else:
        sizes = clip_sizes(shapes)
    img_size, num_frames, t_patch_size = sizes
    shape = encoder_shape(name, img_size=img_size, num_frames=num_frames, t_patch_size=t_patch_size, positions=positions,
                          temporal_positions=not timeless)
    pooled = positions != "learned" or known.get("pool") == "mean"
    return FileModel(OURS, shape, "mask_token" in shapes, _head(shapes), pooled, taken)


def _conv(shapes: Shapes, known: Known) -> FileModel:
    """The convolutional net of this suite; its header says whose FLOPs it has, and what clips it takes."""
    if missing := [key for key in SIZES if key not in known]:
        raise ValueError(f"it is a convolutional net of this suite, and nothing says {', '.join(missing)}; the "
                         "header of the file that its cell wrote does")
    return FileModel(OURS, encoder_shape(**{key: known[key] for key in SIZES}), head=_head(shapes), pooled=True, conv=True)


def _rotary_sizes(shapes: Shapes, known: Known) -> tuple[tuple[int, int, int], str]:
    default = LAYOUTS["vjepa2"]
    img_size, num_frames = (int(known.get(key, getattr(default, key))) for key in ("img_size", "num_frames"))
    return (img_size, num_frames, shapes[PATCH_EMBED][2]), _taken(known, img_size, num_frames)


def _of_layout(key: str, shapes: Shapes, known: Known) -> FileModel:
    layout = LAYOUTS[key]
    renamed, _, _ = common_names(layout, shapes)
    common = {new: shapes[old] for old, new in renamed.items()}
    if PATCH_EMBED not in common:
        raise ValueError(f"the file looks like {layout.title}, but has no patch embedding")
    width, *_, patch_size = common[PATCH_EMBED]
    depth = depth_of(common)
    size = size_of(width, depth)
    if size is None:
        raise ValueError(f"the file is of {layout.title} of width {width} with {depth} blocks, which is none that is "
                         "known")
    t_patch_size = common[PATCH_EMBED][2] if len(common[PATCH_EMBED]) == 5 else 1
    table, taken = common.get("pos_embed", ()), ""
    if len(common[PATCH_EMBED]) == 4:
        num_frames, img_size = 1, round((table[1] - 1) ** 0.5) * patch_size
    elif key == "vjepa":
        num_frames = int(known.get("num_frames", layout.num_frames))
        img_size = round((table[1] * t_patch_size / num_frames) ** 0.5) * patch_size
    else:
        img_size, num_frames = (int(known.get(what, getattr(layout, what))) for what in ("img_size", "num_frames"))
        taken = _taken(known, img_size, num_frames)
    shape = encoder_shape(f"vit_{size}_patch{patch_size}", img_size=img_size, num_frames=num_frames,
                          t_patch_size=t_patch_size, positions=layout.positions)
    if key == "vjepa" and shape.num_tokens != table[1]:
        raise ValueError(f"the table of positions has {table[1]} places, which {num_frames} frames of a square picture do "
                         "not have")
    pretrained = any(name.endswith("mask_token") for name in shapes) and key not in ("vjepa2", "hf-vjepa2")
    return FileModel(key, shape, pretrained, _head(common), "fc_norm.weight" in common or not shape.class_tokens, taken)


def _taken(known: Known, img_size: int, num_frames: int) -> str:
    return ", ".join(text for key, text in (("img_size", f"{img_size} px"), ("num_frames", f"{num_frames} frames"))
                     if key not in known)


def _head(shapes: Shapes) -> int:
    return shapes["head.weight"][0] if len(shapes.get("head.weight", ())) == 2 else 0


def _agree(shape: EncoderShape, known: Known) -> None:
    """Refuse weights that contradict what stands beside them."""
    of_tensors = {"name": shape.name, "img_size": shape.img_size, "num_frames": shape.num_frames,
                  "t_patch_size": shape.t_patch_size, "patch_size": shape.patch_size, "width": shape.embed_dim,
                  "depth": shape.depth, "heads": shape.num_heads, "positions": shape.positions,
                  "temporal_positions": shape.temporal_positions}
    if shape.num_frames == 1:
        known = {key: value for key, value in known.items() if key != "t_patch_size"}
    wrong = [f"{key} {known[key]} (the tensors: {value})" for key, value in of_tensors.items()
             if key in known and known[key] != value]
    if wrong:
        raise ValueError(f"configuration and weights disagree: {', '.join(wrong)}")


def _of_header(path: Path) -> Known:
    """What the header of an export says."""
    if not path.is_file():
        return {}
    said = header_strings(path)
    try:
        config = json.loads(said["config"]) if "config" in said else {}
        if not isinstance(config, dict):
            raise ValueError("config is no mapping")
    except ValueError as error:
        raise ValueError(f"the header of {path} is damaged: config is no JSON ({error})") from error
    keys = (*SIZES, "positions", "pool", "net", "temporal_positions")
    found = {key: config[key] for key in keys if key in config}
    if name := str(found.get("name", said.get("model", ""))).removeprefix("mae_"):
        found["name"] = name
    return found


def _of_config(path: Path) -> Known:
    """What config.json says, as transformers writes it, or as an export of this suite has it."""
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
        kind = config.get("model_type", "")
    except (OSError, ValueError, AttributeError) as error:
        raise ValueError(f"{path} is damaged: it is no JSON mapping") from error
    if kind not in ("videomae", "vjepa2", "vit_mae", "vidmae"):
        raise ValueError(f"{path} is of a model of type {kind!r}; allowed: videomae, vjepa2, vit_mae")
    if config.get("hidden_act", "gelu") != "gelu":
        raise ValueError(f"{path}: hidden_act is {config['hidden_act']!r}, allowed: gelu")
    ours = {key: key for key in IN_OURS} if kind == "vidmae" else {}
    found = {to: config[key] for key, to in {**IN_CONFIG, **ours}.items() if key in config}
    return {key: value[0] if isinstance(value, list) else value for key, value in found.items()}
