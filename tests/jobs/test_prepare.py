"""The command line that makes manifests, as a user types it."""

import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from PIL import Image

from jobs.submit.prepare_manifest import grouped
from tests.support import started, videos
from tests.support.facilities import need
from vidmae.footage.manifest import Manifest, read_summary

SCRIPT = Path(__file__).parents[2] / "jobs" / "prepare.py"


def prepare(*words: str | Path, cwd: Path | None = None, timed: bool = False, anew: bool = False,
            ) -> subprocess.CompletedProcess[str]:
    """`timed` measures the CPU time of a clip, too, which takes seconds; `anew` starts it as a user does."""
    more = ["--no-clip-cost"] if words[:1] == ("manifest",) and len(words) > 1 and not timed else []
    env = {name: value for name, value in os.environ.items() if name != "SLURM_CONF"}  # the cluster of other tests
    return started.run(str(SCRIPT), *map(str, words), *more, env=env, cwd=cwd, timeout_s=120, anew=anew)


@pytest.fixture(scope="module")
def footage(tmp_path_factory):
    need("ffmpeg")
    folder = tmp_path_factory.mktemp("x") / "headcam"
    folder.mkdir()
    videos.vp9(folder / "secret child.webm")
    videos.h264(folder / "b [1], c.mp4", seconds=1)
    videos.empty(folder / "secret empty.mp4")
    return folder


def test_stdout_is_the_path_alone_and_people_read_stderr(footage, tmp_path):
    done = prepare("manifest", footage, cwd=tmp_path, anew=True)
    assert done.returncode == 0, done.stderr
    out = tmp_path / "manifests" / "headcam.csv"
    assert done.stdout == f"{out}\n"
    assert "2 videos" in done.stderr and "0.00 h" in done.stderr and "1 files left out" in done.stderr
    assert "0 bytes" in done.stderr
    assert "secret" not in done.stderr  # names of recordings are private
    assert "next: python jobs/pretrain.py --data headcam --dry-run" in done.stderr, "a data set of manifests/ has a name"
    assert len(Manifest.read(out)) == 2
    again = prepare("manifest", footage, "--show-names", cwd=tmp_path)
    assert "2 unchanged" in again.stderr and "secret empty.mp4" in again.stderr


def test_the_cpu_time_of_a_clip_is_measured_once(footage, tmp_path):
    plain = prepare("manifest", footage, "--no-verify", cwd=tmp_path)
    out = tmp_path / "manifests" / "headcam.csv"
    assert plain.returncode == 0 and read_summary(out).clip_cost is None
    timed = prepare("manifest", footage, "--no-verify", cwd=tmp_path, timed=True)
    cost = read_summary(out).clip_cost
    assert timed.returncode == 0 and "CPU time of a clip: " in timed.stderr
    assert cost["videos"] == 2 and 0 < cost["ms_per_clip"]["16"] < cost["ms_per_clip"]["1"]
    again = prepare("manifest", footage, "--no-verify", cwd=tmp_path, timed=True)
    assert read_summary(out).clip_cost == cost, "the same files are not measured again"
    assert "CPU time of a clip: " in again.stderr


def test_lists_roots_and_options(footage, tmp_path):
    (tmp_path / "train.csv").write_text("secret child.webm, 1\nb [1], c.mp4, 0\n")
    done = prepare("manifest", tmp_path / "train.csv", "--root", footage, "--out", tmp_path / "o" / "ssv2-val.csv",
                   "--decoder", "pyav", "--no-verify", "--workers", "1")
    assert done.returncode == 0, done.stderr
    manifest = Manifest.read(tmp_path / "o" / "ssv2-val.csv")
    assert manifest.class_index.tolist() == [0, 1]
    summary = read_summary(tmp_path / "o" / "ssv2-val.csv")
    assert (summary.decoder, summary.verified, summary.classes) == ("pyav", False, 2)
    assert f"next: python sweeps/fewshot.py --data {tmp_path}/o/ssv2.csv --shots 10" in done.stderr  # finds ssv2-val by itself


def test_reasons_that_differ_in_numbers_alone_are_one_line():
    reasons = ["decord reads a wrong frame: 12 for 14", "0 bytes", "decord reads a wrong frame: 3 for 7.5", "0 bytes", "0 bytes",
               "decord cannot open it"]
    assert grouped(reasons) == ["3 x 0 bytes", "2 x decord reads a wrong frame: 12 for 14 (the numbers differ)",
                                "1 x decord cannot open it"]


