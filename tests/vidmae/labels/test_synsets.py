"""WordNet ids get their names, and classes keep their order."""

from pathlib import Path

import pytest

from vidmae.footage.manifest import ManifestError, Source, class_table
from vidmae.labels.synsets import name_classes, read_synsets

TEXT = "n02000000 zebra, Equus\nn01440764\ttench, Tinca tinca\n\nn03126707 crane\nn02012849 crane\n"


def write(folder: Path, text: str) -> Path:
    path = folder / "synsets.txt"
    path.write_text(text, encoding="utf-8")
    return path


def test_ids_get_their_first_name_and_keep_their_order(tmp_path):
    names = read_synsets(write(tmp_path, "\ufeff" + TEXT))
    assert list(names) == ["n01440764", "n02000000", "n02012849", "n03126707"] and names["n02000000"] == "zebra, Equus"
    ids = ["n03126707", "n01440764", "n02000000", "n02012849"]
    labels = [source.label for source in name_classes([Source(f"/{i}", label) for i, label in enumerate(ids)], names)]
    assert labels == ["n03126707 crane", "n01440764 tench", "n02000000 zebra", "n02012849 crane"]
    assert class_table(labels).tolist() == class_table(ids).tolist() == [3, 0, 1, 2]
    numbered = [Source("/a", "3"), Source("/b", "0"), Source("/c", "1"), Source("/d", "2"), Source("/e", "3")]
    assert [source.label[:9] for source in name_classes(numbered, names)] == [*ids[:1], "n01440764", "n02000000", "n02012849", ids[0]]


@pytest.mark.parametrize(("text", "words"), [
    ("n01440764\n", "synsets.txt:1 is not a WordNet id"), ("tench n01440764\n", "is not a WordNet id"), ("", "is empty"),
    ("n01440764 a\nn01440764 b\n", "synsets.txt:2: n01440764 stands there before")])
def test_other_files_are_refused(tmp_path, text, words):
    with pytest.raises(ManifestError, match=words):
        read_synsets(write(tmp_path, text))


def test_labels_without_a_name_are_refused(tmp_path):
    names = read_synsets(write(tmp_path, TEXT))
    with pytest.raises(ManifestError, match="1 of 2 classes are not in --class-names: 'dog'"):
        name_classes([Source("/a", "dog"), Source("/b", "n01440764")], names)
    with pytest.raises(ManifestError, match="labels are 2 numbers, and --class-names has 4 ids"):
        name_classes([Source("/a", "0"), Source("/b", "1")], names)
