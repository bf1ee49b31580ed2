"""Shapes of the tensors of a file of weights, without torch: a launcher asks what model a file holds, in milliseconds.

A .safetensors file has them in its header. A .pth file is a zip archive with a pickle; it is read by an unpickler that
makes shapes in place of tensors, and runs no code: what else a pickle names becomes an object that does nothing.
"""

from __future__ import annotations

import json
import pickle
import re
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from vidmae.settings.sizes import size_of

Shapes = Mapping[str, tuple[int, ...]]
LONGEST_HEADER = 100 * 2**20  # of a safetensors file: what the format allows
PATCH_EMBED = "patch_embed.proj.weight"
PAYLOADS = ("model", "model_state")
WRAPPERS = re.compile(r"^(?:module\.|_orig_mod\.)+")


def tensor_shapes(path: Path) -> Shapes:
    """Name -> shape of every tensor; empty where the file is none that can be read so.

    Args:
        path: A .safetensors file, or a pickled one that holds the state dict itself or under `model` or `model_state`.
    """
    try:
        found = _of_header(path) if path.suffix == ".safetensors" else _of_pickle(path)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, IndexError, EOFError, pickle.UnpicklingError,
            zipfile.BadZipFile):
        return {}
    return {WRAPPERS.sub("", name): shape for name, shape in found.items()}


def image_model(path: Path) -> dict[str, Any] | None:
    """The model of a file in the layout of the original image MAE; None where it is another file.

    Returns:
        name (`vit_{size}_patch{px}`), img_size (px), num_frames and t_patch_size, which are 1.
    Raises:
        ValueError: It has the layout, and sizes that no model of this suite has.
    """
    shapes = tensor_shapes(path)
    patches, positions = shapes.get(PATCH_EMBED, ()), shapes.get("pos_embed", ())
    if len(patches) != 4 or len(positions) != 3:
        return None
    width, patch_size = patches[0], patches[-1]
    depth = len({name.split(".")[1] for name in shapes if name.startswith("blocks.")})
    size, side = size_of(width, depth), round((positions[1] - 1) ** 0.5)
    if size is None:
        raise ValueError(f"{path.name} is an image model of width {width} with {depth} blocks, which is none that is known")
    return {"name": f"vit_{size}_patch{patch_size}", "img_size": side * patch_size, "num_frames": 1, "t_patch_size": 1}


def _of_header(path: Path) -> Shapes:
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length)) if length <= LONGEST_HEADER else {}
    return {name: tuple(tensor["shape"]) for name, tensor in header.items() if name != "__metadata__"}


def _of_pickle(path: Path) -> Shapes:
    with zipfile.ZipFile(path) as archive:
        name = next((name for name in archive.namelist() if name.endswith("/data.pkl")), "")
        with archive.open(name) as file:
            content = _Unpickler(file).load()
    state = next((content[key] for key in PAYLOADS if isinstance(content.get(key), dict)), content)
    return {name: tensor for name, tensor in state.items() if isinstance(tensor, _Shape)}


class _Shape(tuple[int, ...]):
    """Of a tensor."""

    __slots__ = ()


class _Nothing:
    """Stands for whatever else a pickle names."""

    def __init__(self, *args: object, **named: object) -> None:
        pass

    def __setstate__(self, state: object) -> None:
        pass

    def __setitem__(self, key: object, value: object) -> None:
        pass


def _rebuild_tensor(storage: object, offset: object, size: tuple[int, ...], *more: object) -> _Shape:  # noqa: ARG001
    return _Shape(size)


def _rebuild_parameter(data: object, *more: object) -> object:  # noqa: ARG001
    return data


class _Unpickler(pickle.Unpickler):
    """Makes shapes, dictionaries and nothing else."""

    KNOWN: Mapping[tuple[str, str], Callable[..., Any]] = {
        ("collections", "OrderedDict"): OrderedDict, ("torch._utils", "_rebuild_tensor_v2"): _rebuild_tensor,
        ("torch._utils", "_rebuild_parameter"): _rebuild_parameter}

    def find_class(self, module: str, name: str) -> Any:
        """Never imports."""
        return self.KNOWN.get((module, name), _Nothing)

    def persistent_load(self, pid: object) -> None:
        """The numbers of a tensor, which nobody asks for."""
