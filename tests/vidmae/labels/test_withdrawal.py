"""Recordings that are taken out: the new version, what stays out, and what had them."""

import contextlib
import io
import json
import os
import subprocess
from pathlib import Path

import pytest

from jobs import prepare
from tests.support import videos
from tests.support.facilities import need
from tests.support.launching import cli
from vidmae.footage import manifest as m
from vidmae.footage.history import Choice, parse_share, read_history, write_fraction
from vidmae.footage.known.facts import NO_FACTS, Facts
from vidmae.footage.known.withdrawn import read_versions, read_withdrawn
from vidmae.footage.manifest import Check, Manifest, Row, read_all, read_summary
from vidmae.labels.withdrawal import withdrawn_contents

EMBARGO = {3: Facts("A", embargo="yes"), 4: Facts("A", embargo="2999-01-01"), 5: Facts("A", embargo="2001-01-01")}


@pytest.fixture
def here(tmp_path: Path) -> Path:
    """Eight recordings, the last a copy of the second; a fraction, a subset, prepared footage and three runs."""
    rows = [Row(f"/data/secret{i}.mp4", "", 1800, 30.0, 60.0, 1000 + i, 64, 48, "h264", 0, 1, 0, f"{i if i < 7 else 1:016x}", 17, "decord",
                EMBARGO.get(i, NO_FACTS)) for i in range(8)]
    s = tmp_path / "manifests/s.csv"
    m.write_manifest(s, rows, [("/data/bad.mp4", "no video")], Check("decord", True))
    whole = read_summary(s)
    history = read_history(s, Choice())
    half = write_fraction(tmp_path / "manifests/s-0.5-contiguous.csv", history, parse_share("0.5"))
    (tmp_path / "manifests/s.shots2-seed0.json").write_text(json.dumps({"contents": {"a": [f"{1:016x}"]}}))
    m.write_manifest(tmp_path / "manifests/s-256.csv", [Row("/p/frames.tar#1", "", 9, 3.75, 60.0, 1, 64, 48, "jpeg", 0, 0, 0, "f" * 16, 0, "archive")], [],
                     Check("archive", True))
    record = json.loads((tmp_path / "manifests/s-256.json").read_text())
    (tmp_path / "manifests/s-256.json").write_text(json.dumps({**record, "prepared": {"of": "s", "of_content_sha256": whole.content_sha256}}))
    for name, content, fraction in (("all-1", whole.content_sha256, None), ("half-2", half.content_sha256, half.fraction), ("other-3", "0" * 64, None)):
        (tmp_path / "runs" / name).mkdir(parents=True)
        (tmp_path / "runs" / name / "run.json").write_text(json.dumps({"content_sha256": content, "fraction": fraction}))
    return tmp_path


def withdraw(*words: str, cwd: Path, manifest: str = "s") -> subprocess.CompletedProcess[str]:
    """As a user would, in this process."""
    out, err, before = io.StringIO(), io.StringIO(), Path.cwd()
    os.chdir(cwd)
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = prepare.main(["withdraw", manifest, *words])
    finally:
        os.chdir(before)
    return subprocess.CompletedProcess(words, code, out.getvalue(), err.getvalue())


