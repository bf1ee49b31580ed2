"""Read pickles that hold numbers and texts only, without running anything that they ask for.

A pickle is a program. The usual reader calls whatever the file names, so a file from elsewhere can do what its reader may.
Here a file may name the few things by which numpy writes arrays, and none of them is what it is called: each is a class or
function of this module that keeps what it is given, behind an object of its own (`_Maker`) that a file cannot change. Arrays
are made afterwards, here, from their bytes, of numbers and flags alone. What else a file names is refused, before anything
was made of it.

A small file may ask for much memory: one list that stands in another a thousand times, or place 2**31 of what is remembered.
Both are limited. The memory of arrays is not: their numbers are in the file.
"""

from __future__ import annotations

import pickle
import pickletools
import re
from collections.abc import Callable
from typing import IO, Any

import numpy as np

NUMBERS = re.compile(r"[biuf][1248]|S[1-9]\d*|[OV]8?")
OBJECTS = "O"  # an array of anything: it becomes a list
MOST_DEPTH = 8  # of lists within lists
MOST_VALUES = 10_000_000  # in lists and dictionaries
VALUE_BYTES = 64  # of one of them in memory, about
MOST_PUT = 1_000_000  # place where a pickle remembers something


class UnsafePickleError(ValueError):
    """A pickle asks for something else than arrays of numbers; nothing of it was run."""


class _Values:
    """Counts what is made of lists and dictionaries, each as often as it stands somewhere."""

    def __init__(self) -> None:
        self._left = MOST_VALUES

    def take(self, count: int) -> None:
        self._left -= count
        if self._left < 0:
            raise UnsafePickleError(f"more than {MOST_VALUES:,} values in lists and dictionaries")


class _Type:
    """What a file says of numpy.dtype."""

    __slots__ = ("code", "order")

    def __init__(self, code: str = "", *_: object) -> None:
        if not isinstance(code, str) or not NUMBERS.fullmatch(code):
            raise UnsafePickleError(f"an array of type {str(code)[:20]!r}, allowed: numbers, flags, bytes or lists of them")
        self.code, self.order = code, ""

    def __setstate__(self, state: Any) -> None:
        order = state[1] if isinstance(state, tuple) and len(state) > 1 else None
        if order not in ("<", ">", "=", "|"):
            raise UnsafePickleError("a type of numbers whose byte order is not known")
        self.order = "" if order in "=|" else order

    def dtype(self) -> np.dtype[Any]:
        return np.dtype(self.order + self.code)


class _Array:
    """What a file says of an array."""

    __slots__ = ("state",)

    def __init__(self, *_: object) -> None:
        self.state: tuple[Any, ...] | None = None

    def __setstate__(self, state: Any) -> None:
        if not isinstance(state, tuple) or len(state) != 5:
            raise UnsafePickleError("an array that numpy did not write")
        self.state = state

    def value(self, depth: int, values: _Values) -> Any:
        if self.state is None:
            raise UnsafePickleError("an array without numbers")
        _, shape, kind, by_columns, raw = self.state
        return _made(shape, kind, raw, "F" if by_columns else "C", depth, values)


class _Fixed:
    """Something that a file cannot change once it is made."""

    __slots__ = ("parts",)
    parts: tuple[Any, ...]

    def __setstate__(self, _: Any) -> None:
        raise UnsafePickleError("it changes what it has made")


class _Buffer(_Fixed):
    """An array as protocol 5 writes it, in the file itself."""

    __slots__ = ()

    def __init__(self, raw: Any = b"", kind: Any = None, shape: Any = (), order: Any = "C", *_: object) -> None:
        self.parts = (shape, kind, raw, order)

    def value(self, depth: int, values: _Values) -> Any:
        shape, kind, raw, order = self.parts
        return _made(shape, kind, raw, order, depth, values)


