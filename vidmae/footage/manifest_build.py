"""Makes a manifest: every file is checked, in processes that can be killed, and gets the decoder that reads it rightly.

    candidates of the asked decoder     pyav -> decord -> torchcodec; of pictures pillow alone, which decodes each once
    files that one reads wrongly, hangs at or crashes at go to the next; files that are damaged themselves do not

    manifests/.s.checked.jsonl          verdicts so far, so that a call which was stopped goes on where it was
    manifests/.s.checked.3-of-100.jsonl those of a part; the call that makes the manifest takes over those of all parts
"""

from __future__ import annotations

import glob
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, TextIO

from vidmae.footage.known.unreadable import read_unreadable
from vidmae.footage.known.withdrawn import read_withdrawn
from vidmae.footage.manifest import (
    SCHEMA,
    Check,
    ManifestError,
    Row,
    Source,
    Summary,
    content_hash,
    parse_row,
    read_all,
    row_record,
    write_manifest,
)
from vidmae.runs.record import make_private_folder, write_atomic

PACKET = 32  # pictures

Progress = Callable[[int, int], object]
"""Told how many files are done of how many."""


@dataclass(frozen=True)
class Refused:
    """Why a file is no row, at least with this decoder.

    Attributes:
        reason: In plain words, without the file's name.
        final: The file itself is damaged: no other decoder need be tried.
    """

    reason: str
    final: bool


@dataclass(frozen=True)
class Judge:
    """Judges one file with one decoder: picklable, called in a process of its own."""

    decoder: str
    verify: bool

    def __call__(self, source: Source) -> Row | Refused:
        """Probe a file, and decode it where `verify` says so; a picture is always decoded."""
        from vidmae.footage.open_video import PILLOW, DecodeError, import_decoder, open_video, probe, refuses, scan_packets
        from vidmae.footage.verify import refuse_cut, verify

        path = Path(source.path)
        if "\n" in source.path or "\r" in source.path:
            return Refused("its name holds a line break", final=True)
        try:
            import_decoder(self.decoder)
        except (ImportError, OSError, RuntimeError) as error:
            return Refused(f"{self.decoder} cannot be loaded ({type(error).__name__})", final=False)
        try:
            if self.decoder == PILLOW:
                return _row_of_picture(source, path)
            info = probe(path)
            if self.verify:
                reason = verify(path, self.decoder)
            else:
                packets, promised = scan_packets(path)
                refuse_cut(packets, promised)
                reason = refuses(self.decoder, packets)
        except DecodeError as error:
            return Refused(str(error), final=True)
        if reason:
            return Refused(reason, final=False)
        try:
            with open_video(path, self.decoder) as video:
                frames = video.num_frames  # packets promise one more in some AVI files (HMDB51)
                if not self.verify:
                    video.read([0])
        except DecodeError as error:
            return Refused(str(error), final=False)
        return Row(source.path, source.label, frames, info.fps, frames / info.fps, info.bytes, info.width, info.height,
                   info.codec, info.rotation, int(info.has_b_frames), int(info.vfr), content_hash(path),
                   path.stat().st_mtime_ns, self.decoder, source.facts)


def _row_of_picture(source: Source, path: Path) -> Row:
    """A row of one frame; a picture that is damaged is a DecodeError."""
    from vidmae.footage.decoders.with_pillow import PILLOW, STILL_FPS, look_at_picture

    info = look_at_picture(path)
    stat = path.stat()
    return Row(source.path, source.label, 1, STILL_FPS, 1 / STILL_FPS, stat.st_size, info.width, info.height, info.codec,
               info.rotation, 0, 0, content_hash(path), stat.st_mtime_ns, PILLOW, source.facts)


def build(sources: Sequence[Source], out: Path, check: Check, *, workers: int, time_limit_s: float,
          progress: Progress) -> tuple[Summary, int]:
    """Check every source and write the manifest, its summary and the list of what was left out.

    Rows of an earlier manifest at `out`, and of an earlier call that was stopped, are taken over where path, size and time
    of change are the same and they were made with the same check; labels are always those of the sources, and facts where
    they have some. Recordings that were withdrawn from the manifest (known/withdrawn.py) stay out.

    Args:
        sources: From `find_sources`.
        out: The csv to write.
        check: How files are judged.
        workers: Processes.
        time_limit_s: Seconds for one file and decoder.
        progress: Told how many files are done.
    Returns:
        The totals, and how many rows were taken over.
    Raises:
        ManifestError: A file is listed with two labels.
        OSError: `out` cannot be written: found before any file is decoded.
    """
    make_private_folder(out.parent)
    rows: list[Row] = []
    bad: list[tuple[str, str]] = []
    todo: list[Source] = []
    with _journal(out, check, "") as journal:
        out_again = _withdrawn(out)
        for source in _different(sources):
            if out_again(source):
                continue
            known = journal.verdict(source)
            if isinstance(known, Row):
                rows.append(_renewed(known, source))
            elif known:
                bad.append((source.path, known))
            else:
                todo.append(source)
        reused = len(rows)
        total = reused + len(bad) + len(todo)
        progress(total - len(todo), total)
        for source, verdict in _judge_all(todo, check, workers, time_limit_s):
            if isinstance(verdict, Row):
                rows.append(verdict)
            else:
                bad.append((source.path, verdict))
            journal.keep(source, verdict)
            progress(len(rows) + len(bad), total)
        rows.sort(key=lambda row: row.path)
        summary = write_manifest(out, rows, sorted(bad), check)
    for path in journal_paths(out):
        path.unlink(missing_ok=True)
    return summary, reused


