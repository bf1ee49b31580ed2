"""The list of videos of a data set: built once from a folder or a list, checked, and read by every rank.

    manifests/s.csv              one row per video, sorted by path
    manifests/s.unreadable.csv   what was left out: path, reason
    manifests/s.json             totals and hashes, so that a launcher need not read the rows

Videos are probed and (by default) decoded once when the manifest is made, in processes that can be killed: what training
meets later was readable once.
"""

from __future__ import annotations

import contextlib
import csv
import hashlib
import io
import json
import os
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, fields, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from vidmae.record import make_private_folder, write_atomic, write_json

SCHEMA = 1
EXTENSIONS = frozenset({".mp4", ".mkv", ".webm", ".avi", ".mov"})
HASHED_BYTES = 2**20  # from each end of a file
HOW_TO_MAKE = "python jobs/prepare.py manifest FOLDER --name NAME"


class ManifestError(ValueError):
    """A manifest or its source cannot be used; the message says why and which command makes a new one."""


@dataclass(frozen=True)
class Row:
    """One video: the columns of the csv. `content` hashes the size and the first and last MiB of the file."""

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


COLUMNS = tuple(f.name for f in fields(Row))


@dataclass(frozen=True)
class Summary:
    """Totals of a manifest, written beside it.

    Attributes:
        videos: Rows.
        unreadable: Files left out.
        seconds: Footage in all.
        bytes: Size of all files.
        classes: Different labels.
        backend: Decoder that the files were checked with.
        verified: Whether every file was decoded in full.
        csv_bytes: Size of the csv.
        csv_sha256: Hash of the csv.
        content_sha256: Hash of contents and labels in row order, the same wherever the files lie.
        fraction: What it is a fraction of, and how that was chosen (vidmae/history.py); None for a whole data set.
    """

    schema: int
    videos: int
    unreadable: int
    seconds: float
    bytes: int
    classes: int
    backend: str
    verified: bool
    csv_bytes: int
    csv_sha256: str
    content_sha256: str
    fraction: dict[str, Any] | None = None

    @property
    def hours(self) -> float:
        """Footage in hours."""
        return self.seconds / 3600


def summary_path(manifest: Path) -> Path:
    """The JSON beside a manifest."""
    return manifest.with_suffix(".json")


def unreadable_path(manifest: Path) -> Path:
    """The list of files that a manifest leaves out."""
    return manifest.with_suffix(".unreadable.csv")


def read_summary(manifest: Path) -> Summary:
    """Totals of a manifest without reading its rows.

    Raises:
        ManifestError: There is no manifest, or its csv is not the one that the totals describe.
    """
    try:
        record = json.loads(summary_path(manifest).read_text(encoding="utf-8"))
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


def read_rows(path: Path) -> tuple[Summary, Iterator[list[str]]]:
    """Totals of a manifest, and its rows one by one, each with the values of COLUMNS in their order.

    Raises:
        ManifestError: It is missing, cut, changed since it was made, or has no row.
    """
    summary = read_summary(path)
    data = path.read_bytes()
    if hashlib.sha256(data).hexdigest() != summary.csv_sha256:
        raise ManifestError(f"{path} was changed since it was made; make it again with: {HOW_TO_MAKE}")
    if not summary.videos:
        raise ManifestError(f"{path} has 0 videos; make one with: {HOW_TO_MAKE}")
    # line by line: the whole text at once would take five times the file's size
    rows = csv.reader(io.TextIOWrapper(io.BytesIO(data), encoding="utf-8", errors="surrogateescape", newline=""))
    if next(rows) != list(COLUMNS):
        raise ManifestError(f"{path} has other columns than {', '.join(COLUMNS)}; make it again with: {HOW_TO_MAKE}")
    return summary, rows


def read_all(path: Path) -> tuple[Summary, list[Row]]:
    """Totals of a manifest and all of its rows as objects: for making other manifests, not for training.

    Raises:
        ManifestError: It is missing, cut, changed since it was made, or has no row.
    """
    summary, rows = read_rows(path)
    return summary, [_row(dict(zip(COLUMNS, row, strict=True))) for row in rows]


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
    return _write(out, _in_order(rows), [], Check(whole.backend, whole.verified), fraction)


