"""Where the labels of videos come from: class folders, Something-Something's own label files, or lists.

    /data/k700/train/riding a bike/x.mp4        label_folders: the folder's name is the class
    session-1/0007_cop_dnn_c30_knife_10_x.png   label_names: the fifth word of the file's name (model-vs-human)
    something-something-v2-train.json           the videos are ROOT/ID.webm, the class is made from `template` (else `label`)
    train.csv with `path, label`                vidmae/footage/manifest.py

Class index = rank of the name in the order of Python's strings (`manifest_columns.class_table`). The released models were
trained on class folders of Something-Something that keep the brackets of the template and drop its commas. That order is not
the one of the official labels.json, which has no brackets: `[Something] falling like a rock` is class 173 there and here,
and 135 in labels.json.
"""

from __future__ import annotations

import json
from collections.abc import Collection
from pathlib import Path
from typing import Any

from vidmae.footage.manifest import ManifestError, Source, Summary, find_sources
from vidmae.footage.video_list import EXTENSIONS
from vidmae.labels.splits import some

CLASS_WORD = 4  # of a name of model-vs-human, between underscores, from 0
KNOWN_COUNTS: dict[str, tuple[int, int | None]] = {
    "ssv2": (174, 168_913), "ssv2-val": (174, 24_777),
    "kinetics": (700, None), "kinetics-val": (700, 33_960), "kinetics-200h": (700, None),
    "imagenet": (1000, 1_281_167), "imagenet-val": (1000, 50_000),
}
"""Name of a data set to its classes, and its videos where that is one number (training clips of Kinetics vanish)."""


def find_labelled(source: Path, root: Path | None = None, *, label_folders: bool = False, label_names: bool = False,
                  extensions: Collection[str] = EXTENSIONS) -> list[Source]:
    """The videos of a folder, a list, a label file of Something-Something (.json) or one video, with their labels.

    Args:
        source: See `manifest.find_sources`; or the json file.
        root: What relative paths of a list are relative to, and where the videos of a label file lie, at any depth;
            default is the folder of the list.
        label_folders: Every folder in `source` is a class that holds its videos.
        label_names: The files are called NUMBER_EXPERIMENT_OBSERVER_CONDITION_CLASS_MORE, at any depth.
        extensions: EXTENSIONS, or PICTURES of video_list.py: pictures in place of videos.
    Raises:
        ManifestError: The source does not exist, cannot be read or is laid out in another way.
    """
    if label_folders:
        return _by_folder(source, extensions)
    if label_names:
        return _by_name(source, extensions)
    if source.suffix.lower() == ".json":
        return _by_label_file(source, root or source.parent)
    return find_sources(source, root, extensions)


def _by_folder(source: Path, extensions: Collection[str]) -> list[Source]:
    if not source.is_dir():
        raise ManifestError(f"--labels folders needs a folder of class folders, {source} is none")
    found = find_sources(source, extensions=extensions)
    parts = [Path(video.path).relative_to(source.absolute()).parts for video in found]
    odd = sum(len(p) != 2 for p in parts)
    if odd:
        raise ManifestError(f"{odd} of {len(found)} files are not at {source}/CLASS/FILE, as --labels folders wants it; "
                            f"give the folder that holds the class folders, such as {source}/train")
    full = {p[0] for p in parts}
    empty = sorted(each.name for each in source.iterdir() if each.is_dir() and each.name not in full and each.name[0] != ".")
    if empty:
        raise ManifestError(f"{len(empty)} of {len(full) + len(empty)} class folders in {source} hold no file that ends in "
                            f"{' '.join(sorted(extensions))}: {some(empty)}; a class number is the rank of a name, so fill "
                            "them, or delete them if they are no classes")
    return [Source(video.path, p[0]) for video, p in zip(found, parts, strict=True)]


def _by_name(source: Path, extensions: Collection[str]) -> list[Source]:
    found = find_sources(source, extensions=extensions)
    words = [Path(video.path).stem.split("_") for video in found]
    odd = sum(len(parts) < CLASS_WORD + 2 for parts in words)
    if odd:
        raise ManifestError(f"{odd} of {len(found)} files in {source} are not called "
                            "NUMBER_EXPERIMENT_OBSERVER_CONDITION_CLASS_MORE, as --labels names wants it")
    return [Source(video.path, parts[CLASS_WORD]) for video, parts in zip(found, words, strict=True)]


def _by_label_file(path: Path, root: Path) -> list[Source]:
    try:
        entries = json.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise ManifestError(f"cannot read {path}: {error.strerror}") from error
    except ValueError as error:
        raise ManifestError(f"{path} is no JSON file: {error}") from error
    if not isinstance(entries, list) or not entries:
        raise ManifestError(f"{path} is not a list of videos with `id` and `template`, as in "
                            "something-something-v2-train.json and -validation.json")
    labels = dict(_label(entry, f"{path}: entry {i}") for i, entry in enumerate(entries, 1))
    if len(labels) != len(entries):
        raise ManifestError(f"{path} lists {len(entries) - len(labels)} of {len(entries)} ids twice")
    found = [video for video in find_sources(root) if Path(video.path).stem in labels]
    files = {Path(video.path).stem: video.path for video in found}
    if len(files) != len(found):
        raise ManifestError(f"{len(found) - len(files)} videos in {root} have the id of another one there (in a second "
                            "format?); set --root to a folder that has one of each")
    if not files:
        raise ManifestError(f"none of the {len(labels)} videos of {path} is in {root}, as ID.webm; set --root")
    # those without a file are listed as unreadable, like those of any list
    return [Source(files.get(name, str(root.absolute() / f"{name}.webm")), label) for name, label in labels.items()]


def _label(entry: Any, place: str) -> tuple[str, str]:
    name = entry.get("id") if isinstance(entry, dict) else None
    words = entry.get("template", entry.get("label")) if isinstance(entry, dict) else None
    if not isinstance(name, str | int) or not isinstance(words, str) or not words.strip():
        raise ManifestError(f"{place} has not both `id` and `template` (the official test file has no labels)")
    return str(name), class_of_template(words)


def class_of_template(template: str) -> str:
    """The class folder of the released models: `Removing [something], revealing [something] behind` without the comma."""
    return " ".join(template.replace(",", "").split())


def count_note(name: str, summary: Summary) -> str | None:
    """What differs between a manifest and the data set that its name stands for; None where nothing does, or is not known.

    Args:
        name: Of the data set, such as `ssv2-val`; see KNOWN_COUNTS.
        summary: The manifest's totals; one without labels is judged by its videos only.
    """
    classes, videos = KNOWN_COUNTS.get(name.lower().replace("_", "-"), (None, None))
    wrong = []
    if classes and summary.classes and summary.classes != classes:
        wrong.append(f"{summary.classes} classes, not {classes}: class numbers differ from those of released models")
    if videos and summary.videos != videos:
        wrong.append(f"{summary.videos} {'pictures' if summary.pictures else 'videos'}, not {videos}")
    return f"{name} has {'; '.join(wrong)}" if wrong else None

