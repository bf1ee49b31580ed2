"""The arrays of a large manifest that all processes map: the same as those of the csv, and never those of another csv."""

import json
import os

import numpy as np
import pytest

from vidmae.footage import manifest as m
from vidmae.footage import manifest_pages
from vidmae.footage.known.facts import NO_FACTS, Facts
from vidmae.footage.manifest import Check, Manifest, ManifestError, Row
from vidmae.footage.manifest_pages import pages_path

KNOWN = Facts("A", "2013-04-17", "7.5")
ARRAYS = [*m._ARRAYS, "_paths", "_path_ends"]


@pytest.fixture
def shared(monkeypatch):
    for module in (m, manifest_pages):
        monkeypatch.setattr(module, "SHARED_FROM_ROWS", 3)


def write(folder, names=("a", "ü b", "c, d"), seconds=3.0, facts=KNOWN):
    rows = [Row(f"/v/{name}.mp4", name, 90, 30.0, seconds, 1000, 64, 48, "h264", 0, 1, 0, f"{i + 1:016x}", 17, "pyav", facts if i else NO_FACTS)
            for i, name in enumerate(names)]
    m.write_manifest(folder / "s.csv", rows, [], Check("auto", True))
    return folder / "s.csv"


def same(one: Manifest, other: Manifest) -> bool:
    return all(np.array_equal(getattr(one, name), getattr(other, name), equal_nan=getattr(one, name).dtype.kind in "fM") for name in ARRAYS) and \
        (one.children, one.decoders) == (other.children, other.decoders)


@pytest.mark.parametrize("facts", [KNOWN, NO_FACTS])
def test_mapped_arrays_are_those_of_the_csv(tmp_path, shared, monkeypatch, facts):
    path = write(tmp_path, facts=facts)
    assert pages_path(path).stat().st_mode & 0o777 == 0o600
    with monkeypatch.context() as mapped_only:
        mapped_only.setattr(m, "open_rows", lambda _: pytest.fail("the csv was read"))
        mapped = Manifest.read(path)
    assert not mapped.content.flags.writeable and mapped.path(1) == "/v/ü b.mp4" and len(mapped.take(np.array([2, 0]))) == 2
    monkeypatch.setattr(manifest_pages, "SHARED_FROM_ROWS", 100)
    assert same(mapped, Manifest.read(path)) and mapped.class_index.tolist() == [0, 2, 1]


def test_small_manifests_have_no_second_file(tmp_path):
    assert len(Manifest.read(write(tmp_path))) == 3 and not pages_path(tmp_path / "s.csv").exists()


def test_pages_of_another_csv_or_cut_ones_are_made_again(tmp_path, shared):
    path = write(tmp_path)
    before = Manifest.read(path)
    write(tmp_path, seconds=4.0)
    assert Manifest.read(path).seconds.tolist() == [4.0] * 3 and before.seconds.tolist() == [3.0] * 3, "who has mapped it keeps it"
    pages = pages_path(path).read_bytes()
    for damaged in (pages[:-1], b"", b"{}\n", b"no json\n" + pages):
        pages_path(path).write_bytes(damaged)
        assert Manifest.read(path).seconds.tolist() == [4.0] * 3 and pages_path(path).read_bytes() == pages
    pages_path(path).unlink()
    assert len(Manifest.read(path)) == 3 and pages_path(path).read_bytes() == pages


def test_a_csv_that_was_changed_by_hand_is_refused_though_there_are_pages(tmp_path, shared):
    path = write(tmp_path)
    text, stat = path.read_text(), path.stat()
    path.write_text(text.replace("3.0", "9.0"))
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns + 1))
    with pytest.raises(ManifestError, match="was changed since it was made"):
        Manifest.read(path)


def test_a_folder_that_cannot_be_written_is_read_all_the_same(tmp_path, shared, monkeypatch):
    path = write(tmp_path)
    pages_path(path).unlink()
    monkeypatch.setattr(manifest_pages.os, "open", lambda *_: (_ for _ in ()).throw(PermissionError(13, "no")))
    found = Manifest.read(path)
    assert found.seconds.tolist() == [3.0] * 3 and not pages_path(path).exists()
    assert "of" not in json.loads(path.with_suffix(".json").read_text())
