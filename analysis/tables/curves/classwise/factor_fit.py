"""Regression of the accuracy of classes on factors, each alone and all together. The only import of statsmodels.

Least squares over C classes, each counting once. Accuracies of classes differ in how sure they are, so the intervals are
those of HC3 (MacKinnon and White 1985), which hold whatever the spread at each class is. Numbers are standardised: a
coefficient is in points of accuracy for one standard deviation of the factor. A yes or no stays as it is: points from no to
yes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

FREE = 6  # classes beyond the coefficients, at least: with fewer no interval is claimed
FEWEST_OF_A_KIND = 2  # classes that say yes, and no
SAME = 1e-9  # of two numbers that differ by rounding, the difference divided by their size
LEVEL = 0.95


@dataclass(frozen=True)
class Coefficient:
    """Points of accuracy for one standard deviation of a factor, or from no to yes; NaN where it is not known."""

    value: float
    low: float
    high: float


NOTHING = Coefficient(float("nan"), float("nan"), float("nan"))


@dataclass(frozen=True)
class Effect:
    """A factor.

    Attributes:
        factor: Its name.
        step: Its standard deviation over classes; 1 of a yes or no.
        alone: In a regression on it alone.
        together: In the regression on all factors.
        beta: Standard deviations of accuracy for one of the factor, together.
        shared_pct: Share of its variance that the other factors explain: near 100, the two cannot be told apart.
    """

    factor: str
    step: float
    alone: Coefficient
    together: Coefficient
    beta: float
    shared_pct: float


@dataclass(frozen=True)
class FactorFit:
    """All effects, what was left out and why, the classes, and the share of the variance that all factors explain."""

    effects: list[Effect]
    said: list[str]
    classes: int
    explained_pct: float


def fit_factors(accuracy_pct: np.ndarray, factors: pd.DataFrame) -> FactorFit:
    """Fit all factors.

    Args:
        accuracy_pct: float [C].
        factors: C rows, a column each; columns of 0 and 1 alone are a yes or no.
    Returns:
        Coefficients have no interval where fewer than FREE classes are left over, and there are none together where a factor
        follows from the others.
    """
    said = []
    kept = {}
    for name in factors:
        values = factors[name].to_numpy(float)
        if np.ptp(values) <= SAME * np.abs(values).max():
            said.append(f"{name} is the same for all classes ({values[0]:g}) and can explain nothing")
        elif (rare := _rare(values)) < FEWEST_OF_A_KIND:
            said.append(f"{name} has only {rare} class of one kind and is left out")
        else:
            kept[name] = values
    names = list(kept)
    steps = {name: 1.0 if _yes_or_no(values) else float(values.std(ddof=1)) for name, values in kept.items()}
    classes = len(accuracy_pct)
    scaled = np.array([(kept[name] - kept[name].mean()) / steps[name] for name in names]).reshape(len(names), classes).T
    alone = [_fit(accuracy_pct, scaled[:, [place]])[0][0] for place in range(len(names))]
    shared = [_explained_pct(scaled[:, place], np.delete(scaled, place, axis=1)) for place in range(len(names))]
    together, explained = _fit(accuracy_pct, scaled) if names else ([], float("nan"))
    enough = classes >= len(names) + 1 + FREE
    if enough and names and np.isnan(together[0].value):
        alike = [name for name, pct in zip(names, shared, strict=True) if pct > 100 * (1 - SAME)]
        said.append(f"{', '.join(alike)}: over these classes each follows from the others, so they cannot be told apart and "
                    "nothing is fitted together")
    elif names and not enough:
        said.append(f"{classes} classes are too few for intervals of {len(names)} factors together; it takes "
                    f"{len(names) + 1 + FREE}, and {2 + FREE} for one alone")
    spread = float(np.std(accuracy_pct, ddof=1)) if classes > 1 else float("nan")
    effects = []
    for place, name in enumerate(names):
        beta = together[place].value * float(scaled[:, place].std(ddof=1)) / spread if spread else float("nan")
        effects.append(Effect(name, steps[name], alone[place], together[place], beta, shared[place]))
    return FactorFit(effects, said, classes, explained)


def _fit(accuracy_pct: np.ndarray, scaled: np.ndarray) -> tuple[list[Coefficient], float]:
    """Coefficients of some factors with intervals, and the share of the variance that they explain, in %."""
    from statsmodels.regression.linear_model import OLS  # here, since it takes a second

    classes, factors = scaled.shape
    design = np.column_stack([np.ones(classes), scaled])
    if classes <= factors + 1 or np.linalg.matrix_rank(design, tol=SAME * np.sqrt(design.size)) < factors + 1:
        return [NOTHING] * factors, float("nan")
    fitted = OLS(accuracy_pct, design).fit(cov_type="HC3", use_t=True)
    ends = fitted.conf_int(1 - LEVEL)[1:]
    if classes < factors + 1 + FREE:
        ends = np.full_like(ends, np.nan)
        if factors > 1:
            return [NOTHING] * factors, float("nan")
    return [Coefficient(float(value), float(low), float(high))
            for value, (low, high) in zip(fitted.params[1:], ends, strict=True)], 100 * float(fitted.rsquared)


def _explained_pct(values: np.ndarray, others: np.ndarray) -> float:
    if not others.shape[1]:
        return 0.0
    residual = values - others @ np.linalg.lstsq(others, values, rcond=None)[0]
    return 100 * (1 - float((residual**2).sum() / (values**2).sum()))


def _yes_or_no(values: np.ndarray) -> bool:
    return bool(np.isin(values, (0, 1)).all())


def _rare(values: np.ndarray) -> int:
    """Classes that say the rarer of yes and no; of numbers all."""
    return int(min((values == 0).sum(), (values == 1).sum())) if _yes_or_no(values) else len(values)


def order_of(effects: Sequence[Effect]) -> list[Effect]:
    """The largest first, by the coefficient together, or alone where that is not known."""
    def size(effect: Effect) -> float:
        return abs(effect.together.value if np.isfinite(effect.together.value) else effect.alone.value)

    return sorted(effects, key=size, reverse=True)
