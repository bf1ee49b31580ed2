"""The list of replaced videos: what it says, what a restart drops, and when a run has too many."""

import csv

import pytest

from vidmae.runs.quarantine import LEAST_VIDEOS, Quarantine, QuarantineError, Substitution, read_quarantine
from vidmae.runs.record import RunFolder


def subst(epoch: int, slot: int, row: int = 4, substitute: int = 9, clips: int = 2, reason: str = "it is empty") -> Substitution:
    return Substitution(epoch, slot, row, substitute, clips, reason)


def opened(run: RunFolder, *, start=0, pct=1.0, videos_per_step=4.0, main=True, said=None) -> Quarantine:
    return Quarantine(run, read_quarantine(run), start_step=start, max_bad_pct=pct, videos_per_step=videos_per_step, is_main=main,
                      say=(said if said is not None else []).append)


@pytest.fixture
def run(tmp_path) -> RunFolder:
    return RunFolder(tmp_path)


def test_every_substitution_of_all_ranks_becomes_one_line(run):
    said = []
    q = opened(run, said=said)
    assert run.quarantine.read_text() == "step,epoch,slot,row,substitute,clips,reason\n"
    q.add(7, [subst(0, 5), subst(0, 3, row=1, reason='cut, "off"\n here'), subst(0, 5, clips=3)])
    with run.quarantine.open(newline="") as f:
        assert list(csv.reader(f))[1:] == [["7", "0", "3", "2", "10", "2", 'cut, "off" here'],
                                           ["7", "0", "5", "5", "10", "5", "it is empty"]]
    assert said == ['step 7: row 2 of the manifest cannot be read (cut, "off"\n here); row 10 stands in for it',
                    "step 7: row 5 of the manifest cannot be read (it is empty); row 10 stands in for it"]
    q.add(8, [subst(1, 5)])
    assert len(said) == 2, "each row is said once"
    assert oct(run.quarantine.stat().st_mode & 0o777) == "0o600"
    assert [(step, s.row, s.clips) for step, s in read_quarantine(run)] == [(7, 1, 2), (7, 4, 5), (8, 4, 2)]


def test_other_ranks_count_but_do_not_write(run):
    other = opened(run, main=False, pct=0.1)
    other.add(1, [subst(0, 1)])
    assert not run.quarantine.exists() and other.unreadable == {4: "it is empty"}
    with pytest.raises(QuarantineError):
        other.add(2, [subst(0, 2)])


def test_a_restart_drops_what_comes_again_and_a_line_that_was_cut(run):
    q = opened(run)
    for step in (1, 2, 3):
        q.add(step, [subst(0, step, row=step)])
    with run.quarantine.open("a") as f:
        f.write("2,0,77,8,1,2,a reason that was cut o")
    assert opened(run, start=2, main=False).unreadable == opened(run, start=2).unreadable == {1: "it is empty", 2: "it is empty"}
    assert [step for step, _ in read_quarantine(run)] == [1, 2]
    assert run.quarantine.read_text().endswith("\n")


def test_one_in_the_first_ten_stops_nothing_and_one_in_fifty_of_many_does(run):
    q = opened(run, videos_per_step=10)
    for slot in range(10):
        q.add(1, [subst(0, slot)])
    with pytest.raises(QuarantineError, match=r"11 videos .* replaced by step 2, 10 are allowed \(data.max_bad_pct 1 % of 1000\)"):
        q.add(2, [subst(0, 10)])
    late = opened(run, start=0, videos_per_step=10)
    late.add(500, [subst(0, slot) for slot in range(50)])
    with pytest.raises(QuarantineError, match=r"51 videos .* 50 are allowed"):
        late.add(500, [subst(0, 50)])
    assert LEAST_VIDEOS == 1000


def test_a_video_counts_once_a_turn_however_many_steps_and_ranks_share_it(run):
    q = opened(run, pct=0.1, videos_per_step=0.25)  # a turn lasts four steps
    for step in (1, 2, 3, 4):
        q.add(step, [subst(0, 0), subst(0, 0)])
    with pytest.raises(QuarantineError, match="2 videos"):
        q.add(5, [subst(1, 0)])


def test_a_restart_goes_on_counting(run):
    q = opened(run, pct=0.2)
    q.add(1, [subst(0, 0)])
    q.add(2, [subst(0, 1)])
    with pytest.raises(QuarantineError, match="3 videos"):
        opened(run, pct=0.2, start=2).add(3, [subst(0, 2)])


def test_with_0_percent_the_first_one_stops_the_run(run):
    with pytest.raises(QuarantineError, match=r"--set data\.max_bad_pct"):
        opened(run, pct=0).add(1, [subst(0, 0)])
    assert len(read_quarantine(run)) == 1, "it is listed all the same"