def check_part(sources: Sequence[Source], out: Path, check: Check, part: int, parts: int, *, workers: int,
               time_limit_s: float, progress: Progress) -> tuple[int, int]:
    """Check every `parts`-th source, and keep the verdicts for the call of `build` that makes the manifest.

    Several parts may be checked at the same time, on several machines that share the folder. What was checked before, by
    whatever parts, is not checked again.

    Args:
        sources: All of them, in any order.
        out: The csv that `build` is to write.
        check: How files are judged; `build` must be told the same.
        part: From 0.
        parts: How many there are.
        workers: Processes.
        time_limit_s: Seconds for one file and decoder.
        progress: Told how many files are done.
    Returns:
        How many files the part has, and how many of them no decoder reads.
    """
    make_private_folder(out.parent)
    mine = sorted(_different(sources), key=lambda source: source.path)[part::parts]
    with _journal(out, check, f".{part}-of-{parts}") as journal:
        out_again = _withdrawn(out)
        known = [journal.verdict(source) for source in mine]
        todo = [source for source, verdict in zip(mine, known, strict=True) if not verdict and not out_again(source)]
        unreadable, done = sum(isinstance(verdict, str) for verdict in known), len(mine) - len(todo)
        progress(done, len(mine))
        for source, verdict in _judge_all(todo, check, workers, time_limit_s):
            journal.keep(source, verdict)
            unreadable, done = unreadable + isinstance(verdict, str), done + 1
            progress(done, len(mine))
    return len(mine), unreadable


def _withdrawn(out: Path) -> Callable[[Source], bool]:
    """Whether a file was withdrawn from a manifest; only files of the size of such a one are read for that."""
    listed = read_withdrawn(out)
    sizes, contents = {each.bytes for each in listed}, {each.content for each in listed}

    def is_withdrawn(source: Source) -> bool:
        try:
            path = Path(source.path)
            return bool(listed) and path.is_file() and path.stat().st_size in sizes and content_hash(path) in contents
        except OSError:
            return False  # its check says what is wrong with it

    return is_withdrawn


def _renewed(row: Row, source: Source) -> Row:
    """A row that need not be checked again; what the source does not say of it stays."""
    return replace(row, label=source.label, facts=source.facts.filled_in(row.facts))


def _judge_all(sources: list[Source], check: Check, workers: int, time_limit_s: float) -> Iterator[tuple[Source, Row | str]]:
    """Of every file its row, or all the reasons why there is none."""
    from vidmae.footage.killable import map_killable
    from vidmae.footage.open_video import PILLOW, candidates

    if check.decoder == PILLOW:
        yield from _judge_pictures(sources, Judge(PILLOW, check.verify), workers, time_limit_s)
        return
    decoders = candidates(check.decoder)
    said: dict[str, list[str]] = {source.path: [] for source in sources}
    for decoder in decoders:
        left = []
        for outcome in map_killable(Judge(decoder, check.verify), sources, workers=workers, time_limit_s=time_limit_s):
            source = sources[outcome.index]
            verdict = outcome.value or Refused(f"{decoder}: {outcome.reason}", final=False)
            if isinstance(verdict, Row):
                yield source, verdict
                continue
            said[source.path].append(verdict.reason)
            if verdict.final or decoder == decoders[-1]:
                yield source, "; ".join(said[source.path])
            else:
                left.append(source)
        sources = left


@dataclass(frozen=True)
class _JudgeMany:
    """Judges a packet of files: picklable, called in a process of its own."""

    judge: Judge

    def __call__(self, packet: Sequence[Source]) -> list[Row | Refused]:
        return [self.judge(source) for source in packet]


