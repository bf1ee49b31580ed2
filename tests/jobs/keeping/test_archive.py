"""jobs/archive.py packs what a paper needs and nothing private, and finds every damage of what it packed."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import re
import shlex
import subprocess
import tarfile
import time
from pathlib import Path
from types import ModuleType

import pytest

from analysis import collect
from jobs import archive, clean
from jobs.keeping.redaction import Redaction, what_is_private
from tests.jobs.keeping.conftest import add_code, copy_run
from tests.support.launching import ROOT, Told, caller
from vidmae.model.formats.file_model import model_in
from vidmae.runs.record import RunFolder

PRIVATE = ("anna", "lab7", "hooks.example", "login-3", "secret", "S_20130101", "/home", "17021_0_log", "frames of a child")
CELL = "done-motion-2shot-seed0-finetune-0f11464a"


@pytest.fixture
def call(runs: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Told:
    monkeypatch.chdir(runs.parent)
    return caller(archive.main, capsys)


@pytest.fixture
def private(runs: Path) -> Path:
    """The runs, with everything in them that must not leave."""
    add_code(runs / "done-edd1b7a1", **{"jobs/clusters/lab7.yaml": "account: lab7\nenv: {TOKEN: secret}\n",
                                        "vidmae/__init__.py": "LONG = 'x.mp4'\n", "jobs/mine.py": f"HERE = '{runs}/anna'\n",
                                        "DIRTY.diff": "+++ b/jobs/clusters/lab7.yaml\n+account: lab7\n"})
    for name in ("done-edd1b7a1", CELL):
        run = RunFolder(runs / name)
        for path in (run.config, run.record):
            path.write_text(path.read_text().replace("HERE/runs", str(runs)).replace("HERE", "/home/anna/secret"))
        record = json.loads(run.record.read_text())
        for entry in record["submissions"]:
            entry |= {"host": "login-3", "problem": "account lab7 of anna is over its limit"}
            entry["command"] += ["--account", "lab7", "-A", "lab7", "--notify=webhook:https://hooks.example/secret", "--data",
                                 "footage/anna", "--set", "data.manifest=/home/anna/S_20130101.mp4", "--set", "name=x-login-3"]
        record["command"] = record["submissions"][0]["command"]
        run.record.write_text(json.dumps(record))
        run.quarantine.write_text("step,epoch,slot,row,substitute,clips,reason\n3,0,1,77,5,2,/home/anna/S_20130101.mp4 is cut off\n"
                                  "4,0,2,78,6,2,timeout\n5,0,2,79,6,2,timeout\n")
        (run.path / "reconstruction.png").write_bytes(b"frames of a child")
        (run.path / "failure.json").write_text(json.dumps({"message": "/home/anna/S_20130101.mp4"}))
        (run.submit / "17021").mkdir(exist_ok=True, parents=True)
        (run.submit / "17021/17021_0_log.out").write_text("anna on login-3")
    (runs / CELL / "code").symlink_to("../done-edd1b7a1/code")
    tables = runs.parent / "tables"
    tables.mkdir()
    (tables / "results.csv").write_text(f"run,top1\n{runs}/{CELL},10.8\n")
    (tables / "hard.csv").write_text("clip\nS_20130101.mp4\n")
    (tables / "figure.png").write_bytes(b"frames of a child")
    return runs


@pytest.mark.parametrize(("command", "flags"), [
    (archive, "-h --help --tables --no-weights --predictions --pictures --licence --runs-dir --out --json"),
    (clean, "-h --help --kinds --older-than --weights --tables --delete --yes --protect --unprotect --runs-dir --json")])
def test_the_flags_are_frozen_and_the_commands_in_the_help_are_parsed(command: ModuleType, flags: str) -> None:
    assert set(command.make_parser()._option_string_actions) == set(flags.split())
    shown = re.findall(r"^    python jobs/\w+\.py(.*?)(?:   .*)?$", command.__doc__ or "", re.MULTILINE)
    assert len(shown) >= 3
    for words in shown:
        command.make_parser().parse_args(shlex.split(words))


def members(path: Path) -> dict[str, bytes]:
    """What is in an archive, by name without its top folder; of a link where it leads."""
    with tarfile.open(path) as tar:
        return {info.name.partition("/")[2]: info.linkname.encode() if info.issym() else tar.extractfile(info).read() for info in tar}


def test_nothing_private_is_in_an_archive_and_what_a_paper_needs_is(private: Path, call: Told) -> None:
    code, out, err = call("done-edd1b7a1", CELL, "--tables", "tables", "--out", "paper.tar.gz", "--licence", "cc-by-4.0")
    assert code == 0 and out.strip() == str(Path("paper.tar.gz").absolute()), err
    found = members(Path("paper.tar.gz"))
    told = b"\n".join([*found.values(), *(name.encode() for name in found), err.encode()]).decode(errors="replace")
    assert [word for word in PRIVATE if word in told] == []
    top = "runs/done-edd1b7a1"
    wanted = {f"{top}/{name}" for name in ("config.yaml", "run.json", "result.json", "metrics.jsonl", "attempts.json",
                                           "weights.safetensors", "MODEL_CARD.md", "quarantine_counts.json", "code")}
    assert wanted <= set(found) and {"tables/results.csv", "LICENCES.md", "environment/packed_with.txt", "contents.json",
                                     "MANIFEST.sha256"} <= set(found)
    assert not {name for name in found if name.endswith((".png", ".csv")) and name != "tables/results.csv"}
    assert found[f"{top}/weights.safetensors"] == (private / "done-edd1b7a1/weights.safetensors").read_bytes()
    counts = json.loads(found[f"{top}/quarantine_counts.json"])
    assert counts["replaced"] == 3 and counts["reasons"]["timeout"] == 2 and "77" not in str(counts)
    assert b"cc-by-4.0" in found[f"{top}/MODEL_CARD.md"] and found["tables/results.csv"].decode().endswith(f"\nruns/{CELL},10.8\n")
    record = json.loads(found[f"runs/{CELL}/run.json"])
    assert record["manifest"] == "removed/motion.csv" and record["content_sha256"].startswith("242a1da2")
    assert b"init: runs/done-edd1b7a1/weights.safetensors\n" in found[f"runs/{CELL}/config.yaml"]
    snapshots = {name.split("/")[1] for name in found if name.startswith("code/")}
    assert len(snapshots) == 1 and found[f"runs/{CELL}/code"] == found[f"{top}/code"] == f"../../code/{snapshots.pop()}".encode()
    left = json.loads(found["contents.json"])["left_out"]
    assert any("a profile" in why or "profiles" in why for why in left.values()) and left["tables/hard.csv"].endswith("picture")
    assert call("verify", "paper.tar.gz")[0] == 0


def test_pictures_predictions_and_weights_as_asked(private: Path, call: Told) -> None:
    assert call("pack", CELL, "--pictures", "--predictions", "--tables", "tables", "--no-weights", "--out", "all.tar")[0] == 0
    found = members(Path("all.tar"))
    assert {f"runs/{CELL}/reconstruction.png", f"runs/{CELL}/predictions.npz", "tables/figure.png"} <= set(found)
    assert call("done-edd1b7a1", "--no-weights")[0] == 0
    assert not any("safetensors" in name or "MODEL_CARD" in name for name in members(Path("done-edd1b7a1.tar.gz")))


def test_an_archive_is_the_same_again_and_overwrites_nothing(private: Path, call: Told) -> None:
    for name in ("a", "b"):
        Path(name).mkdir()
        assert call("done-edd1b7a1", "--out", f"{name}/x.tar.gz")[0] == 0
    one = Path("a/x.tar.gz").read_bytes()
    assert one == Path("b/x.tar.gz").read_bytes()
    code, _, err = call("done-edd1b7a1", "--out", "a/x.tar.gz")
    assert code == 2 and "exists" in err and Path("a/x.tar.gz").read_bytes() == one
    assert call("done-edd1b7a1", "--out", "a/x.zip")[0] == 2
    assert [path.name for path in Path("a").iterdir()] == ["x.tar.gz"] and Path("a/x.tar.gz").stat().st_mode & 0o077 == 0


def test_ctrl_c_leaves_no_archive(private: Path, call: Told, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(tarfile.TarFile, "addfile", interrupted)
    before = sorted(Path.cwd().iterdir())
    assert call("done-edd1b7a1")[0] == 130 and sorted(Path.cwd().iterdir()) == before


def rewritten(path: Path, change: dict[str, bytes | None], link: str = "") -> Path:
    """An archive with other bytes under some names; None leaves one out. `link` is where all links lead."""
    out = path.with_name("changed.tar")
    with tarfile.open(path) as old, tarfile.open(out, "w") as new:
        for info in old:
            name = info.name.partition("/")[2]
            data = change[name] if name in change else old.extractfile(info).read() if info.isfile() else b""
            if data is not None:
                info.size = len(data)
                info.linkname = link if info.issym() and link else info.linkname
                new.addfile(info, io.BytesIO(data))
        for name in set(change) - {each.name.partition("/")[2] for each in old.getmembers()}:
            info = tarfile.TarInfo(name if name.startswith("..") else f"paper/{name}")
            info.size = len(change[name] or b"")
            new.addfile(info, io.BytesIO(change[name] or b""))
    return out


def test_verify_finds_every_damage(private: Path, call: Told) -> None:
    assert call("done-edd1b7a1", "--out", "paper.tar")[0] == 0
    path, found = Path("paper.tar"), members(Path("paper.tar"))
    result, weights = "runs/done-edd1b7a1/result.json", "runs/done-edd1b7a1/weights.safetensors"
    short = found[weights][:-4]
    sums = found["MANIFEST.sha256"].replace(hashlib.sha256(found[weights]).hexdigest().encode(), hashlib.sha256(short).hexdigest().encode())
    for change, said in (({}, ""), ({result: found[result] + b" "}, "other content"), ({result: None}, "missing"),
                         ({"more.txt": b"x"}, "not in MANIFEST"), ({"../out.txt": b"x"}, "leads out"), ({"MANIFEST.sha256": None}, "nothing can be checked"),
                         ({weights: short, "MANIFEST.sha256": sums}, "bytes, and the file has"),
                         ({name: None for name in found if name.startswith("code/")}, "leads nowhere")):
        code, _, err = call("verify", str(rewritten(path, change)))
        assert code == bool(said) and said in err, (said, err)
    assert call("verify", str(rewritten(path, {}, "..")))[0] == 1
    for change, said in (({"MANIFEST.sha256": b""}, "is empty"), ({"contents.json": None}, "contents.json is missing")):
        code, _, err = call("verify", str(rewritten(path, change)))
        assert code == 1 and said in err, (said, err)
    for name, said in (("/paper/more.txt", "leads out"), ("other/more.txt", "2 top folders"), ("paper//etc/more.txt", "leads out"),
                       ("paper/runs/done-edd1b7a1/code", "is in it twice")):
        added = rewritten(path, {})
        with tarfile.open(added, "a") as tar:
            info = tarfile.TarInfo(name)
            info.type, info.linkname = (tarfile.SYMTYPE, "../../code") if name.endswith("code") else (tarfile.REGTYPE, "")
            tar.addfile(info, io.BytesIO())
        code, _, err = call("verify", str(added))
        assert code == 1 and said in err, (name, err)
    Path("cut.tar").write_bytes(path.read_bytes()[:3000])
    assert call("verify", "cut.tar")[0] == 1
    assert call("done-edd1b7a1", "--out", "paper.tar.gz")[0] == 0
    packed = bytearray(Path("paper.tar.gz").read_bytes())
    for place in (len(packed) // 2, len(packed) - 6):  # within, and in the checksum of gzip
        Path("flipped.tar.gz").write_bytes(packed[:place] + bytes([packed[place] ^ 255]) + packed[place + 1:])
        assert call("verify", "flipped.tar.gz")[0] == 1
    Path("none.tar").write_bytes(b"no archive at all")
    assert call("verify", "none.tar")[0] == 2 and call("verify", "missing.tar")[0] == 2


def test_unpacked_the_runs_are_runs(private: Path, call: Told) -> None:
    assert call("done-edd1b7a1", CELL, "--out", "paper.tar.gz")[0] == 0
    with tarfile.open("paper.tar.gz") as tar:
        tar.extractall("there", filter="data")
    here = Path("there/paper")
    assert subprocess.run(["sha256sum", "--quiet", "-c", "MANIFEST.sha256"], cwd=here).returncode == 0
    assert (here / "runs" / CELL / "code/vidmae/__init__.py").is_file()
    assert str(model_in(here / "runs/done-edd1b7a1/weights.safetensors")).startswith("vit_pico_patch8")
    with contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()):
        assert collect.main([str(here / "runs"), "--out", "tables2"]) in (0, 3)
    assert "10.83" in Path("tables2/fewshot.csv").read_text() + Path("tables2/results.csv").read_text()


def test_a_damaged_file_of_weights_is_not_packed(private: Path, call: Told) -> None:
    weights = private / "done-edd1b7a1/weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    code, _, err = call("done-edd1b7a1")
    assert code == 2 and "damaged" in err and not Path("done-edd1b7a1.tar.gz").exists()


def test_an_array_stands_for_its_cells(private: Path, call: Told) -> None:
    array = private / "arrays/20261128T080554-fewshot"
    array.mkdir(parents=True)
    (array / "cells.txt").write_text(f"/elsewhere/runs/{CELL}\n")
    assert call("runs/arrays/20261128T080554-fewshot")[0] == 0
    assert f"runs/{CELL}/result.json" in members(Path("20261128T080554-fewshot.tar.gz"))
    copy_run(private, "done-edd1b7a1", "other-11111111")
    code, _, err = call("done-edd1b7a1", "other-11111111")
    assert code == 2 and "--out" in err


@pytest.mark.parametrize(("given", "kept"), [
    ("/r/runs/s-1a2b3c4d/weights.safetensors", "runs/s-1a2b3c4d/weights.safetensors"), ("/data/anna/s.csv", "removed/s.csv"),
    ("/data/anna", "removed"), ("~/anna/x.mov", "removed"), ("/data/my anna/s anna.mp4", "removed"),
    ("could not read /data/anna/x.mp4: cut", "could not read removed: cut"), ("anna_1.MP4 is cut", "removed is cut"),
    ("see https://hooks.example/secret", "see removed"), ("lost on login-3", "lost on removed"),
    ("scratch:vit_pico-16px-4x2", "scratch:vit_pico-16px-4x2"), ("hf://me/model/x.pth", "hf://me/model/x.pth"), ("4 steps", "4 steps")])
def test_what_stays_of_a_text(given: str, kept: str) -> None:
    assert Redaction(Path("/r/runs"), ["login-3"]).record({"x": [given]}) == {"x": [kept]}


def test_no_account_host_or_address_is_left_of_commands_and_reasons() -> None:
    redaction = Redaction(Path("/r/runs"), ["login-3"])
    words = ["-Alab9", "-wgpu01", "-xgpu02", "--job-name", "anna", "--fewshot", "--account lab7 -A lab8 --time 2:00",
             "--fewshot=--account=lab7 -wgpu01 --data hf://me/x", "--set", "data=footage/anna,hf://me/x.pth"]
    assert redaction.command(words) == [
        "-Aremoved", "-wremoved", "-xremoved", "--job-name", "removed", "--fewshot", "--account removed -A removed --time 2:00",
        "--fewshot=--account=removed -wremoved --data hf://me/x", "--set", "data=removed,hf://me/x.pth"]
    for said, kept in (("could not read footage/emma smith/x.mp4", "could not read removed"), ("timeout", "timeout"),
                       ("cut off: C:\\emma smith\\x", "cut off: removed"), ("no frames in 'emma smith.mp4'", "no frames in removed")):
        assert redaction.reason(said) == kept
    assert redaction.record({"/home/anna/x.mp4": 1}) == {"removed": 1}


def test_a_long_word_takes_no_time() -> None:
    began = time.process_time()
    assert what_is_private("a" * 300_000, (), names=True) == "" and Redaction(Path("/r/runs")).text("a" * 20_000).startswith("aa")
    assert time.process_time() - began < 2.0


def test_edited_code_and_names_of_tables_give_nothing_away(private: Path, call: Told) -> None:
    add_code(private / "done-edd1b7a1", **{"DIRTY.diff": "+clip = 'emma_2021.mp4'\n", "vidmae/recipes/mine.yaml": "data: {manifest: /home/x/s.csv}\n",
                                          "vidmae/recipes/demo.yaml": (ROOT / "vidmae/recipes/demo.yaml").read_text()})
    for name in ("emma_2021.mp4.csv", "emma_2021.mp4", "emma.npy", "of emma.png"):
        Path("tables", name).write_text("a,b\n1,2\n")
    assert call("done-edd1b7a1", "--tables", "tables", "--out", "paper.tar", "--no-weights")[0] == 0
    found = members(Path("paper.tar"))
    assert "emma" not in " ".join(found) and b"emma" not in b"".join(found.values()) and b"/home/x" not in b"".join(found.values())
    assert any(name.endswith("recipes/demo.yaml") for name in found) and not any(name.endswith("mine.yaml") for name in found)
    assert any(why.startswith("2 files: pictures") for why in json.loads(found["contents.json"])["left_out"].values())


def test_what_stays_of_a_command() -> None:
    words = ["python", "sweeps/scaling.py", "--data", "my footage/anna", "--fewshot", "--data footage/anna --time 2:00 -A lab7", "--set",
             "train.phases=[{duration: 1/2 steps}]", "--set=data.manifest=here/s.csv", "-Jrun-of-login-3", "--checkpoints", "runs/s-1a2b3c4d,hf://me/m/x.pth"]
    kept = Redaction(Path("/r/runs"), ["login-3"]).command(words)
    assert kept == ["python", "sweeps/scaling.py", "--data", "removed", "--fewshot", "--data removed --time 2:00 -A removed", "--set",
                    "train.phases=[{duration: 1/2 steps}]", "--set=data.manifest=removed/s.csv", "-Jremoved", "--checkpoints", "runs/s-1a2b3c4d,hf://me/m/x.pth"]
