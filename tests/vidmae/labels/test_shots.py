"""k-shot subsets: exactly k per class, nested, and the same whatever the order of rows, the paths and the process."""

import hashlib
import json
import os
import random
import re
import stat
import subprocess
import sys
from collections import Counter, defaultdict
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.support.launching import cli
from vidmae.footage import manifest as m
from vidmae.footage.manifest import Check, Manifest, ManifestError, Row
from vidmae.labels.shot_list import listed_shots
from vidmae.labels.shots import ShotsError, draw_shots, read_shots, rows_of, shots_path, write_shots
from vidmae.labels.splits import check_apart, read_labelled
from vidmae.runs.record import write_json

CLASSES = ["Approaching [something]", "massaging person's head", 'say "hi", twice', "ärgern – 子供", "z"]


def row(path: str, label: str, content: int) -> Row:
    return Row(path, label, 90, 30.0, 3.0, 1000, 64, 48, "h264", 0, 1, 0, f"{content:016x}", 17, "decord")


def many_rows(seed: int = 0, per_class: int = 30, folder: str = "/v") -> list[Row]:
    """Contents of many magnitudes, names that repeat in other classes."""
    rng = random.Random(seed)
    return [row(f"{folder}/{label}/{i}, [x].webm", label, rng.randrange(2**64) >> rng.randrange(40))
            for label in CLASSES for i in range(per_class)]


def written(folder: Path, rows: list[Row], name: str = "s") -> Path:
    out = folder / f"{name}.csv"
    m.write_manifest(out, rows, [], Check("decord", True))
    return out


def definition(rows: list[Row], k: int, seed: int) -> dict[str, list[str]]:
    """What the module says, word for word and without its code."""
    contents = defaultdict(set)
    for r in rows:
        contents[r.label].add(r.content)
    def lot(label: str, content: str) -> bytes:
        return hashlib.blake2b(b"%d\n%s\n%s" % (seed, label.encode(), content.encode()), digest_size=16).digest()
    return {label: sorted(found, key=lambda c, label=label: lot(label, c))[:k] for label, found in contents.items()}


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> tuple[list[Row], Path]:
    rows = many_rows()
    rows.append(row("/v/again.webm", "z", int(rows[-1].content, 16)))
    return rows, written(tmp_path_factory.mktemp("made"), rows)


@pytest.mark.parametrize("seed", [0, 1, 12345678901234567890])
def test_the_draw_is_its_definition_and_nested(made, seed):
    rows, path = made
    subsets = draw_shots(read_labelled(path), [10, 2, 25], seed)
    for k, subset in zip([10, 2, 25], subsets, strict=True):
        assert subset.clips == definition(rows, k, seed)
        assert len(subset) == 5 * k and not subset.short and (subset.shots, subset.seed) == (k, seed)
    ten, two, many = ({(label, c) for label, clips in s.clips.items() for c in clips} for s in subsets)
    assert two < ten < many


def test_another_seed_is_another_draw_and_classes_do_not_share_their_order(tmp_path):
    rows = [row(f"/{label}/{i}.mp4", label, i) for label in "ab" for i in range(40)]  # the same contents in both
    labelled = read_labelled(written(tmp_path, rows))
    first, second = (draw_shots(labelled, [10], seed)[0] for seed in (0, 1))
    assert first.clips["a"] != second.clips["a"] and first.content_sha256 != second.content_sha256
    assert first.clips["a"] != first.clips["b"]
    drawn = Counter(clip for seed in range(400) for clip in draw_shots(labelled, [10], seed)[0].clips["a"])
    assert all(60 < drawn[f"{i:016x}"] < 140 for i in range(40))  # 100 expected, standard deviation 8.7


def test_neither_the_order_of_rows_nor_paths_matter(made, tmp_path):
    rows, path = made
    moved = [replace(r, path=f"/elsewhere/{random.Random(i).random()}/{i}.mp4") for i, r in enumerate(rows)]
    random.Random(5).shuffle(moved)
    here, there = read_labelled(path), read_labelled(written(tmp_path, moved))
    one, other = draw_shots(here, [7], 3)[0], draw_shots(there, [7], 3)[0]
    assert (one.clips, one.content_sha256) == (other.clips, other.content_sha256)
    for labelled, listed in ((here, rows), (there, moved)):
        chosen = [listed[i] for i in rows_of(one, labelled)]
        assert {(r.label, r.content) for r in chosen} == {(la, c) for la, cs in one.clips.items() for c in cs}
        assert len(chosen) == 35


