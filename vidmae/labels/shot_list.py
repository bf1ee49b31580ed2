"""A k-shot subset from a list of `path, label` lines, such as the released 10- and 50-shot lists."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

from vidmae.footage.manifest import Source, find_sources
from vidmae.labels.shots import Shots, ShotsError, checked
from vidmae.labels.splits import Labelled, some


def listed_shots(labelled: Labelled, listing: Path, shots: int, *, allow_fewer: bool = False) -> Shots:
    """Find the clips of a list in a manifest.

    A label of the list is a class name or a class index. Where a path is not in the manifest, the file's name is looked for
    among the clips of the class: lists name the folders of other machines.

    Args:
        labelled: All clips, read with their paths.
        listing: The list.
        shots: k, which the list must hold of every class.
        allow_fewer: The list may hold fewer of a class.
    Raises:
        ManifestError: The list cannot be read.
        ShotsError: Clips are not in the manifest or could be several there, or the list has not k of a class.
    """
    sources = find_sources(listing)
    class_named = {label: _class_named(label, labelled) for label in {source.label for source in sources}}
    rows = defaultdict[tuple[str, str], list[int]](list)
    for row, (path, place) in enumerate(zip(labelled.paths, labelled.class_of.tolist(), strict=True)):
        rows[labelled.classes[place], _name(path)].append(row)
    found = [_contents(source, rows.get((class_named[source.label], _name(source.path)), []), labelled)
             for source in sources]
    missing = [_name(source.path) for source, contents in zip(sources, found, strict=True) if not contents]
    ambiguous = sum(len(contents) > 1 for contents in found)
    if missing or ambiguous:
        names = {name for _, name in rows}
        raise ShotsError(f"of {len(sources)} clips of {listing}, {len(missing)} are not in {labelled.path} in their class "
                         f"({sum(name in names for name in missing)} are in another: are the classes in the same order?) "
                         f"and {ambiguous} could be one of several clips; change --shot-list, or make the manifest anew")
    clips: dict[str, dict[str, None]] = {label: {} for label in labelled.classes}
    for source, contents in zip(sources, found, strict=True):
        clips[class_named[source.label]][contents.pop()] = None
    over = [f"{label} ({len(contents)})" for label, contents in clips.items() if len(contents) > shots]
    if over:
        raise ShotsError(f"{len(over)} classes have more than {shots} clips in {listing}: {some(over)}; change --shots")
    return checked(Shots(shots, None, labelled.summary.content_sha256, {label: list(c) for label, c in clips.items()}),
                   allow_fewer=allow_fewer)


def _contents(source: Source, rows: list[int], labelled: Labelled) -> set[str]:
    """The contents that a line of the list can mean, of the rows that have its class and the file's name."""
    exact = [row for row in rows if labelled.paths[row] == source.path]
    return {f"{labelled.contents[row]:016x}" for row in exact or rows}


def _class_named(label: str, labelled: Labelled) -> str:
    numbered = all(name.isdecimal() for name in labelled.classes)
    is_index = not numbered and label.isdecimal() and int(label) < len(labelled.classes)
    return labelled.classes[int(label)] if is_index and label not in labelled.classes else label


def _name(path: str) -> str:
    return path.rpartition("/")[2]
