"""Names of classes that are numbered: a file of WordNet ids with their names, as it comes with ImageNet.

    n01440764 tench, Tinca tinca       an id, then blanks or a tab, then its names
    n01443537 goldfish, Carassius auratus

The label of a class becomes the id and the first name, `n01440764 tench`. All ids are equally long, so classes stand in the
order of the ids, and class numbers stay those of the models that were trained on ImageNet's folders.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from vidmae.footage.manifest import ManifestError, Source
from vidmae.labels.splits import some

_LINE = re.compile(r"(n\d{8})[\s,]+(\S.*)")


def read_synsets(path: Path) -> dict[str, str]:
    """WordNet id to its names, in the order of the ids.

    Raises:
        ManifestError: The file cannot be read, a line is of another form, or an id stands twice.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ManifestError(f"cannot read {path}: {getattr(error, 'strerror', None) or error} (--class-names)") from error
    names: dict[str, str] = {}
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        if not (match := _LINE.fullmatch(line.strip())):
            raise ManifestError(f"{path}:{number} is not a WordNet id and its names, such as `n01440764 tench, Tinca tinca` "
                                "(--class-names)")
        if names.setdefault(match[1], match[2]) != match[2]:
            raise ManifestError(f"{path}:{number}: {match[1]} stands there before, with another name (--class-names)")
    if not names:
        raise ManifestError(f"{path} is empty (--class-names)")
    return dict(sorted(names.items()))


def name_classes(sources: Sequence[Source], names: Mapping[str, str]) -> list[Source]:
    """Sources with `ID NAME` for a label that is an id.

    Labels that are numbers are places among the sorted ids, from 0, as in lists such as Caffe's val.txt: where the file has
    as many ids as there are different labels.

    Args:
        sources: With ids or numbers as labels.
        names: From `read_synsets`.
    Raises:
        ManifestError: A label is neither.
    """
    labels, ids = {source.label for source in sources}, list(names)
    numbered = all(label.isdecimal() for label in labels)
    if numbered and {int(label) for label in labels} != set(range(len(ids))):
        raise ManifestError(f"labels are {len(labels)} numbers, and --class-names has {len(ids)} ids: they can only be "
                            f"joined where the numbers are 0 to {len(ids) - 1}, each of them")
    of_label = {label: ids[int(label)] if numbered else label for label in labels}
    if unknown := sorted(label for label, id_ in of_label.items() if id_ not in names):
        raise ManifestError(f"{len(unknown)} of {len(labels)} classes are not in --class-names: {some(unknown)}")
    called = {label: f"{id_} {names[id_].partition(',')[0].strip()}" for label, id_ in of_label.items()}
    return [replace(source, label=called[source.label]) for source in sources]
