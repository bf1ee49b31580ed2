"""Fits and intervals against textbook formulas in float64, scipy's own statistics, brute force, and coverage of known truth."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import optimize, stats

from analysis.tables.curves.fits import CURVES, LINE, LOGISTIC, POWER, FitError, Points, fit, held_out, lack_of_fit

SHARES = np.array([-3.0, -2.0, -1.0, 0.0])


def noisy(seed: int, x: np.ndarray = SHARES, sd: float = 1.0) -> Points:
    return Points(x, 20 + 5 * x + np.random.default_rng(seed).normal(0, sd, len(x)))


@pytest.mark.parametrize("x", [SHARES, np.array([-3.0, -3, -2.5, -1, 0, 0, 0]), np.log10([1.0, 10, 60, 174.9])])
def test_the_line_and_its_intervals_are_the_textbook_s(x: np.ndarray) -> None:
    points = noisy(1, x)
    found, theirs = fit(LINE, points), stats.linregress(x, points.y)
    assert found.value("slope") == pytest.approx(theirs.slope) and found.value("intercept") == pytest.approx(theirs.intercept)
    assert found.r2 == pytest.approx(theirs.rvalue ** 2)
    assert fit(LINE, Points(points.x, np.full(len(points.x), 200 / 3) + 1e-14 * np.arange(len(points.x)))).r2 is None
    n, t = len(x), stats.t.ppf(0.975, len(x) - 2)
    assert found.interval("slope") == pytest.approx((theirs.slope - t * theirs.stderr, theirs.slope + t * theirs.stderr))
    s2 = ((points.y - theirs.intercept - theirs.slope * x) ** 2).sum() / (n - 2)
    at = np.array([-2.2, 0.0, 1.0, 2.0])
    leverage = 1 / n + (at - x.mean()) ** 2 / ((x - x.mean()) ** 2).sum()
    middle = theirs.intercept + theirs.slope * at
    for interval, variance in ((found.confidence(at), s2 * leverage), (found.prediction(at), s2 * (1 + leverage))):
        np.testing.assert_allclose(interval, [middle - t * np.sqrt(variance), middle + t * np.sqrt(variance)])
    gain, low, high = found.gain(0.0, 2.0)
    assert (gain, low, high) == pytest.approx((2 * theirs.slope, *(2 * limit for limit in found.interval("slope"))))


@pytest.mark.parametrize("design", [SHARES, np.repeat(SHARES, 3)])
def test_95_percent_intervals_hold_the_truth_in_95_percent_of_draws(design: np.ndarray) -> None:
    rng = np.random.default_rng(20)
    held = dict.fromkeys(("slope", "confidence", "prediction", "gain"), 0)
    for _ in range(1000):
        found = fit(LINE, Points(design, 20 + 5 * design + rng.normal(0, 2, len(design))))
        further = 20 + 5 * 2.0 + rng.normal(0, 2)
        intervals = {"slope": (5.0, found.interval("slope")), "confidence": (30.0, found.confidence(2.0)),
                     "prediction": (further, found.prediction(2.0)), "gain": (10.0, found.gain(0.0, 2.0)[1:])}
        for name, (truth, (low, high)) in intervals.items():
            held[name] += bool(low <= truth <= high)
    assert all(930 <= count <= 970 for count in held.values()), held


def test_with_repeats_the_means_cover_what_all_runs_together_do_not() -> None:
    rng, x = np.random.default_rng(5), np.repeat(SHARES, 3)
    together = apart = seen = 0
    for _ in range(1000):
        bend = np.repeat(rng.normal(0, 2, 4), 3)  # the amounts do not lie on the line; repeats scatter little
        points = Points(x, 20 + 5 * x + bend + rng.normal(0, 0.3, 12))
        line = fit(LINE, points)
        low, high = line.interval("slope")
        together += low <= 5 <= high
        low, high = fit(LINE, points.means()).interval("slope")
        apart += low <= 5 <= high
        seen += (lack_of_fit(line) or 1.0) < 0.05
    assert together < 850 and 930 <= apart <= 970 and seen > 900


def test_lack_of_fit_is_right_where_there_is_none() -> None:
    rng, x = np.random.default_rng(6), np.repeat(SHARES, 3)
    chances = [lack_of_fit(fit(LINE, Points(x, 20 + 5 * x + rng.normal(0, 1, 12)))) for _ in range(400)]
    assert stats.kstest(chances, "uniform").pvalue > 0.01
    assert lack_of_fit(fit(LINE, noisy(0))) is None  # no repeats, no test


def test_lack_of_fit_compares_the_line_with_free_means() -> None:
    points = noisy(3, np.repeat(SHARES, 2))
    means = np.array([points.y[points.x == each].mean() for each in points.x])
    free, line = ((points.y - means) ** 2).sum(), ((points.y - np.polyval(np.polyfit(points.x, points.y, 1), points.x)) ** 2).sum()
    assert lack_of_fit(fit(LINE, points)) == pytest.approx(stats.f.sf((line - free) / 2 / (free / 4), 2, 4))


@pytest.mark.parametrize(("curve", "truth"), [(POWER, (60.0, 30.0, 0.2)), (LOGISTIC, (45.0, 1.2, -1.0))])
def test_curves_without_noise_are_found_again(curve, truth) -> None:
    x = np.linspace(-3, 0, 7)
    found = fit(curve, Points(x, curve.mean(np.array(truth), x)))
    assert tuple(found.values) == pytest.approx(truth, rel=1e-3) and not found.stuck


@pytest.mark.parametrize("y", [(3.366, 6.567, 21.197, 31.747), (6.288, 7.41, 24.725, 37.482), (4.473, 7.261, 13.74, 19.243)])
@pytest.mark.parametrize("curve", [POWER, LOGISTIC])
def test_no_search_of_the_whole_box_finds_a_better_curve(curve, y) -> None:
    points = Points(SHARES, np.array(y))
    box = [(0, 100), (0, 100), (1e-3, 10)] if curve is POWER else [(0, 100), (1e-3, 10), (-5, 5)]

    def error(values: np.ndarray) -> float:
        ceiling, second, third = values
        model = ceiling - second * 10 ** (-third * SHARES) if curve is POWER else ceiling / (1 + np.exp(-second * (SHARES - third)))
        return float(((model - y) ** 2).sum())

    theirs = optimize.differential_evolution(error, box, seed=1, popsize=12, maxiter=150, tol=1e-8)
    assert fit(curve, points).rss <= theirs.fun * 1.001


@pytest.mark.parametrize("curve", [POWER, LOGISTIC])
def test_gradients_are_the_slopes_of_the_curve(curve) -> None:
    values, x, step = np.array([60.0, 1.3, 0.4]), np.linspace(-3, 2, 9), 1e-6
    numeric = [(curve.mean(values + step * e, x) - curve.mean(values - step * e, x)) / (2 * step) for e in np.eye(3)]
    np.testing.assert_allclose(curve.gradient(values, x), np.stack(numeric, axis=1), rtol=1e-5, atol=1e-6)


def test_approximate_intervals_of_a_curve_are_near_their_level() -> None:
    rng, x, truth = np.random.default_rng(8), np.linspace(-3, 0, 10), np.array([40.0, 1.5, -1.2])
    held = 0
    for _ in range(120):
        low, high = fit(LOGISTIC, Points(x, LOGISTIC.mean(truth, x) + rng.normal(0, 0.4, 10))).confidence(1.0)
        held += bool(low <= LOGISTIC.mean(truth, np.array([1.0])) <= high)
    assert held >= 106  # of 120: 88 %


def test_aicc_is_that_of_the_normal_likelihood() -> None:
    points = noisy(4, np.linspace(-3, 0, 9))
    for curve in CURVES:
        found = fit(curve, points)
        sd = np.sqrt(((points.y - found.at(points.x)) ** 2).mean())
        k = len(curve.parameters) + 1
        theirs = -2 * stats.norm.logpdf(points.y, found.at(points.x), sd).sum() + 2 * k + 2 * k * (k + 1) / (9 - k - 1)
        assert found.aicc == pytest.approx(theirs - 9 * (1 + np.log(2 * np.pi)))


def test_aicc_is_not_a_number_on_too_few_points() -> None:
    assert [fit(curve, noisy(0)).aicc for curve in CURVES] == [None, None, None]
    five = [fit(curve, noisy(0, np.linspace(-3, 0, 5))).aicc for curve in CURVES]
    assert five[0] is not None and five[1:] == [None, None]


def test_leaving_an_amount_out_leaves_its_repeats_out() -> None:
    points = noisy(7)
    design = np.stack([np.ones(4), SHARES], axis=1)
    hat = design @ np.linalg.inv(design.T @ design) @ design.T
    residuals = points.y - hat @ points.y
    assert list(held_out(LINE, points).values()) == pytest.approx(list(residuals / (1 - np.diag(hat))))  # PRESS
    twice = Points(np.repeat(SHARES, 2), np.repeat(points.y, 2) + np.tile([-1.0, 1.0], 4))
    assert list(held_out(LINE, twice).values()) == pytest.approx(list(held_out(LINE, points).values()))
    assert held_out(POWER, points.without(0.0)) is None and held_out(LINE, points.without(0.0)) is not None


def test_too_few_points_are_an_error_and_not_an_interval() -> None:
    two = Points(np.array([-1.0, -1, 0, 0]), np.array([1.0, 2, 3, 4]))
    found = fit(LINE, two)
    for ask in (lambda: found.interval("slope"), lambda: found.prediction(2.0), lambda: found.gain(0, 2)):
        with pytest.raises(FitError, match="stands on 4 points at 2 amounts"):
            ask()
    with pytest.raises(FitError, match="logistic has 3 parameters and stands on 3 points"):
        fit(LOGISTIC, noisy(0, SHARES[1:])).confidence(0.0)
    with pytest.raises(FitError, match="power law needs 3 different amounts of data, there are 2"):
        fit(POWER, two)


def test_curves_never_pass_100_percent() -> None:
    steep = Points(SHARES, np.array([10.0, 40, 70, 99]))
    for curve in (POWER, LOGISTIC):
        found = fit(curve, steep)
        assert found.at(np.linspace(-3, 6, 50)).max() <= 100 + 1e-9
    assert fit(POWER, Points(SHARES, np.array([2.0, 4, 9, 20]))).stuck == ("ceiling",)
