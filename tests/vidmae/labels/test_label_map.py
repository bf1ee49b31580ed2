"""Labels of other data sets against the classes of a model: who may answer, with which probability; and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from vidmae.labels.label_map import LabelMapError, make_label_map
from vidmae.labels.set_layout import conditions_of, textures_of
from vidmae.labels.sixteen_classes import SIXTEEN, class_key, is_imagenet

IMAGENET = tuple(f"n{i:08d}" for i in range(1000))
CLASSES = ["bus", "cat", "dog", "owl"]
PROB = np.array([[0.1, 0.2, 0.3, 0.4], [0.6, 0.1, 0.25, 0.05]])


def test_the_sixteen_classes_have_as_many_imagenet_classes_as_their_source_counts() -> None:
    counts = {"airplane": 1, "bear": 4, "bicycle": 2, "bird": 49, "boat": 5, "bottle": 7, "car": 3, "cat": 6, "chair": 4, "clock": 3,
              "dog": 109, "elephant": 2, "keyboard": 2, "knife": 1, "oven": 1, "truck": 8}
    assert {name: len(members) for name, members in SIXTEEN.items()} == counts and list(SIXTEEN) == sorted(SIXTEEN)
    everything = [index for members in SIXTEEN.values() for index in members]
    assert len(set(everything)) == 207 and max(everything) < 1000
    assert {17, 84, 97, 134}.isdisjoint(SIXTEEN["bird"]) and {192, 204, 227, 242, 251, 258, 260, 264}.isdisjoint(SIXTEEN["dog"])


def test_a_model_of_imagenet_answers_in_sixteen_classes_by_the_mean_of_their_probabilities() -> None:
    prob = np.zeros((1, 1000))
    prob[0, [499, 281, 283, 0]] = 0.1, 0.27, 0.27, 0.36
    labels = make_label_map(["cat", "knife"], IMAGENET)
    found = labels.apply(prob)[0]
    assert labels.answers == tuple(SIXTEEN) and labels.of_label.tolist() == [7, 13]
    assert found[7] == pytest.approx(0.54 / 6) and found[13] == pytest.approx(0.1), "one class of 1 beats two of 6"
    assert make_label_map(["cat"], [f"{name} a name" for name in IMAGENET]).answers == tuple(SIXTEEN)
    assert not is_imagenet(IMAGENET[:-1]) and not is_imagenet(IMAGENET[::-1])


def test_all_classes_compete_or_those_of_the_clips_alone() -> None:
    everyone = make_label_map(["cat", "owl"], CLASSES)
    assert everyone.apply(PROB) is PROB and everyone.of_label.tolist() == [1, 3] and everyone.answers == tuple(CLASSES)
    own = make_label_map(["cat", "owl"], CLASSES, own=True)
    assert own.apply(PROB) == pytest.approx(np.array([[1 / 3, 2 / 3], [2 / 3, 1 / 3]])) and own.of_label.tolist() == [0, 1]
    # the softmax of the two scores alone, worked out from scores
    scores = np.log(PROB[0]) + 5
    assert own.apply(PROB)[0] == pytest.approx(np.exp(scores[[1, 3]]) / np.exp(scores[[1, 3]]).sum())
    with pytest.raises(LabelMapError, match=r"the clips have 1 label, 'cat'.*--own-classes"):
        make_label_map(["cat"], CLASSES, own=True)


def test_wordnet_ids_stand_for_classes_with_and_without_names_and_numbers_for_their_ranks() -> None:
    assert class_key("n01440764 tench") == "n01440764" == class_key("n01440764") and class_key("a b") == "a b"
    assert make_label_map(["n00000003"], ["n00000001 a", "n00000003 b"]).of_label.tolist() == [1]
    numbered = make_label_map([str(i) for i in range(4)], CLASSES)
    assert numbered.of_label.tolist() == [0, 1, 2, 3] and "ranks" in numbered.said
    with pytest.raises(LabelMapError, match="3 of 3 labels are no classes of the model, which has 4"):
        make_label_map(["0", "1", "2"], CLASSES)


def test_a_list_says_which_classes_stand_for_a_label(tmp_path: Path) -> None:
    listed = tmp_path / "map.csv"
    listed.write_text("label,class\nanimal,cat\nanimal,dog\nvehicle,bus\nbird,owl\n")
    found = make_label_map(["animal", "plant", "vehicle"], CLASSES, listed=listed)
    assert found.answers == ("animal", "vehicle", "bird") and found.of_label.tolist() == [0, -1, 1]
    assert found.apply(PROB)[0] == pytest.approx([0.25, 0.1, 0.4])
    own = make_label_map(["animal", "plant", "vehicle"], CLASSES, own=True, listed=listed)
    assert own.apply(PROB)[0] == pytest.approx(np.array([0.25, 0.1, 0.4]) / 0.75) and own.said != found.said
    assert "clips of 1 labels are left out: 'plant'" in found.said


@pytest.mark.parametrize(("text", "said"), [
    ("label,class\na,cat\nb,hund\n", r"names 1 classes that the model, which has 4, does not have: 'hund'"),
    ("label,class\na,cat\nb,cat\n", "1 classes stand in two rows: 'cat'"),
    ("label,class\nx,cat\ny,dog\n", r"has 0 of the 2 labels of the clips, and 2 or more are needed; its labels: 'x', 'y'"),
    ("name,class\na,cat\n", "the columns label and class must be there"), ("label,class\na,\n", "must be there and filled"),
    ("", "must be there and filled")])
def test_a_list_that_does_not_fit_is_refused(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "map.csv").write_text(text)
    with pytest.raises(LabelMapError, match=said):
        make_label_map(["a", "b"], CLASSES, listed=tmp_path / "map.csv")
    with pytest.raises(LabelMapError, match="cannot be read"):
        make_label_map(["a", "b"], CLASSES, listed=tmp_path / "none.csv")


def test_labels_that_no_class_stands_for_are_named_with_the_nearest() -> None:
    with pytest.raises(LabelMapError, match=r"1 of 2 labels are no classes of the model, which has 4: 'catt', did you mean cat\?"):
        make_label_map(["catt", "dog"], CLASSES)


def test_folders_say_corruption_and_severity_and_names_say_textures() -> None:
    assert conditions_of(["/d/fog/3/n01/x.JPEG", "/d/gaussian_noise/5/n01/x.JPEG"]) == ["fog:3", "gaussian_noise:5"]
    assert conditions_of(["/d/val/n01/x.JPEG", "x.JPEG"]) is None
    with pytest.raises(ValueError, match=r"1 of 2 images lie in folders corruption/severity/class, and 1 do not \(rows 2\)"):
        conditions_of(["/d/fog/3/n01/x.JPEG", "/d/val/n01/x.JPEG"])
    assert conditions_of(["/d/session-1/0001_cop_dnn_c30_knife_10_n03041632_7380.png", "/d/session-1/0002_cop_dnn_c100_car_10_n0_1.png"]) == [
        "c30", "c100"]
    assert conditions_of(["/d/session-1/0001_ske_dnn_0_knife_00_a.png", "/d/session-1/0002_ske_dnn_0_car_00_b.png"]) is None, "one is none"
    names = ["/s/cat/cat4-dog2.png", "/s/dog/0001_cue_dog10-bird2.png"]
    assert textures_of(names, ["bird", "cat", "dog"]).tolist() == [2, 0]
    with pytest.raises(ValueError, match=r"1 of 3 images do not say their texture .*rows 3; no classes: 'fox'") as error:
        textures_of([*names, "/secret/cat1-fox2.png"], ["bird", "cat", "dog"])
    assert "secret" not in str(error.value)