def test_a_recording_and_its_copy_are_taken_out_and_what_had_them_is_named(here):
    s, before = here / "manifests/s.csv", read_summary(here / "manifests/s.csv")
    (here / "list.txt").write_text("data/secret1.mp4\n")
    dry = withdraw("--files", "list.txt", "--dry-run", cwd=here)
    assert dry.returncode == 0 and "would take out 2 of 8 videos, 0.03 of 0.13 h" in dry.stderr and read_summary(s) == before
    assert not (here / "manifests/s.withdrawn.csv").exists()
    done = withdraw("--files", "list.txt", "--reason", "consent withdrawn", cwd=here)
    assert done.returncode == 0 and done.stdout == f"{s}\n", done.stderr
    after = read_summary(s)
    assert f"version {before.content_sha256[:8]} is now {after.content_sha256[:8]}" in done.stderr
    assert "secret" not in done.stderr
    assert "runs that saw a version with them: 2" in done.stderr and "  all-1 (" in done.stderr and "  half-2 (" in done.stderr
    assert "s-0.5-contiguous.csv (1)" in done.stderr and "s.shots2-seed0.json" in done.stderr and "s-256.csv; take them out" in done.stderr
    assert [Path(row.path).name for row in read_all(s)[1]] == [f"secret{i}.mp4" for i in (0, 2, 3, 4, 5, 6)]
    assert after.unreadable == 1 and len(Manifest.read(s)) == 6
    version, = read_versions(s)
    assert (version.withdrawn, version.reason, version.before_content_sha256, version.after_content_sha256) == \
        (1, "consent withdrawn", before.content_sha256, after.content_sha256)
    assert withdrawn_contents(s) == {f"{1:016x}"}
    records = "".join(path.read_text() for path in (here / "manifests").glob("s.[vw]*"))
    assert "secret" not in records
    (here / "list.txt").write_text("secret6.mp4\n")
    again = withdraw("--files", "list.txt", cwd=here)
    assert again.returncode == 0 and "all-1" in again.stderr, "it saw the version before the last, too"
    assert [each.content for each in read_withdrawn(s)] == [f"{1:016x}", f"{6:016x}"]


def test_what_is_under_embargo_today_is_taken_out(here):
    done = withdraw("--embargoed", cwd=here)
    assert done.returncode == 0 and "taken out: 2 of 8 videos" in done.stderr, done.stderr
    assert withdrawn_contents(here / "manifests/s.csv") == {f"{3:016x}", f"{4:016x}"}
    assert read_versions(here / "manifests/s.csv")[0].reason == "embargo"
    again = withdraw("--embargoed", cwd=here)
    assert again.returncode == 0 and "nothing to withdraw" in again.stderr and len(read_versions(here / "manifests/s.csv")) == 1


@pytest.mark.parametrize(("lines", "said"), [
    ("secret1.mp4\nsecret9.mp4\n", "1 of 2 lines of the list name no recording of the manifest: 2"), ("\n", "has no line"),
    ("".join(f"secret{i}.mp4\n" for i in range(8)), "all 8 recordings")])
def test_a_list_that_does_not_fit_changes_nothing(here, lines, said):
    before = (here / "manifests/s.csv").read_bytes()
    (here / "list.txt").write_text(lines)
    done = withdraw("--files", "list.txt", cwd=here)
    assert done.returncode == 2 and said in done.stderr and "secret" not in done.stderr and not done.stdout
    assert (here / "manifests/s.csv").read_bytes() == before
    refused = withdraw("--embargoed", manifest="manifests/s-0.5-contiguous.csv", cwd=here)
    assert refused.returncode == 2 and "is a fraction of s" in refused.stderr
    assert "give --files" in withdraw(cwd=here).stderr


def test_a_manifest_that_is_made_again_leaves_them_out(tmp_path):
    need("ffmpeg")
    (tmp_path / "v").mkdir()
    for i in range(3):
        videos.h264(tmp_path / f"v/{i}.mp4", seconds=0.2 + 0.1 * i)
    assert cli("prepare.py", "manifest", "v", "--name", "s", cwd=tmp_path).returncode == 0
    (tmp_path / "list.txt").write_text("1\n")
    assert withdraw("--files", "list.txt", cwd=tmp_path).returncode == 0
    after = (tmp_path / "manifests/s.csv").read_bytes()
    (tmp_path / "v/1.mp4").rename(tmp_path / "v/renamed.mp4")
    again = cli("prepare.py", "manifest", "v", "--name", "s", cwd=tmp_path)
    assert again.returncode == 0 and "1 recordings were withdrawn before and stay out" in again.stderr
    assert (tmp_path / "manifests/s.csv").read_bytes() == after
