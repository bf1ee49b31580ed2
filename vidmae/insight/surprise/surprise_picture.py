"""A picture of surprise over time: a panel per concept, possible against impossible. Numbers alone, no frames of footage."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from vidmae.insight.surprise.surprise_table import Curve

if TYPE_CHECKING:
    from PIL import ImageDraw

PANEL_PX, HEIGHT_PX, MARGIN_PX, ACROSS = 320, 220, 44, 3
COLOURS = {"possible": (0, 90, 180), "impossible": (200, 80, 0)}  # told apart without red or green


def draw(curves: Sequence[Curve], step_s: float) -> np.ndarray:
    """Draw all panels.

    Args:
        curves: What is drawn.
        step_s: Seconds from one window to the next.
    Returns:
        uint8 [height, width, 3].
    """
    from PIL import Image, ImageDraw

    across = min(ACROSS, len(curves))
    image = Image.new("RGB", (across * PANEL_PX, -(-len(curves) // across) * HEIGHT_PX), "white")
    pen = ImageDraw.Draw(image)
    for number, curve in enumerate(curves):
        _panel(pen, curve, step_s, number % across * PANEL_PX, number // across * HEIGHT_PX)
    return np.asarray(image)


def _panel(pen: ImageDraw.ImageDraw, curve: Curve, step_s: float, left: int, top: int) -> None:
    """One panel, its corner at (left, top)."""
    lines = {"possible": curve.possible, "impossible": curve.impossible}
    low, high = (float(f([f(line) for line in lines.values()])) for f in (np.min, np.max))
    x0, x1 = left + MARGIN_PX, left + PANEL_PX - 12
    y0, y1 = top + HEIGHT_PX - MARGIN_PX, top + 24
    pen.line([(x0, y1), (x0, y0), (x1, y0)], fill="grey")
    pen.text((x0, top + 6), _ascii(curve.title), fill="black")
    for value, y in ((high, y1), (low, y0)):
        pen.text((left + 2, y - 6), f"{value:.3g}", fill="black")
    last_s = (len(curve.possible) - 1) * step_s
    pen.text((x0, y0 + 6), "window begins at 0 s", fill="black")
    pen.text((x1 - 40, y0 + 6), f"{last_s:.1f} s", fill="black")
    for place, (name, line) in enumerate(lines.items()):
        pen.text((x0 + 70 * place, y0 + 22), name, fill=COLOURS[name])
        share = (line - low) / (high - low) if high > low else np.full(len(line), 0.5)
        points = [(x0 + (x1 - x0) * i / max(len(line) - 1, 1), y0 - (y0 - y1) * float(y)) for i, y in enumerate(share)]
        if len(points) > 1:
            pen.line(points, fill=COLOURS[name], width=2)
        for across, down in points:
            pen.ellipse([across - 2, down - 2, across + 2, down + 2], fill=COLOURS[name])


def _ascii(text: str) -> str:
    """What the font of every Pillow has."""
    return text.encode("ascii", "replace").decode()
