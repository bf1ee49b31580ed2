"""A laboratory's table and the videos: what is joined, what does not fit, and what names say."""

from datetime import datetime
from pathlib import Path

import numpy as np
import pytest

from vidmae.footage import manifest as m
from vidmae.footage.history import Choice, read_history
from vidmae.footage.known.facts import NO_FACTS, Facts
from vidmae.footage.manifest import Check, Manifest, ManifestError, Row, Source, read_all, read_summary
from vidmae.footage.recordings import BABYVIEW, read_names
from vidmae.labels.side_table import join, read_table

BABY = "00220001_GX010011_03.11.2024-03.17.2024_03.06.2024-1:59pm.MP4"


def table(folder: Path, text: str) -> Path:
    path = folder / "about.csv"
    path.write_text(text)
    return path


def sources(*names: str) -> list[Source]:
    return [Source(f"/data/{name}", "") for name in names]


def manifest_of(folder: Path, facts: dict[str, Facts]) -> Path:
    rows = [Row(f"/data/{name}", "", 1800, 30.0, 60.0, 1000, 64, 48, "h264", 0, 1, 0, f"{i:016x}", 17, "decord", known)
            for i, (name, known) in enumerate(sorted(facts.items()), 1)]
    m.write_manifest(folder / "s.csv", rows, [], Check("decord", True))
    return folder / "s.csv"


def test_names_of_babyview():
    part, morning, noon, underscore, later = read_names([
        f"/x/{BABY}", BABY.replace("1:59pm", "12:05am"), BABY.replace("1:59pm", "12:00pm"), BABY.replace("1:59pm", "1_59PM"),
        BABY.replace("GX01", "GX02").replace("1:59pm", "2:10pm")], BABYVIEW)
    assert (part.child, part.part, part.when) == ("00220001", 1, datetime(2024, 3, 6, 13, 59))
    assert morning.when == datetime(2024, 3, 6, 0, 5) and noon.when == datetime(2024, 3, 6, 12, 0) and underscore.when == part.when
    assert later.recording == part.recording and later.part == 2, "chapters of one recording of the camera"
    other_week = BABY.replace("03.11.2024-03.17.2024", "03.18.2024-03.24.2024")
    assert read_names([other_week], BABYVIEW)[0].recording != part.recording
    assert read_names(["S_20130417_0626_01_segment12.mp4", BABY.replace("1:59pm", "13:59pm")], BABYVIEW)[0] is None
    assert read_names([BABY.replace("1:59pm", "13:59pm")], BABYVIEW)[0].when is None


def test_rows_are_joined_by_path_or_name_and_ages_follow_from_dates(tmp_path):
    about = table(tmp_path, "\ufeffFile;Child;Date;birth_date;age_months;Session;Licence;embargo;camera\n"
                            "A/one.mp4;A;2013-04-17 06:26;2012-04-17;;s1;databrary;no;7\n"
                            "B/one.mp4;B;20130501;;13.5;s1;;2027-01-01;7\n"
                            "two;A;2013-05-17;2012-04-17;13;;;yes;8\n\n")
    joined = join(sources("A/one.mp4", "B/one.mp4", "deep/er/two.webm"), about, None)
    assert joined.problems == [] and joined.unknown_columns == ["camera"]
    one, other, two = (source.facts for source in joined.sources)
    assert one == Facts("A", "2013-04-17T06:26:00", "11.9918", "s1", "databrary", "")  # 365 days of 365.25 / 12
    assert other == Facts("B", "2013-05-01", "13.5", "s1", "", "2027-01-01")
    assert (two.age_months, two.embargo) == ("13", "yes")


def test_the_table_goes_before_the_name_and_gives_the_birth_date_of_a_dated_name(tmp_path):
    about = table(tmp_path, "file,birth_date,child\nS_20130417_0626_01_segment1.mp4,2012-04-17,Sam\n")
    facts = join(sources("S_20130417_0626_01_segment1.mp4"), about, "saycam").sources[0].facts
    assert (facts.child, facts.date, facts.age_months) == ("Sam", "2013-04-17T06:26:00", "11.9918")
    alone = join(sources(BABY), None, "babyview").sources[0].facts
    assert (alone.child, alone.date, alone.age_months) == ("00220001", "2024-03-06T13:59:00", "")


