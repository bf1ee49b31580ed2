"""The footage of a pretraining run: one data set or several, all of it or the hours, ages and children that the
settings take.

Several manifests become one, row behind row in the order of data.sources, so a row has one number in a run. Launchers work
from totals, and read rows only where a part of a data set is taken.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path

import numpy as np

from vidmae.footage.manifest import Manifest, ManifestError, Summary
from vidmae.mixtures.ages import Ages, ages
from vidmae.mixtures.children import children, refuse_unknown
from vidmae.settings.config import FootageConfig, SourceConfig

_NAMED = {"_decoder": "decoders", "child": "children"}  # arrays of places in a list of names
_DRAW = 2**31  # first word of the seed of the draw of hours: no stream of the clips begins with it


@dataclass(frozen=True)
class Stock:
    """What a source has to show.

    Attributes:
        name: Of the data set.
        weight: Of it in the mixture.
        clip_s: Seconds that a clip covers.
        videos: That are taken.
        seconds: Footage in them.
        stretches: Whole clips in them, one behind the other, at least one each; 0 where it was not counted.
    """

    name: str
    weight: float
    clip_s: float
    videos: int
    seconds: float
    stretches: int = 0


@dataclass(frozen=True)
class Part:
    """The rows of a source.

    Attributes:
        stock: What it has to show.
        rows: int64 [n], rows of the joined manifest; by age where the order follows ages, else ascending.
        seconds: float64 [n], length of each.
    """

    stock: Stock
    rows: np.ndarray
    seconds: np.ndarray

    @property
    def stretches(self) -> np.ndarray:
        """Whole clips in each: int64 [n], at least 1."""
        return stretches(self.seconds, self.stock.clip_s)


@dataclass(frozen=True)
class Footage:
    """All rows of a run.

    Attributes:
        manifest: Of all sources.
        parts: Of each source; empty where all of one manifest is shown alike (`FootageConfig.is_plain`).
        firsts: First row of each source.
    """

    manifest: Manifest
    parts: tuple[Part, ...] = ()
    firsts: tuple[int, ...] = (0,)


def stretches(seconds: np.ndarray, clip_s: float) -> np.ndarray:
    """How many whole clips lie in each video, one behind the other: int64, at least 1."""
    return np.maximum(1, np.floor(np.round(seconds / clip_s, 9)).astype(np.int64))


def sources_of(data: FootageConfig) -> tuple[SourceConfig, ...]:
    """The sources of a run; data.name alone is one source."""
    return data.sources or (SourceConfig(data.name, manifest=data.manifest),)


def sampling_of(source: SourceConfig, data: FootageConfig) -> tuple[int, float]:
    """Frame stride of a source, and the frame rate that it is counted in."""
    return source.sampling_rate or data.sampling_rate, source.target_fps or data.target_fps


def read_footage(data: FootageConfig, *, num_frames: int, seed: int) -> Footage:
    """Read all manifests of a run.

    Args:
        data: The settings, with the paths of the manifests.
        num_frames: Of a clip.
        seed: Of the run; draws the videos of a source with hours.
    Raises:
        ManifestError: One cannot be read, or has not what is asked of it: ages, the child, or so many hours.
    """
    sources = sources_of(data)
    manifests = [Manifest.read(Path(source.manifest), decoder=data.decoder) for source in sources]
    if data.is_plain:
        return Footage(manifests[0])
    refuse_unknown(data.without_child, manifests)
    parts, firsts, first = [], [], 0
    for i, (source, manifest) in enumerate(zip(sources, manifests, strict=True)):
        part = _part(source, i, manifest, data, num_frames, seed)
        parts.append(replace(part, rows=part.rows + first))
        firsts.append(first)
        first += len(manifest)
    return Footage(joined(manifests), tuple(parts), tuple(firsts))


def stocks(data: FootageConfig, summaries: Sequence[Summary], *, num_frames: int, seed: int) -> list[Stock]:
    """What each source has to show; rows are read where a part of it is taken, or its clips are counted.

    Args:
        data: The settings, with the paths of the manifests.
        summaries: Totals of the manifests.
        num_frames: Of a clip.
        seed: Of the run.
    Raises:
        ManifestError: See `read_footage`.
    """
    found = []
    if data.without_child is not None:
        refuse_unknown(data.without_child, [Manifest.read(Path(source.manifest)) for source in sources_of(data)])
    for i, (source, summary) in enumerate(zip(sources_of(data), summaries, strict=True)):
        if data.takes_part or source.hours is not None or data.order == "single-pass":
            found.append(_part(source, i, Manifest.read(Path(source.manifest)), data, num_frames, seed).stock)
        else:
            clip_s = _clip_s(source, data, num_frames)
            found.append(Stock(source.name, source.weight, clip_s, summary.videos, summary.seconds))
    return found


def _part(source: SourceConfig, index: int, manifest: Manifest, data: FootageConfig, num_frames: int, seed: int) -> Part:
    """The rows of a source, counted from its own first."""
    rows, clip_s = np.arange(len(manifest)), _clip_s(source, data, num_frames)
    if data.without_child is not None:
        rows = rows[children(manifest) != data.without_child]
        if not len(rows):
            raise ManifestError(f"data.without_child is {data.without_child!r}: all recordings of {source.name} are of this "
                                "child, and none would be left")
    if data.by_age or data.age_months is not None:
        of_rows = ages_for(source.name, manifest, data)
        if data.age_months is not None:
            low, high = data.age_months
            months = of_rows.months[rows]
            rows = rows[(months >= low) & (months <= high)]
            if not len(rows):
                youngest, oldest = months.min(), months.max()
                raise ManifestError(f"data.age_months is {[low, high]}: {source.name} has recordings at {youngest:.1f} to "
                                    f"{oldest:.1f} months, and none in between")
        if data.by_age:
            rows = rows[np.argsort(of_rows.months[rows], kind="stable")]  # of one age by file name
    if source.hours is not None:
        rows = rows[np.isin(rows, _drawn(source, rows, manifest, index, seed))]
    seconds, whole = manifest.seconds[rows], len(rows) == len(manifest)
    total = manifest.summary.seconds if whole else float(seconds.sum())
    stock = Stock(source.name, source.weight, clip_s, len(rows), total, int(stretches(seconds, clip_s).sum()))
    return Part(stock, rows, seconds)


def ages_for(name: str, manifest: Manifest, data: FootageConfig) -> Ages:
    """Ages of a source, all of them known.

    Raises:
        ManifestError: They are not all known, or not since birth where data.age_months asks for that.
    """
    asked = f"data.order {data.order}" if data.by_age else f"data.age_months {list(data.age_months or ())}"
    found = ages(manifest)
    if found.unknown:
        raise ManifestError(f"{asked} needs the age or the date of every recording; {found.unknown} of the {len(manifest)} "
                            f"videos of {name} have none: neither the manifest says it, nor a name such as "
                            "S_20130417_0626_01_segment12.mp4; python jobs/prepare.py manifest FOLDER --about "
                            "table.csv adds them (--set data.order=shuffled, data.age_months=null)")
    if data.age_months is not None and found.since != "birth":
        raise ManifestError(f"data.age_months {list(data.age_months)} needs ages since birth; the recordings of {name} have "
                            "dates only: their manifest needs a column age_months (--set data.age_months=null)")
    return found


def _drawn(source: SourceConfig, rows: np.ndarray, manifest: Manifest, index: int, seed: int) -> np.ndarray:
    """Rows that make up the hours of a source: the beginning of a drawn order, so more hours hold the fewer ones."""
    assert source.hours is not None
    has_hours = float(manifest.seconds[rows].sum()) / 3600
    if source.hours > has_hours + 1e-9:
        raise ManifestError(f"data.sources: {source.name}: hours is {source.hours:g}, allowed: up to {has_hours:.3f}, which "
                            "it has")
    draw = np.random.Generator(np.random.Philox(np.random.SeedSequence((_DRAW, seed, index))))
    order = np.sort(rows)[draw.permutation(len(rows))]
    ends = np.cumsum(manifest.seconds[order])
    return np.asarray(order[:int(np.searchsorted(ends, source.hours * 3600 - 1e-6)) + 1])


def _clip_s(source: SourceConfig, data: FootageConfig, num_frames: int) -> float:
    rate, fps = sampling_of(source, data)
    return num_frames * rate / fps


def joined(manifests: Sequence[Manifest]) -> Manifest:
    """Several manifests as one, row behind row; the totals are those of the first; classes may share numbers."""
    if len(manifests) == 1:
        return manifests[0]
    whole: dict[str, object] = {"summary": manifests[0].summary}
    for name in (f.name for f in fields(Manifest)):
        values = [getattr(manifest, name) for manifest in manifests]
        if name in _NAMED:
            texts = [getattr(manifest, _NAMED[name]) for manifest in manifests]
            names = list(dict.fromkeys(text for of_one in texts for text in of_one))
            places = [np.array([*map(names.index, of_one), -1], dtype=values[0].dtype) for of_one in texts]  # -1 stays -1
            whole[name] = np.concatenate([place[codes] for place, codes in zip(places, values, strict=True)])
            whole[_NAMED[name]] = tuple(names)
        elif name == "_path_ends":
            starts = np.cumsum([0, *(len(manifest._paths) for manifest in manifests)])
            whole[name] = np.concatenate([ends + start for ends, start in zip(values, starts[:-1], strict=True)])
        elif isinstance(values[0], np.ndarray):
            whole[name] = np.concatenate(values)
    return Manifest(**whole)  # type: ignore[arg-type]
