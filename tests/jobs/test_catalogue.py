from __future__ import annotations

import os
from pathlib import Path

import pytest

from jobs.place.catalogue import Catalogue, environment_catalogue, find_data, read_catalogue
from tests.support.launching import write_manifest
from vidmae.settings.layers import ConfigError


@pytest.fixture(autouse=True)
def in_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("VIDMAE_DATA", raising=False)
    return tmp_path


def catalogue(folder: Path, text: str) -> Catalogue:
    folder.mkdir(exist_ok=True)
    (folder / "data.yaml").write_text(text)
    return read_catalogue(folder / "data.yaml")


def test_relative_paths_start_at_the_catalogue(tmp_path: Path) -> None:
    write_manifest(tmp_path / "site/lists/s.csv")
    known = catalogue(tmp_path / "site", "# ours\ns: lists/s.csv\n")
    found = find_data(None, "s", known)
    assert found.manifest == tmp_path / "site/lists/s.csv" and found.origin.endswith("data.yaml:2")


def test_an_unknown_name_shows_the_known_ones_and_how_to_add_it(tmp_path: Path) -> None:
    known = catalogue(tmp_path / "site", "say: a.csv\nkinetics: b.csv\n")
    with pytest.raises(ConfigError) as error:
        find_data(None, "kinetic", known)
    text = str(error.value)
    assert "'kinetic' is not known, did you mean kinetics?" in text and "has: kinetics, say" in text
    assert "python jobs/prepare.py manifest FOLDER --name kinetic" in text


def test_a_made_manifest_is_found_without_a_catalogue(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no catalogue is set"):
        find_data(None, "s", Catalogue())
    write_manifest(tmp_path / "manifests/s.csv")
    assert find_data(None, "s", Catalogue()).manifest == tmp_path / "manifests/s.csv"


def test_a_folder_without_manifest_gives_the_exact_command(tmp_path: Path) -> None:
    folder = tmp_path / "my clips; rm [x]"
    folder.mkdir()
    known = catalogue(tmp_path / "site", f"odd name: '{folder}'\n")
    with pytest.raises(ConfigError) as error:
        find_data("odd name", "s", known)
    assert str(error.value).endswith(f"python jobs/prepare.py manifest '{folder}' --name 'odd name'")
    write_manifest(tmp_path / "manifests/odd name.csv")
    assert find_data("odd name", "s", known).manifest == tmp_path / "manifests/odd name.csv"


def test_paths_given_directly(tmp_path: Path) -> None:
    made = write_manifest(tmp_path / "x/mine.csv")
    found = find_data("x/mine.csv", "s", Catalogue())
    assert (found.name, found.manifest, found.origin) == ("mine", made, "--data")
    (tmp_path / "clips").mkdir()
    with pytest.raises(ConfigError, match="has no manifest yet"):
        find_data("clips", "s", Catalogue())
    with pytest.raises(ConfigError, match=r"no\.csv does not exist; make it: python jobs/prepare.py"):
        find_data("no.csv", "s", Catalogue())
    catalogue(tmp_path / "site", "s: ../x/mine.csv\n")
    assert find_data("site/data.yaml", "s", Catalogue()).name == "s"


def test_what_is_not_there_or_not_a_path(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="gone does not exist, or is neither"):
        find_data(None, "s", catalogue(tmp_path / "site", "s: gone\n"))
    with pytest.raises(ConfigError, match=r"data.yaml:1: s is \['a'\], allowed: the path"):
        catalogue(tmp_path / "site", "s: [a]\n")


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_an_unreadable_folder(tmp_path: Path) -> None:
    (tmp_path / "locked").mkdir(mode=0)
    with pytest.raises(ConfigError, match="is not readable for you"):
        find_data(None, "s", catalogue(tmp_path / "site", f"s: {tmp_path}/locked\n"))


def test_later_catalogues_win(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_manifest(tmp_path / "b/s.csv")
    profile = catalogue(tmp_path / "a", "s: a.csv\nt: t.csv\n")
    catalogue(tmp_path / "b", "s: s.csv\n")
    monkeypatch.setenv("VIDMAE_DATA", str(tmp_path / "b/data.yaml"))
    both = profile | environment_catalogue()
    assert both.entries == {"s": tmp_path / "b/s.csv", "t": tmp_path / "a/t.csv"} and len(both.sources) == 2
