"""Whether a hand holds or touches the thing that a label is about, by the grammar of the label alone.

Labels of Something-Something name things in brackets: `Putting [something] onto [something]`. A hand is at a thing where the
label begins with what somebody does (a word in -ing), and the first thing in brackets is the object of it:

    Picking [something] up                          yes
    Pretending to pour [something] out of ...       yes, the object of `pour`
    Poking a stack of [something] so ...            yes, a part or an amount of a thing is one
    [Something] falling like a rock                 no, the thing itself acts
    Letting [something] roll down ...               no, the same
    Showing that [something] is empty               no, it begins a sentence of its own
    Poking a hole into [something soft]             no, a preposition comes before it
    Turning the camera left while filming ...       no, the camera is in the hand

The rule is ours. It does not look at pictures.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

NOT_ITS_OBJECT = frozenset({"into", "onto", "with", "from", "away", "while", "that", "camera", "letting"})
"""Words before the first brackets after which these are no object of what the hand does."""
_CAMERA = re.compile(r"\byour camera\b", re.IGNORECASE)


def object_in_hand(label: str) -> bool:
    """Whether a label says that a hand is at its first thing."""
    lead, bracket, _ = re.sub(r"\([^)]*\)", "", label).partition("[")
    words = lead.lower().split()
    if not bracket or not words or not words[0].endswith("ing") or _CAMERA.search(label):
        return False
    return not NOT_ITS_OBJECT & set(words)


def in_hand(labels: Sequence[str]) -> np.ndarray | None:
    """The same of all classes, bool [C]; None where no label has brackets, so that the rule says nothing."""
    return np.array([object_in_hand(label) for label in labels]) if any("[" in label for label in labels) else None