def test_another_process_draws_the_same(made):
    code = ("import sys; from pathlib import Path; from vidmae.labels.shots import draw_shots; from vidmae.labels.splits import read_labelled;"
            "print(draw_shots(read_labelled(Path(sys.argv[1])), [5], 9)[0].content_sha256, 'torch' in sys.modules)")
    said = {subprocess.run([sys.executable, "-c", code, str(made[1])], capture_output=True, text=True, check=True,
                           env={**os.environ, "PYTHONHASHSEED": seed, "LC_ALL": "C"}).stdout for seed in ("1", "77")}
    assert said == {f"{draw_shots(read_labelled(made[1]), [5], 9)[0].content_sha256} False\n"}


def test_classes_have_the_numbers_that_training_gives_them(made):
    labelled, manifest = read_labelled(made[1]), Manifest.read(made[1])
    assert labelled.class_of.tolist() == manifest.class_index.tolist()
    assert labelled.classes == tuple(sorted(CLASSES))


def test_repeated_clips_count_once(tmp_path):
    rows = [row(f"/{i}.mp4", "a", i // 3) for i in range(12)] + [row(f"/b{i}.mp4", "b", 3 + i) for i in range(4)]
    labelled = read_labelled(written(tmp_path, rows))  # 3 is in both classes: a clip of each
    subset = draw_shots(labelled, [4], 0)[0]
    assert rows_of(subset, labelled).tolist() == [0, 3, 6, 9, 12, 13, 14, 15]
    with pytest.raises(ShotsError, match=r"2 of 2 classes have fewer than 5 different clips: 'a \(4\)', 'b \(4\)'; lower --shots"):
        draw_shots(labelled, [5], 0)


def test_too_few_clips_name_the_classes_or_are_allowed(tmp_path):
    rows = [row(f"/{c}/{i}.mp4", f"class {c:02d}", 100 * c + i) for c in range(14) for i in range(3 if c < 12 else 4)]
    labelled = read_labelled(written(tmp_path, rows))
    with pytest.raises(ShotsError, match=r"12 of 14 classes .* 4 .*'class 00 \(3\)', .*'class 09 \(3\)' and 2 more; .*--allow-f"):
        draw_shots(labelled, [4], 0)
    subset = draw_shots(labelled, [4], 0, allow_fewer=True)[0]
    assert len(subset) == len(rows) and set(subset.short.values()) == {3} and len(subset.short) == 12
    for shots, seed, said in ((0, 0, "--shots 0"), (-1, 0, "--shots -1"), (1, -1, "--seed -1")):
        with pytest.raises(ShotsError, match=said):
            draw_shots(labelled, [shots], seed)


def test_a_subset_is_read_back_as_it_was_written(made, tmp_path):
    labelled = read_labelled(made[1])
    subset = draw_shots(labelled, [3], 4)[0]
    path = shots_path(tmp_path / "o" / "ssv2.csv", 3, 4)
    assert path.name == "ssv2.shots3-seed4.json"
    write_shots(path, subset)
    assert read_shots(path) == subset
    assert stat.S_IMODE(path.stat().st_mode) == 0o600 and stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    record = json.loads(path.read_text())
    assert record["counts"] == dict.fromkeys(CLASSES, 3) and record["clips"] == 15
    assert record["manifest_content_sha256"] == labelled.summary.content_sha256
    assert "/v" not in path.read_text()  # no paths
    write_json(path, {**record, "contents": {**record["contents"], "z": record["contents"]["z"][:2]}})
    with pytest.raises(ShotsError, match=r"changed since it was made.*prepare\.py shots"):
        read_shots(path)
    for text, said in (("[]", "damaged"), ("{", "damaged"), ("{}", "no k-shot subset")):
        path.write_text(text)
        with pytest.raises(ShotsError, match=said):
            read_shots(path)
    with pytest.raises(ShotsError, match=r"there is no k-shot subset .*prepare\.py shots"):
        read_shots(tmp_path / "gone.json")


def test_a_manifest_that_lost_clips_or_classes_is_refused(made, tmp_path):
    rows, path = made
    subset = draw_shots(read_labelled(path), [10], 0)[0]
    gone = {subset.clips["z"][0], subset.clips["z"][5], subset.clips[CLASSES[0]][9]}
    later = written(tmp_path, [r for r in rows if r.content not in gone] + [row("/new.mp4", "z", 1)])
    with pytest.raises(ShotsError, match=r"3 of 50 clips of the 10-shot subset are not in .*s\.csv any more"):
        rows_of(subset, read_labelled(later))
    swapped = [replace(r, label="z") if r.content in gone else r for r in rows]  # the same recordings, another class
    with pytest.raises(ShotsError, match="1 of 50 clips"):
        rows_of(subset, read_labelled(written(tmp_path, swapped)))
    with pytest.raises(ShotsError, match=r"other classes .*'z'"):
        rows_of(subset, read_labelled(written(tmp_path, [r for r in rows if r.label != "z"])))


@pytest.mark.parametrize("by_number", [True, False])
def test_a_released_list_is_found_by_file_names_within_classes(made, tmp_path, by_number):
    rows, path = made
    labelled = read_labelled(path, paths=True)
    wanted = [r for r in rows if r.path.endswith(" [x].webm") and int(Path(r.path).name.split(",")[0]) % 7 == 0]
    number = {label: i for i, label in enumerate(sorted(CLASSES))}
    listing = tmp_path / "train.csv"
    listing.write_text("".join(f"/vast/them/ssv2/{r.label}/{Path(r.path).name}, {number[r.label] if by_number else r.label}\n"
                               for r in wanted))
    subset = listed_shots(labelled, listing, 5)
    assert rows_of(subset, labelled).tolist() == [rows.index(r) for r in wanted]
    assert subset.seed is None and shots_path(path, 5, None).name == "s.shots5-list.json"
    with pytest.raises(ShotsError, match="5 of 5 classes have fewer than 6"):
        listed_shots(labelled, listing, 6)
    assert listed_shots(labelled, listing, 6, allow_fewer=True).clips == subset.clips
    with pytest.raises(ShotsError, match="5 classes have more than 4 clips"):
        listed_shots(labelled, listing, 4)


def test_a_list_with_missing_or_ambiguous_clips_is_refused_with_counts(tmp_path):
    rows = [row("/a/x.mp4", "a", 1), row("/b/x.mp4", "a", 2), row("/c/y.mp4", "a", 3), row("/d/y.mp4", "a", 3),
            row("/e/z.mp4", "b", 4)]
    labelled = read_labelled(written(tmp_path, rows), paths=True)
    listing = tmp_path / "l.csv"
    listing.write_text("/o/x.mp4, a\n/o/y.mp4, a\n/o/z.mp4, a\n/o/z.mp4, 1\n/o/gone.mp4, b\n/o/z.mp4, 7\n")
    with pytest.raises(ShotsError, match=r"of 6 clips .* 3 are not in .*\(2 are in another.* and 1 could be one of several"):
        listed_shots(labelled, listing, 2)
    numbered = read_labelled(written(tmp_path, [replace(r, label="5") for r in rows], "n"), paths=True)
    listing.write_text("/e/z.mp4, 0\n")  # class 0 is not the first of numbered classes
    with pytest.raises(ShotsError, match=r"1 are not in .*\(1 are in another"):
        listed_shots(numbered, listing, 1)
    listing.write_text("/b/x.mp4, a\n/o/y.mp4, 0\n")  # the exact path decides; the same content is no question
    subset = listed_shots(labelled, listing, 2, allow_fewer=True)
    assert rows_of(subset, labelled).tolist() == [1, 2] and subset.short == {"b": 0}


def test_training_and_validation_must_share_no_recording(tmp_path):
    train = [row(f"/t/{i:03d}.mp4", "ab"[i % 2], i) for i in range(40)]
    val = [row(f"/v/{i:03d}.mp4", "ab"[i % 2], 100 + i) for i in range(20)]
    one = read_labelled(written(tmp_path, train, "train"))
    check_apart(one, read_labelled(written(tmp_path, val, "val")))
    val[4] = replace(val[4], content=train[30].content)
    val[6] = replace(val[6], content=train[9].content)
    with pytest.raises(ManifestError, match=r"2 of 20 recordings of .*val\.csv are also in .*rows 5, 7 of the first, rows 10, 31 of the second") as e:
        check_apart(one, read_labelled(written(tmp_path, val, "val")))
    assert "mp4" not in str(e.value)


@pytest.mark.parametrize("train, val, said", [
    ("abc", "ab", r"1 of 3 classes of .*train\.csv are not in .*other numbers: 'c'"),
    ("ab", "abc", r"1 of 3 classes of .*val\.csv are not in .*train\.csv: 'c'"),
    ("12", "123", r"not in .*train\.csv: '3'")])
def test_training_and_validation_must_number_their_classes_alike(tmp_path, train, val, said):
    sides = [read_labelled(written(tmp_path, [row(f"/{i}.mp4", c, 10 * n + i) for i, c in enumerate(labels)], name))
             for n, (labels, name) in enumerate([(train, "train"), (val, "val")])]
    with pytest.raises(ManifestError, match=said):
        check_apart(*sides)


def test_numbered_classes_may_be_fewer_in_validation(tmp_path):
    train = read_labelled(written(tmp_path, [row(f"/{i}.mp4", str(i), i) for i in range(12)], "train"))
    assert train.classes == tuple(map(str, range(12)))  # by number, not 0 1 10 11 2
    check_apart(train, read_labelled(written(tmp_path, [row("/v.mp4", "11", 99)], "val")))


def test_rows_without_labels_are_refused(tmp_path):
    path = written(tmp_path, [row("/a.mp4", "", 1), row("/b.mp4", "x", 2)])
    with pytest.raises(ManifestError, match=r"1 of 2 rows of .* have no label.*--labels folders"):
        read_labelled(path)


def test_the_command_line(made, tmp_path):
    rows, _ = made
    written(tmp_path / "manifests", rows, "ssv2")
    done = cli("prepare.py", "shots", "ssv2", "--shots", "2,10", "--seed", "3", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    paths = [tmp_path / "manifests" / f"ssv2.shots{k}-seed3.json" for k in (2, 10)]
    assert done.stdout == "".join(f"{p}\n" for p in paths)
    assert "1 rows repeat a clip" in done.stderr and "10 shots: 50 clips of 5 classes" in done.stderr
    assert read_shots(paths[1]).clips == definition(rows, 10, 3)
    (tmp_path / "l.csv").write_text("".join(f"{r.path}, {r.label}\n" for r in rows[:-1:15]))
    done = cli("prepare.py", "shots", "manifests/ssv2.csv", "--shots", "2", "--shot-list", "l.csv", "--out", "o", cwd=tmp_path)
    assert done.returncode == 0 and done.stdout == f"{tmp_path}/o/ssv2.shots2-list.json\n", done.stderr


@pytest.mark.parametrize("words, said", [
    (["shots", "s", "--shots", "40"], "classes have fewer than 40"), (["shots", "s", "--shots", "x"], "--shots: 'x' is not"),
    (["shots", "none", "--shots", "2"], "'none' is not known"), (["shots", "s", "--shots", "2,3", "--shot-list", "l"], "2 numbers"),
    (["shots", "s"], "--shots"), (["shots", "s", "--shots", "2", "--seed", "1", "--shot-list", "l"], "--seed 1"),
    (["check", "s", "s"], "151 of 151 recordings")])
def test_misuse_is_exit_2_and_says_why(made, tmp_path, words, said):
    written(tmp_path / "manifests", made[0])
    done = cli("prepare.py", *words, cwd=tmp_path)
    assert done.returncode == 2 and said in done.stderr and not done.stdout and "Traceback" not in done.stderr
    assert "webm" not in done.stderr


def test_the_commands_in_the_help_are_accepted(tmp_path):
    rows = many_rows(per_class=50)
    written(tmp_path / "manifests", rows, "ssv2")
    written(tmp_path / "manifests", many_rows(seed=1, per_class=3), "ssv2-val")
    written(tmp_path / "manifests", rows, "imagenet")
    (tmp_path / "released/ssv2-10shot").mkdir(parents=True)
    (tmp_path / "released/ssv2-10shot/train.csv").write_text("".join(f"{r.path}, {r.label}\n" for r in rows[::5]))
    shown = "".join(cli("prepare.py", verb, "--help", cwd=tmp_path).stdout for verb in ("check", "shots"))
    lines = re.findall(r"^ +python jobs/prepare.py (.*)$", shown, re.MULTILINE)
    assert len(lines) == 4
    for line in lines:
        done = cli("prepare.py", *line.split(), cwd=tmp_path)
        assert done.returncode == 0, done.stderr


def test_check_says_that_two_manifests_fit(made, tmp_path):
    written(tmp_path / "manifests", made[0], "s")
    written(tmp_path / "manifests", many_rows(seed=1, per_class=3), "s-val")
    done = cli("prepare.py", "check", "s", "s-val", cwd=tmp_path)
    assert done.returncode == 0 and not done.stdout and "151 videos to train on and 15 to validate on" in done.stderr


def test_check_refuses_a_single_class(made, tmp_path):
    for name, contents in (("s", 0), ("s-val", 50)):
        written(tmp_path / "manifests", [row(f"/{name}/{i}.mp4", "dog", contents + i) for i in range(3)], name)
    done = cli("prepare.py", "check", "s", "s-val", cwd=tmp_path)
    assert done.returncode == 2 and "all 3 videos of" in done.stderr and "2 classes or more" in done.stderr


def test_subsets_are_numbers_not_objects(made):
    labelled = read_labelled(made[1])
    chosen = rows_of(draw_shots(labelled, [2], 0)[0], labelled)
    assert chosen.dtype == np.int64 and (np.diff(chosen) > 0).all()
