"""The list of videos of a data set: built once from a folder or a list, checked, and read by every rank.

    manifests/s.csv              one row per video, sorted by path
    manifests/s.unreadable.csv   what was left out: path, reason
    manifests/s.json             totals and hashes, so that a launcher need not read the rows

`manifest_build.py` makes it. Each row names the decoder that was found to read the file rightly.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import asdict, astuple, dataclass, fields
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from vidmae.footage.decoders.with_pillow import PILLOW
from vidmae.footage.known.facts import FACT_COLUMNS, NO_FACTS, Facts, facts_sha256
from vidmae.footage.known.unreadable import COLUMNS as UNREADABLE
from vidmae.footage.known.unreadable import unreadable_path
from vidmae.footage.manifest_columns import class_table, nothing, read_columns
from vidmae.footage.manifest_pages import SHARED_FROM_ROWS, shared
from vidmae.footage.video_list import EXTENSIONS, ListError, nothing_found, read_list, walk
from vidmae.runs.record import make_private_folder, write_atomic, write_json

SCHEMA = 2
AUTO = "auto"
"""Of data.decoder: follow what the manifest says of each file; of its making: try all decoders."""
HASHED_BYTES = 2**20  # from each end of a file
HOW_TO_MAKE = "python jobs/prepare.py manifest FOLDER --name NAME"


class ManifestError(ValueError):
    """A manifest or its source cannot be used; the message says why and which command makes a new one."""


@dataclass(frozen=True)
class Row:
    """One video: the columns of the csv, behind which those of `facts` follow where anything is known, and `source`.

    `content` hashes the size and the first and last MiB of the file; `decoder` is the one that was found to read it rightly;
    `source` is the content of the recording that it was prepared from, empty for a recording as it is.
    """

    path: str
    label: str
    frames: int
    fps: float
    seconds: float
    bytes: int
    width: int
    height: int
    codec: str
    rotation: int
    has_b_frames: int
    vfr: int
    content: str
    mtime_ns: int
    decoder: str
    facts: Facts = NO_FACTS
    source: str = ""


COLUMNS = tuple(f.name for f in fields(Row) if f.name not in ("facts", "source"))
ALL_COLUMNS = (*COLUMNS, *FACT_COLUMNS, "source")


@dataclass(frozen=True)
class Summary:
    """Totals of a manifest, written beside it.

    Attributes:
        videos: Rows.
        unreadable: Files left out.
        seconds: Footage in all.
        bytes: Size of all files.
        classes: Different labels.
        decoder: What was asked for: auto, or the decoders that the files were checked with.
        decoders: How many of the videos each decoder reads.
        verified: Whether every file was decoded in full.
        percentiles_s: 101 numbers: the lengths of the videos, from the shortest (0 %) to the longest (100 %).
        csv_bytes: Size of the csv.
        csv_sha256: Hash of the csv.
        content_sha256: Hash of contents, decoders and labels in row order, the same wherever the files lie.
        fraction: What it is a fraction of, and how that was chosen (vidmae/footage/history.py); None for a whole data set.
        clip_cost: CPU time of a clip, sampled when it was made (vidmae/clips/clip_cost.py); None where it was not measured.
        facts_sha256: Hash of what is known of the recordings (vidmae/footage/known/facts.py) in row order; None: nothing.
        prepared: What it was prepared from, and how (vidmae/preparing/); None for footage as it is.
    """

    schema: int
    videos: int
    unreadable: int
    seconds: float
    bytes: int
    classes: int
    decoder: str
    decoders: dict[str, int]
    verified: bool
    percentiles_s: list[float]
    csv_bytes: int
    csv_sha256: str
    content_sha256: str
    fraction: dict[str, Any] | None = None
    clip_cost: dict[str, Any] | None = None
    facts_sha256: str | None = None
    prepared: dict[str, Any] | None = None

    @property
    def hours(self) -> float:
        """Footage in hours."""
        return self.seconds / 3600

    @property
    def pictures(self) -> bool:
        """Whether it lists pictures, each a video of one frame."""
        return set(self.decoders) == {PILLOW}

    def share_shorter(self, seconds: float) -> float:
        """Share of the videos, 0 to 1 and to one percent, that are shorter than so many seconds."""
        return sum(length < seconds for length in self.percentiles_s) / len(self.percentiles_s)


def summary_path(manifest: Path) -> Path:
    """The JSON beside a manifest."""
    return manifest.with_suffix(".json")


def read_summary(manifest: Path) -> Summary:
    """Totals of a manifest without reading its rows.

    Raises:
        ManifestError: There is no manifest, or its csv is not the one that the totals describe.
    """
    try:
        record = json.loads(summary_path(manifest).read_text(encoding="utf-8"))
        if isinstance(record, dict) and record.get("schema", SCHEMA) < SCHEMA:
            raise ManifestError(f"{manifest} is of an earlier version, which looked at each file once and with one decoder; "
                                f"make it again with: {HOW_TO_MAKE}")
        summary = Summary(**record)
        csv_bytes = manifest.stat().st_size
    except FileNotFoundError as error:
        raise ManifestError(f"there is no manifest {error.filename}; make it with: {HOW_TO_MAKE}") from error
    except OSError as error:
        raise ManifestError(f"cannot read {error.filename}: {error.strerror}") from error
    except (json.JSONDecodeError, UnicodeDecodeError, TypeError) as error:
        raise ManifestError(f"{summary_path(manifest)} is damaged ({error}); make it again with: {HOW_TO_MAKE}") from error
    if csv_bytes != summary.csv_bytes:
        raise ManifestError(f"{manifest} has {csv_bytes} bytes, its summary says {summary.csv_bytes}: it was cut or changed "
                            f"by hand; make it again with: {HOW_TO_MAKE}")
    return summary


def open_rows(path: Path) -> tuple[Summary, BinaryIO, tuple[str, ...]]:
    """Totals of a manifest, its csv, open behind the line with the names of the columns, and these.

    Raises:
        ManifestError: It is missing, cut, changed since it was made, or has no row.
    """
    summary = read_summary(path)
    file, digest = path.open("rb"), hashlib.sha256()
    while block := file.read(HASHED_BYTES):  # the whole file at once would take half of what reading takes
        digest.update(block)
    if digest.hexdigest() != summary.csv_sha256:
        raise ManifestError(f"{path} was changed since it was made; make it again with: {HOW_TO_MAKE}")
    if not summary.videos:
        raise ManifestError(f"{path} has 0 videos; make one with: {HOW_TO_MAKE}")
    file.seek(0)
    columns = tuple(file.readline().decode().rstrip("\n").split(","))
    if columns not in (COLUMNS, COLUMNS + FACT_COLUMNS, ALL_COLUMNS):
        raise ManifestError(f"{path} has other columns than {', '.join(COLUMNS)}; make it again with: {HOW_TO_MAKE}")
    return summary, file, columns


def read_rows(path: Path) -> tuple[Summary, Iterator[list[str]]]:
    """Totals of a manifest, and its rows one by one, each with the values of COLUMNS in their order, and of facts behind.

    Raises:
        ManifestError: It is missing, cut, changed since it was made, or has no row.
    """
    summary, file, _ = open_rows(path)
    return summary, csv.reader(io.TextIOWrapper(file, encoding="utf-8", errors="surrogateescape", newline=""))


def first_paths(path: Path, most: int) -> list[str]:
    """Paths of the first videos of a manifest, for a quick look; nothing is checked."""
    with path.open(encoding="utf-8", errors="surrogateescape", newline="") as file:
        return [row["path"] for row in islice(csv.DictReader(file), most)]


def read_all(path: Path) -> tuple[Summary, list[Row]]:
    """Totals of a manifest and all of its rows as objects: for making other manifests, not for training.

    Raises:
        ManifestError: It is missing, cut, changed since it was made, or has no row.
    """
    summary, rows = read_rows(path)
    return summary, [parse_row(dict(zip(ALL_COLUMNS, row, strict=False))) for row in rows]


def write_part(out: Path, rows: Iterable[Row], whole: Summary, fraction: dict[str, Any]) -> Summary:
    """Write some rows of a manifest as a manifest of their own, with its summary.

    Args:
        out: The csv to write.
        rows: In any order.
        whole: Totals of the manifest that they are of; the files are not checked again.
        fraction: What the summary says of the choice.
    Returns:
        The totals.
    """
    check = Check(whole.decoder, whole.verified)
    return write_manifest(out, _in_order(rows), [], check, fraction, clip_cost=whole.clip_cost, prepared=whole.prepared)


def sum_part(rows: Iterable[Row], whole: Summary, fraction: dict[str, Any]) -> Summary:
    """The totals that `write_part` would write, without writing."""
    return _sum(_in_order(rows), [], Check(whole.decoder, whole.verified), fraction=fraction, clip_cost=whole.clip_cost,
                prepared=whole.prepared)[0]


def _in_order(rows: Iterable[Row]) -> list[Row]:
    return sorted(rows, key=lambda row: row.path)


_KINDS = {"path": "text", "label": "code", "frames": "int", "fps": "float", "seconds": "float", "width": "int",
          "height": "int", "content": "hash", "decoder": "code"}
_FACT_KINDS = {"child": "code", "date": "maybe time", "age_months": "maybe float"}
_ARRAYS = ("frames", "fps", "seconds", "width", "height", "content", "source", "class_index", *_FACT_KINDS, "_decoder")


@dataclass(frozen=True)
class Manifest:
    """All rows, packed in arrays: no Python object per row, so loader workers share the memory of their parent.

    Of a large manifest (vidmae/footage/manifest_pages.py) all processes of a node share them; they cannot be written to.

    Attributes:
        summary: Totals of the whole manifest, also after `take`.
        frames, fps, seconds, width, height: One number per video.
        content: uint64 [N], content hashes as numbers.
        source: uint64 [N], the same of the recordings that these were prepared from; of one as it is, its own.
        decoders: Names of decoders; `decoder` has the one of a row.
        class_index: int64 [N]; the label itself where all are whole numbers, else its rank in alphabetical order; -1
            where there is no label.
        children: Names of children; `child`, int32 [N], has the place of each row's in it, or -1 where it is not known.
        date: datetime64[s] [N], start of the recording; NaT where it is not known.
        age_months: float64 [N], of the child; NaN where it is not known.
    """

    summary: Summary
    frames: np.ndarray
    fps: np.ndarray
    seconds: np.ndarray
    width: np.ndarray
    height: np.ndarray
    content: np.ndarray
    source: np.ndarray
    class_index: np.ndarray
    child: np.ndarray
    date: np.ndarray
    age_months: np.ndarray
    children: tuple[str, ...]
    decoders: tuple[str, ...]
    _decoder: np.ndarray
    _paths: np.ndarray
    _path_ends: np.ndarray

    def __len__(self) -> int:
        return len(self.frames)

    def path(self, row: int) -> str:
        """Path of a video."""
        start = self._path_ends[row - 1] if row else 0
        return self._paths[start:self._path_ends[row]].tobytes().decode("utf-8", "surrogateescape")

    def decoder(self, row: int) -> str:
        """The decoder that reads a video rightly."""
        return self.decoders[int(self._decoder[row])]

    @property
    def footage(self) -> np.ndarray:
        """uint64 [N], content hashes with which the decoder is mixed: equal where the same pictures come out."""
        marks = np.array([int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "little")
                          for name in self.decoders], dtype=np.uint64)
        return np.asarray(self.content ^ marks[self._decoder])

    def frame_bytes(self, row: int) -> int:
        """Size of a decoded frame of a video."""
        return int(self.height[row]) * int(self.width[row]) * 3

    def take(self, rows: np.ndarray) -> Manifest:
        """Some of the videos, in the order of `rows`: int64 [M]. Classes keep the numbers that they have here."""
        ends = self._path_ends[rows]
        sizes = ends - np.where(rows > 0, self._path_ends[rows - 1], 0)
        new_ends = np.cumsum(sizes)
        letters = np.arange(sizes.sum()) + np.repeat(ends - new_ends, sizes)
        columns = {name: getattr(self, name)[rows] for name in _ARRAYS}
        return Manifest(self.summary, **columns, children=self.children, decoders=self.decoders, _paths=self._paths[letters],
                        _path_ends=new_ends)

    @staticmethod
    def read(path: Path, content_sha256: str = "", *, decoder: str = AUTO) -> Manifest:
        """Read a manifest; a million rows take seconds.

        Args:
            path: The csv.
            content_sha256: Of the contents and labels that it must have; empty takes any.
            decoder: data.decoder: the one that must read every video; auto follows the rows.
        Raises:
            ManifestError: It is missing, cut, changed since it was made, of other contents, has no row, or names another
                decoder.
        """
        summary = read_summary(path)
        if problem := decoder_problem(path, summary, decoder):
            raise ManifestError(problem)
        if content_sha256 not in ("", summary.content_sha256):
            raise ManifestError(f"{path} lists other videos or labels than when this was started; choose another --out")
        texts, arrays = shared(path, summary.csv_sha256, summary.videos, lambda: _read_arrays(path))
        return Manifest(summary, **{"source": arrays["content"], **arrays}, children=tuple(texts["children"]),
                        decoders=tuple(texts["decoders"]))


def _read_arrays(path: Path) -> tuple[dict[str, list[str]], dict[str, np.ndarray]]:
    """Names of children and decoders, and the arrays of a Manifest, from its csv."""
    summary, file, columns = open_rows(path)
    known = {**_KINDS, **(_FACT_KINDS if columns != COLUMNS else {}), **({"source": "hash"} if "source" in columns else {})}
    with file:
        found = read_columns(file, columns, known, summary.videos)
    paths, labels, decoders = (found.pop(name) for name in ("path", "label", "decoder"))
    if columns == COLUMNS:
        found |= {name: nothing(kind, summary.videos) for name, kind in _FACT_KINDS.items()}
    children = [text for text in found["child"].texts if text]
    places = [children.index(text) if text else -1 for text in found["child"].texts]
    found["child"] = np.array(places, dtype=np.int32)[found["child"].of_row]
    found |= {"class_index": class_table(labels.texts)[labels.of_row], "_decoder": decoders.of_row.astype(np.int8),
              "_paths": paths.letters, "_path_ends": paths.ends}
    return {"children": children, "decoders": decoders.texts}, found


def decoder_problem(path: Path, summary: Summary, decoder: str) -> str | None:
    """Why a decoder that was asked for cannot read the videos of a manifest, or None: those of each row were checked.

    Args:
        path: The manifest.
        summary: Its totals.
        decoder: data.decoder; auto follows the rows.
    """
    others = {name: count for name, count in summary.decoders.items() if name != decoder}
    if decoder == AUTO or not others:
        return None
    listed = ", ".join(f"{count} with {name}" for name, count in sorted(others.items()))
    return (f"data.decoder is {decoder}, but {path} was checked with others: {listed}; allowed: auto, which follows the "
            f"manifest, or make it again with: {HOW_TO_MAKE} --decoder {decoder}")


@dataclass(frozen=True)
class Source:
    """A file that may become a row."""

    path: str
    label: str
    facts: Facts = NO_FACTS


def find_sources(source: Path, root: Path | None = None, extensions: Collection[str] = EXTENSIONS) -> list[Source]:
    """The videos of a folder (any depth), of a list file, or one video; or pictures, where those are asked for.

    Args:
        source: A folder; a text file of `path, label`, `path label` or `path` lines, the first of which may be the header
            `path,label`; or a video.
        root: What relative paths of a list are relative to; default is the list's own folder.
        extensions: EXTENSIONS or PICTURES of video_list.py.
    Raises:
        ManifestError: The source does not exist, cannot be read or names no video; or a line of a list has a third column.
    """
    try:
        if source.is_dir():
            found = [Source(str(p.absolute()), "") for p in walk(source) if p.suffix.lower() in extensions]
        elif source.suffix.lower() in extensions and source.exists():
            found = [Source(str(source.absolute()), "")]
        else:
            base = (root or source.parent).absolute()
            found = [Source(str(base / path), label) for path, label in read_list(source, extensions)]
    except ListError as error:
        raise ManifestError(str(error)) from error
    except OSError as error:
        raise ManifestError(f"cannot read {error.filename or source}: {error.strerror}") from error
    if not found:
        raise ManifestError(nothing_found(source, extensions))
    return found


@dataclass(frozen=True)
class Check:
    """How files are judged.

    Attributes:
        decoder: auto, or the decoders that may read them, with commas: for pictures PILLOW.
        verify: Decode every file in full; else look at one frame.
    """

    decoder: str
    verify: bool


def content_hash(path: Path) -> str:
    """16 hex digits of a file's size, first and last MiB: names a recording wherever it lies."""
    digest = hashlib.blake2b(digest_size=8)
    with path.open("rb") as f:
        size = f.seek(0, os.SEEK_END)
        digest.update(str(size).encode())
        for start in (0, max(0, size - HASHED_BYTES)):
            f.seek(start)
            digest.update(f.read(HASHED_BYTES))
    return digest.hexdigest()


