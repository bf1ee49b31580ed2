"""Curves through accuracies at growing amounts of data, what they foresee, and how far that can be trusted.

    log-linear    y = a + b x
    power law     y = ceiling - shortfall 10^(-exponent x),       ceiling at most 100
    logistic      y = ceiling / (1 + exp(-rate (x - middle))),    ceiling at most 100

x is log10 of the amount, y is accuracy in %. All are fitted by least squares. The line's intervals are exact (Student's t)
where deviations are normal and alike everywhere; those of the other two are the usual approximation by the derivatives in
the parameters, and parameters that stopped at a limit are taken as known.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from itertools import compress

import numpy as np
from scipy.optimize import least_squares
from scipy.special import fdtrc, stdtrit

LEVEL = 0.95
CEILING = 100.0
ROUNDING = 1e-9  # points of accuracy: equal ones may differ by as little
AT_LIMIT = 1e-6  # a parameter that is so near to a limit has stopped there
LEAST_AMOUNTS = 3
SEARCHES = 3  # from the best starts
Array = np.ndarray
Interval = tuple[float, float]


class FitError(ValueError):
    """There are too few points for what is asked."""


@dataclass(frozen=True)
class Points:
    """What a curve is fitted to: log10 of the amounts of data and accuracies in %, both float64 [N]."""

    x: Array
    y: Array

    @property
    def amounts(self) -> Array:
        """The different x, ascending."""
        return np.unique(self.x)

    def means(self) -> Points:
        """One point per amount: the mean of its repeats."""
        return Points(self.amounts, np.array([self.y[self.x == x].mean() for x in self.amounts]))

    def without(self, x: float) -> Points:
        """All points of other amounts."""
        return Points(self.x[self.x != x], self.y[self.x != x])


@dataclass(frozen=True)
class Curve:
    """A family of curves with p parameters."""

    name: str
    parameters: tuple[str, ...]  # their names
    mean: Callable[[Array, Array], Array]  # parameters [p] or [p, S, 1] and x [N] to y [N] or [S, N]
    gradient: Callable[[Array, Array], Array]  # parameters [p] and x [N] to the derivatives [N, p]
    limits: Array  # [2, p]; lowest and highest parameters
    starts: Callable[[Points], Array] | None = None  # points to parameters [S, p]; None: the solution is in closed form


@dataclass(frozen=True)
class Fit:
    """A curve through points.

    Intervals are by hand, since no library has one for a parameter that stopped at a limit: for a power law with its ceiling
    at 100 %, half of the interval at x100 is 7.0 points here, 28 by curve_fit, 2,072 by lmfit and 6.1 with a fixed ceiling,
    which leaves one degree of freedom more. The same lines serve the line. OLS of statsmodels has the line's intervals to 14
    digits, not the last two of the CSV, and its import of 1.7 s takes longer than all fits of the published results.
    """

    curve: Curve
    points: Points
    values: Array  # float64 [p]; the parameters
    free: Array  # bool [p]; false for parameters that stopped at a limit

    @property
    def stuck(self) -> tuple[str, ...]:
        """Parameters that stopped at a limit."""
        return tuple(compress(self.curve.parameters, ~self.free))

    @cached_property
    def rss(self) -> float:
        """Sum of squared residuals."""
        return float(((self.points.y - self.at(self.points.x)) ** 2).sum())

    @property
    def r2(self) -> float | None:
        """Share of the variance that the curve explains; None where there is none but that of rounding."""
        total = float(((self.points.y - self.points.y.mean()) ** 2).sum())
        return 1 - self.rss / total if np.ptp(self.points.y) > ROUNDING else None

    @property
    def aicc(self) -> float | None:
        """Akaike's criterion for small samples; the variance counts as a parameter. None with too few points for it.

        Source: Hurvich and Tsai 1989, Biometrika 76(2): n ln(RSS/n) + 2k + 2k(k+1)/(n-k-1).
        """
        n, k = len(self.points.x), len(self.values) + 1
        if n <= k + 1:
            return None
        return n * math.log(max(self.rss, 1e-12) / n) + 2 * k + 2 * k * (k + 1) / (n - k - 1)

    @cached_property
    def held_out(self) -> dict[float, float] | None:
        """See the function of that name."""
        return held_out(self.curve, self.points)

    @property
    def held_out_rms(self) -> float | None:
        """Root mean square of the errors on amounts left out, in points of accuracy."""
        return None if self.held_out is None else math.sqrt(sum(e * e for e in self.held_out.values()) / len(self.held_out))

    def value(self, parameter: str) -> float:
        """One of the parameters."""
        return float(self.values[self.curve.parameters.index(parameter)])

    def at(self, x: Array | float) -> Array:
        """The curve at x; not clipped."""
        return self.curve.mean(self.values, np.atleast_1d(x).astype(float))

    def confidence(self, x: Array | float) -> tuple[Array, Array]:
        """Interval of the curve itself at each x: low, high."""
        return self._around(self.at(x), self._gradient(x))

    def prediction(self, x: Array | float) -> tuple[Array, Array]:
        """Interval of one further point at each x: low, high."""
        return self._around(self.at(x), self._gradient(x), further=1)

    def interval(self, parameter: str) -> Interval:
        """Interval of a parameter: low, high."""
        place = [self.curve.parameters.index(parameter)]
        low, high = self._around(self.values[place], np.eye(len(self.values))[place])
        return float(low[0]), float(high[0])

    def gain(self, start: float, end: float) -> tuple[float, float, float]:
        """How much the curve grows from one x to another, and the interval of that: gain, low, high."""
        gain = self.at(end) - self.at(start)
        low, high = self._around(gain, self._gradient(end) - self._gradient(start))
        return float(gain[0]), float(low[0]), float(high[0])

    def _gradient(self, x: Array | float) -> Array:
        return self.curve.gradient(self.values, np.atleast_1d(x).astype(float))

    def _around(self, middle: Array, gradient: Array, further: int = 0) -> tuple[Array, Array]:
        """Student's t intervals of values with these derivatives in the parameters, and the noise of further points."""
        amounts, dof = len(self.points.amounts), len(self.points.x) - len(self.values)
        if dof < 1 or amounts < LEAST_AMOUNTS:
            raise FitError(f"no interval: {self.curve.name} has {len(self.values)} parameters and stands on "
                           f"{len(self.points.x)} points at {amounts} amounts of data; at least "
                           f"{max(LEAST_AMOUNTS, len(self.values) + 1)} points are needed, at {LEAST_AMOUNTS} amounts")
        noise, design, gradient = self.rss / dof, self._gradient(self.points.x)[:, self.free], gradient[:, self.free]
        variance = noise * np.einsum("ni,ij,nj->n", gradient, np.linalg.pinv(design.T @ design), gradient) + further * noise
        half = stdtrit(dof, (1 + LEVEL) / 2) * np.sqrt(variance)
        return middle - half, middle + half


