"""What `make replicate` asks, fixed before any run: statement, measure, comparison, and the smallest effect of interest.

A part is one comparison. It compares on the same test clips, seed by seed, and its effect has a 95 % interval over seeds and
scenes or recordings (two_level.py). Against the smallest effect of interest the interval gives the verdict:

    confirmed      all of it lies above: the effect is there, and large enough to matter
    contradicted   all of it lies below: the effect is not there, or too small to matter
    undecided      it holds the smallest effect: more seeds, more clips or more training would be needed

A part that says that two things do not differ has a margin in place of it: confirmed is an interval within the margin,
contradicted one outside of it. A claim is confirmed where all of its parts are, and contradicted where one of them is.
Source of the claims: Orhan et al. 2024 (arXiv 2402.00300), abstract. The numbers of interest are our own choice.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

CONFIRMED, CONTRADICTED, UNDECIDED = "confirmed", "contradicted", "undecided"
POINTS, DECIBEL, SLOPE = "points", "dB", "points per tenfold footage"

Task = Literal["actions", "motion", "pictures", "corrupted", "fill"]
"""actions: the labelled clips. motion: ten motions of the camera, which no still frame tells. pictures: labelled pictures.
corrupted: the same under corruptions, the mean over these. fill: hidden frames of the clips of `actions`."""


@dataclass(frozen=True)
class Part:
    """One comparison.

    Attributes:
        name: What is compared, for the page.
        task: What is measured.
        better: Model, or way to fill in, that the claim puts first; of a slope empty: all amounts of footage.
        worse: What it is compared with; `chance` is one over the number of classes.
        smallest: Smallest effect of interest, in `unit`.
        unit: Of effect, interval and smallest effect.
        alike: The claim is that the two do not differ, by `smallest` at most.
        beyond: Two models whose difference is taken off: what the shapes of the models do without any training.
    """

    name: str
    task: Task
    better: str
    worse: str
    smallest: float
    unit: str = POINTS
    alike: bool = False
    beyond: tuple[str, str] | None = None


@dataclass(frozen=True)
class Claim:
    """A statement that runs can contradict.

    Attributes:
        key: One word.
        statement: In a sentence.
        parts: All must hold.
        control: Whether it is no claim of the paper, but a check of what the claims rest on.
    """

    key: str
    statement: str
    parts: tuple[Part, ...]
    control: bool = False


CLAIMS: tuple[Claim, ...] = (
    Claim("labels", "A model that was pretrained on video without labels learns actions from few labelled clips: better "
                    "than the same model from random weights, and well above chance.",
          (Part("pretrained minus random weights", "actions", "video", "scratch", 2.0),
           Part("pretrained minus chance", "actions", "video", "chance", 5.0))),
    Claim("footage", "More footage gives a better model: accuracy rises with the amount of video, at equal steps of "
                     "training.",
          (Part("slope over the amount of footage", "actions", "", "", 1.0, SLOPE),)),
    Claim("fill", "A model that was trained to fill in random patches also fills in hidden frames, better than a copy of "
                  "the last frame that is seen.",
          (Part("model minus copy of the last frame, PSNR", "fill", "model", "hold", 0.5, DECIBEL),)),
    Claim("robust", "A model of video recognises objects more robustly than a model of images that saw the same frames, and "
                    "not only since it has another shape.",
          (Part("video minus image model, under corruptions", "corrupted", "video", "image", 2.0),
           Part("the same beyond the difference of the two with random weights", "corrupted", "video", "image", 2.0,
                beyond=("scratch", "scratch-image")))),
    Claim("order", "What is learned of motion comes from the order of frames: a model that was trained on shuffled frames "
                   "is worse on motions of the camera.",
          (Part("trained on ordered minus on shuffled frames, motions", "motion", "video", "shuffled", 2.0),), control=True),
    Claim("looks", "The order of frames teaches nothing of what things look like: on pictures the same two models do not "
                   "differ.",
          (Part("trained on ordered minus on shuffled frames, pictures", "pictures", "video", "shuffled", 3.0, alike=True),),
          control=True),
    Claim("still", "A still frame does not tell a motion of the camera: a model of single frames stays at chance.",
          (Part("image model minus chance, motions", "motion", "image", "chance", 3.0, alike=True),), control=True),
)

BESIDE: tuple[Part, ...] = (
    Part("pretrained minus random weights", "motion", "video", "scratch", 2.0),
    Part("pretrained minus random weights", "pictures", "video", "scratch", 2.0),
    Part("trained on ordered minus on shuffled frames", "actions", "video", "shuffled", 2.0),
    Part("video minus image model, clean", "pictures", "video", "image", 2.0),
    Part("model minus cross-fade, PSNR", "fill", "model", "fade", 0.5, DECIBEL),
    Part("model minus image model, PSNR", "fill", "model", "image", 0.5, DECIBEL),
    Part("model minus untrained model, PSNR", "fill", "model", "untrained", 0.5, DECIBEL),
)
"""Comparisons that no claim rests on; the page shows them without a verdict."""


def verdict_of(part: Part, low: float, high: float) -> str:
    """What an interval says of a part.

    Args:
        part: With the smallest effect of interest.
        low: Lower end of the 95 % interval, in the unit of the part; NaN where no interval is claimed.
        high: Upper end.
    """
    if part.alike:
        if -part.smallest < low and high < part.smallest:
            return CONFIRMED
        return CONTRADICTED if low > part.smallest or high < -part.smallest else UNDECIDED
    if low > part.smallest:
        return CONFIRMED
    return CONTRADICTED if high < part.smallest else UNDECIDED


def verdict_of_all(verdicts: list[str]) -> str:
    """What the verdicts of its parts say of a claim."""
    if CONTRADICTED in verdicts:
        return CONTRADICTED
    return CONFIRMED if verdicts and set(verdicts) == {CONFIRMED} else UNDECIDED
