"""A manifest that an array of jobs makes: the parts by the program itself, the manifest by the last of them."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from jobs import prepare
from jobs.submit import sharding
from tests.support import videos
from tests.support.facilities import need
from tests.support.labelled import in_this_process
from vidmae.footage.manifest import Check, find_sources, read_all
from vidmae.footage.manifest_build import build, still_holds
from vidmae.preparing import manifest_shard
from vidmae.runs.record import read_json
from vidmae.settings.layers import to_yaml
from vidmae.settings.programs.prepare_config import ManifestConfig


@pytest.fixture(autouse=True)
def here() -> Iterator[None]:
    with in_this_process():
        yield


@pytest.fixture
def footage(tmp_path: Path) -> Path:
    need("ffmpeg")
    folder = tmp_path / "footage"
    folder.mkdir()
    for name in "abc":
        videos.h264(folder / f"secret-{name}.mp4", size="64x48", fps=10, seconds=1, extra=("-vf", f"rotate={ord(name)}"))
    (folder / "secret-d.mp4").write_text("no video")
    return folder


def test_the_last_part_makes_the_manifest_of_all(footage: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    out, manifest, check = tmp_path / ".s.array", tmp_path / "s.csv", Check("pyav", True)
    out.mkdir()
    (out / "config.yaml").write_text(to_yaml(ManifestConfig(str(manifest), "pyav", workers=1)))
    sources = find_sources(footage)
    assert manifest_shard.write_sources(out, sources, check) and not manifest_shard.write_sources(out, sources, check)
    for shard in (2, 0, 1):
        assert not (out / "result.json").exists() and not manifest.exists()
        assert manifest_shard.main([str(out), "--shard", f"{shard}/3"]) == 0
    assert read_json(out / "result.json")["videos"] == 3 and read_json(out / "result.json")["left_out"] == 1
    assert "secret" not in capfd.readouterr().out
    build(sources, tmp_path / "alone.csv", check, workers=1, time_limit_s=60, progress=lambda *_: None)
    assert read_all(manifest) == read_all(tmp_path / "alone.csv")
    assert not list(tmp_path.glob(".s.checked*")), "the journals of the parts are taken over"
    assert manifest_shard.write_sources(out, sources[1:], check), "other files are another question"
    assert [source.path for source in manifest_shard.read_sources(out)] == [source.path for source in sources[1:]]


def test_files_that_were_asked_for_meanwhile_are_not_taken_as_done(footage: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                                                   capfd: pytest.CaptureFixture[str]) -> None:
    out, manifest, check = tmp_path / ".s.array", tmp_path / "s.csv", Check("pyav", False)
    out.mkdir()
    (out / "config.yaml").write_text(to_yaml(ManifestConfig(str(manifest), "pyav", verify=False, workers=1)))
    sources = find_sources(footage)
    for name in ("check_part", "build"):  # the user asks for more while a part is checked, and while the manifest is made
        def meanwhile(work: Any, *args: Any, **more: Any) -> Any:
            manifest_shard.write_sources(out, sources, check)
            return work(*args, **more)

        manifest_shard.write_sources(out, sources[1:], check)
        with monkeypatch.context() as patch:
            patch.setattr(manifest_shard, name, partial(meanwhile, getattr(manifest_shard, name)))
            assert manifest_shard.main([str(out), "--shard", "0/1"]) == 0
        assert manifest_shard.OTHERS in capfd.readouterr().out and not (out / "result.json").exists()
        assert (out / "done-0-of-1.json").exists() == (name == "build")
    assert manifest_shard.main([str(out), "--shard", "0/1"]) == 0
    assert read_json(out / "result.json")["videos"] == 3


def test_a_manifest_holds_while_its_files_are_as_they_were(footage: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And what an array has done counts no longer than that."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sharding, "run", lambda *_: 0)
    path, out = tmp_path / "manifests/s.csv", tmp_path / "manifests/.s.array"
    build(find_sources(footage), path, Check("pyav", False), workers=1, time_limit_s=60, progress=lambda *_: None)
    command = ["manifest", str(footage), "--name", "s", "--cluster", "slurm", "--decoder", "pyav"]
    assert prepare.main(command) == 0 and still_holds(path)
    left = []
    for change in (lambda: None, (footage / "secret-a.mp4").touch, path.unlink):
        change()
        (out / "result.json").write_text("{}")
        (out / "done-0-of-1.json").write_text("{}")
        assert prepare.main(command) == 0
        left.append((still_holds(path), (out / "result.json").exists(), (out / "done-0-of-1.json").exists()))
    assert left == [(True, True, True), (False, False, False), (False, False, False)]


def test_the_command_counts_and_refuses(footage: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                        capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    asked = ["manifest", str(footage), "--name", "s"]
    for more, code, said in ((["--dry-run"], 0, "4 files"), (["--partition", "cpu"], 2, "--cluster slurm"),
                             (["--cluster", "slurm", "--part", "0/2"], 2, "--shards N")):
        assert prepare.main([*asked, *more]) == code and said in capsys.readouterr().err
    assert not (tmp_path / "manifests").exists()