def fit(curve: Curve, points: Points) -> Fit:
    """Fit a curve by least squares.

    Raises:
        FitError: There are fewer different amounts than parameters.
    """
    if len(points.amounts) < len(curve.parameters):
        raise FitError(f"{curve.name} needs {len(curve.parameters)} different amounts of data, there are "
                       f"{len(points.amounts)}")
    low, high = curve.limits
    values = _search(curve, points, curve.starts(points)) if curve.starts else \
        np.linalg.lstsq(curve.gradient(low, points.x), points.y, rcond=None)[0]
    return Fit(curve, points, values, (values > low + AT_LIMIT) & (values < high - AT_LIMIT))


def _search(curve: Curve, points: Points, starts: Array) -> Array:
    """The best of searches from the best starts."""
    low, high = curve.limits
    starts = np.clip(starts, low + 1e-9, high - 1e-9)
    errors = ((curve.mean(starts.T[:, :, None], points.x) - points.y) ** 2).sum(axis=1)
    found = [least_squares(lambda values: curve.mean(values, points.x) - points.y, start, bounds=(low, high),
                           jac=lambda values: curve.gradient(values, points.x), x_scale="jac")
             for start in starts[np.argsort(errors, kind="stable")[:SEARCHES]]]
    best: Array = min(found, key=lambda result: float(result.cost)).x
    return np.where(best < low + AT_LIMIT, low, np.where(best > high - AT_LIMIT, high, best))


