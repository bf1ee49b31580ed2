"""The rows of a manifest column by column. The only import of pyarrow; without it csv.reader reads them, with a warning.

Measured on a million rows (163 MB), seconds of CPU and growth of the process while it reads: csv.reader with a loop over the
rows, which `read_rows` still is, 5.2 s and 373 MiB (122 MiB where it does not hold the file); pandas 3.1 in blocks 3.1 s and
210 MiB; pyarrow in blocks 1.4 s and 213 MiB, of which 85 MiB are pyarrow itself. Polars refuses names that are not UTF-8.
"""

from __future__ import annotations

import csv
import io
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np

BLOCK_BYTES = 2**18  # 2**20 takes 35 MiB more, 2**16 a third more time
HASH_DIGITS = 16
_DTYPES: dict[str, Any] = {"int": np.int64, "float": np.float64, "hash": np.uint64, "text": np.int64, "code": np.int64,
           "maybe float": np.float64, "maybe time": "datetime64[s]"}


@dataclass(frozen=True)
class Texts:
    """Texts of any bytes, one after the other.

    Attributes:
        letters: uint8, all of them.
        ends: int64 [N], where each ends.
    """

    letters: np.ndarray
    ends: np.ndarray


@dataclass(frozen=True)
class Codes:
    """A column with few different texts.

    Attributes:
        texts: The different ones, in the order in which they come.
        of_row: int64 [N], place in `texts`.
    """

    texts: list[str]
    of_row: np.ndarray


def read_columns(file: BinaryIO, columns: Sequence[str], kinds: Mapping[str, str], rows: int) -> dict[str, Any]:
    """Read some columns of a csv of the kind that `csv.writer` writes.

    Args:
        file: Open, behind the line with the names.
        columns: Names of all columns of the file.
        kinds: Of those that are wanted: `int`, `float`, `hash` (16 hex digits), `text`, `code` (few different texts), or
            `maybe float` and `maybe time`, which may be empty: NaN and NaT.
        rows: How many it has.
    Returns:
        int64, float64, uint64 or datetime64[s] [N], Texts or Codes by name.
    Raises:
        ValueError: There are other rows or columns, or a value is of another kind.
    """
    try:
        import pyarrow
        from pyarrow import csv as arrow_csv
    except ImportError:
        warnings.warn("pyarrow is not installed: manifests are read with Python's csv, which takes more time and memory "
                      "(pip install pyarrow)", stacklevel=2)
        return _without_pyarrow(file, columns, kinds, rows)

    types = {"int": pyarrow.int64(), "float": pyarrow.float64()}
    blocks = arrow_csv.open_csv(
        file, memory_pool=pyarrow.system_memory_pool(),
        read_options=arrow_csv.ReadOptions(column_names=list(columns), block_size=BLOCK_BYTES, use_threads=False),
        parse_options=arrow_csv.ParseOptions(newlines_in_values=True),
        convert_options=arrow_csv.ConvertOptions(
            column_types={name: types.get(kind, pyarrow.binary()) for name, kind in kinds.items()},
            include_columns=list(kinds), null_values=[], check_utf8=False))
    # filled block by block: blocks that wait to be joined would take 150 MB more
    numbers = {name: np.empty(rows, _DTYPES[kind]) for name, kind in kinds.items()}
    letters = {name: bytearray() for name, kind in kinds.items() if kind == "text"}
    known: dict[str, dict[bytes, int]] = {name: {} for name, kind in kinds.items() if kind == "code"}
    row = 0
    for block in blocks:
        for name, kind in kinds.items():
            into, column = numbers[name][row:row + len(block)], block[name]
            if kind == "text":
                added, sizes = _letters(column)
                into[:] = len(letters[name]) + np.cumsum(sizes)
                letters[name] += added.data
            elif kind == "code":
                into[:] = _codes(column, known[name])
            else:
                into[:] = _READ[kind](column)
        row += len(block)
    if row != rows:
        raise ValueError(f"it has {row} rows, not {rows}")
    texts = {name: Texts(np.frombuffer(held, dtype=np.uint8), numbers[name]) for name, held in letters.items()}
    codes = {name: Codes([text.decode("utf-8", "surrogateescape") for text in held], numbers[name])
             for name, held in known.items()}
    return {**numbers, **texts, **codes}


