"""Robustness in numbers. Pure: arrays and accuracies in, numbers out.

Accuracies are in %, 0 to 100. Letters: N images, M models, R resamples.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from analysis.results.resampling import interval, resampled_means

LEAST_MODELS = 3  # of a regression: two points have a line through both, and nobody is above or below it
Accuracies = Mapping[str, Mapping[int, float]]
"""Corruption -> severity -> accuracy in %."""


@dataclass(frozen=True)
class Estimated:
    """A number and its 95 % interval over images."""

    value: float
    low: float
    high: float

    def text(self, digits: int = 1) -> str:
        """`0.41 [0.33, 0.50]`; `--` where it is not defined."""
        if not np.isfinite(self.value):
            return "--"
        return f"{self.value:.{digits}f} [{self.low:.{digits}f}, {self.high:.{digits}f}]"


def mean_corruption_error(model: Accuracies, reference: Accuracies) -> tuple[float, dict[str, float]]:
    """The errors of a model divided by those of a reference model, corruption by corruption; their mean.

    Args:
        model: Accuracies of the model.
        reference: Of the reference, under at least the same conditions.
    Returns:
        mCE in %, and the CE of each corruption: 100 is as many errors as the reference makes, less is better.
    Raises:
        ValueError: The reference was not tested under a condition of the model, or makes no error under a corruption.
    Source: Hendrycks & Dietterich 2019 (arXiv 1903.12261), sec. 4.
    """
    return _relative_errors(model, reference, 0.0, 0.0, "makes no error")


def relative_corruption_error(model: Accuracies, reference: Accuracies, model_clean: float, reference_clean: float,
                              ) -> tuple[float, dict[str, float]]:
    """The errors that corruptions add, divided by those that they add to a reference model.

    Args:
        model: Accuracies of the model.
        reference: Of the reference.
        model_clean: Accuracy of the model without a corruption.
        reference_clean: Of the reference.
    Returns:
        Relative mCE in %, and the relative CE of each corruption.
    Raises:
        ValueError: As `mean_corruption_error`, or a corruption adds no error to the reference.
    Source: Hendrycks & Dietterich 2019 (arXiv 1903.12261), sec. 4.
    """
    return _relative_errors(model, reference, 100 - model_clean, 100 - reference_clean,
                            "makes no more errors than on clean images")


def _relative_errors(model: Accuracies, reference: Accuracies, model_off: float, reference_off: float, none: str,
                     ) -> tuple[float, dict[str, float]]:
    found: dict[str, float] = {}
    for corruption, levels in model.items():
        missing = [level for level in levels if level not in reference.get(corruption, {})]
        if missing:
            raise ValueError(f"the reference was not tested under {corruption}:{missing[0]}, and the model was")
        mine = sum(100 - pct - model_off for pct in levels.values())
        its = sum(100 - reference[corruption][level] - reference_off for level in levels)
        if its <= 0:
            raise ValueError(f"the reference {none} under {corruption}, so nothing can be divided by its errors; choose "
                             "another (--reference)")
        found[corruption] = 100 * mine / its
    if not found:
        raise ValueError("there is no corruption")
    return float(np.mean(list(found.values()))), found


def kept_pct(pct: float, clean_pct: float, chance_pct: float = 0.0) -> float:
    """Share of the clean accuracy that is kept, in %; above chance where that is given. NaN where clean is not above it.

    Source: relative robustness, as in Taori et al. 2020 (arXiv 2007.00644), with and without guessing.
    """
    return 100 * (pct - chance_pct) / (clean_pct - chance_pct) if clean_pct > chance_pct else float("nan")


@dataclass(frozen=True)
class EffectiveRobustness:
    """How much more accurate models are under a shift than their clean accuracy foretells.

    Attributes:
        slope: Of the line on logit axes.
        intercept: Of it.
        foretold_pct: What the line says for each model.
        effective_pct: Accuracy of each model minus that.
    """

    slope: float
    intercept: float
    foretold_pct: np.ndarray
    effective_pct: np.ndarray

    def at(self, clean_pct: np.ndarray) -> np.ndarray:
        """The line, in %."""
        line: np.ndarray = 100 / (1 + np.exp(-(self.intercept + self.slope * _logit(np.asarray(clean_pct), 0.0))))
        return line


def effective_robustness(clean_pct: np.ndarray, shifted_pct: np.ndarray, images: int) -> EffectiveRobustness:
    """Fit a line through all models, on logit axes, and say how far each model is above it.

    Args:
        clean_pct: Accuracy of each of the M models without the shift.
        shifted_pct: Under the shift.
        images: How many they are of; an accuracy of 0 or 100 % is taken for half an image more or less.
    Raises:
        ValueError: There are fewer than three models, or all have about the same clean accuracy.
    Source: Taori et al. 2020 (arXiv 2007.00644), sec. 2 and 3.
    """
    if len(clean_pct) < LEAST_MODELS:
        raise ValueError(f"effective robustness needs a line through the clean and the shifted accuracies of {LEAST_MODELS} "
                         f"models or more; here are {len(clean_pct)}")
    half = 50 / images
    if np.ptp(np.clip(clean_pct, half, 100 - half)) == 0:
        raise ValueError(f"all {len(clean_pct)} models have about the clean accuracy {clean_pct[0]:.3f} %, so no line can "
                         "be fitted")
    slope, intercept = np.polyfit(_logit(clean_pct, half), _logit(shifted_pct, half), 1)
    foretold = 100 / (1 + np.exp(-(intercept + slope * _logit(clean_pct, half))))
    return EffectiveRobustness(float(slope), float(intercept), foretold, shifted_pct - foretold)


def _logit(pct: np.ndarray, half: float) -> np.ndarray:
    share: np.ndarray = np.clip(pct, half, 100 - half) / 100
    found: np.ndarray = np.log(share / (1 - share))
    return found


def shape_bias(shape: np.ndarray, texture: np.ndarray) -> Estimated:
    """Share of shape decisions among the decisions for the shape or the texture of an image.

    Args:
        shape: [N], 1 where the model said the class of the shape; a mean over seeds may lie between.
        texture: [N], the same for the texture. Images whose shape and texture are of one class are left out before.
    Returns:
        0 to 1, with its interval over images; NaN where not one decision was for either.
    Source: Geirhos et al. 2019 (arXiv 1811.12231), sec. 2.3.
    """
    return _follows(np.column_stack([shape, texture]), lambda means: _share(means[..., 0], means[..., 1]))


def shape_texture_index(shape_right: np.ndarray, texture_right: np.ndarray, chance: float) -> Estimated:
    """(S - T) / (S + T): S and T are the accuracies above chance where only the shape is left, and only the texture.

    Args:
        shape_right: [N], share of the shape-only conditions in which an image was recognised.
        texture_right: [N], the same for conditions that keep the texture.
        chance: 0 to 1.
    Returns:
        -1 (texture alone) to 1 (shape alone), with its interval over images; NaN where nothing is above chance.
    """
    def index(means: np.ndarray) -> np.ndarray:
        shape, texture = (np.maximum(means[..., place] - chance, 0) for place in (0, 1))
        return 2 * _share(shape, texture) - 1

    return _follows(np.column_stack([shape_right, texture_right]), index)


def paired_difference(first: np.ndarray, second: np.ndarray) -> Estimated:
    """Accuracy of the first minus that of the second on the same images, in percentage points.

    Args:
        first: [N], share of the conditions and seeds in which the first model was right.
        second: [N], the same of the second.
    """
    return _follows((100 * (np.asarray(first, float) - second))[:, None], lambda means: means[..., 0])


def error_consistency(first: np.ndarray, second: np.ndarray) -> Estimated:
    """Cohen's kappa of whether two observers are right on the same images: 0 is chance, 1 the same errors.

    Args:
        first: bool [N], where the first is right.
        second: bool [N].
    Returns:
        Kappa with its interval over images; 1 where both are right or wrong on the same images everywhere.
    Source: Geirhos et al. 2020 (arXiv 2006.16736), sec. 2.
    """
    one, other = np.asarray(first, dtype=float), np.asarray(second, dtype=float)

    def kappa(means: np.ndarray) -> np.ndarray:
        p, q, observed = means[..., 0], means[..., 1], means[..., 2]
        expected = p * q + (1 - p) * (1 - q)
        found: np.ndarray = np.divide(observed - expected, 1 - expected, out=np.ones_like(observed), where=observed < 1)
        return found

    return _follows(np.column_stack([one, other, one == other]), kappa)


def _share(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    total = np.asarray(one + other, dtype=float)
    found: np.ndarray = np.divide(one, total, out=np.full_like(total, np.nan), where=total > 0)
    return found


def _follows(values: np.ndarray, number: object) -> Estimated:
    """A number that follows from the means of an image's values, and its interval."""
    assert callable(number)
    whole = float(number(values.astype(float).mean(axis=0)))
    return Estimated(whole, *interval(number(resampled_means(values.astype(float)))))