def held_out(curve: Curve, points: Points) -> dict[float, float] | None:
    """Leave one amount out, all of its repeats: x to measured less foreseen; None where what is left is too little."""
    if len(points.amounts) - 1 < max(2, len(curve.parameters)):
        return None
    return {float(x): float(points.y[points.x == x].mean() - fit(curve, points.without(x)).at(x)[0]) for x in points.amounts}


def lack_of_fit(line: Fit) -> float | None:
    """Chance that repeats alone scatter the means of the amounts as far from the curve as they are; None without repeats.

    Source: the F test for lack of fit, pure error against the rest of the residuals.
    """
    x, y, amounts = line.points.x, line.points.y, line.points.amounts
    pure = sum(float(((y[x == each] - y[x == each].mean()) ** 2).sum()) for each in amounts)
    dof_pure, dof_lack = len(x) - len(amounts), len(amounts) - len(line.values)
    if dof_pure < 1 or dof_lack < 1 or not pure:
        return None
    return float(fdtrc(dof_lack, dof_pure, max(line.rss - pure, 0.0) / dof_lack / (pure / dof_pure)))


def _decay(values: Array, x: Array) -> Array:
    decay: Array = 10 ** np.clip(-values[2] * x, -300, 300)
    return decay


def _power_gradient(values: Array, x: Array) -> Array:
    decay = _decay(values, x)
    return np.stack([np.ones_like(x), -decay, values[1] * decay * x * math.log(10)], axis=1)


def _power_starts(points: Points) -> Array:
    starts = []
    for exponent in np.geomspace(0.005, 3, 24):
        decay = 10 ** (-exponent * points.x)
        ceiling, shortfall = np.linalg.lstsq(np.stack([np.ones_like(decay), -decay], axis=1), points.y, rcond=None)[0]
        if ceiling > CEILING:
            ceiling, shortfall = CEILING, float(decay @ (CEILING - points.y) / (decay @ decay))
        starts.append((ceiling, shortfall, exponent))
    return np.array(starts)


def _sigmoid(values: Array, x: Array) -> Array:
    share: Array = 1 / (1 + np.exp(np.clip(-values[1] * (x - values[2]), -300, 300)))
    return share


def _logistic_gradient(values: Array, x: Array) -> Array:
    s = _sigmoid(values, x)
    return np.stack([s, values[0] * s * (1 - s) * (x - values[2]), -values[0] * s * (1 - s) * values[1]], axis=1)


def _logistic_starts(points: Points) -> Array:
    starts = []
    for ceiling in np.geomspace(min(1.02 * float(points.y.max()) + 0.1, CEILING), CEILING, 16):
        share = np.clip(points.y / (ceiling + 1e-6), 0.002, 0.998)
        rate, offset = np.polyfit(points.x, np.log(share / (1 - share)), 1)
        rate = max(float(rate), 0.01)
        starts.append((ceiling, rate, -float(offset) / rate))
    return np.array(starts)


LINE = Curve("log-linear", ("intercept", "slope"), lambda values, x: values[0] + values[1] * x,
             lambda _, x: np.stack([np.ones_like(x), x], axis=1), np.array([(-np.inf, -np.inf), (np.inf, np.inf)]))
POWER = Curve("power law", ("ceiling", "shortfall", "exponent"), lambda values, x: values[0] - values[1] * _decay(values, x),
              _power_gradient, np.array([(0.0, 0.0, 1e-3), (CEILING, np.inf, 10.0)]), _power_starts)
LOGISTIC = Curve("logistic", ("ceiling", "rate", "middle"), lambda values, x: values[0] * _sigmoid(values, x),
                 _logistic_gradient, np.array([(0.0, 1e-3, -50.0), (CEILING, 50.0, 50.0)]), _logistic_starts)
CURVES = (LINE, POWER, LOGISTIC)