class _Scalar(_Fixed):
    """One number of numpy."""

    __slots__ = ()

    def __init__(self, kind: Any = None, raw: Any = b"") -> None:
        self.parts = (kind, raw)

    def value(self, depth: int, values: _Values) -> Any:
        kind, raw = self.parts
        values.take(len(raw) // VALUE_BYTES if isinstance(raw, (bytes, bytearray)) else 0)  # it is copied
        return _made((), kind, raw, "C", depth, values)[()]


def _latin1(text: Any = "", coding: Any = "") -> bytes:
    """Bytes as protocol 2 writes them."""
    if not isinstance(text, str) or coding not in ("latin1", "latin-1"):
        raise UnsafePickleError("bytes in a coding that numpy does not write")
    return text.encode("latin1")


def _empty_bytes(*given: Any) -> bytes:
    """Empty bytes as protocol 2 writes them."""
    if given:
        raise UnsafePickleError("bytes with arguments")
    return b""


_CORES = ("numpy.core", "numpy._core")
KNOWN: dict[tuple[str, str], Callable[..., Any]] = {
    ("numpy", "ndarray"): _Array, ("numpy", "dtype"): _Type, ("_codecs", "encode"): _latin1,
    ("__builtin__", "bytes"): _empty_bytes,
    **{(f"{core}.multiarray", "_reconstruct"): _Array for core in _CORES},
    **{(f"{core}.multiarray", "scalar"): _Scalar for core in _CORES},
    **{(f"{core}.numeric", "_frombuffer"): _Buffer for core in _CORES},
}


class _Maker:
    """What a file gets for a name: something to call, and nothing else. Were it the class itself, a file could set what all
    later files are read with."""

    __slots__ = ("_call",)
    _call: Callable[..., Any]

    def __init__(self, call: Callable[..., Any]) -> None:
        object.__setattr__(self, "_call", call)

    def __call__(self, *given: Any) -> Any:
        return self._call(*given)

    def __setattr__(self, _: str, __: Any) -> None:
        raise UnsafePickleError("it changes what it names")

    def __setstate__(self, _: Any) -> None:
        raise UnsafePickleError("it changes what it names")


class _Reader(pickle.Unpickler):
    """Knows nothing but KNOWN."""

    def __init__(self, file: IO[bytes]) -> None:
        super().__init__(file)
        self._encoded: dict[int, tuple[Any, bytes]] = {}

    def find_class(self, module: str, name: str) -> Any:
        try:
            made = KNOWN[module, name]
            return _Maker(self._once if made is _latin1 else made)
        except KeyError:
            raise UnsafePickleError(f"it asks for {module}.{name}"[:120]) from None

    def _once(self, text: Any = "", coding: Any = "") -> bytes:
        """Bytes of a text; a file may name one long text a thousand times."""
        if id(text) not in self._encoded:
            self._encoded[id(text)] = text, _latin1(text, coding)
        return self._encoded[id(text)][1]

    def persistent_load(self, _: Any) -> Any:
        raise UnsafePickleError("it asks for something outside of the file")


def read_numbers(file: IO[bytes]) -> Any:
    """Dictionaries, lists, texts, bytes, numbers and arrays of a pickle.

    Args:
        file: Open for reading; it is read twice.
    Returns:
        What it holds; arrays of anything are lists.
    Raises:
        UnsafePickleError: It asks for anything else, or is no pickle. The message says for what.
    """
    try:
        begin = file.tell()
        _check_places(file)
        file.seek(begin)
        return _plain(_Reader(file).load(), 0, _Values())
    except UnsafePickleError as error:
        raise UnsafePickleError(f"the pickle is not read: {error}; allowed are arrays of numbers, lists, dictionaries and "
                                "texts (or write it as .npz)") from None
    except (pickle.UnpicklingError, EOFError, ValueError, TypeError, KeyError, IndexError, AttributeError, OverflowError,
            MemoryError, RecursionError) as error:
        raise UnsafePickleError(f"this is no pickle of arrays, or it is damaged ({type(error).__name__})") from None


def _check_places(file: IO[bytes]) -> None:
    """Look at all steps of a pickle without doing them: the usual reader makes room for any place that it is told."""
    for step, place, _ in pickletools.genops(file):
        if step.name in ("PUT", "BINPUT", "LONG_BINPUT") and (place or 0) > MOST_PUT:
            raise UnsafePickleError(f"it remembers something at place {place}, of {MOST_PUT:,} at most")


def _made(shape: Any, kind: Any, raw: Any, order: Any, depth: int, values: _Values) -> Any:
    if not isinstance(kind, _Type) or not isinstance(shape, tuple) or not all(type(n) is int and n >= 0 for n in shape):
        raise UnsafePickleError("an array whose type or shape is not known")
    if kind.code.startswith(OBJECTS):
        if not isinstance(raw, list) or len(shape) > 1:
            raise UnsafePickleError("an array of objects that is no list")
        return _plain(raw, depth + 1, values)
    if not isinstance(raw, (bytes, bytearray)) or order not in ("C", "F"):
        raise UnsafePickleError("an array whose numbers are not in the file")
    dtype = kind.dtype()
    if dtype.itemsize * int(np.prod(shape, dtype=object)) != len(raw) or dtype.itemsize == 0:
        raise UnsafePickleError(f"an array of shape {list(shape)[:6]} that has {len(raw)} bytes")
    return np.frombuffer(raw, dtype=dtype).reshape(shape, order=order)


def _plain(value: Any, depth: int, values: _Values) -> Any:
    """The value with arrays in place of what was said of them."""
    if depth > MOST_DEPTH:
        raise UnsafePickleError(f"lists within lists, more than {MOST_DEPTH} deep")
    if isinstance(value, (_Array, _Buffer, _Scalar)):
        return value.value(depth, values)
    if isinstance(value, (dict, list, tuple)):
        values.take(len(value))
    if isinstance(value, dict):
        return {_key(key): _plain(each, depth + 1, values) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(each, depth + 1, values) for each in value]
    if value is None or isinstance(value, (str, bytes, bytearray, bool, int, float)):
        return value
    raise UnsafePickleError(f"a {type(value).__name__.lstrip('_').lower()} that is no number, text or array")


def _key(key: Any) -> str | int:
    if isinstance(key, (str, int)):
        return key
    raise UnsafePickleError("a dictionary whose keys are neither texts nor numbers")
