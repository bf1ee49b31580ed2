"""What each temporal probe shows: every window under every label, so that a label says nothing of what is to be seen.

    halves         0 1 2 3|4 5 6 7    or  4 5 6 7|0 1 2 3        the clip, or its halves swapped in place
    halves-apart   0 1 2 3|8 9 ..     or  8 9 ..|0 1 2 3         the same with a pause of a clip's length between the halves
    arrow          0 1 2 3 4 5 6 7    or  7 6 5 4 3 2 1 0        forwards, or backwards
    speed          ..3 4..  ..2 4..  ..0 4..                     the same centre at half, one and twice the step
    first          clip a, clip b     or  clip b, clip a         two clips of a recording: is the first one the earlier?

halves and arrow show the same frames under both labels, and first the same two clips: pixel statistics are equal to the last
bit. The clips of speed show other frames, so theirs are equal only nearly; controls say how far one gets with them.

A clip with swapped halves has a cut in its middle and the other one has none: who notices cuts solves `halves` without
knowing what comes first. In `halves-apart` both have a cut. Frames of a clip are a whole number of frames of the file apart,
at every speed: a rhythm of long and short steps would give a speed away.

Letters: N windows, E examples, K clips of an example (2 for first, else 1), T frames of a clip, C classes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from vidmae.evaluate.temporal.drawn_windows import Windows

CLASSES: dict[str, tuple[str, ...]] = {
    "halves": ("in order", "swapped"), "halves-apart": ("in order", "swapped"), "arrow": ("forwards", "backwards"),
    "speed": ("half", "one", "twice"), "first": ("earlier first", "later first")}
SAME_PIXELS = ("halves", "halves-apart", "arrow", "first")
"""Tasks whose labels have equal pixel statistics."""


@dataclass(frozen=True)
class TimeTask:
    """The examples of a probe, all labels of a window one after the other.

    Attributes:
        name: Of the probe.
        shown: int64 [E, K, T], frame numbers in the order in which they are shown.
        row: int64 [E, K], rows of the manifest.
        when: float64 [E, K, T], time of each frame: in steps from the middle of the window; of first, in seconds of the
            recording.
        label: int64 [E], index into `classes`.
        recording: int64 [E].
    """

    name: str
    shown: np.ndarray
    row: np.ndarray
    when: np.ndarray
    label: np.ndarray
    recording: np.ndarray

    @property
    def classes(self) -> tuple[str, ...]:
        """What the labels mean."""
        return CLASSES[self.name]

    @property
    def chance_pct(self) -> float:
        """Accuracy of a guess; exact, since every window comes once under every label."""
        return 100 / len(self.classes)


def make_task(name: str, windows: Windows, num_frames: int, gap_s: tuple[float, float], seed: int) -> TimeTask:
    """The examples of a probe.

    Args:
        name: Of CLASSES.
        windows: Where; drawn with room for this probe.
        num_frames: T, even.
        gap_s: Of first: seconds between the end of one clip and the beginning of the other, least and most.
        seed: Of the pairs of first.
    Raises:
        ValueError: Of first, there is no pair to learn from, to choose the penalty or to test on.
    """
    assert num_frames % 2 == 0 and name in CLASSES
    if name == "first":
        return _first(windows, num_frames, gap_s, seed)
    clips = ARRANGED[name](windows, num_frames)
    n, classes = len(windows), len(clips)
    shown = np.stack(clips, axis=1).reshape(n * classes, 1, num_frames)
    each = np.repeat(np.arange(n), classes)
    when = (shown - windows.centre[each, None, None]) / windows.step[each, None, None]
    return TimeTask(name, shown, windows.row[each, None], when, np.tile(np.arange(classes), n), windows.recording[each])


def _halves(windows: Windows, num_frames: int) -> list[np.ndarray]:
    clip = evenly(windows, num_frames)
    return [clip, np.roll(clip, num_frames // 2, axis=1)]


def _halves_apart(windows: Windows, num_frames: int) -> list[np.ndarray]:
    aside = (num_frames * windows.step // 2)[:, None]  # whole, since T is even
    clip = evenly(windows, num_frames) + np.where(np.arange(num_frames) < num_frames // 2, -aside, aside)
    return [clip, np.roll(clip, num_frames // 2, axis=1)]


def _arrow(windows: Windows, num_frames: int) -> list[np.ndarray]:
    clip = evenly(windows, num_frames)
    return [clip, clip[:, ::-1]]


def _speed(windows: Windows, num_frames: int) -> list[np.ndarray]:
    return [evenly(windows, num_frames, halves) for halves in (1, 2, 4)]


ARRANGED: dict[str, Callable[[Windows, int], list[np.ndarray]]] = {
    "halves": _halves, "halves-apart": _halves_apart, "arrow": _arrow, "speed": _speed}


def evenly(windows: Windows, num_frames: int, halves: int = 2) -> np.ndarray:
    """Frames of a clip around the centre of each window, `halves` half steps apart: int64 [N, T]."""
    numerator = windows.step * halves  # frames between two of a clip, times two
    assert (numerator % 2 == 0).all(), "with speed, steps are even"
    aside: np.ndarray = (2 * np.arange(num_frames) - num_frames + 1) * (numerator // 2)[:, None] // 2
    frames: np.ndarray = windows.centre[:, None] + aside
    return frames


def _first(windows: Windows, num_frames: int, gap_s: tuple[float, float], seed: int) -> TimeTask:
    pairs = pairs_of(windows, num_frames, gap_s, seed)
    parts = windows.part[windows.recording[pairs[:, 0]]]
    if min(np.bincount(parts, minlength=3)) < 1:
        numbers = ", ".join(map(str, np.bincount(parts, minlength=3)))
        raise ValueError(f"of first there are {numbers} pairs of clips to learn "
                         f"from, to choose the penalty and to test on, allowed: 1 or more each; two windows of a recording "
                         f"must be {gap_s[0]:g} to {gap_s[1]:g} s apart (--set temporal.gap_s='[least, most]'), or leave "
                         "first out (--probes)")
    order = np.stack([pairs, pairs[:, ::-1]], axis=1).reshape(-1, 2)  # both orders of each pair
    clip = evenly(windows, num_frames)
    when_s = windows.when_s[:, None] + (clip - windows.centre[:, None]) / windows.fps[:, None]
    return TimeTask("first", clip[order], windows.row[order], when_s[order], np.tile([0, 1], len(pairs)),
                    windows.recording[order[:, 0]])


def pairs_of(windows: Windows, num_frames: int, gap_s: tuple[float, float], seed: int) -> np.ndarray:
    """Each window with one of those behind it in its recording, drawn: int64 [n, 2], the earlier one first."""
    half_s = (num_frames - 1) * windows.step / windows.fps / 2
    found: list[tuple[int, int]] = []
    rng = np.random.default_rng([seed, 2])
    for line in np.unique(windows.line):
        members = np.flatnonzero(windows.line == line)
        for i in members.tolist():
            gap = windows.when_s[members] - windows.when_s[i] - half_s[members] - half_s[i]
            fit = members[(gap >= gap_s[0]) & (gap <= gap_s[1]) & (gap > 0)]
            if len(fit):
                found.append((i, int(rng.choice(fit))))
    return np.array(found, dtype=np.int64).reshape(-1, 2)


def still_places(num_frames: int) -> tuple[int, ...]:
    """Frames of a clip that are looked at one by one: the first, the two in the middle, the last.

    The same frames of the recording stand there whether a clip is shown as it is, backwards or with its halves swapped.
    """
    half = num_frames // 2
    return tuple(sorted({0, half - 1, half, num_frames - 1}))



def different(tasks: Sequence[TimeTask]) -> tuple[int, int]:
    """How many different clips some tasks show, and how many different frames are looked at one by one: what it costs."""
    shown = np.concatenate([np.concatenate([task.row[..., None], task.shown], axis=2).reshape(-1, task.shown.shape[2] + 1)
                            for task in tasks])
    clips = np.unique(shown, axis=0)
    stills = [clips[:, [0, 1 + place]] for place in still_places(clips.shape[1] - 1)]
    return len(clips), len(np.unique(np.concatenate(stills), axis=0))