def parse_row(record: dict[str, Any]) -> Row:
    """A row from the texts or values of its columns."""
    values = {name: kind(record[name]) for name, kind in _PARSED.items()}
    facts = Facts(*(str(record.get(name) or "") for name in FACT_COLUMNS))
    return Row(**values, facts=facts, source=str(record.get("source") or ""))


def row_record(row: Row) -> dict[str, Any]:
    """A row as `parse_row` reads it."""
    return {**{name: getattr(row, name) for name in COLUMNS}, **(asdict(row.facts) if row.facts else {}),
            **({"source": row.source} if row.source else {})}


_PARSED: dict[str, Any] = {f.name: {"int": int, "float": float, "str": str}[str(f.type)]
                           for f in fields(Row) if f.name in COLUMNS}


def write_manifest(out: Path, rows: list[Row], bad: list[tuple[str, str]], check: Check,
                   fraction: dict[str, Any] | None = None, **known: dict[str, Any] | None) -> Summary:
    """Write a manifest, its summary and the list of what was left out.

    Args:
        out: The csv.
        rows: Sorted by path.
        bad: Path and reason of each file that was left out.
        check: How they were judged.
        fraction: What it is a fraction of.
        known: `clip_cost` and `prepared` of the summary.
    """
    summary, data = _sum(rows, bad, check, fraction=fraction, **known)
    make_private_folder(out.parent)
    write_atomic(unreadable_path(out), _csv_bytes(UNREADABLE, bad))
    write_atomic(out, data)
    write_summary(out, summary)
    if len(rows) >= SHARED_FROM_ROWS:
        Manifest.read(out)  # makes the pages
    return summary


