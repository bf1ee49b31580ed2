"""Copies of archives on a disk of the node: read as soon as they are whole, within their bounds, and never trusted blindly."""

import os
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from tests.support import videos
from tests.support.facilities import need
from tests.support.labelled import in_this_process
from tests.vidmae.footage.test_archives import frames_of
from vidmae.footage.archives import archive_reader, staging
from vidmae.footage.archives.archive_layout import split_row_path
from vidmae.footage.manifest import Check, Manifest, find_sources
from vidmae.footage.manifest_build import build
from vidmae.footage.open_video import DecodeError
from vidmae.preparing.preparation import Preparation
from vidmae.preparing.prepare_archives import prepare
from vidmae.preparing.prepared_folder import Order
from vidmae.runs.record import folder_of_user
from vidmae.settings.config import FootageConfig
from vidmae.settings.layers import ConfigError
from vidmae.train.build import stage as build_stage


@pytest.fixture(scope="module")
def prepared(tmp_path_factory) -> Path:
    """The manifest of three recordings, an archive for each."""
    need("ffmpeg")
    folder = tmp_path_factory.mktemp("prepared")
    (folder / "raw").mkdir()
    for seconds in (1, 2, 3):
        videos.h264(folder / f"raw/{seconds}.mp4", size="96x64", fps=12, seconds=seconds)
    order = Order(folder / "s.csv", Preparation(fps=12), folder / "data", folder / "s-256.csv", 0.0001)
    with in_this_process():
        build(find_sources(folder / "raw"), folder / "s.csv", Check("pyav", False), workers=1, time_limit_s=60, progress=lambda *_: None)
        prepare(order, workers=1, time_limit_s=60, tell=lambda *_: None)
    return folder / "s-256.csv"


@pytest.fixture
def manifest(prepared, monkeypatch) -> Iterator[Manifest]:
    """In a process that has read nothing yet and looks for no copy afterwards; archives are as they were afterwards."""
    monkeypatch.setattr(archive_reader, "_open", OrderedDict())
    monkeypatch.setattr(staging, "_read", [0, 0])
    found = Manifest.read(prepared)
    before = {archive: (archive.read_bytes(), archive.stat()) for archive in archives(found)}
    yield found
    staging.use(None)
    for archive, (data, stat) in before.items():
        archive.write_bytes(data)
        os.utime(archive, ns=(stat.st_atime_ns, stat.st_mtime_ns))


def archives(manifest: Manifest) -> list[Path]:
    return [split_row_path(manifest.path(row))[0] for row in range(len(manifest))]


def stage(manifest: Manifest, folder: Path, most_gib: float = 0.0) -> list[str]:
    said: list[str] = []
    staging.Stager(lambda: archives(manifest), folder, most_gib, said.append).thread.join(30)
    return said


def test_copies_are_read_once_they_are_there(manifest, tmp_path):
    raw = [frames_of(manifest, row) for row in range(3)]
    staging.use(tmp_path / "disk")
    assert all(np.array_equal(frames_of(manifest, row), raw[row]) for row in range(3))
    read, others = staging.bytes_read()
    assert read == 0 < others
    (said,) = stage(manifest, tmp_path / "disk")
    assert said.startswith("3 of 3 archives")
    copies = sorted((tmp_path / f"disk/vidmae-{os.getuid()}").glob("*.tar"))
    assert sorted(c.read_bytes() for c in copies) == sorted(a.read_bytes() for a in archives(manifest))
    for archive in archives(manifest):
        archive.write_bytes(bytes(archive.stat().st_size))  # what is read now is the copy, though the archive was open before
        os.utime(archive)
    assert all(np.array_equal(frames_of(manifest, row), raw[row]) for row in range(3))
    assert staging.bytes_read()[0] > 0 and staging.bytes_read()[1] == others


def test_a_copy_that_was_begun_goes_on(manifest, tmp_path):
    first = archives(manifest)[0]
    folder = folder_of_user(tmp_path / "disk")
    folder.mkdir(0o700, parents=True)
    draft = folder / f"{staging.name_of(first)}.part"
    draft.write_bytes(first.read_bytes()[:700])
    stage(manifest, tmp_path / "disk")
    assert (folder / staging.name_of(first)).read_bytes() == first.read_bytes() and not draft.exists()


def test_the_bound_holds_and_what_others_left_goes_first(manifest, tmp_path):
    sizes = [archive.stat().st_size for archive in archives(manifest)]
    folder = folder_of_user(tmp_path / "disk")
    folder.mkdir(0o700, parents=True)
    (folder / "0123.tar").write_bytes(bytes(sizes[0]))
    (said,) = stage(manifest, tmp_path / "disk", (sizes[0] + sizes[1]) / 2**30)
    assert said.startswith("2 of 3 archives") and not (folder / "0123.tar").exists()
    assert sum(path.stat().st_size for path in folder.glob("*.tar")) == sizes[0] + sizes[1]


def test_a_damaged_copy_costs_one_try(manifest, tmp_path):
    right = frames_of(manifest, 1)
    staging.use(tmp_path / "disk")
    stage(manifest, tmp_path / "disk")
    copy = staging.copy_of(archives(manifest)[1])
    copy.write_bytes(bytes(copy.stat().st_size))
    with pytest.raises(DecodeError, match="checksum"):
        frames_of(manifest, 1)
    assert np.array_equal(frames_of(manifest, 1), right), "the second try reads the archive itself"


def test_a_copy_that_goes_while_it_is_opened_costs_nothing(manifest, tmp_path, monkeypatch):
    right = frames_of(manifest, 0)
    archive_reader._open.clear()
    monkeypatch.setattr(staging, "copy_of", lambda _: tmp_path / "evicted.tar")
    assert np.array_equal(frames_of(manifest, 0), right)


@pytest.mark.parametrize("how", ["open to others", "a link"])
def test_a_folder_that_others_can_enter_is_not_used(manifest, tmp_path, how):
    stage(manifest, tmp_path / "disk")
    staging.use(tmp_path / "disk")
    folder, archive = folder_of_user(tmp_path / "disk"), archives(manifest)[0]
    assert staging.copy_of(archive)
    if how == "a link":
        folder.symlink_to(folder.rename(tmp_path / "elsewhere"))
    else:
        folder.chmod(0o750)
    assert staging.copy_of(archive) is None, "what may be another user's is not read"
    (folder / staging.name_of(archive)).unlink()
    (said,) = stage(manifest, tmp_path / "disk")
    assert "is not a folder that only you can enter (data.stage)" in said
    assert not (folder / staging.name_of(archive)).exists(), "and no footage goes there"


def test_a_variable_that_is_not_set_is_no_folder(manifest, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("NO_SUCH_DISK", raising=False)
    with pytest.raises(ConfigError, match=r"\$NO_SUCH_DISK.* on this node, allowed: an absolute path"):
        build_stage(FootageConfig(stage="$NO_SUCH_DISK"), manifest, SimpleNamespace(local_rank=0), print)
    assert not list(tmp_path.iterdir())


def test_a_disk_that_cannot_be_written_ends_the_copying_alone(manifest, tmp_path):
    (tmp_path / "disk").write_text("a file")
    (said,) = stage(manifest, tmp_path / "disk")
    assert "data.stage" in said and "has ended" in said
