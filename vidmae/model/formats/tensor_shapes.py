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

from vidmae.model.formats.keys import Shapes

LONGEST_HEADER = 100 * 2**20  # of a safetensors file: what the format allows
PAYLOADS = ("model", "model_state", "module", "target_encoder", "encoder")
"""Where a pickled file may hold its state dict: released ST-MAE and VideoMAE; the style of PySlowFast; deepspeed and
VideoMAE V2; V-JEPA, whose averaged encoder is the one that its authors test."""
WRAPPERS = re.compile(r"^(?:module\.|_orig_mod\.|backbone\.)+")  # of DistributedDataParallel, torch.compile, V-JEPA


def tensor_shapes(path: Path) -> Shapes:
    """Name -> shape of every tensor; empty where the file is none that can be read so.

    Args:
        path: A .safetensors file, or a pickled one that holds the state dict itself or under one of PAYLOADS.
    """
    try:
        found = _of_header(path) if path.suffix == ".safetensors" else _of_pickle(path)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, IndexError, EOFError, pickle.UnpicklingError,
            zipfile.BadZipFile):
        return {}
    return {clean_name(name): shape for name, shape in found.items()}


def clean_name(name: str) -> str:
    """A name without what wrappers of models put before it; `head.projection.` is called `head.`."""
    return re.sub(r"^head\.projection\.", "head.", WRAPPERS.sub("", name))


def header_strings(path: Path) -> Mapping[str, str]:
    """The strings in the header of a .safetensors file; empty for other files.

    Raises:
        ValueError: It is none, or is cut off.
    """
    if path.suffix != ".safetensors":
        return {}
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            text = file.read(length) if length <= LONGEST_HEADER else b""
        return dict(json.loads(text).get("__metadata__") or {})
    except (OSError, ValueError, AttributeError) as error:
        raise ValueError(f"{path} is no safetensors file, or is cut off: its header cannot be read") from error


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