def write_summary(manifest: Path, summary: Summary) -> None:
    """Write the totals beside a manifest."""
    write_json(summary_path(manifest), {key: value for key, value in asdict(summary).items() if value is not None})


def _sum(rows: list[Row], bad: list[tuple[str, str]], check: Check, **known: Any) -> tuple[Summary, bytes]:
    """The totals and the csv."""
    facts = any(row.facts for row in rows)
    prepared = any(row.source for row in rows)
    columns = ALL_COLUMNS if prepared else COLUMNS + FACT_COLUMNS if facts else COLUMNS
    data = _csv_bytes(columns, (
        [*(getattr(row, name) for name in COLUMNS), *(astuple(row.facts) if facts or prepared else ()),
         *([row.source or row.content] if prepared else ())] for row in rows))
    contents = "".join(f"{row.content} {row.decoder} {row.label}\n" for row in rows)
    lengths_s = [row.seconds for row in rows] or [0.0]
    summary = Summary(
        schema=SCHEMA, videos=len(rows), unreadable=len(bad), seconds=sum(row.seconds for row in rows),
        bytes=sum(row.bytes for row in rows), classes=len({row.label for row in rows} - {""}), decoder=check.decoder,
        decoders=dict(sorted(Counter(row.decoder for row in rows).items())), verified=check.verify,
        percentiles_s=np.percentile(lengths_s, range(101)).round(3).tolist(), csv_bytes=len(data),
        csv_sha256=hashlib.sha256(data).hexdigest(),
        content_sha256=hashlib.sha256(contents.encode("utf-8", "surrogateescape")).hexdigest(),
        facts_sha256=facts_sha256(row.facts for row in rows) if facts else None, **known)
    return summary, data


def _csv_bytes(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> bytes:
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(rows)
    return text.getvalue().encode("utf-8", "surrogateescape")
