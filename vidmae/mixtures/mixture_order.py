"""What comes when, where it is not each video of one manifest once in an epoch: mixtures, long recordings, orders of age.

A visit is one opening of a video, of which repeat_aug clips are cut; visit v has the positions [v * repeat_aug, ...). Each
source has a lane, a line of visits:

    data.weight videos     a visit for each video
    data.weight seconds    as many visits as show as many seconds as the source has; a video of 3 hours has many, in
                           proportion to its seconds. In each pass the line is sampled at equal distances from a drawn
                           start, so a video gets its share rounded up or down, and on average its share; one that is
                           shorter than a visit has a visit in some passes only
    single-pass            whole clips from the start of each video to its end, repeat_aug of them a visit; what is left at
                           the end of a video, less than a clip, is not shown

and a way along its line, pass after pass: shuffled (drawn anew in each pass), by age, by age reversed, or window by window
of age. Lanes meet by exact rounding: after v visits a lane has had v * turns / all turns, rounded, where its turns in an
epoch are its weight times its line. No draw decides it, so shares are exact in every stretch of a run, and how much of each
source was seen follows from the step alone.

Nothing here has a state or a table that grows with the run: memory is the rows of each lane, made before workers are forked.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from vidmae.clips.order import OFFSET, SHUFFLE, SUBSTITUTE, Place, rng
from vidmae.mixtures.mixture import Footage, Part, Stock
from vidmae.settings.config import FootageConfig

ROUNDS = 6  # of the Feistel network; four are enough for a pseudo-random permutation
WORD = 2**64 - 1


def visits_per_pass(stock: Stock, data: FootageConfig) -> int:
    """Visits that show a source once, at least 1; see the module.

    Raises:
        ValueError: A single pass has not one whole visit.
    """
    if data.order == "single-pass":
        if stock.stretches < data.repeat_aug:
            raise ValueError(f"data.order single-pass: {stock.name} has {stock.stretches} clips of {stock.clip_s:.2f} s, "
                             f"fewer than data.repeat_aug {data.repeat_aug} (--set data.repeat_aug=1)")
        return stock.stretches // data.repeat_aug
    if data.weight == "videos":
        return stock.videos
    return max(1, round(stock.seconds / (stock.clip_s * data.repeat_aug)))


def turns_per_epoch(stock: Stock, data: FootageConfig) -> int:
    """Visits of a source in an epoch: its weight times its pass, at least 1.

    Raises:
        ValueError: A pass has fewer visits than there are age windows, or a single pass would come more than once.
    """
    visits = visits_per_pass(stock, data)
    if data.order == "windows" and visits < data.age_windows:
        raise ValueError(f"data.order windows: {stock.name} has {visits} visits of a video in a pass, fewer than "
                         f"data.age_windows {data.age_windows} (--set data.age_windows=...)")
    if data.order == "single-pass" and stock.weight > 1:
        raise ValueError(f"data.order single-pass: {stock.name} has the weight {stock.weight:g}, allowed: up to 1, since "
                         "each stretch of footage comes once (data.sources)")
    return max(1, round(stock.weight * visits))


@dataclass(frozen=True)
class Lane:
    """One source.

    Attributes:
        rows: int64 [n], rows of the manifest along the line: by age, else as in the manifest.
        ends: [n], where each ends on the line: float64 in visits, or int64 in whole clips of a single pass; None where each
            has one visit.
        visits: Of a pass.
    """

    rows: np.ndarray
    ends: np.ndarray | None
    visits: int

    @staticmethod
    def of(part: Part, data: FootageConfig) -> Lane:
        """The lane of a part of the footage."""
        visits, ends = visits_per_pass(part.stock, data), None
        if data.order == "single-pass":
            ends = np.cumsum(part.stretches)
        elif data.weight == "seconds":
            ends = np.cumsum(part.seconds)
            ends *= visits / ends[-1]
            ends[-1] = visits  # whatever the rounding
        return Lane(part.rows, ends, visits)

    def row_at(self, point: float) -> int:
        """The row at a point of the line."""
        place = int(point) if self.ends is None else int(np.searchsorted(self.ends, point, side="right"))
        return int(self.rows[place])

    def clip_at(self, clip: int) -> tuple[int, int]:
        """The row that a whole clip of the line lies in, and how many of its clips come before."""
        assert self.ends is not None
        place = int(np.searchsorted(self.ends, clip, side="right"))
        return int(self.rows[place]), clip - (int(self.ends[place - 1]) if place else 0)


@dataclass(frozen=True)
class MixtureOrder:
    """The order of all clips of a run; see the module.

    Attributes:
        lanes: Of the sources.
        turns: Visits of each in an epoch.
        data: The settings.
        seed: Of the run.
        run_visits: Visits of the whole run, which the age windows share.
    """

    lanes: tuple[Lane, ...]
    turns: tuple[int, ...]
    data: FootageConfig
    seed: int
    run_visits: int

    @staticmethod
    def of(footage: Footage, data: FootageConfig, *, seed: int, run_clips: int) -> MixtureOrder:
        """The order of a run of `run_clips` clips."""
        return MixtureOrder(tuple(Lane.of(part, data) for part in footage.parts),
                            tuple(turns_per_epoch(part.stock, data) for part in footage.parts), data, seed,
                            -(-run_clips // data.repeat_aug))

    def place(self, position: int) -> Place:
        """The clip at a position of the row of all clips."""
        visit, repeat = divmod(position, self.data.repeat_aug)
        index, turn = self._turn(visit)
        epoch, slot = divmod(visit, sum(self.turns))
        lane = self.lanes[index]
        if self.data.order == "single-pass":
            row, stretch = lane.clip_at(turn % lane.visits * self.data.repeat_aug + repeat)
            return Place(epoch, slot, row, repeat, stretch)
        return Place(epoch, slot, lane.row_at(self._point(index, turn, visit)), repeat)

    def substitute(self, place: Place, number: int) -> int:
        """A row of the same source: one drawn for the place, or in an order of age one that lies beside it."""
        lane = next(lane for lane in self.lanes if (lane.rows == place.row).any())
        if self.data.by_age:
            beside = int(np.flatnonzero(lane.rows == place.row)[0]) + 1 + number
            return int(lane.rows[beside % len(lane.rows)])
        return int(lane.rows[rng(SUBSTITUTE, self.seed, place.epoch, place.slot, number).integers(len(lane.rows))])

    def seen(self, clips: int) -> list[int]:
        """How many of the first clips of the row of all clips are of each source."""
        visits, rest = divmod(clips, self.data.repeat_aug)
        counts = [self._before(index, visits) * self.data.repeat_aug for index in range(len(self.lanes))]
        counts[self._turn(visits)[0]] += rest
        return counts

    def _turn(self, visit: int) -> tuple[int, int]:
        """The lane of a visit, and how many visits of that lane come before it.

        The last lane takes its rounded share of the visits, the last but one its share of the others, and so on.
        """
        left, every = visit, sum(self.turns)
        for index in range(len(self.turns) - 1, 0, -1):
            before, after = (v * self.turns[index] // every for v in (left, left + 1))
            if after > before:
                return index, before
            left, every = left - before, every - self.turns[index]
        return 0, left

    def _before(self, lane: int, visit: int) -> int:
        """Visits of a lane before a visit."""
        left, every = visit, sum(self.turns)
        for index in range(len(self.turns) - 1, lane, -1):
            left, every = left - left * self.turns[index] // every, every - self.turns[index]
        return left * self.turns[lane] // every

    def _point(self, lane: int, turn: int, visit: int) -> float:
        """Where on its line the lane is at one of its turns."""
        visits, order = self.lanes[lane].visits, self.data.order
        first, length, window = 0, visits, 0
        if order == "windows":
            count = self.data.age_windows
            window = min(count - 1, visit * count // self.run_visits)  # a run that left data out goes on in the last one
            first, end = window * visits // count, (window + 1) * visits // count
            length = end - first
            turn -= self._before(lane, -(-window * self.run_visits // count))
        pass_, slot = divmod(turn, length)
        if order in ("shuffled", "windows"):
            slot = permuted(slot, length, _keys(self.seed, lane, window, pass_))
        elif order == "age-reversed":
            slot = length - 1 - slot
        return first + slot + (_offset(self.seed, lane, window, pass_) if self.data.weight == "seconds" else 0)


def permuted(place: int, length: int, keys: tuple[int, ...]) -> int:
    """Where a permutation of range(length) puts a place; the keys choose the permutation.

    A Feistel network on the smallest even number of bits that holds the length, walked on until it comes out below it: a
    permutation of which any place is known without the others.

    Source: Luby and Rackoff 1988 (rounds); Black and Rogaway 2002 (walking); Steele, Lea and Flood 2014 (mixing).
    """
    half = max(1, ((length - 1).bit_length() + 1) // 2)
    low = (1 << half) - 1
    while True:
        left, right = place >> half, place & low
        for key in keys:
            left, right = right, left ^ (_mixed(right ^ key) >> (64 - half))
        place = left << half | right
        if place < length:
            return place


def _mixed(word: int) -> int:
    word = (word ^ word >> 30) * 0xBF58476D1CE4E5B9 & WORD
    word = (word ^ word >> 27) * 0x94D049BB133111EB & WORD
    return word ^ word >> 31


@lru_cache(maxsize=64)
def _keys(seed: int, *words: int) -> tuple[int, ...]:
    return tuple(map(int, rng(SHUFFLE, seed, *words).integers(2**64, size=ROUNDS, dtype=np.uint64)))


@lru_cache(maxsize=64)
def _offset(seed: int, *words: int) -> float:
    return float(rng(OFFSET, seed, *words).random())
