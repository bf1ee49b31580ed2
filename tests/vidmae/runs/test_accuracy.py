"""Accuracies against scikit-learn, intervals against scipy and the exact binomial."""

import time

import numpy as np
import pytest
import scipy.stats
from sklearn.metrics import confusion_matrix, log_loss, recall_score, top_k_accuracy_score

from vidmae.runs import accuracy
from vidmae.runs.predictions import Predictions, from_probabilities

CLASSES = ["Covering [something] with [something]", "Opening [something]", "Pouring [something] into [something]", "Putting",
           "Closing [something]", "Dropping [something]", "Uncovering [something]", "Tearing [something]"]


@pytest.fixture(scope="module")
def sample():
    """300 clips of 7 of 8 classes; the true class is a little likelier."""
    g = np.random.default_rng(3)
    label = g.integers(7, size=300)
    prob = g.gamma(1 + 2.0 * np.eye(8)[label])
    prob /= prob.sum(1, keepdims=True)
    return prob, label, from_probabilities(prob, label, np.arange(300, dtype=np.uint64), CLASSES)


def of_hits(hits: int, clips: int) -> Predictions:
    """Predictions of which `hits` are right."""
    rank = (np.arange(clips) >= hits).astype(np.int32)
    zeros = np.zeros(clips, np.int32)
    return Predictions(np.arange(clips, dtype=np.uint64), zeros, np.zeros((clips, 5), np.int32), rank,
                       np.ones(clips, np.float32), np.array(["a", "b"]))


def test_accuracies_are_those_of_scikit_learn(sample):
    prob, label, predictions = sample
    for k in (1, 2, 5):
        expected = 100 * top_k_accuracy_score(label, prob, k=k, labels=np.arange(8))
        assert accuracy.topk_pct(predictions, k) == pytest.approx(expected, abs=1e-12)
    assert 20 < accuracy.topk_pct(predictions, 1) < 80
    table = accuracy.confusion(predictions)
    assert np.array_equal(table, confusion_matrix(label, prob.argmax(1), labels=np.arange(8)))
    per_class = accuracy.per_class_pct(predictions, 1)
    assert np.isnan(per_class[7]) and not np.isnan(per_class[:7]).any(), "class 7 has no clip"
    assert per_class[:7] == pytest.approx(100 * recall_score(label, prob.argmax(1), labels=np.arange(7), average=None), abs=1e-12)
    assert accuracy.cross_entropy(predictions) == pytest.approx(log_loss(label, prob, labels=np.arange(8)), rel=1e-6)


def test_accuracy_on_some_classes_counts_their_clips_alone(sample):
    prob, label, predictions = sample
    some = accuracy.of_classes(predictions, ["Putting", CLASSES[0], "Putting"])
    among = np.isin(label, [3, 0])
    assert len(some) == among.sum() > 0
    assert accuracy.topk_pct(some, 1) == pytest.approx(100 * (prob.argmax(1) == label)[among].mean(), abs=1e-12)


def test_unknown_and_empty_classes_are_refused(sample):
    with pytest.raises(ValueError) as error:
        accuracy.of_classes(sample[2], ["Opening something", "Putting", "zzz"])
    assert str(error.value).startswith("2 of 3 classes are not among the 8 of the predictions: 'Opening something' "
                                       "(did you mean 'Opening [something]'")
    assert str(error.value).endswith("; 'zzz'")
    with pytest.raises(ValueError, match="none of the 300 clips is of one of the 1 classes"):
        accuracy.of_classes(sample[2], [CLASSES[7]])
    with pytest.raises(ValueError, match="0 clips"):
        accuracy.topk_pct(sample[2].take(np.zeros(300, bool)), 1)


@pytest.mark.parametrize(("hits", "clips"), [(3741, 24777), (12, 40), (980, 1000)])
@pytest.mark.parametrize("level", [0.95, 0.8])
def test_the_interval_is_that_of_the_exact_binomial(hits, clips, level):
    """A bootstrap of a share draws from binomial(N, share); ends of 2,000 draws scatter by their sampling error."""
    low, high = accuracy.topk_ci_pct(of_hits(hits, clips), 1, level=level)
    share = hits / clips
    sd_pct = 100 * np.sqrt(share * (1 - share) / clips)
    tail = (1 - level) / 2
    error = np.sqrt(tail * (1 - tail) / 2000) / scipy.stats.norm.pdf(scipy.stats.norm.ppf(tail)) * sd_pct
    exact = 100 * scipy.stats.binom.ppf([tail, 1 - tail], clips, share) / clips
    assert abs(low - exact[0]) <= 4 * error + 100 / clips and abs(high - exact[1]) <= 4 * error + 100 / clips
    assert low < 100 * share < high


def test_the_interval_is_that_of_scipys_bootstrap():
    predictions = of_hits(700, 2000)
    ours = accuracy.topk_ci_pct(predictions, 1)
    theirs = scipy.stats.bootstrap((predictions.rank < 1,), np.mean, n_resamples=2000, method="percentile", batch=200,
                                   rng=np.random.default_rng(1)).confidence_interval
    assert ours == pytest.approx((100 * theirs.low, 100 * theirs.high), abs=0.3)
    assert ours[1] - ours[0] == pytest.approx(2 * 1.96 * 100 * np.sqrt(0.35 * 0.65 / 2000), rel=0.06)


def test_the_interval_follows_from_the_seed_and_takes_no_time():
    predictions = of_hits(10000, 33960)
    began = time.process_time()
    first = accuracy.topk_ci_pct(predictions, 1)
    assert time.process_time() - began < 1
    assert accuracy.topk_ci_pct(predictions, 1) == first != accuracy.topk_ci_pct(predictions, 1, seed=1)
    assert accuracy.topk_ci_pct(of_hits(50, 50), 1) == (100, 100) and accuracy.topk_ci_pct(of_hits(0, 50), 1) == (0, 0)


@pytest.mark.parametrize("options", [{"level": 0.0}, {"level": 95}, {"resamples": 0}])
def test_an_interval_of_nonsense_is_refused(options):
    with pytest.raises(ValueError, match=r"level .* must be between 0 and 1"):
        accuracy.topk_ci_pct(of_hits(3, 5), 1, **options)
    with pytest.raises(ValueError, match="k 0 must be at least 1"):
        accuracy.topk_pct(of_hits(3, 5), 0)
