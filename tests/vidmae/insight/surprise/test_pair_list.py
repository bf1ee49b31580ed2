"""Lists of pairs, and benchmarks as they are unpacked, in tiny folders."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vidmae.insight.surprise.benchmark_layouts import LAYOUTS, read_layout
from vidmae.insight.surprise.pair_list import Place, content_of, files_of, read_pairs, videos_of, write_pairs
from vidmae.settings.layers import ConfigError


def touch(path: Path, text: str = "x") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def listed(folder: Path, *lines: str, columns: str = "possible,impossible,concept,set") -> Path:
    for name in ("a.mp4", "b.mp4", "c.mp4"):
        touch(folder / name, name)
    return touch(folder / "pairs.csv", "\n".join([columns, *lines]) + "\n")


def test_a_list_is_read_and_written_and_read_again(tmp_path):
    touch(tmp_path / "frames/2.png"), touch(tmp_path / "frames/10.png"), touch(tmp_path / "frames/notes.txt")
    path = listed(tmp_path, "a.mp4,b.mp4,permanence,mine,7,1.25,,3,", "c.mp4,frames,shape,,,,,,29.97002997",
                  columns="possible,impossible,concept,set,scene,start_s,possible_start_frame,impossible_start_frame,fps")
    first, second = pairs = read_pairs(path)
    assert first.possible == Place(str(tmp_path / "a.mp4"), 1.25, 0) and first.impossible == Place(str(tmp_path / "b.mp4"), 1.25, 3)
    assert (first.scene, second.scene, second.dataset) == ("7", "line 3", "")
    assert second.impossible.fps == 29.97002997 and second.possible.fps == 0, "a file says it itself"
    assert [p.name for p in files_of(second.impossible)] == ["2.png", "10.png"]
    assert len(videos_of([*pairs, *pairs])) == 4
    write_pairs(tmp_path / "elsewhere.csv", pairs)
    (tmp_path / "sub").mkdir()
    (tmp_path / "elsewhere.csv").rename(tmp_path / "sub/pairs.csv")
    again = read_pairs(tmp_path / "sub/pairs.csv")
    assert again == pairs and content_of(again) == content_of(pairs)


def test_a_changed_video_changes_the_hash(tmp_path):
    pairs = read_pairs(listed(tmp_path, "a.mp4,b.mp4,x,y"))
    before = content_of(pairs)
    touch(tmp_path / "b.mp4", "longer than before")
    assert content_of(pairs) != before


@pytest.mark.parametrize(("columns", "line", "message"), [
    ("possible,impossible,set", "a.mp4,b.mp4,y", "'concept' is missing.*Needed: possible, impossible, concept, set"),
    ("possible,impossible,concept,set,colour", "a.mp4,b.mp4,x,y,red", "'colour' is unknown"),
    ("possible,impossible,concept,set", "a.mp4,b.mp4,x", "line 2 has another number of cells"),
    ("possible,impossible,concept,set", "a.mp4,no.mp4,x,y", "line 2, impossible: there is no such file"),
    ("possible,impossible,concept,set", "a.mp4,a.mp4,x,y", "line 2: both videos of the pair are the same"),
    ("possible,impossible,concept,set", "a.mp4,b.mp4,all,y", "the concept is 'all'"),
    ("possible,impossible,concept,set", ".,b.mp4,x,y", "is a folder of frames.*'fps'"),
    ("possible,impossible,concept,set,fps", ".,b.mp4,x,y,15", "without pictures"),
    ("possible,impossible,concept,set,start_s", "a.mp4,b.mp4,x,y,-1", "start_s is '-1', allowed: a number, 0 or more"),
    ("possible,impossible,concept,set,possible_start_frame", "a.mp4,b.mp4,x,y,1.5", "allowed: a whole number"),
])
def test_what_cannot_be_used_is_said_without_names(tmp_path, columns, line, message):
    with pytest.raises(ConfigError, match=message) as error:
        read_pairs(listed(tmp_path, line, columns=columns))
    assert "no.mp4" not in str(error.value) and "a.mp4" not in str(error.value)


def test_an_empty_list_and_a_missing_one(tmp_path):
    with pytest.raises(ConfigError, match="lists no pair"):
        read_pairs(listed(tmp_path))
    with pytest.raises(ConfigError, match="cannot be read: No such file"):
        read_pairs(tmp_path / "none.csv")


def make_intphys(folder: Path, block: str, scene: str, possible: str, parts: dict[str, tuple[int, int]]) -> None:
    """Four videos of four frames; `parts` says with which of two pictures each begins and ends."""
    for number, (begins, ends) in parts.items():
        video = folder / block / scene / number
        (video / "scene").mkdir(parents=True)
        for t in range(4):
            colour = 40 * (begins if t < 2 else ends) + t
            Image.fromarray(np.full((4, 4, 3), colour, dtype=np.uint8)).save(video / f"scene/scene_{t + 1:03d}.png",
                                                                             compress_level=int(number))
        (video / "status.json").write_text(json.dumps({"header": {"is_possible": number in possible}, "frames": []}))


def test_intphys(tmp_path):
    make_intphys(tmp_path, "O1", "01", "14", {"1": (0, 0), "2": (1, 0), "3": (0, 1), "4": (1, 1)})
    make_intphys(tmp_path, "O3", "02", "23", {"1": (1, 0), "2": (0, 0), "3": (1, 1), "4": (0, 1)})
    pairs, left_out = read_layout("intphys", tmp_path)
    found = [(p.concept, p.scene, *(Path(v.path).parent.name for v in (p.possible, p.impossible))) for p in pairs]
    assert found == [("permanence", "O1/01", "1", "3"), ("permanence", "O1/01", "4", "2"), ("continuity", "O3/02", "2", "4"),
                     ("continuity", "O3/02", "3", "1")] and not left_out
    assert pairs[0].possible.fps == 15 and pairs[0].dataset == "intphys"
    write_pairs(tmp_path / "pairs.csv", pairs)
    assert read_pairs(tmp_path / "pairs.csv") == pairs
    (tmp_path / "O1/01/1/status.json").write_text('{"header": {}}')
    with pytest.raises(ConfigError, match=r"header\.is_possible.*labels of the test set are not public"):
        read_layout("intphys", tmp_path)
    (tmp_path / "O1/01/1/status.json").write_text('{"header": {"is_possible": false}}')
    with pytest.raises(ConfigError, match="two possible videos in each scene; one of O1 has 1"):
        read_layout("intphys", tmp_path)


def test_intphys2(tmp_path):
    rows = ["SceneIndex,name,type,Difficulty,condition,Camera,env,file_name"]
    for scene, condition in (("124", "solidity"), ("124_0", "solidity"), ("7", "permanence")):
        for kind in ("1_Possible", "1_Impossible", "2_Possible", "2_Impossible"):
            name = touch(tmp_path / f"Videos/{scene}_{kind}.mp4").relative_to(tmp_path)
            rows.append(f"{scene},n,{kind},Easy,{condition},static,room,{name}")
    touch(tmp_path / "metadata.csv", "\n".join(rows[:-1]) + "\n")
    pairs, left_out = read_layout("intphys2", tmp_path)
    assert [(p.concept, p.scene, Path(p.possible.path).stem, Path(p.impossible.path).stem) for p in pairs][2:] == [
        ("solidity", "124_0", "124_0_1_Possible", "124_0_1_Impossible"), ("solidity", "124_0", "124_0_2_Possible", "124_0_2_Impossible"),
        ("permanence", "7", "7_1_Possible", "7_1_Impossible")]
    assert left_out == ["1 videos have no partner in metadata.csv"]
    touch(tmp_path / "metadata.csv", rows[0] + "\n" + rows[1].replace("1_Possible,", "unknown,") + "\n")
    with pytest.raises(ConfigError, match="there is 'unknown'"):
        read_layout("intphys2", tmp_path)
    touch(tmp_path / "metadata.csv", "SceneIndex,name,file_name\n1,a,b\n")
    with pytest.raises(ConfigError, match="type, condition is missing, there are SceneIndex, name, file_name"):
        read_layout("intphys2", tmp_path)


def test_grasp(tmp_path):
    for folder, names in (("P_Collision", "123"), ("IP_Collision", "234"), ("P_Alone", "1"), ("ShapeCube", "1")):
        for name in names:
            touch(tmp_path / folder / f"{name}.mp4")
    pairs, left_out = read_layout("grasp", tmp_path)
    assert [(p.concept, Path(p.possible.path).parts[-2:], Path(p.impossible.path).parts[-2:]) for p in pairs] == [
        ("Collision", ("P_Collision", f"{n}.mp4"), ("IP_Collision", f"{n}.mp4")) for n in "23"]
    assert left_out == ["no pairs of Alone: no files of one name in P_ and IP_"]


def test_inflevel(tmp_path):
    names = {kind: f"continuity/center__continuity__cup__duck__{kind}__LR.mp4" for kind in ("vv", "vi", "ii", "iv")}
    for name in names.values():
        touch(tmp_path / name)
    columns = "vid1_path,vid2_path,vid1_label,vid2_label,vid1_end_priming_2,vid2_end_priming_2"
    lines = [f"{names['vv']},{names['vi']},possible,impossible,329,329", f"{names['iv']},{names['ii']},impossible,possible,300,331"]
    touch(tmp_path / "continuity.csv", "\n".join([columns, *lines]) + "\n")
    pairs, left_out = read_layout("inflevel", tmp_path)
    assert [(p.possible, p.impossible) for p in pairs] == [
        tuple(Place(str(tmp_path / names[kind]), start_frame=start) for kind, start in sides)
        for sides in ((("vv", 330), ("vi", 330)), (("ii", 332), ("iv", 301)))]
    assert {p.scene for p in pairs} == {"continuity/center__cup__duck"} and not left_out
    touch(tmp_path / "gravity.csv", f"{columns}\n{names['vv']},gone.mp4,possible,impossible,1,1\n")
    with pytest.raises(ConfigError, match="every video that its table names; one is missing") as error:
        read_layout("inflevel", tmp_path)
    assert "gone" not in str(error.value)
    touch(tmp_path / "gravity.csv", f"{columns}\n{names['vv']},{names['vi']},real,magic,1,1\n")
    with pytest.raises(ConfigError, match=r"row 2 of gravity\.csv has others"):
        read_layout("inflevel", tmp_path)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_another_folder_is_refused_with_what_was_expected(tmp_path, layout):
    touch(tmp_path / "something.mp4")
    with pytest.raises(ConfigError, match=f"--layout {layout}=.* is not in this layout; expected: "):
        read_layout(layout, tmp_path)
    with pytest.raises(ConfigError, match="there is no such folder"):
        read_layout(layout, tmp_path / "none")
    with pytest.raises(ConfigError, match="known: intphys, intphys2, grasp, inflevel"):
        read_layout("physion", tmp_path)
