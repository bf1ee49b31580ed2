"""Which manifests a name stands for; and what the launcher says of mixtures and orders before it submits.

Manifests here have no videos, and those of mixtures have rows.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from jobs import pretrain
from jobs.place.catalogue import Catalogue, environment_catalogue, find_data, read_catalogue
from sweeps import scaling
from tests.support.labelled import write_labelled
from tests.support.launching import write_manifest
from vidmae.footage.manifest import Check, Row
from vidmae.footage.manifest import write_manifest as write_rows
from vidmae.settings.layers import ConfigError

RECIPE = ["--cluster", "local", "--recipe", "demo", "--gpus-per-node", "0", "--cpus-per-task", "1", "--dry-run"]


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



def manifest(folder: Path, name: str, videos: list[tuple[str, float]]) -> None:
    rows = [Row(f"/footage/{stem}.mp4", "", int(30 * s), 30.0, s, 1000, 64, 48, "h264", 0, 0, 0, f"{ord(name):08x}{i:08x}", 0, "pyav")
            for i, (stem, s) in enumerate(videos)]
    write_rows(folder / f"manifests/{name}.csv", rows, [], Check("pyav", True))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """`s`: 100 dated minutes; `a`: one recording of three hours; `k`: 400 videos of 10 s without dates."""
    monkeypatch.chdir(tmp_path)
    for name in ("VIDMAE_PROFILE", "VIDMAE_DATA"):
        monkeypatch.delenv(name, raising=False)
    manifest(tmp_path, "s", [(f"S_2013{1 + i // 28:02d}{1 + i % 28:02d}_0900_01_segment01", 60.0) for i in range(100)])
    manifest(tmp_path, "a", [("A_20140101_1200_01_segment01", 10800.0)])
    manifest(tmp_path, "k", [(f"clip{i:03d}", 10.0) for i in range(400)])
    return tmp_path


def dry_run(capsys: pytest.CaptureFixture[str], *settings: str, more: tuple[str, ...] = ()) -> tuple[int, str]:
    code = pretrain.main([*RECIPE, *more, *(word for setting in settings for word in ("--set", setting))])
    return code, " ".join(capsys.readouterr().err.split())


def run_id(said: str) -> str:
    return next(word for word in said.split() if "runs/" in word).rpartition("/")[2]


def test_a_mixture_is_shown_with_its_shares(capsys: pytest.CaptureFixture[str], folder: Path) -> None:
    code, said = dry_run(capsys, "data.sources=[{name: s}, {name: a, weight: 0.5}, {name: k, hours: 0.5}]", "data.weight=seconds",
                         "train.phases=[{duration: 2 epochs, lr: 1.0e-3}]")
    assert code == 0, said
    # visits of 4 clips of 4.27 s: 6000, 10800 and 1800 s are 352, 633 and 105; half of 633 is 316
    assert "s: 100 videos, 1.7 h, weight 1, 45.5% of the clips" in said
    assert "a: 1 videos, 3.0 h, weight 0.5, 40.9% of the clips" in said
    assert "k: 400 videos, 1.1 h, of which 180 videos, 0.5 h, weight 1, 13.6% of the clips" in said
    assert f"an epoch is {4 * (352 + 316 + 105):,} clips" in said


def test_an_order_is_in_the_name_and_the_signature(capsys: pytest.CaptureFixture[str], folder: Path) -> None:
    ids = [run_id(dry_run(capsys, "data.name=s", *more)[1]) for more in (
        [], ["data.order=age"], ["data.order=windows", "data.age_windows=3"], ["data.clip=frozen"], ["data.order=age", "data.clip=reversed"],
        ["data.weight=seconds"], ["data.order=shuffled", "data.clip=normal", "data.weight=videos", "data.sources=[]", "data.age_windows=4"])]
    assert [run.rpartition("-")[0] for run in ids] == [
        "demo", "demo-age", "demo-3-windows", "demo-frozen", "demo-age-reversed", "demo", "demo"]
    assert ids[0] == ids[-1] and len({run[-8:] for run in ids}) == len(ids) - 1
    named = run_id(dry_run(capsys, "data.name=s", "data.order=age", "name=mine-age")[1])
    assert named.startswith("mine-age-") and "age-age" not in named


def test_weights_names_and_contents_are_signed(capsys: pytest.CaptureFixture[str], folder: Path) -> None:
    mixtures = ["[{name: s}, {name: a}]", "[{name: s}, {name: a, weight: 0.5}]", "[{name: a}, {name: s}]", "[{name: s}, {name: a, hours: 3}]"]
    ids = [run_id(dry_run(capsys, f"data.sources={mixture}")[1]) for mixture in mixtures]
    assert len(set(ids)) == 4
    (folder / "manifests").rename(folder / "elsewhere")
    (folder / "catalogue.yaml").write_text("s: elsewhere/s.csv\na: elsewhere/a.csv\n")
    os.environ["VIDMAE_DATA"] = str(folder / "catalogue.yaml")
    try:
        assert run_id(dry_run(capsys, f"data.sources={mixtures[0]}")[1]) == ids[0], "the content counts, not where it lies"
    finally:
        del os.environ["VIDMAE_DATA"]


@pytest.mark.parametrize("settings, says", [
    (["data.sources=[{name: s}, {name: kk}]"], "data.sources: kk: data set 'kk' is not known, did you mean k?"),
    (["data.sources=[{name: s, weight: 0}]"], "s: weight is 0, allowed: more than 0"),
    (["data.sources=[{name: s, weight: -1}]"], "s: weight is -1, allowed: more than 0"),
    (["data.sources=[{name: s, weight: 2, hours: 1}]"], "weight 2 and hours 1 are both set, allowed: one of them"),
    (["data.sources=[{name: s, wait: 2}]"], "unknown key 'data.sources.0.wait', did you mean data.sources.0.weight"),
    (["data.sources=[{weight: 2}]"], "a source has no name"),
    (["data.sources=[{name: s}, {name: s}]"], "allowed: each name once"),
    (["data.sources=[{name: k, hours: 2}]"], "k: hours is 2, allowed: up to 1.111"),
    (["data.name=k", "data.order=age"], "400 of the 400 videos of k have none"),
    (["data.sources=[{name: s}, {name: k}]", "data.order=age"], "400 of the 400 videos of k have none"),
    (["data.name=s", "data.age_months=[6, 14]"], "data.age_months [6.0, 14.0] needs ages since birth"),
    (["data.name=s", "data.age_months=[14, 6]"], "0 <= lowest < highest"),
    (["data.name=s", "data.without_child=A"], "data.without_child is 'A', allowed: S, or null"),
    (["data.name=s", "data.without_child=S"], "all recordings of s are of this child, and none would be left"),
    (["data.name=k", "data.without_child=00220001"], "allowed: nobody, since no child is known, or null"),
    (["data.name=s", "data.order=ages"], "allowed: shuffled, age, age-reversed, single-pass, windows"),
    (["data.name=s", "data.order=single-pass"], "each stretch of footage once: train.phases are 220 steps in all, allowed: up to 87"),
    (["data.name=a", "data.order=windows"], "a has 1 visits of a video in a pass, fewer than data.age_windows 4")])
def test_what_cannot_be_is_said_before_submitting(settings: list[str], says: str, capsys: pytest.CaptureFixture[str], folder: Path) -> None:
    code, said = dry_run(capsys, *settings)
    assert code == 2 and says in said


def test_data_and_sources_exclude_each_other(capsys: pytest.CaptureFixture[str], folder: Path) -> None:
    code, said = dry_run(capsys, "data.sources=[{name: s}]", more=("--data", "k"))
    assert code == 2 and "--data k and data.sources are both set" in said


def test_the_same_videos_twice_are_refused(capsys: pytest.CaptureFixture[str], folder: Path) -> None:
    for suffix in (".csv", ".json"):
        (folder / f"manifests/twin{suffix}").write_bytes((folder / f"manifests/s{suffix}").read_bytes())
    code, said = dry_run(capsys, "data.sources=[{name: s}, {name: twin}]")
    assert code == 2 and "s and twin are the same videos" in said


def test_a_single_pass_of_one_epoch_is_whole_steps(capsys: pytest.CaptureFixture[str], folder: Path) -> None:
    code, said = dry_run(capsys, "data.name=s", "data.order=single-pass", "train.phases=[{duration: 1 epochs, lr: 1.0e-3}]")
    assert code == 0 and "87 in all, 87.00 per epoch: 1.0 epochs, 1,392 clips" in said  # 100 x 14 clips, 16 a step


def test_a_sweep_counts_epochs_in_seconds_where_a_run_does(capsys: pytest.CaptureFixture[str], folder: Path) -> None:
    write_labelled(folder / "manifests")
    manifest(folder, "t", [(f"T_20130101_09{i:02d}_01_segment01", 60.0 + i) for i in range(60)])
    code = scaling.main(["--recipe", "demo", "--data", "t", "--fractions", "0.5,1", "--repeats", "1", "--match", "epochs", "--shots", "2",
                         "--set", "data.weight=seconds", "--set", "train.phases=[{duration: 10 epochs, lr: 1.0e-3}]", "--cluster", "local",
                         "--fewshot", "--recipe finetune_demo --cpus-per-task 1", "--dry-run"])
    said = " ".join(capsys.readouterr().err.split())
    # 2235 s and 5370 s are 131 and 315 visits of 4 clips of 4.27 s, 16 clips a step
    assert code == 0 and "30 0.62 328 10.0" in said and "60 1.49 788 10.0" in said, said


@pytest.mark.parametrize("setting, says", [
    ("data.sources=[{name: s}]", "data.sources is ['s'], allowed in a sweep over amounts of data: []"),
    ("data.age_months=[1, 2]", "data.age_months is (1.0, 2.0), allowed in a sweep over amounts of data: null"),
    ("data.without_child=S", "data.without_child is 'S', allowed in a sweep over amounts of data: null"),
    ("data.order=single-pass", "data.order is 'single-pass', which is as long as its footage")])
def test_a_sweep_over_amounts_takes_parts_itself(setting: str, says: str, capsys: pytest.CaptureFixture[str], folder: Path) -> None:
    code = scaling.main(["--recipe", "demo", "--data", "s", "--fractions", "0.5,1", "--shots", "2", "--set", setting, "--cluster", "local",
                         "--fewshot", "--recipe finetune_demo --cpus-per-task 1", "--dry-run"])
    assert code == 2 and says in " ".join(capsys.readouterr().err.split())


def test_a_manifest_of_totals_alone_is_enough_for_a_usual_run(capsys: pytest.CaptureFixture[str], folder: Path) -> None:
    write_manifest(folder / "manifests/t.csv")
    assert dry_run(capsys, "data.name=t")[0] == 0 and dry_run(capsys, "data.name=t", "data.weight=seconds")[0] == 0