def sum_part(rows: Iterable[Row], whole: Summary, fraction: dict[str, Any]) -> Summary:
    """The totals that `write_part` would write, without writing."""
    return _sum(_in_order(rows), [], Check(whole.backend, whole.verified), fraction)[0]


def _in_order(rows: Iterable[Row]) -> list[Row]:
    return sorted(rows, key=lambda row: row.path)


_KINDS: dict[str, Callable[[str], Any]] = {"q": int, "l": int, "d": float, "Q": partial(int, base=16)}


@dataclass(frozen=True)
class Manifest:
    """All rows, packed in arrays: no Python object per row, so loader workers share the memory of their parent.

    Attributes:
        summary: Totals of the whole manifest, also after `take`.
        frames, fps, seconds, width, height: One number per video.
        content: uint64 [N], content hashes as numbers.
        class_index: int64 [N]; the label itself where all are whole numbers, else its rank in alphabetical order; -1
            where there is no label.
    """

    summary: Summary
    frames: np.ndarray
    fps: np.ndarray
    seconds: np.ndarray
    width: np.ndarray
    height: np.ndarray
    content: np.ndarray
    class_index: np.ndarray
    _paths: np.ndarray
    _path_ends: np.ndarray

    def __len__(self) -> int:
        return len(self.frames)

    def path(self, row: int) -> str:
        """Path of a video."""
        start = self._path_ends[row - 1] if row else 0
        return self._paths[start:self._path_ends[row]].tobytes().decode("utf-8", "surrogateescape")

    def frame_bytes(self, row: int) -> int:
        """Size of a decoded frame of a video."""
        return int(self.height[row]) * int(self.width[row]) * 3

    def take(self, rows: np.ndarray) -> Manifest:
        """Some of the videos, in the order of `rows`: int64 [M]. Classes keep the numbers that they have here."""
        ends = self._path_ends[rows]
        sizes = ends - np.where(rows > 0, self._path_ends[rows - 1], 0)
        new_ends = np.cumsum(sizes)
        letters = np.arange(sizes.sum()) + np.repeat(ends - new_ends, sizes)
        columns = {name: getattr(self, name)[rows]
                   for name in ("frames", "fps", "seconds", "width", "height", "content", "class_index")}
        return Manifest(self.summary, **columns, _paths=self._paths[letters], _path_ends=new_ends)

    @staticmethod
    def read(path: Path, content_sha256: str = "") -> Manifest:
        """Read a manifest; a million rows take seconds.

        Args:
            path: The csv.
            content_sha256: Of the contents and labels that it must have; empty takes any.
        Raises:
            ManifestError: It is missing, cut, changed since it was made, of other contents, or has no row.
        """
        summary, rows = read_rows(path)
        if content_sha256 not in ("", summary.content_sha256):
            raise ManifestError(f"{path} lists other videos or labels than when this was started; choose another --out")
        paths, ends = bytearray(), array("q")
        numbers: dict[str, array[Any]] = {"frames": array("q"), "fps": array("d"), "seconds": array("d"),
                                          "width": array("l"), "height": array("l"), "content": array("Q")}
        kinds = [(COLUMNS.index(name), column.append, _KINDS[column.typecode]) for name, column in numbers.items()]
        codes, known = array("q"), dict[str, int]()
        for row in rows:
            paths += row[0].encode("utf-8", "surrogateescape")
            ends.append(len(paths))
            codes.append(known.setdefault(row[1], len(known)))
            for place, append, kind in kinds:
                append(kind(row[place]))
        packed = {name: np.array(column) for name, column in numbers.items()}
        return Manifest(summary, class_index=class_table(list(known))[np.array(codes)], **packed,
                        _paths=np.frombuffer(bytes(paths), dtype=np.uint8), _path_ends=np.array(ends))


def class_table(labels: Sequence[str]) -> np.ndarray:
    """Class index of every label: int64, as in `Manifest.class_index`; `labels` are all different ones of a manifest."""
    named = [label for label in labels if label]
    if all(label.isdecimal() for label in named):
        return np.array([int(label) if label else -1 for label in labels], dtype=np.int64)
    rank = {label: i for i, label in enumerate(sorted(named))}
    return np.array([rank.get(label, -1) for label in labels], dtype=np.int64)


@dataclass(frozen=True)
class Source:
    """A file that may become a row."""

    path: str
    label: str