def test_what_does_not_fit_is_counted_with_rows_and_no_names(tmp_path):
    about = table(tmp_path, "file,child\na.mp4,A\nsecret gone.mp4,A\na.mp4,B\nsame.mp4,A\n")
    given = sources("a.mp4", "x/same.mp4", "y/same.mp4", "secret new.mp4")
    joined = join(given, about, None)
    assert joined.problems == [
        "1 of 4 rows of the table (its header is row 1) name no video of the sources: 3",
        "2 of 4 rows of the table (its header is row 1) name several videos, or one that another row names: 4, 5",
        "3 of 4 videos are not in the table: 2, 3, 4"]
    assert "3 (secret gone.mp4)" in join(given, about, None, names_shown=True).problems[0]
    assert [source.facts.child for source in joined.sources] == ["A", "", "", ""]
    assert join(given, None, "saycam").problems == ["4 of 4 videos have other names than --names saycam: 1, 2, 3, 4"]


@pytest.mark.parametrize(("text", "said"), [
    ("name,child\na,b\n", "no column `file`"), ("", "no column `file`"), ("file,date\na,2013-13-01\n", "row 2: date '2013-13-01'"),
    ("file,age_months\nb,1\na,-1\n", "row 3: age_months '-1' is not allowed: months from 0 to 1500"),
    ("file,age_months\na,nan\n", "age_months 'nan'"), ("file,embargo\na,perhaps\n", "embargo 'perhaps'"), ("file,child\n,A\n", "file is empty"),
    ("file,date,birth_date\na,2013-01-01,2013-01-02\n", "1 days before birth_date"), ("file\na,b\n", "2 values for 1 columns"),
    ("file,date,birth_date,age_months\na,2013-04-17,2012-04-17,20\n", "does not fit date and birth_date, which give 12.0"),
    ("file,child,child\na,A,B\n", "column child twice")])
def test_a_wrong_table_is_refused_and_says_where(tmp_path, text, said):
    with pytest.raises(ManifestError) as error:
        read_table(table(tmp_path, text))
    assert said in str(error.value) and "--about" in str(error.value)


def test_facts_are_columns_behind_the_others_and_change_no_content(tmp_path):
    known = {"a.mp4": Facts("A", "2013-04-17T06:26:00", "12.5"), "b.mp4": NO_FACTS, "c.mp4": Facts("Ö, x", "2013-05-01", "", "s", "l", "yes")}
    (tmp_path / "with").mkdir(), (tmp_path / "without").mkdir()
    path, bare = manifest_of(tmp_path / "with", known), manifest_of(tmp_path / "without", dict.fromkeys(known, NO_FACTS))
    assert [row.facts for row in read_all(path)[1]] == list(known.values())
    assert read_summary(path).content_sha256 == read_summary(bare).content_sha256, "runs keep their names"
    assert read_summary(path).facts_sha256 and read_summary(bare).facts_sha256 is None
    assert b"facts" not in bare.with_suffix(".json").read_bytes() and bare.read_bytes().split(b"\n")[0].decode() == ",".join(m.COLUMNS)
    manifest = Manifest.read(path)
    assert manifest.children == ("A", "Ö, x") and manifest.child.tolist() == [0, -1, 1]
    assert np.isnat(manifest.date).tolist() == [False, True, False] and str(manifest.date[0]) == "2013-04-17T06:26:00"
    assert manifest.age_months[0] == 12.5 and np.isnan(manifest.age_months[1:]).all()
    part = manifest.take(np.array([2, 0]))
    assert part.child.tolist() == [1, 0] and part.path(1) == "/data/a.mp4"
    plain = Manifest.read(bare)
    assert plain.children == () and plain.child.tolist() == [-1] * 3 and np.isnat(plain.date).all() and np.isnan(plain.age_months).all()


def test_a_history_is_ordered_by_what_the_manifest_knows(tmp_path):
    known = {"z.mp4": Facts("A", "2013-01-01", "10", "1"), "a.mp4": Facts("A", "2013-03-01", "12", "2"), "m.mp4": Facts("A", "2013-02-01", "11", "1")}
    history = read_history(manifest_of(tmp_path, known), Choice())
    assert [Path(row.path).name for row in history.rows] == ["z.mp4", "m.mp4", "a.mp4"]
    assert [round(age / (365.25 / 12), 6) for age in history.ages] == [10, 11, 12] and history.born
    assert {part.recording for part in history.parts} == {"A/1", "A/2"}
    assert Path(read_history(history.path, Choice("spread")).rows[0].path).name == "m.mp4"
