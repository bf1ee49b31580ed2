"""Probes on pooled frozen features: k nearest neighbours and logistic regression.

scikit-learn, for its chunked neighbour search and its cross-validation are exact, deterministic and well kept.

Letters: N training clips, M validation clips, D width, C classes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

PENALTIES = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
"""Inverse strengths C that cross-validation tries; scikit-learn's: C times the sum of losses, plus half the squared norm."""
WIDER_PENALTIES = (*PENALTIES, 10.0)
"""Those that are tried on clips of other recordings: features may be as few as three numbers."""
PENALTY_UNTRIED = 1e-2
"""C where a class has a single clip, so that nothing can be held out."""
MAX_ITERATIONS = 300


@dataclass(frozen=True)
class Voters:
    """The training clips of a k-nearest-neighbour classifier. Called with features [M, D] it gives votes [M, C]."""

    search: Any
    labels: np.ndarray
    num_classes: int
    temperature: float

    def __call__(self, val_x: np.ndarray) -> np.ndarray:
        """Share of the votes that each class has, float64 [M, C].

        Raises:
            ValueError: Features are not finite.
        """
        distance, nearest = self.search.kneighbors(unit(checked(val_x)))
        similarity = 1 - distance**2 / 2  # of unit vectors
        votes = np.exp((similarity - similarity.max(axis=1, keepdims=True)) / self.temperature)
        scores = np.zeros((len(val_x), self.num_classes))
        np.add.at(scores, (np.arange(len(val_x))[:, None], self.labels[nearest]), votes)
        scores /= scores.sum(axis=1, keepdims=True)
        return scores


def fit_knn(train_x: np.ndarray, train_y: np.ndarray, *, num_classes: int, neighbors: int, temperature: float) -> Voters:
    """Let the nearest training clips vote by cosine similarity.

    Args:
        train_x: Floating [N, D].
        train_y: Class index of each, int [N].
        num_classes: C.
        neighbors: Voters, at most; N where there are fewer training clips.
        temperature: A vote weighs exp(similarity / temperature).
    Raises:
        ValueError: Features are not finite.
    Source: Wu et al. 2018 (arXiv 1805.01978).
    """
    from sklearn.neighbors import NearestNeighbors

    search = NearestNeighbors(n_neighbors=min(neighbors, len(train_x)), algorithm="brute").fit(unit(checked(train_x)))
    return Voters(search, train_y, num_classes, temperature)


def knn(train_x: np.ndarray, train_y: np.ndarray, val_x: np.ndarray, *, num_classes: int, neighbors: int,
        temperature: float) -> np.ndarray:
    """Votes on validation clips, float64 [M, C]; see `fit_knn`."""
    return fit_knn(train_x, train_y, num_classes=num_classes, neighbors=neighbors, temperature=temperature)(val_x)


@dataclass(frozen=True)
class Regression:
    """A fitted logistic regression. Called with features [M, D] it gives probabilities [M, C]."""

    model: Any
    present: np.ndarray
    num_classes: int

    def __call__(self, val_x: np.ndarray) -> np.ndarray:
        """Probabilities, float64 [M, C]; a class without a training clip has 0.

        Raises:
            ValueError: Features are not finite.
        """
        probabilities = np.zeros((len(val_x), self.num_classes))
        probabilities[:, self.present] = self.model.predict_proba(checked(val_x))
        return probabilities


def fit_linear(train_x: np.ndarray, train_y: np.ndarray, *, num_classes: int, folds: int, seed: int,
               say: Callable[[str], object] = print) -> Regression:
    """Fit a multinomial logistic regression on standardised features, its penalty chosen on training clips alone.

    The penalty of PENALTIES with the best accuracy over stratified folds is taken, the strongest of equal ones. There are
    no more folds than the smallest class has clips. Where a class has a single clip it is PENALTY_UNTRIED.

    Args:
        train_x: Floating [N, D].
        train_y: Class index of each, int [N].
        num_classes: C; classes without a training clip get probability 0.
        folds: Of the cross-validation, at most.
        seed: Of the folds.
        say: Takes a line for the log.
    Raises:
        ValueError: Features are not finite, or there is one class alone.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GridSearchCV, StratifiedKFold
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    train_x = checked(train_x)
    present, counts = np.unique(train_y, return_counts=True)
    if len(present) < 2:
        raise ValueError(f"the linear probe has training clips of {len(present)} class, it needs 2 or more (data.subset)")
    model = make_pipeline(StandardScaler(), LogisticRegression(C=PENALTY_UNTRIED, max_iter=MAX_ITERATIONS))
    usable = min(folds, int(counts.min()))
    if usable < 2:
        say(f"a class has a single training clip, so no penalty can be tried: C {PENALTY_UNTRIED:g} is taken")
    else:
        splits = StratifiedKFold(usable, shuffle=True, random_state=seed)
        model = GridSearchCV(model, {"logisticregression__C": PENALTIES}, cv=splits)
    model.fit(train_x, train_y)
    if usable >= 2:
        best = model.best_params_["logisticregression__C"]
        say(f"of C {', '.join(f'{c:g}' for c in PENALTIES)}, {best:g} is best over {usable} folds of the training clips: "
            f"top-1 {100 * model.best_score_:.2f} %")
    return Regression(model, present, num_classes)


def linear(train_x: np.ndarray, train_y: np.ndarray, val_x: np.ndarray, *, num_classes: int, folds: int, seed: int,
           say: Callable[[str], object] = print) -> np.ndarray:
    """Probabilities of validation clips, float64 [M, C]; see `fit_linear`."""
    return fit_linear(train_x, train_y, num_classes=num_classes, folds=folds, seed=seed, say=say)(val_x)


def fit_held_out(train_x: np.ndarray, train_y: np.ndarray, select_x: np.ndarray, select_y: np.ndarray, *, num_classes: int,
                 ) -> tuple[Regression, float]:
    """Fit a multinomial logistic regression on standardised features, its penalty chosen on clips of other recordings.

    The penalty of WIDER_PENALTIES under which the clips to select on are most likely is taken, the strongest of equal ones.

    Args:
        train_x: Floating [N, D].
        train_y: Class index of each, int [N]; every class has one.
        select_x: Floating [S, D], clips that are not trained on.
        select_y: Class index of each, int [S].
        num_classes: C.
    Returns:
        The regression, fitted on the training clips alone, and the chosen C.
    Raises:
        ValueError: Features are not finite.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    train_x, present = checked(train_x), np.unique(train_y)
    assert len(present) == num_classes, "every class is there"
    models = [make_pipeline(StandardScaler(), LogisticRegression(C=c, max_iter=MAX_ITERATIONS)) for c in WIDER_PENALTIES]
    fitted = [Regression(model.fit(train_x, train_y), present, num_classes) for model in models]
    likely = [np.log(np.maximum(each(select_x)[np.arange(len(select_y)), select_y], np.finfo(float).tiny)).mean()
              for each in fitted]
    best = int(np.argmax(likely))
    return fitted[best], WIDER_PENALTIES[best]


def checked(x: np.ndarray) -> np.ndarray:
    """Features [N, D] as they are.

    Raises:
        ValueError: Some are NaN or infinite.
    """
    bad = int((~np.isfinite(x).all(axis=1)).sum())
    if bad:
        raise ValueError(f"the features of {bad} of {len(x)} clips are NaN or infinite; remove the folder of probe.features "
                         "and see that the weights are whole")
    return x


def unit(x: np.ndarray) -> np.ndarray:
    """Features [N, D] of length 1; zeros stay."""
    return np.asarray(x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), np.finfo(np.float32).tiny))