def _judge_pictures(sources: Sequence[Source], judge: Judge, workers: int, time_limit_s: float,
                    ) -> Iterator[tuple[Source, Row | str]]:
    """Of every picture its row, or the reason why there is none.

    A million pictures go to the processes in packets, since handing one over takes a good part of the time that decoding it
    takes; those of a packet that crashes or hangs a process go one by one.
    """
    from vidmae.footage.killable import map_killable

    packets, alone = [sources[i:i + PACKET] for i in range(0, len(sources), PACKET)], list[Source]()
    for outcome in map_killable(_JudgeMany(judge), packets, workers=workers, time_limit_s=time_limit_s):
        packet = packets[outcome.index]
        if outcome.value is None:
            alone += packet
        for source, verdict in zip(packet, outcome.value or (), strict=False):
            yield source, verdict if isinstance(verdict, Row) else verdict.reason
    for single in map_killable(judge, alone, workers=workers, time_limit_s=time_limit_s):
        found = single.value or Refused(f"{judge.decoder}: {single.reason}", final=False)
        yield alone[single.index], found if isinstance(found, Row) else found.reason


@dataclass(frozen=True)
class _Journal:
    """What is known of files, by path, and the open file that keeps more."""

    rows: dict[str, Row]
    refused: dict[str, dict[str, Any]]
    file: TextIO

    def verdict(self, source: Source) -> Row | str | None:
        """The row of a file or why there is none; None where it is not known or has changed since."""
        row, refused = self.rows.get(source.path), self.refused.get(source.path)
        if row and _unchanged(row):
            return row
        return str(refused["reason"]) if refused and _size_and_time(source.path) == tuple(refused["stat"]) else None

    def keep(self, source: Source, verdict: Row | str) -> None:
        """Keep what was found for the next call."""
        record = row_record(verdict) if isinstance(verdict, Row) else {
            "path": source.path, "reason": verdict, "stat": _size_and_time(source.path)}
        self.file.write(json.dumps(record) + "\n")
        self.file.flush()


def journal_paths(out: Path) -> list[Path]:
    """What is kept of calls that were stopped, and of parts."""
    return sorted(out.parent.glob(f".{glob.escape(out.stem)}.checked*.jsonl"))


@contextmanager
def _journal(out: Path, check: Check, part: str) -> Iterator[_Journal]:
    """All that is known, and the journal of a part (empty for that of the whole), which is open while it is used."""
    path = out.with_name(f".{out.stem}.checked{part}.jsonl")
    head = json.dumps({"schema": SCHEMA, **asdict(check)})
    write_atomic(path, "".join(f"{line}\n" for line in (head, *_lines_of(path, head))).encode())
    kept = [json.loads(line) for each in journal_paths(out) for line in _lines_of(each, head)]
    rows = {record["path"]: parse_row(record) for record in kept if "reason" not in record}
    with path.open("a", encoding="utf-8") as file:
        yield _Journal(_reusable(out, check) | rows, {each["path"]: each for each in kept if "reason" in each}, file)


def _lines_of(path: Path, head: str) -> list[str]:
    """Verdicts of a journal with the same check; a last line that was cut off is left out."""
    if not path.exists():
        return []
    first, *lines = path.read_text(encoding="utf-8").split("\n")[:-1] or [""]
    return lines if first == head else []


def _reusable(out: Path, check: Check) -> dict[str, Row]:
    try:
        summary, rows = read_all(out)
    except ManifestError:
        return {}
    same = (summary.decoder, summary.verified) == (check.decoder, check.verify)
    return {row.path: row for row in rows} if same else {}


def is_manifest_of(path: Path, sources: Sequence[Source]) -> bool:
    """Whether a manifest was made of these files, those that it left out included, and none of its videos changed since."""
    try:
        rows = read_all(path)[1]
        bad = [name for name, _ in read_unreadable(path)]
    except (ManifestError, OSError):
        return False
    return {row.path for row in rows}.union(bad) == {source.path for source in sources} and all(map(_unchanged, rows))


def still_holds(path: Path) -> bool:
    """Whether a manifest is there, and none of its videos was changed, replaced or removed since."""
    try:
        return all(map(_unchanged, read_all(path)[1]))
    except ManifestError:
        return False


def _different(sources: Sequence[Source]) -> list[Source]:
    """Every file once.

    Raises:
        ManifestError: A file is listed with two labels.
    """
    labels: dict[str, str] = {}
    known = {source.path: source.facts for source in sources}
    for place, source in enumerate(sources, 1):
        if labels.setdefault(source.path, source.label) != source.label:
            raise ManifestError(f"video {place} of the sources was listed before with another label: two labels, "
                                f"{labels[source.path]!r} and {source.label!r}")
    return [Source(path, label, known[path]) for path, label in labels.items()]


def _unchanged(row: Row) -> bool:
    return _size_and_time(row.path) == (row.bytes, row.mtime_ns)


def _size_and_time(path: str) -> tuple[int, int]:
    try:
        stat = Path(path).stat()
    except OSError:
        return -1, -1
    return stat.st_size, stat.st_mtime_ns