def class_table(labels: Sequence[str]) -> np.ndarray:
    """Class index of every label: int64, as in `Manifest.class_index`; `labels` are all different ones of a manifest."""
    named = [label for label in labels if label]
    if all(label.isdecimal() for label in named):
        return np.array([int(label) if label else -1 for label in labels], dtype=np.int64)
    rank = {label: i for i, label in enumerate(sorted(named))}
    return np.array([rank.get(label, -1) for label in labels], dtype=np.int64)


def nothing(kind: str, rows: int) -> Any:
    """What `read_columns` gives for a column in which every value is empty, without its memory."""
    if kind == "code":
        return Codes([""], np.broadcast_to(np.int64(0), rows))
    return np.broadcast_to(np.datetime64("NaT", "s") if kind == "maybe time" else np.float64(np.nan), rows)


def _without_pyarrow(file: BinaryIO, columns: Sequence[str], kinds: Mapping[str, str], rows: int) -> dict[str, Any]:
    """The same by way of csv.reader."""
    with_names = io.TextIOWrapper(file, encoding="utf-8", errors="surrogateescape", newline="")
    records = list(csv.reader(with_names))
    with_names.detach()  # the file is the caller's to close
    if len(records) != rows:
        raise ValueError(f"it has {len(records)} rows, not {rows}")
    if any(len(record) != len(columns) for record in records):
        raise ValueError(f"a row has other than {len(columns)} columns")
    found: dict[str, Any] = {}
    for name, kind in kinds.items():
        place = columns.index(name)
        texts = [record[place] for record in records]
        if kind == "text":
            encoded = [text.encode("utf-8", "surrogateescape") for text in texts]
            found[name] = Texts(np.frombuffer(b"".join(encoded), dtype=np.uint8), np.cumsum([len(text) for text in encoded]))
        elif kind == "code":
            known = {text: code for code, text in enumerate(dict.fromkeys(texts))}
            found[name] = Codes(list(known), np.array([known[text] for text in texts], dtype=np.int64))
        elif kind == "hash":
            if any(len(text) != HASH_DIGITS for text in texts):
                raise ValueError(f"a hash has other than {HASH_DIGITS} digits")
            found[name] = np.array([int(text, 16) for text in texts], dtype=np.uint64)
        else:
            found[name] = np.array([_PARSE[kind](text) for text in texts], dtype=_DTYPES[kind])
    return found


def _letters(column: Any) -> tuple[np.ndarray, np.ndarray]:
    """The bytes of texts, and how many each has."""
    _, ends, letters = column.buffers()
    bounds = np.frombuffer(ends, dtype=np.int32)[column.offset:column.offset + len(column) + 1]
    return np.frombuffer(letters or b"", dtype=np.uint8)[bounds[0]:bounds[-1]], np.diff(bounds)


def _hashes(column: Any) -> np.ndarray:
    letters, sizes = _letters(column)
    if (sizes != HASH_DIGITS).any():
        raise ValueError(f"a hash has other than {HASH_DIGITS} digits")
    return np.frombuffer(bytes.fromhex(letters.tobytes().decode("ascii")), dtype=">u8")


def _times(column: Any) -> np.ndarray:
    return np.array([text.decode("ascii") or "NaT" for text in column.to_pylist()], dtype="datetime64[s]")


def _maybe_floats(column: Any) -> np.ndarray:
    return np.array([float(text or "nan") for text in column.to_pylist()])


_PARSE: dict[str, Callable[[str], Any]] = {
    "int": int, "float": float, "maybe float": lambda text: float(text or "nan"), "maybe time": lambda text: text or "NaT"}
_READ: dict[str, Callable[[Any], np.ndarray]] = {
    "int": lambda column: column.to_numpy(), "float": lambda column: column.to_numpy(), "hash": _hashes,
    "maybe float": _maybe_floats, "maybe time": _times}


def _codes(column: Any, known: dict[bytes, int]) -> np.ndarray:
    different = column.dictionary_encode()
    places = [known.setdefault(text, len(known)) for text in different.dictionary.to_pylist()]
    codes: np.ndarray = np.array(places, dtype=np.int64)[different.indices.to_numpy()]
    return codes
