"""Labels from class folders and from Something-Something's label files, and what is known about the data sets."""

import json
import re
from pathlib import Path

import pytest

from tests.support import videos
from tests.support.facilities import need
from tests.support.launching import cli
from vidmae.footage.manifest import Manifest, ManifestError, Source, Summary
from vidmae.footage.manifest_columns import class_table
from vidmae.footage.video_list import PICTURES
from vidmae.labels.sources import class_of_template, count_note, find_labelled

# templates of the official files and the class numbers of the released lists (mae_st, datafiles/old/ssv2-10shot/train.csv)
RELEASED = {
    "Approaching [something] with your camera": 0,
    "Lifting [something] up completely, then letting it drop down": 25,
    "Lifting a surface with [something] on it but not enough for it to slide down": 28,
    "Lifting up one end of [something], then letting it drop down": 30,
    "Lifting up one end of [something] without letting it drop down": 31,
    "Moving [part] of [something]": 32,
    "Moving [something] up": 44,
    "Moving away from [something] with your camera": 45,
    "Putting [something similar to other things that are already on the table]": 103,
    "Putting [something], [something] and [something] on the table": 105,
    "Putting [something] and [something] on the table": 106,
    "Putting [something] that can't roll onto a slanted surface, so it slides down": 117,
    "Removing [something], revealing [something] behind": 121,
    "Twisting (wringing) [something] wet until water comes out": 164,
    "Twisting [something]": 165,
    "Wiping [something] off of [something]": 168,
    "[Something] falling like a rock": 173,
}
ODD_CLASSES = ["a b", "[x], y", "person's head", 'say "hi"', "ä – 子供"]


def entries(templates=RELEASED) -> list[dict]:
    return [{"id": str(100 + i), "label": "some caption, of words", "template": t, "placeholders": ["words"]}
            for i, t in enumerate(templates)]


def label_file(folder: Path, content) -> Path:
    path = folder / "something-something-v2-validation.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def touch(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"x")
    return folder


def test_templates_stand_in_the_order_of_the_released_models():
    names = [class_of_template(t) for t in RELEASED]
    rank = class_table(names).tolist()
    assert sorted(range(len(names)), key=rank.__getitem__) == sorted(range(len(names)), key=list(RELEASED.values()).__getitem__)
    official = sorted(re.sub(r"[\[\]]", "", t) for t in RELEASED)  # labels.json has another order
    assert official != [re.sub(r"[\[\]]", "", t) for t in RELEASED]


def test_a_label_file_gives_every_id_its_file_and_class(tmp_path):
    listed = entries()
    listed[1]["id"] = 101  # a number is an id, too
    touch(tmp_path / "v", *(f"{i}.webm" for i in range(100, 110)), "sub/110.mp4", "999.webm")
    found = find_labelled(label_file(tmp_path, listed), tmp_path / "v")
    assert [Path(s.path).relative_to(tmp_path / "v").as_posix() for s in found] == \
        [*(f"{i}.webm" for i in range(100, 110)), "sub/110.mp4", *(f"{i}.webm" for i in range(111, 117))]
    assert [s.label for s in found] == [t.replace(",", "") for t in RELEASED]
    assert find_labelled(label_file(touch(tmp_path / "v"), listed))[0] == found[0]  # --root is the file's folder by default


def test_a_label_file_without_templates_names_the_classes_itself(tmp_path):
    touch(tmp_path, "1.webm")
    path = label_file(tmp_path, [{"id": "1", "label": "Folding something"}])
    assert find_labelled(path)[0].label == "Folding something"
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())  # a byte order mark
    assert find_labelled(path)[0].label == "Folding something"


@pytest.mark.parametrize("content, said", [
    ([{"id": "1"}], "entry 1 has not both .*test file"), ({"Folding something": "0"}, "is not a list of videos"),
    ([], "is not a list"), ("{", "no JSON"), ([{"id": "1", "template": " "}], "entry 1"), (["1"], "entry 1"),
    ([{"id": "1", "template": "a"}, {"id": "1", "template": "b"}], "1 of 2 ids twice"),
    ([{"id": "7", "template": "a"}], "none of the 1 videos.*set --root"),
    ([{"id": "2", "template": "a"}], "1 videos in .* have the id of another")])
def test_other_label_files_are_refused(tmp_path, content, said):
    touch(tmp_path, "1.webm", "2.webm", "mp4/2.mp4")
    with pytest.raises(ManifestError, match=said):
        find_labelled(label_file(tmp_path, content))


