"""Whether a .safetensors file is whole, by its header alone: the tensors must fill the file to the last byte. No torch."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any, Protocol

from vidmae.model.formats.tensor_shapes import LONGEST_HEADER

BYTES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U8": 1, "BOOL": 1,
         "U64": 8, "U32": 4, "U16": 2, "F8_E4M3": 1, "F8_E5M2": 1}


class Reader(Protocol):
    """What can be read from its beginning to its end."""

    def read(self, size: int = -1, /) -> bytes:
        """The next bytes."""


def damage_of(path: Path) -> str:
    """Why a file of weights is not whole, or nothing where it is.

    Args:
        path: A .safetensors file.
    """
    try:
        with path.open("rb") as file:
            return damage_in(file, path.stat().st_size)
    except FileNotFoundError:
        return "there is no such file"
    except OSError as error:
        return f"it cannot be read: {error.strerror}"


def damage_in(file: Reader, size_bytes: int) -> str:
    """The same of an open file, of which the header alone is read.

    Args:
        file: At its beginning.
        size_bytes: All that it has.
    """
    length = int.from_bytes(file.read(8), "little")
    if not 2 <= length <= min(LONGEST_HEADER, size_bytes - 8):
        return "it is cut off, or no safetensors file: its header is longer than the file"
    try:
        header = json.loads(file.read(length))
        tensors = {name: tensor for name, tensor in header.items() if name != "__metadata__"}
        ends = sorted((*_checked(name, tensor), name) for name, tensor in tensors.items())
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        return f"its header cannot be read: {error}"
    if not ends:
        return "it holds no tensor"
    reached = 0
    for begin, end, name in ends:
        if begin != reached:
            return f"tensor {name} begins at byte {begin}, and the one before it ends at {reached}"
        reached = end
    if 8 + length + reached != size_bytes:
        return f"its tensors take {8 + length + reached} bytes, and the file has {size_bytes}"
    return ""


def _checked(name: str, tensor: dict[str, Any]) -> tuple[int, int]:
    begin, end = map(int, tensor["data_offsets"])
    if end - begin != BYTES[tensor["dtype"]] * math.prod(tensor["shape"]):
        raise ValueError(f"tensor {name} has {end - begin} bytes for shape {tensor['shape']} of {tensor['dtype']}")
    return begin, end
