"""The clips of a cell: those to learn from, those held out, those to be tested on."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vidmae.footage.manifest import COLUMNS, Manifest, ManifestError, read_rows
from vidmae.footage.open_video import ARCHIVE, DecodeError, open_video
from vidmae.labels.pooled_clips import pooled
from vidmae.labels.shots import draw_shots, hold_out, read_shots, rows_of
from vidmae.labels.splits import Labelled, check_apart, read_labelled, some_rows
from vidmae.settings.finetune_config import FinetuneConfig


@dataclass(frozen=True)
class CellData:
    """All clips of a cell.

    Attributes:
        train: To learn from.
        held_out: Kept back for select.rule holdout; empty for other rules.
        val: To be tested on.
        classes: Names of the classes in the order of their index.
    """

    train: Manifest
    held_out: Manifest
    val: Manifest
    classes: tuple[str, ...]


def read_cell_data(config: FinetuneConfig) -> CellData:
    """Read the manifests of a cell, and its k-shot subset or share: a file, so that all ranks have the same.

    Method cluster learns from no clip: what it has to learn from is empty.

    Raises:
        ManifestError: A manifest cannot be read, or the two share clips or count their classes differently.
        ShotsError: The subset cannot be used, or is too small to hold clips out of it.
    """
    path = Path(config.data.manifest)
    labelled, val = read_labelled(path), read_labelled(Path(config.data.val_manifest))
    check_apart(labelled, val)
    manifest = Manifest.read(path, decoder=config.data.decoder)
    rows_train, rows_held = _rows_to_learn_from(config, labelled)
    data = CellData(manifest.take(rows_train), manifest.take(rows_held),
                    Manifest.read(Path(config.data.val_manifest), decoder=config.data.decoder),
                    class_names(labelled.classes))
    if not config.data.archives:
        return data
    folder = Path(config.data.archives)
    return CellData(pooled(data.train, folder), pooled(data.held_out, folder), pooled(data.val, folder), data.classes)


def _rows_to_learn_from(config: FinetuneConfig, labelled: Labelled) -> tuple[np.ndarray, np.ndarray]:
    """Rows of the labelled manifest to learn from, and those that are held out."""
    none = np.array([], dtype=np.int64)
    if config.method == "cluster":
        return none, none
    if config.data.subset:
        learn = read_shots(Path(config.data.subset))
    else:
        (learn,) = draw_shots(labelled, [len(labelled)], config.seed, allow_fewer=True)
    if config.select.rule != "holdout":
        return rows_of(learn, labelled), none
    learn, held = hold_out(learn, config.select.holdout)
    return rows_of(learn, labelled), rows_of(held, labelled)


def check_files(config: FinetuneConfig, data: CellData) -> None:
    """Look whether the file of every clip is there and as large as its manifest says, before hours of training.

    Raises:
        ManifestError: Some are not; the message has row numbers (from 1), no file names.
    """
    if config.data.archives:
        clips = [part.path(row) for part in (data.train, data.held_out, data.val) for row in range(len(part))]
        if lost := sum(not _opens(clip) for clip in clips):
            raise ManifestError(f"{lost} of {len(clips)} clips are not in the archives of {config.data.archives} any more; "
                                "remove that folder, and the sweep's command with --retry prepares them again")
        return
    for path, parts in ((config.data.manifest, (data.train, data.held_out)), (config.data.val_manifest, (data.val,))):
        wanted = {part.path(row) for part in parts for row in range(len(part))}
        rows = enumerate(read_rows(Path(path))[1], 1)
        gone = [number for number, row in rows if row[0] in wanted and not _is_as_listed(row)]
        if gone:
            raise ManifestError(
                f"{len(gone)} of {len(wanted)} clips of {path} are not there any more, or are other files now: rows "
                f"{some_rows(gone)}; put them back, or make the manifest anew (python jobs/prepare.py manifest)")


def _is_as_listed(row: list[str]) -> bool:
    if row[COLUMNS.index("decoder")] == ARCHIVE:
        return _opens(row[0])
    try:
        return Path(row[0]).stat().st_size == int(row[COLUMNS.index("bytes")])
    except OSError:
        return False


def _opens(clip: str) -> bool:
    """Whether an archive holds a clip."""
    try:
        open_video(clip, ARCHIVE).close()
    except DecodeError:
        return False
    return True


def class_names(labels: tuple[str, ...]) -> tuple[str, ...]:
    """Names by class index; labels that are numbers are the indices themselves, and some may be missing."""
    if all(label.isdecimal() for label in labels):
        return tuple(map(str, range(max(map(int, labels)) + 1)))
    return labels
