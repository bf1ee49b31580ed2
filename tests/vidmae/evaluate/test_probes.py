"""The probes against scikit-learn's own classifiers, float64 brute force, and tasks whose answer is known."""

import warnings

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold
from sklearn.neighbors import KNeighborsClassifier
from threadpoolctl import threadpool_limits

from vidmae.evaluate.attentive import attentive
from vidmae.evaluate.attentive_heads import AttentiveHead
from vidmae.evaluate.probes import PENALTIES, PENALTY_UNTRIED, knn, linear
from vidmae.settings.finetune_config import ProbeConfig

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def one_thread():
    """Small problems only wait for each other's threads."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with threadpool_limits(1):
        yield
    torch.set_num_threads(threads)


def blobs(per_class, classes=5, dim=24, spread=1.6, seed=0):
    """Overlapping clouds, off the origin and of unequal scales, float32; train and val."""
    rng = np.random.default_rng(seed)
    centres, scale = rng.standard_normal((classes, dim)), rng.uniform(0.1, 10, dim)
    parts = []
    for n in (per_class, 12):
        y = rng.permutation(np.repeat(np.arange(classes), n))
        x = (centres[y] + spread * rng.standard_normal((len(y), dim)) + 0.5) * scale
        parts += [x.astype(np.float32), y]
    return parts


@pytest.mark.parametrize(("neighbors", "temperature"), [(1, 0.07), (7, 0.07), (20, 0.5), (500, 0.07)])
def test_knn_is_a_vote_by_cosine(neighbors, temperature):
    x, y, val_x, _ = blobs(10)
    found = knn(x, y, val_x, num_classes=6, neighbors=neighbors, temperature=temperature)
    a, b = (v.astype(np.float64) / np.linalg.norm(v.astype(np.float64), axis=1, keepdims=True) for v in (x, val_x))
    brute = np.zeros((len(b), 6))
    for i, similarity in enumerate(b @ a.T):
        for j in np.argsort(-similarity)[:neighbors]:
            brute[i, y[j]] += np.exp(similarity[j] / temperature)
    assert np.allclose(found, brute / brute.sum(1, keepdims=True), atol=1e-5)
    assert (found[:, 5] == 0).all()  # a class without a training clip
    theirs = KNeighborsClassifier(min(neighbors, len(x)), metric="cosine", algorithm="brute",
                                  weights=lambda d: np.exp((1 - d) / temperature)).fit(x, y)
    assert np.allclose(found[:, :5], theirs.predict_proba(val_x), atol=1e-4)


def test_knn_at_an_extreme_temperature_is_still_a_vote():
    x, y, val_x, _ = blobs(10)
    cold = knn(x, y, val_x, num_classes=5, neighbors=20, temperature=1e-4)
    assert np.isfinite(cold).all() and np.array_equal(
        cold.argmax(1), knn(x, y, val_x, num_classes=5, neighbors=1, temperature=1).argmax(1))


def standardised(train, *others):
    mean, std = train.mean(0), train.std(0)
    return [(x - mean) / std for x in (train, *others)]


def by_hand(penalty, x, y, val_x):
    a, b = standardised(x, val_x)
    return LogisticRegression(C=penalty, max_iter=2000).fit(a, y), b


def test_linear_takes_the_penalty_that_is_best_on_training_clips_alone():
    x, y, val_x, val_y = blobs(10)
    said = []
    found = linear(x, y, val_x, num_classes=5, folds=4, seed=3, say=said.append)
    splits = list(StratifiedKFold(4, shuffle=True, random_state=3).split(x, y))
    scores = []
    for penalty in PENALTIES:
        fits = [(by_hand(penalty, x[a], y[a], x[b]), y[b]) for a, b in splits]
        scores.append(np.mean([(model.predict(z) == true).mean() for (model, z), true in fits]))
    best = PENALTIES[int(np.argmax(scores))]
    model, z = by_hand(best, x, y, val_x)
    assert np.allclose(found, model.predict_proba(z), atol=2e-3)
    assert f"{best:g} is best over 4 folds" in said[0] and f"{100 * max(scores):.2f} %" in said[0]
    assert (found.argmax(1) == val_y).mean() > 0.6  # chance 0.2
    assert len({round(s, 6) for s in scores}) > 1  # else any penalty would pass


def test_linear_solves_the_problem_that_it_states():
    """The gradient of C * sum of losses + |w|^2 / 2, worked out here, is zero where the fit ends."""
    x, y, _, _ = blobs(1, classes=4)
    x, y = np.concatenate([x, x[:1] + 1]), np.append(y, y[0])
    said = []
    p = linear(x, y, x, num_classes=4, folds=5, seed=0, say=said.append)
    assert "single training clip" in said[0]
    (z,) = standardised(x.astype(np.float64))
    gradient = PENALTY_UNTRIED * z.T @ (p - np.eye(4)[y])
    # at the optimum w = -gradient, so the scores follow from the probabilities themselves, up to the intercept
    scores = -z @ gradient
    assert np.ptp((np.log(p) - scores) - (np.log(p) - scores)[:, :1], axis=0).max() < 2e-3


def test_linear_folds_are_limited_by_the_smallest_class_and_missing_classes_get_nothing():
    x, y, val_x, _ = blobs(6, classes=4)
    keep = np.flatnonzero((y != 3) | (np.cumsum(y == 3) <= 3))
    x, y = x[keep], np.where(y[keep] >= 2, y[keep] + 1, y[keep])  # no class 2; class 4 has three clips
    said = []
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = linear(x, y, val_x, num_classes=6, folds=5, seed=0, say=said.append)
    assert "over 3 folds" in said[0]
    assert (found[:, [2, 5]] == 0).all() and np.allclose(found.sum(1), 1) and (found[:, [0, 1, 3, 4]] > 0).all()
    assert np.array_equal(found, linear(x, y, val_x, num_classes=6, folds=5, seed=0, say=said.append))
    with pytest.raises(ValueError, match="of 1 class"):
        linear(x[y == 0], y[y == 0], val_x, num_classes=6, folds=5, seed=0)


@pytest.mark.parametrize("where", ["train", "val"])
def test_features_that_are_not_finite_are_refused(where):
    x, y, val_x, _ = blobs(3)
    (x if where == "train" else val_x)[4, 2] = np.nan
    for probe in (lambda: knn(x, y, val_x, num_classes=5, neighbors=3, temperature=0.07),
                  lambda: linear(x, y, val_x, num_classes=5, folds=2, seed=0)):
        with pytest.raises(ValueError, match=r"1 of \d+ clips are NaN"):
            probe()


def hidden(clips, seed, classes=4, tokens=8, dim=16):
    """Every token shows a class, each as often as any other in a clip; the one that is marked tells the truth."""
    rng = np.random.default_rng(seed)
    shown = rng.permuted(np.tile(np.arange(tokens) % classes, (clips, 1)), axis=1)
    marked = rng.integers(tokens, size=clips)
    x = 0.1 * rng.standard_normal((clips, tokens, dim))
    x[..., :classes] += np.eye(classes)[shown]
    x[np.arange(clips), marked, -1] += 4
    return x.astype(np.float32), shown[np.arange(clips), marked]


PROBE = ProbeConfig(epochs=20, batch=32, lr=3e-3)


def fitted(x, y, val_x, seed=0, num_classes=4, probe=PROBE, said=None):
    return attentive(x, y, val_x, num_classes=num_classes, probe=probe, seed=seed, device=CPU,
                     say=(said if said is not None else []).append)


def test_attentive_sees_what_the_mean_of_the_tokens_hides():
    (x, y), (val_x, val_y), said = hidden(320, 1), hidden(200, 2), []
    state = torch.get_rng_state()
    found, steps = fitted(x, y, val_x, num_classes=6, said=said)
    assert (found.argmax(1) == val_y).mean() > 0.95
    assert (found[:, 4:] == 0).all() and np.allclose(found.sum(1), 1) and found.dtype == np.float64
    assert steps == 20 * 10 and f"{steps} steps" in said[0]
    assert torch.equal(torch.get_rng_state(), state)  # nobody else's random numbers move
    mean = linear(x.mean(1), y, val_x.mean(1), num_classes=4, folds=5, seed=0, say=said.append)
    assert (mean.argmax(1) == val_y).mean() < 0.5


def test_the_head_is_multi_head_attention_with_one_query():
    torch.manual_seed(0)
    head, theirs = AttentiveHead(192, 5), torch.nn.MultiheadAttention(192, 3, batch_first=True)
    tokens = torch.randn(2, 7, 192)
    with torch.no_grad():
        head.query.mul_(100)  # else it looks at all tokens alike
        theirs.in_proj_weight.copy_(torch.cat([torch.eye(192), head.key.weight, head.value.weight]))
        theirs.in_proj_bias.copy_(torch.cat([torch.zeros(192), torch.ones(192), head.value.bias.fill_(0.3)]))
        theirs.out_proj.load_state_dict(head.proj.state_dict())
        expected, weights = theirs(head.query.flatten().expand(2, 1, -1), tokens, tokens)
        assert torch.allclose(head.look(tokens), expected[:, 0], atol=1e-5) and weights.std() > 0.05


def test_attentive_is_deterministic_given_the_seed():
    (x, y), (val_x, _) = hidden(40, 1), hidden(20, 2)
    short = ProbeConfig(epochs=2, batch=16)
    first, steps = fitted(x, y, val_x, probe=short)
    assert steps == 6 and np.array_equal(first, fitted(x, y, val_x, probe=short)[0])
    assert not np.allclose(first, fitted(x, y, val_x, seed=1, probe=short)[0])


def test_attentive_says_where_it_diverges():
    (x, y), (val_x, _) = hidden(20, 1), hidden(2, 2)
    with pytest.raises(ValueError, match=r"loss of the attentive probe is (nan|inf).*probe\.lr"):
        fitted(x, y, val_x, probe=ProbeConfig(epochs=3, lr=1e30))
