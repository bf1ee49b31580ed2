"""The labelled data sets of a sweep and their k-shot subsets: found in the catalogue, checked, drawn where they are missing.

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
from vidmae.labels.shots import Shots, ShotsError, checked, draw_shots, read_shots, shots_path, write_shots
from vidmae.labels.splits import Labelled, check_apart, read_labelled
from vidmae.runs.record import read_json, write_json
from vidmae.settings.layers import ConfigError

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


def _find(name: str, known: Catalogue) -> LabelledSet:
    path = Path(name).expanduser()
    if path.suffix == ".csv":
        name, files = path.stem, (path.absolute(), path.absolute().with_name(f"{path.stem}{VAL}.csv"))
    else:
        files = (find_data(None, name, known).manifest, find_data(None, name + VAL, known).manifest)
    train, val = (_summary(file) for file in files)
    return LabelledSet(name, *files, train.content_sha256, val.content_sha256, train.videos, val.videos, train.classes)


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

    def drawn(self, shots: Sequence[int], seed: int, *, allow_fewer: bool) -> list[Subset]:
        """The subsets of one seed; those that are missing are drawn.

        Raises:
            ShotsError: A class has too few clips, or a subset is damaged or of an earlier state of the manifest.
        """
        there = {k: self._read(k, seed, allow_fewer) for k in shots}
        missing = [k for k in shots if there[k] is None]
        if missing:
            for subset in draw_shots(self.train, missing, seed, allow_fewer=allow_fewer):
                there[subset.shots] = subset
                if self.write:
                    write_shots(shots_path(self.data.manifest, subset.shots, seed), subset)
        return [self._subset(subset, seed) for subset in there.values() if subset]

    def listed(self, listing: Path, shots: int, seeds: Sequence[int], *, allow_fewer: bool) -> list[Subset]:
        """The subset that a list names, for every seed of the training.

        Raises:
            ShotsError: The list does not fit the manifest.
        """
        subset = listed_shots(read_labelled(self.data.manifest, paths=True), listing, shots, allow_fewer=allow_fewer)
        if self.write:
            write_shots(shots_path(self.data.manifest, shots, None), subset)
        return [self._subset(subset, seed) for seed in seeds]

    def _read(self, shots: int, seed: int, allow_fewer: bool) -> Shots | None:
        path = shots_path(self.data.manifest, shots, seed)
        if not path.exists():
            return None
        subset = read_shots(path)
        if (subset.shots, subset.seed) != (shots, seed):
            raise ShotsError(f"{path} holds {subset.shots} shots of seed {subset.seed}; delete it, and it is drawn anew")
        if subset.manifest_sha256 != self.data.content:
            (now,) = draw_shots(self.train, [shots], seed, allow_fewer=allow_fewer)
            if now.content_sha256 != subset.content_sha256:
                raise ShotsError(f"{path} was drawn from an earlier state of {self.data.manifest.name}, and other clips "
                                 "would be drawn now; delete it to draw anew (its cells are other cells then), or use "
                                 "--data with the old manifest")
        return checked(subset, allow_fewer=allow_fewer)

    def _subset(self, subset: Shots, seed: int) -> Subset:
        path = shots_path(self.data.manifest, subset.shots, subset.seed)
        return Subset(self.data, subset.shots, seed, str(path), subset.content_sha256, len(subset))


def find_subsets(sets: Sequence[LabelledSet], shots: Sequence[int], seeds: Sequence[int], *, listing: Path | None,
                 allow_fewer: bool, write: bool) -> list[Subset]:
    """The subsets of all data sets; they are written where they are missing.

    Args:
        sets: From `find_sets`.
        shots: Clips per class; 0 is all.
        seeds: One draw and one training each.
        listing: A list that names the clips, in place of draws.
        allow_fewer: Take what there is of classes with fewer clips.
        write: False in a dry run.
    Raises:
        ConfigError: A list is given for several data sets or several numbers of shots.
        ManifestError: Training and validation clips overlap, or a manifest cannot be read.
        ShotsError: A subset cannot be made or used.
    """
    if listing and (len(sets) != 1 or len(shots) != 1 or not shots[0]):
        raise ConfigError(f"--shot-list names the clips of one data set and one k; here are {len(sets)} data sets (--data) "
                          f"and {len(shots)} numbers of shots (--shots)")
    found: list[Subset] = []
    for data in sets:
        source = Source(data, write)
        source.check_apart()
        if listing:
            found += source.listed(listing, shots[0], seeds, allow_fewer=allow_fewer)
            continue
        for seed in seeds:
            found += [source.all_clips(seed)] if 0 in shots else []
            found += source.drawn([k for k in shots if k], seed, allow_fewer=allow_fewer)
    return found
