"""What a kind of corruption is. Letters: T frames, H W px."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

Corrupt = Callable[[np.ndarray, Any, np.random.Generator], np.ndarray]


@dataclass(frozen=True)
class Kind:
    """One corruption with its levels.

    Attributes:
        group: noise, blur, weather, digital, parametric, shape, video, time or clean.
        corrupt: Takes frames, uint8 [T, H, W, 3], the constants of a level and a source of random numbers; gives frames of
            the same shape. What it draws, it draws once for all frames.
        constants: What `corrupt` gets at level 1, 2, ...
        meaning: What the constants are, with units.
        says: What is done.
        source: Where the definition stands.
        drawn: Whether anything is drawn.
        generated: Whether it stands in for a published set that cannot be made from any picture.
    """

    group: str
    corrupt: Corrupt
    constants: tuple[Any, ...]
    meaning: str
    says: str
    source: str
    drawn: bool = True
    generated: bool = False

    def level_text(self) -> str:
        """The constants of all levels, for a table: `0.08, 0.12`; those of several numbers in brackets."""
        return ", ".join(f"({', '.join(f'{value:g}' for value in level)})" if isinstance(level, tuple) else f"{level:g}"
                         for level in self.constants)