def find_sources(source: Path, root: Path | None = None) -> list[Source]:
    """The videos of a folder (any depth), of a list file, or one video.

    Args:
        source: A folder; a text file of `path, label`, `path label` or `path` lines; or a video.
        root: What relative paths of a list are relative to; default is the list's own folder.
    Raises:
        ManifestError: The source does not exist, cannot be read or names no video.
    """
    try:
        if source.is_dir():
            found = [Source(str(p.absolute()), "") for p in _walk(source) if p.suffix.lower() in EXTENSIONS]
        elif source.suffix.lower() in EXTENSIONS and source.exists():
            found = [Source(str(source.absolute()), "")]
        else:
            text = source.read_bytes().decode("utf-8", "surrogateescape")
            base = (root or source.parent).absolute()
            found = [_parse_line(line, base, f"{source}:{i}") for i, line in enumerate(text.split("\n"), 1) if line.strip()]
    except OSError as error:
        raise ManifestError(f"cannot read {error.filename or source}: {error.strerror}") from error
    if not found:
        raise ManifestError(f"{source} holds no video ({' '.join(sorted(EXTENSIONS))})")
    return found


def _walk(folder: Path) -> Iterable[Path]:
    def refuse(error: OSError) -> None:
        raise error

    seen: set[tuple[int, int]] = set()
    for where, folders, names in os.walk(folder, onerror=refuse, followlinks=True):
        stat = Path(where).stat()
        if (stat.st_dev, stat.st_ino) in seen:  # a link that leads back
            folders.clear()
            continue
        seen.add((stat.st_dev, stat.st_ino))
        for name in names:
            yield Path(where, name)


def _parse_line(line: str, base: Path, place: str) -> Source:
    """`path, label` (mae_st), `path label` (VideoMAE, V-JEPA) or `path`: the first split that gives a video's path."""
    for path, label in _splits(line.strip()):
        if Path(path.strip()).suffix.lower() in EXTENSIONS:
            return Source(str(base / path.strip()), label.strip())
    raise ManifestError(f"{place} is not `path, label`, `path label` or `path` of a video ({' '.join(sorted(EXTENSIONS))})")


def _splits(line: str) -> Iterator[tuple[str, str]]:
    if '"' in line:
        with contextlib.suppress(csv.Error):  # else the quotes are part of a name
            values = next(csv.reader([line], strict=True, skipinitialspace=True))
            if len(values) == 2:
                yield values[0], values[1]
    for separator in (", ", ",", "\t"):
        words = line.split(separator)  # both the path and a class name may hold commas
        yield from ((separator.join(words[:n]), separator.join(words[n:])) for n in range(len(words) - 1, 0, -1))
    path, _, label = line.rpartition(" ")
    yield path, label
    yield line, ""


@dataclass(frozen=True)
class Check:
    """How files are judged: picklable, called in a process of its own for every file."""

    backend: str
    verify: bool

    def __call__(self, source: Source) -> Row:
        """Probe one file.

        Raises:
            ValueError: It cannot be used; the message says why.
        """
        from vidmae.decode import DecodeError, open_video, probe
        from vidmae.verify import verify

        if "\n" in source.path or "\r" in source.path:
            raise DecodeError("its name holds a line break")
        info = probe(source.path)
        if self.verify and (reason := verify(source.path, self.backend)):
            raise DecodeError(reason)
        with open_video(source.path, self.backend) as video:
            frames = video.num_frames  # packets promise one more in some AVI files (HMDB51)
            if not self.verify:
                video.read([0])
        stat = Path(source.path).stat()
        return Row(source.path, source.label, frames, info.fps, frames / info.fps, info.bytes, info.width, info.height,
                   info.codec, info.rotation, int(info.has_b_frames), int(info.vfr), content_hash(Path(source.path)),
                   stat.st_mtime_ns)


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