def test_class_folders_give_labels_whatever_their_names(tmp_path):
    touch(tmp_path, *(f"{name}/1, [a].mp4" for name in ODD_CLASSES), "a b/2.webm", "a b/notes.txt")
    found = find_labelled(tmp_path, label_folders=True)
    assert sorted(found, key=lambda s: s.path) == sorted(
        [Source(str(tmp_path / name / "1, [a].mp4"), name) for name in ODD_CLASSES] + [Source(str(tmp_path / "a b/2.webm"), "a b")],
        key=lambda s: s.path)


@pytest.mark.parametrize("names, odd", [
    (["train/jump/1.mp4", "train/run/2.mp4", "val/jump/3.mp4"], "3 of 3"), (["jump/1.mp4", "2.mp4"], "1 of 2")])
def test_other_layouts_than_class_folders_are_refused(tmp_path, names, odd):
    with pytest.raises(ManifestError, match=rf"{odd} files are not at .*/CLASS/FILE.*/train"):
        find_labelled(touch(tmp_path, *names), label_folders=True)
    with pytest.raises(ManifestError, match="needs a folder"):
        find_labelled(touch(tmp_path, "l.csv") / "l.csv", label_folders=True)


def test_names_of_model_vs_human_give_labels(tmp_path):
    touch(tmp_path, "session-1/0001_cop_dnn_c30_knife_10_n03041632_7380.png", "session-1/0002_cop_dnn_c100_bird_10_n01601694_10802.png")
    assert sorted(source.label for source in find_labelled(tmp_path, label_names=True, extensions=PICTURES)) == ["bird", "knife"]
    touch(tmp_path, "session-1/cat1.png")
    with pytest.raises(ManifestError, match=r"1 of 3 files in .* are not called NUMBER_EXPERIMENT_OBSERVER_CONDITION_CLASS_MORE"):
        find_labelled(tmp_path, label_names=True, extensions=PICTURES)


def test_class_folders_without_files_are_named(tmp_path):
    """A class number is the rank of a name, so one that is left out in silence changes those behind it."""
    touch(tmp_path, "cat/1.png", "dog/1.txt", ".cache/x", "owl/1.png")
    (tmp_path / "ape").mkdir()
    with pytest.raises(ManifestError, match=r"2 of 4 class folders in .* hold no file that ends in .*\.png.*: 'ape', 'dog'"):
        find_labelled(tmp_path, label_folders=True, extensions=PICTURES)


@pytest.mark.parametrize("name, classes, videos_, said", [
    ("ssv2-val", 174, 24_777, None), ("ssv2_val", 174, 24_776, "24776 videos, not 24777"),
    ("kinetics-val", 699, 33_960, "699 classes, not 700"), ("kinetics", 700, 530_000, None), ("kinetics", 0, 1, None),
    ("mine", 3, 5, None), ("ssv2", 173, 5, "173 classes, not 174.*; 5 videos, not 168913")])
def test_counts_that_differ_from_the_known_ones_are_noted(name, classes, videos_, said):
    note = count_note(name, Summary(2, videos_, 0, 1.0, 1, classes, "auto", {"decord": videos_}, True, [1.0] * 101, 1, "", ""))
    assert note is None if said is None else re.search(said, note)


def test_the_command_line_labels_by_folder_and_by_file(tmp_path):
    need("ffmpeg")
    data = videos.vp9(tmp_path / "v.webm").read_bytes()
    for i, name in enumerate(["[Something] falling", "Wiping [something], twice"]):
        touch(tmp_path / "k", f"{name}/{i}.webm")
        (tmp_path / "k" / name / f"{i}.webm").write_bytes(data)
    done = cli("prepare.py", "manifest", "k", "--labels", "folders", "--name", "kinetics-val", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "labels: 2 classes of 1 to 1 videos" in done.stderr
    assert "note: kinetics-val has 2 classes, not 700" in done.stderr and "2 videos, not 33960" in done.stderr
    listed = [{"id": "1", "template": "Wiping [something], twice"}, {"id": "0", "template": "[Something] falling"},
              {"id": "7", "template": "[Something] falling"}]
    done = cli("prepare.py", "manifest", str(label_file(tmp_path, listed)), "--root", "k", "--out", "o/x.csv", cwd=tmp_path)
    assert done.returncode == 0 and "1 files left out" in done.stderr, done.stderr
    manifest = Manifest.read(tmp_path / "o/x.csv")
    assert {Path(manifest.path(i)).stem: manifest.class_index[i] for i in range(2)} == {"0": 1, "1": 0}
