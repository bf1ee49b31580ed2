"""Whether a model does more than guess, and what to say of those that do not or that see nothing of time."""

from __future__ import annotations

import math

CONFIDENT = 1.96  # standard errors of a 95 % interval
NOTHING_TO_LOSE = "A model that guesses can lose nothing, so nothing lost then says nothing."
BLIND = ("{}: sees one frame of a clip, so that none of the conditions can change what it says; test it with "
         "--set evaluate.views=frames16")


def above_guessing(pct: float, clips: int, chance_pct: float) -> bool:
    """Whether an accuracy is above that of guessing, by its 95 % interval over clips (normal theory).

    Args:
        pct: The accuracy, 0 to 100.
        clips: Of how many clips.
        chance_pct: That of guessing.
    """
    return pct - chance_pct > CONFIDENT * math.sqrt(max(0.0, pct * (100 - pct) / clips))


def sees_by_frame(views: object) -> bool:
    """Whether a model was shown clips frame by frame: views framesN."""
    return str(views).startswith("frames")
