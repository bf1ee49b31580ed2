"""Curves and shares as plain numbers for an inline SVG; the page's template draws them in the page's own colours.

A curve of 300,000 steps is drawn as the mean of each of 400 spans of steps, inside a band from the least to the most.
What is noisy is drawn once more, smoothed over a twentieth of the spans.
Matplotlib does not draw it: of the same spans its SVG has 35 kB instead of 16, takes 0.6 s to import and 0.1 s to draw
instead of 0.03, has fixed colours that do not follow a dark screen, ids that occur again in the next chart, and addresses
of other sites. Its MaxNLocator gives the same ticks as `nice_ticks` (2,996 of 3,000 ranges at random), for 0.35 s.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

SPANS = 400
LAST_PCT = 5  # of the steps: the mean of the last ones says more than the last one
TICKS = 5
Tick = tuple[float, str]  # place and text


class Curve(NamedTuple):
    """A curve in spans of steps, float64 [N] each: last step of the span, mean, least and most."""

    step: np.ndarray
    mean: np.ndarray
    low: np.ndarray
    high: np.ndarray


class Frame:
    """The size of a chart, and the edges of the field inside, in px."""

    width, height, left, right, top, bottom = 520, 262, 74, 504, 10, 210


@dataclass(frozen=True)
class Chart(Frame):
    """A curve, ready to be drawn."""

    title: str  # what it shows
    y_name: str  # of the axis, with its unit
    said: str  # its main numbers as a sentence
    line: str  # path of the means
    smooth: str  # path of what is smoothed; empty where nothing is
    band: str  # path around what lies between least and most
    x_ticks: Sequence[Tick]
    y_ticks: Sequence[Tick]


@dataclass(frozen=True)
class Overlay(Frame):
    """Curves of several runs over epochs, the axis of epochs logarithmic, ready to be drawn."""

    title: str  # what it shows
    y_name: str  # of the axis, with its unit
    said: str  # its main numbers as a sentence
    lines: Sequence[tuple[str, str]]  # name of each run and path of its line; a run of one epoch is a short dash
    x_ticks: Sequence[Tick]
    y_ticks: Sequence[Tick]


@dataclass(frozen=True)
class Bar:
    """Shares of a whole."""

    said: str  # what it shows, as a sentence
    parts: Sequence[tuple[str, float, float, str]]  # name, left edge and width in percent of the bar, text of the share


def thin(step: np.ndarray, value: np.ndarray, spans: int = SPANS) -> Curve:
    """Combine a long curve, [N] by ascending steps, to at most `spans` spans of equally many finite values."""
    points = pd.DataFrame({"step": step, "value": value}, dtype=float)[np.isfinite(value)]
    starts = np.linspace(0, len(points), spans, endpoint=False).astype(int)
    grouped = points.groupby(starts.searchsorted(np.arange(len(points)), "right"))
    spanned = grouped.agg(step=("step", "last"), mean=("value", "mean"), low=("value", "min"), high=("value", "max"))
    return Curve(*spanned.to_numpy().T)


def last_steps(steps: int) -> int:
    """So many of the last steps stand for the end of a run."""
    return max(1, steps * LAST_PCT // 100)


def chart(title: str, step: np.ndarray, value: np.ndarray, y_name: str = "", *, noisy: bool = True) -> Chart | None:
    """Draw a curve over steps; None where it has no finite value. One that is noisy is smoothed, too."""
    curve, finite = thin(step, value), value[np.isfinite(value)]
    if not len(finite):
        return None
    last, y_ticks = float(curve.step[-1]), nice_ticks(float(curve.low.min()), float(curve.high.max()))
    x_of, y_of = _scale(0.0, last, Frame.left, Frame.right), _scale(y_ticks[0], y_ticks[-1], Frame.bottom, Frame.top)
    count = last_steps(len(finite))
    end = f"{finite[-count:].mean():.4g} on average over the last {count:,}" if noisy else f"{finite[-1]:.4g} at the last"
    said = f"{len(finite):,} steps: {finite[0]:.4g} at the first, {end}, from {finite.min():.4g} to {finite.max():.4g}."
    x, low, high = x_of(curve.step), y_of(curve.low), y_of(curve.high)
    smoothed = pd.Series(curve.mean).rolling(max(1, len(x) // 20), center=True, min_periods=1).mean().to_numpy()
    return Chart(title, y_name, said, _path(x, y_of(curve.mean)), _path(x, y_of(smoothed)) if noisy else "",
                 f"{_path(np.append(x, x[::-1]), np.append(high, low[::-1]))}Z",
                 [(x_of(tick), f"{tick:,.10g}") for tick in nice_ticks(0.0, last) if tick <= last],
                 [(y_of(tick), f"{tick:.10g}") for tick in y_ticks])


def overlay(title: str, curves: Mapping[str, pd.Series], y_name: str) -> Overlay:
    """Draw the curves of several runs, each a value by epoch (from 1 on), finite and not empty."""
    values = pd.concat(list(curves.values()))
    last = max(2, int(values.index.max()))
    y_ticks = nice_ticks(float(values.min()), float(values.max()))
    x_of = _scale(0.0, math.log10(last), Frame.left, Frame.right)
    y_of = _scale(y_ticks[0], y_ticks[-1], Frame.bottom, Frame.top)
    lines = []
    for name, curve in curves.items():
        shown = curve.iloc[np.unique(np.linspace(0, len(curve) - 1, SPANS).astype(int))]
        x, y = x_of(np.log10(shown.index.to_numpy(float))), y_of(shown.to_numpy(float))
        lines.append((name, _path(x, y) if len(x) > 1 else _path(np.array([x[0] - 4, x[0] + 4]), np.repeat(y, 2))))
    said = "; ".join(f"{name}: {curve.iloc[-1]:.4g} in epoch {curve.index[-1]:,}" for name, curve in curves.items())
    decades = [10**power for power in range(int(math.log10(last)) + 1)]
    return Overlay(title, y_name, f"{said}.", lines, [(x_of(math.log10(tick)), f"{tick:,}") for tick in decades],
                   [(y_of(tick), f"{tick:.10g}") for tick in y_ticks])


def bar(said: str, parts: pd.Series) -> Bar | None:
    """Shares of the sum of all parts, which have names; None where that is nothing."""
    if parts.sum() <= 0:
        return None
    share_pct = 100 * parts / parts.sum()
    left, texts = share_pct.cumsum().shift(fill_value=0.0), share_pct.map("{:.1f} %".format)
    return Bar(said, list(zip(parts.index, left.round(3), share_pct.round(3), texts, strict=True)))


def nice_ticks(low: float, high: float) -> list[float]:
    """Round numbers, evenly spread, the first at or below `low` and the last at or above `high`."""
    if high <= low:
        low, high = low - abs(low) / 2 - (low == 0), high + abs(high) / 2 + (high == 0)
    raw = (high - low) / TICKS
    power = 10.0 ** math.floor(math.log10(raw))
    size = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= raw * (1 - 1e-9))
    first, last = math.floor(low / size + 1e-9), math.ceil(high / size - 1e-9)
    return [float(f"{number * size:.10g}") for number in range(first, last + 1)]


def _scale(low: float, high: float, start: float, end: float) -> Callable[[Any], Any]:
    return lambda values: start + (values - low) / (high - low) * (end - start)


def _path(x: np.ndarray, y: np.ndarray) -> str:
    return "M" + "L".join(f"{left:.1f},{top:.1f}" for left, top in zip(x, y, strict=True))
