"""Curves and shares as plain numbers for an inline SVG; the page's template draws them in the page's own colours.

Matplotlib's SVG has fixed colours, so it cannot follow a dark screen, and carries every point. Here a curve of 300,000 steps
is drawn as the mean of each of 400 spans of steps, inside a band from the least to the most.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

SPANS = 400
WIDTH, HEIGHT = 520, 240  # of the drawing, in its own units
LEFT, RIGHT, TOP, BOTTOM = 62, 28, 10, 30  # margins
TICKS = 5
Tick = tuple[float, str]  # place and text


@dataclass(frozen=True)
class Curve:
    """A curve in spans of steps, float64 [N] each: last step of the span, mean, least and most."""

    step: np.ndarray
    mean: np.ndarray
    low: np.ndarray
    high: np.ndarray


@dataclass(frozen=True)
class Chart:
    """A curve, ready to be drawn.

    Attributes:
        title: What it shows, with its unit.
        said: Its main numbers as a sentence.
        line, band: Paths of the mean, and of what lies between least and most.
        x_ticks, y_ticks: Places and texts.
        width, height, left, right, bottom, top: Size, and edges of the field inside.
    """

    title: str
    said: str
    line: str
    band: str
    x_ticks: Sequence[Tick]
    y_ticks: Sequence[Tick]
    width: int = WIDTH
    height: int = HEIGHT
    left: int = LEFT
    right: int = WIDTH - RIGHT
    top: int = TOP
    bottom: int = HEIGHT - BOTTOM


@dataclass(frozen=True)
class Bar:
    """Shares of a whole.

    Attributes:
        said: What it shows, as a sentence.
        parts: Name, left edge and width in percent of the bar, text of the share.
    """

    said: str
    parts: Sequence[tuple[str, float, float, str]]


def thin(step: np.ndarray, value: np.ndarray, spans: int = SPANS) -> Curve:
    """Combine a long curve to spans of equally many values; what is not finite is left out.

    Args:
        step: Ascending, [N].
        value: [N].
        spans: The most points that stay.
    Returns:
        At most `spans` points; every finite value lies within its span's band.
    """
    finite = np.isfinite(value)
    step, value = step[finite].astype(np.float64), value[finite].astype(np.float64)
    starts = np.unique(np.linspace(0, len(value), spans, endpoint=False).astype(int)) if len(value) else np.zeros(0, int)
    if not len(starts):
        return Curve(*(np.zeros(0) for _ in range(4)))
    ends = np.append(starts[1:], len(value))
    return Curve(step[ends - 1], np.add.reduceat(value, starts) / (ends - starts), np.minimum.reduceat(value, starts),
                 np.maximum.reduceat(value, starts))


def chart(title: str, step: np.ndarray, value: np.ndarray) -> Chart | None:
    """Draw a curve over steps; None where it has no finite value."""
    curve = thin(step, value)
    if not len(curve.step):
        return None
    finite = value[np.isfinite(value)]
    y_ticks = nice_ticks(float(curve.low.min()), float(curve.high.max()))
    x_ticks = [tick for tick in nice_ticks(0.0, float(curve.step[-1])) if tick <= curve.step[-1]]
    y_of = _scale(y_ticks[0], y_ticks[-1], HEIGHT - BOTTOM, TOP)
    x_of = _scale(0.0, float(curve.step[-1]), LEFT, WIDTH - RIGHT)
    said = (f"{len(finite):,} steps: {finite[0]:.4g} at the first, {finite[-1]:.4g} at the last, from {finite.min():.4g} "
            f"to {finite.max():.4g}.")
    x = x_of(curve.step)
    outline = [*zip(x, y_of(curve.high), strict=True), *reversed(list(zip(x, y_of(curve.low), strict=True)))]
    return Chart(title, said, _path(list(zip(x, y_of(curve.mean), strict=True))), f"{_path(outline)}Z",
                 [(float(x_of(np.array(tick))), f"{tick:,.10g}") for tick in x_ticks],
                 [(float(y_of(np.array(tick))), f"{tick:.10g}") for tick in y_ticks])


def bar(said: str, parts: Sequence[tuple[str, float]]) -> Bar | None:
    """Shares of the sum of all parts; None where that is nothing."""
    whole, left, placed = math.fsum(value for _, value in parts), 0.0, []
    if whole <= 0:
        return None
    for name, value in parts:
        share_pct = 100 * value / whole
        placed.append((name, round(left, 3), round(share_pct, 3), f"{share_pct:.1f} %"))
        left += share_pct
    return Bar(said, placed)


def nice_ticks(low: float, high: float) -> list[float]:
    """Round numbers, evenly spread, the first at or below `low` and the last at or above `high`."""
    if high <= low:
        low, high = low - abs(low) / 2 - (low == 0), high + abs(high) / 2 + (high == 0)
    raw = (high - low) / TICKS
    power = 10.0 ** math.floor(math.log10(raw))
    size = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= raw * (1 - 1e-9))
    first, last = math.floor(low / size + 1e-9), math.ceil(high / size - 1e-9)
    return [float(f"{number * size:.10g}") for number in range(first, last + 1)]


def _scale(low: float, high: float, start: float, end: float) -> Callable[[np.ndarray], np.ndarray]:
    return lambda values: start + (values - low) / (high - low) * (end - start)


def _path(points: Sequence[tuple[float, float]]) -> str:
    return "M" + "L".join(f"{x:.1f},{y:.1f}" for x, y in points)
