"""What a linear probe reads off each kind of feature, on recordings that it has not seen.

    model      whole clips, by the encoder that is asked about
    pixels     mean of each channel; sees no time: equal for both labels of halves and arrow
    still      one frame from the middle of the clip, held for the whole of it; the same encoder
    frames     mean of the features of four such frames, whatever their order; the same encoder
    random     whole clips, by the encoder before any training
    change     how much the pixels change from frame to frame; sees cuts and speed, and no content
    oracle     when each frame was taken: must be right, or the probe could not succeed

The first of these is judged beside the four that follow, which cannot see time or have learned nothing, and beside change:
who is not ahead of that may have noticed cuts and pace, and no order. An image model sees
a clip as `frames` does, so its clips are looked at in that way, and its random weights, too.

Of the two clips of `first` a probe sees the difference of their features: swapped clips turn its sign.

Letters: E examples, K clips of an example, D width.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from vidmae.evaluate.probes import fit_held_out
from vidmae.evaluate.temporal.drawn_windows import SELECT, TEST, TRAIN
from vidmae.evaluate.temporal.shown_features import CHANNELS, Seen, ShownClips
from vidmae.evaluate.temporal.time_tasks import SAME_PIXELS, TimeTask, still_places

MODEL, PIXELS, STILL, FRAMES, RANDOM, CHANGE, ORACLE = "model", "pixels", "still", "frames", "random", "change", "oracle"
CONTROLS = (PIXELS, STILL, FRAMES, RANDOM)
"""What cannot see time, or has learned nothing."""
COMPARED = (*CONTROLS, CHANGE)
"""What the model is compared with, clip by clip."""
DIGITS = 9
"""Of a probability."""
SUCCEEDS_PCT = 99.0
"""What the oracle must reach."""


@dataclass(frozen=True)
class Answers:
    """What a probe said of the test clips.

    Attributes:
        right: bool [n].
        penalty: Inverse strength C that was chosen.
    """

    right: np.ndarray
    penalty: float

    @property
    def pct(self) -> float:
        """Share of the right ones."""
        return 100 * float(self.right.mean())


def kinds_of(task: TimeTask, clips: ShownClips, ways: Mapping[str, Seen], frames: int,
             ) -> dict[str, Callable[[], np.ndarray]]:
    """Every kind of feature of the examples of a task, read when it is called: floating [E, D].

    Args:
        task: The examples.
        clips: What is shown.
        ways: How it was looked at: pixels, still, and whole and random where they are.
        frames: Of the model; 1 is an image model.
    """
    places = clips.of_task[task.name]

    def read(way: str) -> np.ndarray:
        """[E, K, J, D]."""
        seen = ways[way]
        keys = seen.keys[places]
        return seen.store.read(keys.reshape(-1)).reshape(*keys.shape, -1)

    def mean(way: str) -> np.ndarray:
        """The mean over single frames, added up in the order of the recording, so that equal frames give equal bits."""
        found = read(way).astype(np.float64)
        shown = np.argsort(task.shown[:, :, list(still_places(task.shown.shape[2]))], axis=2, kind="stable")
        return together(np.take_along_axis(found, shown[..., None], axis=2).mean(axis=2))

    def middle() -> np.ndarray:
        return together(read(STILL)[:, :, still_places(task.shown.shape[2]).index(task.shown.shape[2] // 2)])

    def whole(way: str) -> np.ndarray:
        return together(read(way)[:, :, 0])

    image = frames == 1
    found: dict[str, Callable[[], np.ndarray]] = {
        MODEL: (lambda: mean(STILL)) if image else lambda: whole(MODEL),
        PIXELS: lambda: whole(PIXELS)[:, :CHANNELS], STILL: middle,
        CHANGE: lambda: whole(PIXELS)[:, CHANNELS:], ORACLE: lambda: together(task.when)}
    if not image:
        found[FRAMES] = lambda: mean(STILL)
    if RANDOM in ways:
        found[RANDOM] = (lambda: mean(RANDOM)) if image else lambda: whole(RANDOM)
    return found


def together(x: np.ndarray) -> np.ndarray:
    """Features of the clips of each example [E, K, D] as one vector: that of the clip, or first minus second: [E, D]."""
    assert x.shape[1] in (1, 2)
    return x[:, 0] if x.shape[1] == 1 else x[:, 0] - x[:, 1]


def answer(task: TimeTask, x: np.ndarray, part: np.ndarray) -> Answers:
    """Fit a probe on some recordings, choose its penalty on others, and test it on the rest.

    Args:
        task: The examples.
        x: Floating [E, D], their features.
        part: int64 [recordings], TRAIN, SELECT or TEST.
    Raises:
        ValueError: Features are not finite.
    """
    train, select, test = (part[task.recording] == each for each in (TRAIN, SELECT, TEST))
    fitted, penalty = fit_held_out(x[train], task.label[train], x[select], task.label[select],
                                   num_classes=len(task.classes))
    said = fitted(x[test]).round(DIGITS).argmax(axis=1)  # equal features get equal answers, however rows are multiplied
    return Answers(said == task.label[test], penalty)


def check_succeeds(task: TimeTask, part: np.ndarray) -> Answers:
    """What the oracle says; it needs neither pixels nor a model.

    Raises:
        ValueError: It is wrong too often, so that a good model could be, too.
    """
    found = answer(task, together(task.when), part)
    if found.pct < SUCCEEDS_PCT:
        raise ValueError(f"{task.name}: a probe that is told the time of every frame is right in {found.pct:.1f} % of the "
                         f"test clips, allowed: {SUCCEEDS_PCT:g} or more; there are too few recordings or windows to learn "
                         "from (--videos, --set temporal.windows=N, temporal.per_recording=N)")
    return found


def check_fails(task: TimeTask, pixels: Answers) -> None:
    """Where labels have equal pixels, whoever sees nothing else must be right exactly as often as by chance.

    Raises:
        ValueError: The examples give their labels away.
    """
    if task.name in SAME_PIXELS[:-1] and abs(pixels.pct - task.chance_pct) > 1e-9:
        raise ValueError(f"{task.name}: mean pixels are right in {pixels.pct:.2f} % of the test clips, and chance is "
                         f"{task.chance_pct:g} %: the clips of a window do not show the same frames")
