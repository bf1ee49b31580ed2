"""Benchmarks as they are unpacked from their archives, read as pairs. No torch; of IntPhys a few pictures are compared.

    intphys    FOLDER/O1/01/1/scene/*.png, FOLDER/O1/01/1/status.json     blocks O1 to O3, videos 1 to 4 of each scene
    intphys2   FOLDER/metadata.csv, and the videos that it names          FOLDER is Main or Debug
    grasp      FOLDER/P_NAME/*.mp4, FOLDER/IP_NAME/*.mp4                  FOLDER is level2
    inflevel   FOLDER/continuity.csv, gravity.csv, solidity.csv           and the videos that they name

None of these sets was at hand when this was written. The layouts are those that public code reads:

- intphys: `status.json` says `header.is_possible`; two of four videos are possible. Videos of a scene consist of the same
  frames in another order (Riochet et al. 2018, arXiv 1803.07616), so a possible one is paired with the impossible one that
  has the longer common beginning, as in the code of Garrido et al. 2025 (arXiv 2502.11831). The frame rate stands nowhere in
  the data. It is taken as 15: the benchmark's page says about 25 hours for 15,000 videos of 100 frames, which would be 17.
  Labels of the test set are not public; only `dev` can be read.
- intphys2: `SceneIndex`, `type` (1_Possible, 1_Impossible, 2_Possible, 2_Impossible), `condition`, `file_name`. Videos with
  the same number are a pair (Bordes et al. 2025, arXiv 2506.09849). Labels of HeldOut are not public.
- grasp: pairs are files of one name in P_NAME and IP_NAME, as in the code of Garrido et al. Whether files of one name show
  the same scene is not known to us, so no two pairs share one here. Source: Jassim et al. 2023 (arXiv 2311.09048).
- inflevel: `vid1_path`, `vid2_path`, `vid1_label` (possible or impossible), `vid1_end_priming_2`, `vid2_end_priming_2`: the
  tables that Garrido et al. made. What comes before the end of the second priming is left out. Where a pair differs by a few
  frames in length they align the ends of the videos; here both begin after the priming. Pairs with the same place of the
  camera, cover and object are one scene. The videos: Weihs et al. 2022.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from itertools import permutations
from pathlib import Path

import numpy as np

from vidmae.insight.surprise.pair_list import Pair, Place, files_of
from vidmae.settings.layers import ConfigError

LAYOUTS = ("intphys", "intphys2", "grasp", "inflevel")
INTPHYS_FPS = 15.0
BLOCKS = {"O1": "permanence", "O2": "shape", "O3": "continuity"}
"""Of IntPhys: object permanence, shape constancy, continuity in space and time."""
TYPES = ("1_Possible", "1_Impossible", "2_Possible", "2_Impossible")
INFLEVEL = ("continuity", "gravity", "solidity")


def read_layout(layout: str, folder: Path) -> tuple[list[Pair], list[str]]:
    """The pairs of an unpacked benchmark.

    Args:
        layout: One of LAYOUTS.
        folder: Where it lies.
    Returns:
        The pairs, and what was left out, in words without names of files.
    Raises:
        ConfigError: There is no such layout, or the folder is not in it; the message says what was expected.
    """
    readers = {"intphys": _intphys, "intphys2": _intphys2, "grasp": _grasp, "inflevel": _inflevel}
    if layout not in readers:
        raise ConfigError(f"--layout {layout!r} is unknown; known: {', '.join(LAYOUTS)}")
    if not folder.is_dir():
        raise ConfigError(f"--layout {layout}={folder}: there is no such folder")
    return readers[layout](folder)


def _intphys(folder: Path) -> tuple[list[Pair], list[str]]:
    blocks = [folder / name for name in BLOCKS if (folder / name).is_dir()]
    if not blocks:
        raise _other("intphys", folder, "folders O1, O2 or O3; it is the folder `dev` of the benchmark")
    pairs: list[Pair] = []
    for block in blocks:
        for scene in sorted(path for path in block.iterdir() if path.is_dir()):
            videos = {True: list[Place](), False: list[Place]()}
            for number in "1234":
                videos[_is_possible(scene / number, folder)].append(Place(str(scene / number / "scene"), fps=INTPHYS_FPS))
            if len(videos[True]) != 2:
                raise _other("intphys", folder, f"two possible videos in each scene; one of {block.name} has "
                                                f"{len(videos[True])}")
            pairs += [Pair(possible, impossible, BLOCKS[block.name], "intphys", f"{block.name}/{scene.name}")
                      for possible, impossible in _matched(videos[True], videos[False])]
    return pairs, []


def _is_possible(video: Path, folder: Path) -> bool:
    try:
        said = json.loads((video / "status.json").read_text(encoding="utf-8"))["header"]["is_possible"]
    except (OSError, ValueError, KeyError, TypeError):
        said = None
    if not isinstance(said, bool) or not (video / "scene").is_dir() or not files_of(Place(str(video / "scene"))):
        raise _other("intphys", folder, "in each scene folders 1 to 4, each with frames in `scene` and a status.json that "
                     "says header.is_possible; one lacks it (labels of the test set are not public)")
    return said


def _matched(possible: Sequence[Place], impossible: Sequence[Place]) -> list[tuple[Place, Place]]:
    """Each possible video with an impossible one, so that their common beginnings are as long as can be."""
    shared = {(p, q): _common_beginning(p, q) for p in possible for q in impossible}
    best = max(permutations(impossible), key=lambda order: sum(shared[pair] for pair in zip(possible, order, strict=True)))
    return list(zip(possible, best, strict=True))


def _common_beginning(one: Place, other: Place) -> int:
    frames = list(zip(files_of(one), files_of(other), strict=False))
    return next((i for i, pair in enumerate(frames) if not _same_picture(*pair)), len(frames))


def _same_picture(one: Path, other: Path) -> bool:
    from PIL import Image

    if one.read_bytes() == other.read_bytes():
        return True
    with Image.open(one) as first, Image.open(other) as second:
        return np.array_equal(np.asarray(first.convert("RGB")), np.asarray(second.convert("RGB")))


def _intphys2(folder: Path) -> tuple[list[Pair], list[str]]:
    rows = _table(folder / "metadata.csv", "intphys2", folder, ("SceneIndex", "type", "condition", "file_name"))
    scenes: dict[tuple[str, str], dict[str, Place]] = {}
    for row in rows:
        videos = scenes.setdefault((row["condition"], row["SceneIndex"]), {})
        if row["type"] not in TYPES or row["type"] in videos:
            raise _other("intphys2", folder, f"each type of {', '.join(TYPES)} once in a scene; there is {row['type']!r}, "
                                             "or one twice (labels of HeldOut are not public)")
        videos[row["type"]] = _video(folder, row["file_name"], "intphys2")
    pairs, left_out = list[Pair](), 0
    for (condition, scene), videos in scenes.items():
        for possible, impossible in (TYPES[:2], TYPES[2:]):
            if possible in videos and impossible in videos:
                pairs.append(Pair(videos[possible], videos[impossible], condition, "intphys2", scene))
            else:
                left_out += possible in videos or impossible in videos
    return _some(pairs, "intphys2", folder), [f"{left_out} videos have no partner in metadata.csv"] if left_out else []


def _grasp(folder: Path) -> tuple[list[Pair], list[str]]:
    pairs, alone = list[Pair](), list[str]()
    for possible in sorted(path for path in folder.glob("P_*") if path.is_dir()):
        concept = possible.name.removeprefix("P_")
        impossible = folder / f"IP_{concept}"
        names = {path.name for path in impossible.glob("*.mp4")} & {path.name for path in possible.glob("*.mp4")}
        if not names:
            alone.append(concept)
        pairs += [Pair(Place(str(possible / name)), Place(str(impossible / name)), concept, "grasp", f"{concept}/{name}")
                  for name in sorted(names)]
    said = [f"no pairs of {', '.join(alone)}: no files of one name in P_ and IP_"] if alone else []
    expected = "folders P_NAME and IP_NAME with files of one name; it is the folder `level2`"
    return _some(pairs, "grasp", folder, expected), said


def _inflevel(folder: Path) -> tuple[list[Pair], list[str]]:
    columns = ("vid1_path", "vid2_path", "vid1_label", "vid1_end_priming_2", "vid2_end_priming_2")
    tables = [name for name in INFLEVEL if (folder / f"{name}.csv").is_file()]
    if not tables:
        raise _other("inflevel", folder, f"at least one of the tables {', '.join(f'{name}.csv' for name in INFLEVEL)}, with "
                                         f"the columns {', '.join(columns)}")
    pairs: list[Pair] = []
    for concept in tables:
        for number, row in enumerate(_table(folder / f"{concept}.csv", "inflevel", folder, columns)):
            if row["vid1_label"] not in ("possible", "impossible") or not all(row[c].isdecimal() for c in columns[3:]):
                raise _other("inflevel", folder, "possible or impossible as vid1_label and whole numbers as ends of priming;"
                                                 f" row {number + 2} of {concept}.csv has others")
            videos = [_video(folder, row[f"vid{i}_path"], "inflevel", int(row[f"vid{i}_end_priming_2"]) + 1) for i in (1, 2)]
            if row["vid1_label"] == "impossible":
                videos.reverse()
            parts = Path(row["vid1_path"]).stem.split("__")  # camera, concept, cover, object, kind of trial, direction
            scene = "__".join((parts[0], parts[2], parts[3])) if len(parts) == 6 else f"row {number + 2}"
            pairs.append(Pair(videos[0], videos[1], concept, "inflevel", f"{concept}/{scene}"))
    return _some(pairs, "inflevel", folder), []


def _table(path: Path, layout: str, folder: Path, columns: Sequence[str]) -> list[dict[str, str]]:
    if not path.is_file():
        raise _other(layout, folder, f"the table {path.name}")
    with path.open(encoding="utf-8", newline="") as file:
        table = csv.DictReader(file)
        missing = [name for name in columns if name not in (table.fieldnames or ())]
        if missing:
            raise _other(layout, folder, f"the columns {', '.join(columns)} in {path.name}; {', '.join(missing)} is missing,"
                                         f" there are {', '.join(table.fieldnames or ())}")
        return [{name: (row[name] or "").strip() for name in columns} for row in table]


def _video(folder: Path, name: str, layout: str, start_frame: int = 0) -> Place:
    if not name or not (folder / name).is_file():
        raise _other(layout, folder, "every video that its table names; one is missing")
    return Place(str(folder / name), start_frame=start_frame)


def _some(pairs: list[Pair], layout: str, folder: Path, expected: str = "at least one pair") -> list[Pair]:
    if not pairs:
        raise _other(layout, folder, expected)
    return pairs


def _other(layout: str, folder: Path, expected: str) -> ConfigError:
    return ConfigError(f"--layout {layout}={folder} is not in this layout; expected: {expected}")
