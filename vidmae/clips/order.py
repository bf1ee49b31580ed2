"""What comes when: a pure function of the seed and of a clip's position in the row of all clips.

All clips of a run stand in one row. Step s takes the positions [s * G, (s + 1) * G), G = global batch; a rank takes a
contiguous part of them, micro-batch by micro-batch, so repeats of one video meet in one rank and share one open file:

    position   0 1 2 3 4 5 6 7 8 9 ...           repeat_aug = 4
    video      a a a a b b b b c c ...           the epoch's permutation of the manifest
    G = 8      |--- step 0 --| |--- step 1
    2 ranks    |rank 0|rank 1| |rank 0|...       the same clips in the same steps whatever the number of ranks

Time window, crop, flip and mask noise of a clip are drawn from a generator that is seeded by (seed, epoch, place in the
epoch, repeat), and so are the videos that stand in for one that cannot be read: no worker, rank or restart changes them.
This is the order of one manifest, each video once in an epoch; the others are in vidmae/mixtures/.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Protocol

import numpy as np

PERMUTATION, WINDOW, CLIP, SUBSTITUTE, VIEW, RECHECK, SHUFFLE, OFFSET, FRAMES, STILL = range(10)
"""First word of a seed: streams of different purpose never meet."""


@dataclass(frozen=True)
class Place:
    """Where a clip stands in the data order.

    Attributes:
        epoch: Passes over the manifest before this one.
        slot: Place of the video in the epoch.
        row: The video's row in the manifest.
        repeat: Which of the video's repeat_aug clips.
        stretch: The clip's time window, counted in clips from the start of the video; None where it is drawn.
        frame: Of a clip that is one frame of a longer one: which frame of it; else None.
        turn: How often this time window has come before, each time for another frame.
    """

    epoch: int
    slot: int
    row: int
    repeat: int
    stretch: int | None = None
    frame: int | None = None
    turn: int = 0


class Order(Protocol):
    """Which clip comes when: both functions depend on their arguments and on nothing that happened before."""

    def place(self, position: int) -> Place:
        """The clip at a position of the row of all clips."""

    def substitute(self, place: Place, number: int) -> int:
        """The row that is read where that of `place`, and the `number` substitutes before this one, cannot be."""


@dataclass(frozen=True)
class ShuffledVideos:
    """Each video of a manifest once in an epoch, in an order that is drawn for the epoch."""

    videos: int
    repeat_aug: int
    seed: int

    def place(self, position: int) -> Place:
        """See `place_of`."""
        return place_of(position, videos=self.videos, repeat_aug=self.repeat_aug, seed=self.seed)

    def substitute(self, place: Place, number: int) -> int:
        """See `substitute_row`."""
        return substitute_row(place, number, videos=self.videos, seed=self.seed)


@dataclass(frozen=True)
class FramesOfClips:
    """One frame of each clip of another order: what an image model sees of the clips that a video model saw.

        position   0 1 2 ... N-1 | N N+1 ...      N = clips_per_turn
        clip       0 1 2 ... N-1 | 0  1  ...      of the other order
        turn             0       |     1          shows another frame of each clip

    The frames of a clip come in an order that is drawn for the clip. So after N * frames positions each frame of the first
    N clips has come once.

    Attributes:
        order: Of the clips.
        frames: Of a clip.
        clips_per_turn: N; 0 has one turn without an end.
        seed: Of the run.
    """

    order: Order
    frames: int
    clips_per_turn: int
    seed: int

    def place(self, position: int) -> Place:
        """The frame at a position of the row of all frames."""
        turn, clip = divmod(position, self.clips_per_turn) if self.clips_per_turn else (0, position)
        place, (round_, number) = self.order.place(clip), divmod(turn, self.frames)
        drawn = rng(STILL, self.seed, place.epoch, place.slot, place.repeat, round_).permutation(self.frames)
        return replace(place, frame=int(drawn[number]), turn=turn)

    def substitute(self, place: Place, number: int) -> int:
        """The row that would be read for the clip."""
        return self.order.substitute(place, number)


def place_of(position: int, *, videos: int, repeat_aug: int, seed: int) -> Place:
    """The clip at a position of the row of all clips."""
    epoch, slot = divmod(position // repeat_aug, videos)
    return Place(epoch, slot, int(_permutation(videos, seed, epoch)[slot]), position % repeat_aug)


def substitute_row(place: Place, number: int, *, videos: int, seed: int) -> int:
    """The row that is read where the row of `place`, and the substitutes before this one, cannot be.

    Args:
        place: Any repeat of the video; they share their substitutes.
        number: 0 for the first substitute.
        videos: Rows of the manifest.
        seed: Of the run.
    """
    return int(rng(SUBSTITUTE, seed, place.epoch, place.slot, number).integers(videos))


@lru_cache(maxsize=4)
def _permutation(videos: int, seed: int, epoch: int) -> np.ndarray:
    return rng(PERMUTATION, seed, epoch).permutation(videos)


def rng(*words: int) -> np.random.Generator:
    """A generator for one purpose: the first word names the stream, the others say which of its draws."""
    return np.random.Generator(np.random.Philox(np.random.SeedSequence(words)))
