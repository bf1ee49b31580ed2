"""The labelled data sets of a sweep and their subsets, k shots or shares: found, checked, drawn where they are missing.

A data set NAME is labelled where NAME and NAME-val both have a manifest with classes.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from jobs.place.catalogue import MANIFESTS, Catalogue, find_data, read_catalogue
from sweeps.grid.grid import LabelledSet, Subset
from vidmae.footage.manifest import ManifestError, Summary, read_summary
from vidmae.labels.shot_list import listed_shots
from vidmae.labels.shots import (
    Shots,
    ShotsError,
    checked,
    draw_fractions,
    draw_shots,
    read_shots,
    shots_path,
    write_shots,
)
from vidmae.labels.splits import Labelled, check_apart, read_labelled
from vidmae.runs.record import read_json, write_json
from vidmae.settings.layers import ConfigError

Amount = int | float
"""Clips per class, a whole number, or a share of each class, a fraction."""
VAL = "-val"
SCHEMA = 1
HOW = "python jobs/prepare.py manifest FOLDER --labels folders --name NAME, and the same with NAME-val"


def find_sets(given: Sequence[str], known: Catalogue) -> list[LabelledSet]:
    """The labelled data sets that --data names, or all.

    Args:
        given: Names, manifests (.csv; the validation set is NAME-val.csv beside it) and catalogues (.yaml).
        known: Catalogues of the cluster profile and of VIDMAE_DATA.
    Raises:
        ConfigError: A data set is not known or not labelled, or there is none.
    """
    catalogues = [Path(item).expanduser() for item in given if item.endswith((".yaml", ".yml"))]
    for path in catalogues:
        known |= read_catalogue(path)
    names = [item for item in given if not item.endswith((".yaml", ".yml"))]
    if names:
        return [_find(name, known) for name in dict.fromkeys(names)]
    found = []
    for name in sorted({*known.entries, *(path.stem for path in MANIFESTS.glob("*.csv"))}):
        if not name.endswith(VAL):
            with contextlib.suppress(ConfigError):  # without labels, or without a validation set
                found.append(_find(name, known))
    if not found:
        raise ConfigError(f"no labelled data set is known: NAME and NAME-val must both have a manifest with labels, in "
                          f"{MANIFESTS}/ or in a catalogue (--data, VIDMAE_DATA, the profile's data:). Make them: {HOW}")
    return found


def one_form_each(sets: Sequence[LabelledSet]) -> tuple[list[LabelledSet], list[str]]:
    """Of footage that is there as it is and as `prepare.py footage` made it only the latter, and a line for each choice.

    Raises:
        ConfigError: There are several prepared forms of the same footage.
    """
    forms: dict[tuple[str, ...], list[LabelledSet]] = {}
    for data in sets:
        forms.setdefault(data.prepared_of or (data.content, data.val_content), []).append(data)
    kept, said = [], []
    for same in forms.values():
        ready = [data for data in same if data.prepared]
        if len(ready) > 1:
            raise ConfigError(f"{', '.join(data.name for data in same)} are the same clips in several forms, and each would "
                              "have cells of its own; name the ones that are meant (--data)")
        kept += ready or same
        said += [f"{ready[0].name} is the prepared form of {data.name} and is taken in its place (--data {data.name} takes "
                 "the files)" for data in same if ready and data is not ready[0]]
    return kept, said


def _find(name: str, known: Catalogue) -> LabelledSet:
    path = Path(name).expanduser()
    if path.suffix == ".csv":
        name, files = path.stem, (path.absolute(), path.absolute().with_name(f"{path.stem}{VAL}.csv"))
        train = _summary(files[0])
    else:
        manifest = find_data(None, name, known).manifest
        train = _summary(manifest)  # what is wrong with NAME comes first: without labels it needs no NAME-val
        try:
            files = (manifest, find_data(None, name + VAL, known).manifest)
        except ConfigError as error:
            raise ConfigError(f"{name} has labels and no validation set beside it: {error}; with labels: {HOW}") from error
    val = _summary(files[1])
    costs = (train.clip_cost or {}).get("ms_per_clip", {})
    of = tuple(str((summary.prepared or {}).get("of_content_sha256", "")) for summary in (train, val))
    return LabelledSet(name, *files, train.content_sha256, val.content_sha256, train.videos, val.videos, train.classes,
                       train.pictures, float(costs.get("1", 0.0)), train.prepared is not None, of if any(of) else None)


def _summary(manifest: Path) -> Summary:
    try:
        summary = read_summary(manifest)
    except ManifestError as error:
        raise ConfigError(str(error)) from error
    if not summary.classes:
        raise ConfigError(f"{manifest} has no labels; make it again with labels: {HOW}")
    return summary


@dataclass
class Source:
    """A labelled data set whose rows are read when they are needed.

    Attributes:
        data: The data set.
        write: Whether files may be written: subsets, and the verdict that the two manifests are apart.
    """

    data: LabelledSet
    write: bool

    @cached_property
    def train(self) -> Labelled:
        """Rows to learn from."""
        return read_labelled(self.data.manifest)

    def check_apart(self) -> None:
        """Refuse recordings that are in both manifests; a verdict is kept beside the first and holds for equal contents.

        Raises:
            ManifestError: There are some, or the classes differ.
        """
        path = self.data.manifest.with_name(f"{self.data.manifest.stem}.apart.json")
        verdict = {"schema": SCHEMA, "content_sha256": self.data.content, "val_content_sha256": self.data.val_content}
        try:
            if read_json(path) == verdict:
                return
        except ValueError:
            pass  # damaged: judged and written anew
        check_apart(self.train, read_labelled(self.data.val_manifest))
        if self.write:
            with contextlib.suppress(OSError):  # a folder of others: judged again next time
                write_json(path, verdict)

    def all_clips(self, seed: int) -> Subset:
        """Every clip."""
        return Subset(self.data, 0, seed, "", self.data.content, self.data.videos)

    def drawn(self, amounts: Sequence[Amount], seed: int, *, allow_fewer: bool) -> list[Subset]:
        """The subsets of one seed; those that are missing are drawn.

        Args:
            amounts: k of k shots, or a share of each class.
            seed: Of the draw.
            allow_fewer: Take what there is of classes with fewer clips than shots.
        Raises:
            ShotsError: A class has too few clips, or a subset is damaged or of an earlier state of the manifest.
        """
        there = {amount: self._read(amount, seed, allow_fewer) for amount in amounts}
        for subset in self._draw([amount for amount in amounts if there[amount] is None], seed, allow_fewer):
            there[subset.fraction or subset.shots] = subset
            if self.write:
                write_shots(self._path(subset), subset)
        return [self._subset(subset, seed) for subset in there.values() if subset]

    def _draw(self, amounts: Sequence[Amount], seed: int, allow_fewer: bool) -> list[Shots]:
        shares = [amount for amount in amounts if isinstance(amount, float)]
        shots = [amount for amount in amounts if isinstance(amount, int)]
        return [*(draw_fractions(self.train, shares, seed) if shares else ()),
                *(draw_shots(self.train, shots, seed, allow_fewer=allow_fewer) if shots else ())]

    def listed(self, listing: Path, shots: int, seeds: Sequence[int], *, allow_fewer: bool) -> list[Subset]:
        """The subset that a list names, for every seed of the training.

        Raises:
            ShotsError: The list does not fit the manifest.
        """
        subset = listed_shots(read_labelled(self.data.manifest, paths=True), listing, shots, allow_fewer=allow_fewer)
        if self.write:
            write_shots(shots_path(self.data.manifest, shots, None), subset)
        return [self._subset(subset, seed) for seed in seeds]

    def _path(self, subset: Shots) -> Path:
        return shots_path(self.data.manifest, subset.shots, subset.seed, subset.fraction)

    def _read(self, amount: Amount, seed: int, allow_fewer: bool) -> Shots | None:
        shots, fraction = (0, amount) if isinstance(amount, float) else (amount, 0.0)
        path = shots_path(self.data.manifest, shots, seed, fraction)
        if not path.exists():
            return None
        subset = read_shots(path)
        if (subset.shots, subset.seed, subset.fraction) != (shots, seed, fraction):
            raise ShotsError(f"{path} holds {subset.amount} of seed {subset.seed}; delete it, and it is drawn anew")
        if subset.manifest_sha256 != self.data.content:
            (now,) = self._draw([amount], seed, allow_fewer)
            if now.content_sha256 != subset.content_sha256:
                raise ShotsError(f"{path} was drawn from an earlier state of {self.data.manifest.name}, and other clips "
                                 "would be drawn now; delete it to draw anew (its cells are other cells then), or use "
                                 "--data with the old manifest")
        return subset if subset.fraction else checked(subset, allow_fewer=allow_fewer)

    def _subset(self, subset: Shots, seed: int) -> Subset:
        return Subset(self.data, subset.shots, seed, str(self._path(subset)), subset.content_sha256, len(subset),
                      subset.fraction)


def _is_all(amount: Amount) -> bool:
    return amount == (1.0 if isinstance(amount, float) else 0)


def find_subsets(sets: Sequence[LabelledSet], shots: Sequence[Amount], seeds: Sequence[int], *, listing: Path | None,
                 allow_fewer: bool, write: bool) -> list[Subset]:
    """The subsets of all data sets; they are written where they are missing.

    Args:
        sets: From `find_sets`.
        shots: Clips per class, 0 is all; or shares of each class, 1.0 is all.
        seeds: One draw and one training each.
        listing: A list that names the clips, in place of draws.
        allow_fewer: Take what there is of classes with fewer clips.
        write: False in a dry run.
    Raises:
        ConfigError: A list is given for several data sets or several numbers of shots.
        ManifestError: Training and validation clips overlap, or a manifest cannot be read.
        ShotsError: A subset cannot be made or used.
    """
    if listing and (len(sets) != 1 or len(shots) != 1 or not shots[0] or isinstance(shots[0], float)):
        raise ConfigError(f"--shot-list names the clips of one data set and one k; here are {len(sets)} data sets (--data) "
                          f"and {len(shots)} numbers of shots (--shots)")
    found: list[Subset] = []
    for data in sets:
        source = Source(data, write)
        source.check_apart()
        if listing:
            found += source.listed(listing, int(shots[0]), seeds, allow_fewer=allow_fewer)
            continue
        for seed in seeds:
            found += [source.all_clips(seed)] if any(map(_is_all, shots)) else []
            found += source.drawn([amount for amount in shots if not _is_all(amount)], seed, allow_fewer=allow_fewer)
    return found
