"""The order of mixtures, long recordings and ages: each position alone, against counts, and against plain lists."""

import math
import time
import tracemalloc
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from vidmae.clips.order import Place
from vidmae.mixtures.mixture import Footage, Part, Stock, stretches
from vidmae.mixtures.mixture_order import MixtureOrder, permuted, turns_per_epoch, visits_per_pass
from vidmae.settings.config import FootageConfig, SourceConfig

CLIP_S = 4.0
ORDERS = ("shuffled", "age", "age-reversed", "single-pass", "windows")


def part(name: str, first: int, seconds: list[float], weight: float = 1.0) -> Part:
    """A source whose rows are in order of age."""
    lengths = np.array(seconds, dtype=np.float64)
    whole = int(stretches(lengths, CLIP_S).sum())
    return Part(Stock(name, weight, CLIP_S, len(lengths), float(lengths.sum()), whole), first + np.arange(len(lengths)), lengths)


def make(parts: list[Part], *, run_clips: int = 4000, seed: int = 5, **settings) -> MixtureOrder:
    data = FootageConfig(**{"repeat_aug": 2, "age_windows": 3, "sources": tuple(SourceConfig(p.stock.name) for p in parts), **settings})
    return MixtureOrder.of(Footage(None, tuple(parts), ()), data, seed=seed, run_clips=run_clips)  # type: ignore[arg-type]


LENGTHS = [[30.0, 61.5, 3.0, 200.25, 17.0, 90.0, 44.0], [25.0] * 11, [500.0, 8.5]]


def three(weights=(1.0, 0.5, 2.0)) -> list[Part]:
    firsts = [0, 7, 18]
    return [part(name, first, lengths, weight) for name, first, lengths, weight in zip("sak", firsts, LENGTHS, weights, strict=True)]


def source_of(row: int) -> int:
    return (row >= 7) + (row >= 18)


@pytest.mark.parametrize("weight", ["videos", "seconds"])
@pytest.mark.parametrize("order", ORDERS)
def test_any_position_alone_is_what_iteration_gives(order, weight):
    weights = (1.0, 0.5, 1.0)
    whole = make(three(weights), order=order, weight=weight, age_windows=2)
    walked = [whole.place(p) for p in range(1500)]
    for position in (1499, 0, 733, 3, 732, 1200):
        assert make(three(weights), order=order, weight=weight, age_windows=2).place(position) == walked[position]
    assert len({(p.epoch, p.slot, p.repeat) for p in walked}) == len(walked), "two clips would draw the same crop"
    assert [p.repeat for p in walked] == [0, 1] * 750
    if order != "single-pass":
        assert all(a.row == b.row for a, b in zip(walked[::2], walked[1::2], strict=True)), "repeats share an open file"


def test_a_draw_depends_on_the_seed_and_age_does_not():
    for order, same in (("shuffled", False), ("windows", False), ("age", True)):
        rows = [[make(three(), order=order, seed=seed, age_windows=2).place(p).row for p in range(200)] for seed in (0, 1)]
        assert (rows[0] == rows[1]) == same


@pytest.mark.parametrize("order", ["shuffled", "age", "age-reversed"])
def test_every_pass_shows_every_video_once(order):
    found = make([part("s", 0, LENGTHS[0])], order=order, repeat_aug=3)
    for epoch in range(4):
        rows = [found.place((epoch * 7 + slot) * 3).row for slot in range(7)]
        assert sorted(rows) == list(range(7))
        if order != "shuffled":
            assert rows == (list(range(7)) if order == "age" else list(range(6, -1, -1)))


@pytest.mark.parametrize("order", ["shuffled", "age", "age-reversed"])
def test_an_epoch_of_seconds_shows_each_video_in_proportion_to_its_length(order):
    """Each gets its share rounded up or down in every epoch; over many epochs its share."""
    seconds, repeat_aug, epochs = LENGTHS[0], 2, 400
    found = make([part("s", 0, seconds)], order=order, weight="seconds")
    visits = visits_per_pass(part("s", 0, seconds).stock, found.data)
    assert visits == round(sum(seconds) / (CLIP_S * repeat_aug)), "an epoch shows as many seconds as there are"
    totals: Counter[int] = Counter()
    for epoch in range(epochs):
        rows = [found.place((epoch * visits + slot) * repeat_aug).row for slot in range(visits)]
        counts = Counter(rows)
        for row, length in enumerate(seconds):
            share = length / sum(seconds) * visits
            assert math.floor(share) <= counts[row] <= math.ceil(share)
        totals += counts
        if order == "age":
            assert rows == sorted(rows)
        if order == "age-reversed":
            assert rows == sorted(rows, reverse=True)
    for row, length in enumerate(seconds):
        share = length / sum(seconds) * visits
        assert abs(totals[row] / epochs - share) < 4 * 0.5 / epochs**0.5, "a short recording has its turn, too"


@pytest.mark.parametrize("weights", [(1.0, 0.5, 2.0), (1.0, 1.0, 1.0), (0.01, 3.0, 0.4)])
@pytest.mark.parametrize("weight", ["videos", "seconds"])
def test_shares_are_exact_at_every_moment(weight, weights):
    found, parts = make(three(weights), weight=weight), three(weights)
    turns = [turns_per_epoch(p.stock, found.data) for p in parts]
    assert turns == [max(1, round(w * visits_per_pass(p.stock, found.data))) for w, p in zip(weights, parts, strict=True)]
    seen = np.zeros(3, dtype=int)
    for position in range(6 * sum(turns)):
        assert found.seen(position) == seen.tolist(), "as it was counted clip by clip"
        if position % 2 == 0:
            assert (np.abs(seen / 2 - position / 2 * np.array(turns) / sum(turns)) < 2).all()
        seen[source_of(found.place(position).row)] += 1
    assert seen.tolist() == [6 * turn for turn in turns]