def test_no_readable_video_is_exit_3(tmp_path):
    videos.empty(tmp_path / "a.mp4")
    done = prepare("manifest", tmp_path, "--out", tmp_path / "o.csv")
    assert done.returncode == 3 and "0 videos" in done.stderr


@pytest.mark.parametrize("words, said", [
    (["manifest", "gone"], "cannot read"), (["manifest", "."], "holds no video"),
    (["manifest", ".", "--workers", "0"], "--workers 0"), (["manifest", ".", "--out", "x.txt"], "must end in .csv"),
    (["manifest"], "SOURCE"), ([], "VERB"), (["manifest", ".", "--time-limit-s", "-1"], "--time-limit-s")])
def test_misuse_is_exit_2_and_says_why(tmp_path, words, said):
    done = prepare(*words, cwd=tmp_path)
    assert done.returncode == 2 and said in done.stderr and not done.stdout
    assert "Traceback" not in done.stderr


def test_help_is_quick_and_needs_no_torch(tmp_path):
    (tmp_path / "torch.py").write_text("raise ImportError('blocked')")
    env = {**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{SCRIPT.parents[1]}"}
    began = time.monotonic()
    done = subprocess.run([sys.executable, str(SCRIPT), "manifest", "--help"], env=env, capture_output=True, text=True,
                          timeout=30)
    assert done.returncode == 0, done.stderr
    assert time.monotonic() - began < 5  # 0.2 s alone; the bound is for a busy machine
    assert len(re.findall(r"^ +python jobs/prepare.py manifest ", done.stdout, re.MULTILINE)) == 8


def test_the_commands_in_the_help_are_accepted(footage, tmp_path):
    shown = prepare("manifest", "--help").stdout
    shutil.copytree(footage, tmp_path / "clips")
    shutil.copytree(footage, tmp_path / "classes" / "jump")
    (tmp_path / "train.csv").write_text("secret child.webm, 1\n")
    (tmp_path / "table.csv").write_text('file,child,age_months\nsecret child,S,7\n"b [1], c.mp4",S,8\nsecret empty,S,9\n')
    (tmp_path / "something-something-v2-train.json").write_text('[{"id": "secret child", "template": "Moving [something]"}]')
    picture = tmp_path / "pictures" / "n01440764" / "a.png"
    picture.parent.mkdir(parents=True)
    Image.new("RGB", (32, 24)).save(picture)
    (tmp_path / "synsets.txt").write_text("n01440764 tench, Tinca tinca\n")
    folders = {"/data/headcam/S": "clips", "/data/ssv2": "clips", "/data/headcam": "clips", "/data/k700/val": "classes",
               "/data/imagenet/train": "pictures"}
    for line in re.findall(r"^ +python jobs/prepare.py (manifest .*)$", shown, re.MULTILINE):
        words = [folders.get(word, word) for word in line.split()]
        words += ["--dry-run", "--cpus-per-task", "2"] if "slurm" in words else []
        done = prepare(*words, cwd=tmp_path)
        assert done.returncode == 0, done.stderr


def test_a_table_is_joined_and_what_does_not_fit_is_refused(footage, tmp_path):
    about = tmp_path / "about.csv"
    about.write_text('file,child,date,birth_date,notes\nheadcam/secret child.webm,S,2013-04-17,2012-10-01,\n"secret gone.mp4",S,2013-05-17,2012-10-01,\n')
    done = prepare("manifest", footage, "--name", "s", "--about", about, cwd=tmp_path)
    assert done.returncode == 2 and not done.stdout and "secret" not in done.stderr
    assert "1 of 2 rows of the table (its header is row 1) name no video of the sources: 3; 2 of 3 videos are not in the table: " in done.stderr
    assert "secret gone.mp4" in prepare("manifest", footage, "--name", "s", "--about", about, "--show-names", cwd=tmp_path).stderr
    done = prepare("manifest", footage, "--name", "s", "--about", about, "--partial", cwd=tmp_path)
    assert done.returncode == 0 and "known: 1 children, recorded 2013-04-17 to 2013-04-17, 6.5 to 6.5 months old" in done.stderr
    assert "1 of 2 videos have no child" in done.stderr and "not used: notes" in done.stderr and "secret" not in done.stderr
    out = tmp_path / "manifests/s.csv"
    assert sorted(Manifest.read(out).child.tolist()) == [-1, 0]
    again = prepare("manifest", footage, "--name", "s", cwd=tmp_path)  # without the table: what was known stays
    assert again.returncode == 0 and "2 unchanged" in again.stderr and Manifest.read(out).children == ("S",)