def build(sources: Sequence[Source], out: Path, check: Check, *, workers: int, time_limit_s: float,
          progress: Callable[[int, int], object]) -> tuple[Summary, int]:
    """Check every source and write the manifest, its summary and the list of what was left out.

    Rows of an earlier manifest at `out` are taken over where path, size and time of change are the same and it was made with
    the same check; labels are always those of the sources.

    Args:
        sources: From `find_sources`.
        out: The csv to write.
        check: How files are judged.
        workers: Processes.
        time_limit_s: Seconds for one file.
        progress: Told how many files are done.
    Returns:
        The totals, and how many rows were taken over.
    """
    from vidmae.killable import map_killable

    known = _reusable(out, check)
    rows: list[Row] = []
    todo: list[Source] = []
    for source in _different(sources):
        row = known.get(source.path)
        rows.append(replace(row, label=source.label)) if row and _unchanged(row) else todo.append(source)
    reused = len(rows)
    bad: list[tuple[str, str]] = []
    progress(reused, reused + len(todo))
    for outcome in map_killable(check, todo, workers=workers, time_limit_s=time_limit_s):
        if outcome.value is not None:
            rows.append(outcome.value)
        else:
            bad.append((todo[outcome.index].path, outcome.reason or ""))
        progress(len(rows) + len(bad), reused + len(todo))
    rows.sort(key=lambda row: row.path)
    return _write(out, rows, sorted(bad), check), reused


def is_manifest_of(path: Path, sources: Sequence[Source]) -> bool:
    """Whether a manifest was made of these files, those that it left out included, and none of its videos changed since."""
    try:
        rows = read_all(path)[1]
        with unreadable_path(path).open(encoding="utf-8", errors="surrogateescape", newline="") as file:
            bad = [row["path"] for row in csv.DictReader(file)]
    except (ManifestError, OSError):
        return False
    return {row.path for row in rows}.union(bad) == {source.path for source in sources} and all(map(_unchanged, rows))


def _different(sources: Sequence[Source]) -> list[Source]:
    """Every file once.

    Raises:
        ManifestError: A file is listed with two labels.
    """
    labels: dict[str, str] = {}
    for place, source in enumerate(sources, 1):
        if labels.setdefault(source.path, source.label) != source.label:
            raise ManifestError(f"video {place} of the sources was listed before with another label: two labels, "
                                f"{labels[source.path]!r} and {source.label!r}")
    return [Source(path, label) for path, label in labels.items()]


def _reusable(out: Path, check: Check) -> dict[str, Row]:
    try:
        summary = read_summary(out)
        with out.open(encoding="utf-8", errors="surrogateescape", newline="") as f:
            rows = [_row(record) for record in csv.DictReader(f)]
    except (ManifestError, KeyError, ValueError):
        return {}
    same = (summary.backend, summary.verified) == (check.backend, check.verify)
    return {row.path: row for row in rows} if same else {}


def _row(record: dict[str, Any]) -> Row:
    kinds = {"int": int, "float": float, "str": str}
    return Row(**{f.name: kinds[str(f.type)](record[f.name]) for f in fields(Row)})


def _unchanged(row: Row) -> bool:
    try:
        stat = Path(row.path).stat()
    except OSError:
        return False
    return (stat.st_size, stat.st_mtime_ns) == (row.bytes, row.mtime_ns)


def _write(out: Path, rows: list[Row], bad: list[tuple[str, str]], check: Check, fraction: dict[str, Any] | None = None,
           ) -> Summary:
    summary, data = _sum(rows, bad, check, fraction)
    make_private_folder(out.parent)
    write_atomic(unreadable_path(out), _csv_bytes(("path", "reason"), bad))
    write_atomic(out, data)
    write_json(summary_path(out), {key: value for key, value in asdict(summary).items() if value is not None})
    return summary


def _sum(rows: list[Row], bad: list[tuple[str, str]], check: Check, fraction: dict[str, Any] | None,
         ) -> tuple[Summary, bytes]:
    """The totals and the csv."""
    data = _csv_bytes(COLUMNS, (tuple(asdict(row).values()) for row in rows))
    contents = "".join(f"{row.content} {row.label}\n" for row in rows)
    summary = Summary(
        schema=SCHEMA, videos=len(rows), unreadable=len(bad), seconds=sum(row.seconds for row in rows),
        bytes=sum(row.bytes for row in rows), classes=len({row.label for row in rows} - {""}), backend=check.backend,
        verified=check.verify, csv_bytes=len(data), csv_sha256=hashlib.sha256(data).hexdigest(),
        content_sha256=hashlib.sha256(contents.encode("utf-8", "surrogateescape")).hexdigest(), fraction=fraction)
    return summary, data


def _csv_bytes(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> bytes:
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(rows)
    return text.getvalue().encode("utf-8", "surrogateescape")