def test_a_source_of_half_the_weight_goes_on_where_it_was_in_the_epoch_before():
    found = make(three((1.0, 0.5, 1.0)), order="age")
    rows = [p.row for p in map(found.place, range(0, 2000, 2)) if 7 <= p.row < 18]
    assert rows[:33] == 3 * list(range(7, 18))


def test_a_single_pass_shows_each_stretch_once_in_order_of_time():
    parts = [part("s", 0, LENGTHS[0])]
    found = make(parts, order="single-pass", repeat_aug=3)
    expected = [(row, k) for row, length in enumerate(LENGTHS[0]) for k in range(max(1, int(length // CLIP_S)))]
    visits = visits_per_pass(parts[0].stock, found.data)
    places = [found.place(p) for p in range(visits * 3)]
    assert [(p.row, p.stretch) for p in places] == expected[:visits * 3] and len(expected) - visits * 3 < 3


def test_windows_of_age_follow_one_another_over_the_run_and_are_shuffled_within():
    seconds, run_visits = [20.0] * 30, 600
    found = make([part("s", 0, seconds)], order="windows", run_clips=run_visits * 2)
    rows = [found.place(2 * visit).row for visit in range(run_visits)]
    for window in range(3):
        stage = rows[window * 200:(window + 1) * 200]
        assert Counter(stage) == dict.fromkeys(range(window * 10, window * 10 + 10), 20)
        assert all(sorted(stage[i:i + 10]) == list(range(window * 10, window * 10 + 10)) for i in range(0, 200, 10))
        assert stage[:10] != stage[10:20]
    assert found.place(2 * run_visits + 8).row >= 20, "a run that left data out ends in the last window"


def test_substitutes_are_of_the_same_source_and_by_age_they_lie_beside():
    shuffled, aged = make(three()), make(three(), order="age")
    places = [shuffled.place(p) for p in range(0, 200, 2)]
    for place in places:
        rows = [shuffled.substitute(place, n) for n in range(20)]
        assert set(map(source_of, rows)) == {source_of(place.row)} and rows == [shuffled.substitute(place, n) for n in range(20)]
    assert [aged.substitute(Place(0, 0, 15, 0), n) for n in range(4)] == [16, 17, 7, 8]


@pytest.mark.parametrize("length", [1, 2, 3, 5, 16, 17, 1000])
def test_permuted_is_a_permutation(length):
    for seed in range(20):
        keys = tuple(np.random.default_rng(seed).integers(2**64, size=6, dtype=np.uint64).tolist())
        assert sorted(permuted(i, length, keys) for i in range(length)) == list(range(length))


def test_permutations_have_no_favourite_place():
    """How often each of 5 places gets each of 5 values in 4,000 permutations: chi squared with 16 degrees of freedom."""
    table = np.zeros((5, 5))
    for seed in range(4000):
        keys = tuple(np.random.default_rng(seed).integers(2**64, size=6, dtype=np.uint64).tolist())
        for i in range(5):
            table[i, permuted(i, 5, keys)] += 1
    assert ((table - 800) ** 2 / 800).sum() < 45  # 99.99 %


def test_a_million_long_rows_take_little_memory_and_time():
    """A table of the 15 million visits of an epoch would take 120 MB in each worker."""
    seconds = np.random.default_rng(0).uniform(5, 240, 10**6)
    one = Part(Stock("s", 1.0, CLIP_S, len(seconds), float(seconds.sum()), 0), np.arange(10**6), seconds)
    found = make([one], weight="seconds", repeat_aug=2)
    found.place(0)
    tracemalloc.start()
    began = time.perf_counter()
    rows = [found.place(p).row for p in range(0, 2 * 10**7, 10**4)]
    spent_s, (_, peak) = time.perf_counter() - began, tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2**20 and spent_s / len(rows) < 2e-3 and len(set(rows)) > 1900


@pytest.mark.parametrize("settings, weights, says", [
    ({"order": "single-pass"}, (1.0, 1.5, 1.0), "a has the weight 1.5, allowed: up to 1"),
    ({"order": "single-pass", "repeat_aug": 80}, (1.0, 1.0, 1.0), "a has 66 clips of 4.00 s, fewer than data.repeat_aug 80"),
    ({"order": "windows"}, (1.0, 1.0, 1.0), "k has 2 visits of a video in a pass, fewer than data.age_windows 3")])
def test_what_cannot_be_says_why(settings, weights, says):
    with pytest.raises(ValueError, match=says):
        make(three(weights), **settings)


def test_the_settings_that_are_as_ever_are_plain():
    plain = FootageConfig()
    assert plain.is_plain and plain.tag == ""
    assert replace(plain, clip="frozen").is_plain and replace(plain, clip="frozen").tag == "frozen"
    assert not replace(plain, weight="seconds").is_plain
    assert replace(plain, order="windows", age_windows=3, age_months=(6, 14.5), clip="reversed").tag == "3-windows-6to14.5months-reversed"
