"""Metrics, checked against published values or values computed by hand."""

import json
import math
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import auc, balanced_accuracy_score

from catdog.evaluation import metrics

CATDOG = ["cat", "dog"]

# Three cats and two dogs; the third cat and the second dog are misclassified.
LABELS = np.array([0, 0, 0, 1, 1])
PROBABILITIES = np.array([[0.9, 0.1], [0.6, 0.4], [0.3, 0.7], [0.2, 0.8], [0.75, 0.25]])


@pytest.fixture(autouse=True)
def warnings_are_errors() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


@pytest.mark.parametrize(
    ("correct", "photos", "low", "high"),
    [
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0000, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_intervals_are_those_of_newcombe_1998_table_1_method_3(
    correct: int, photos: int, low: float, high: float
) -> None:
    assert metrics.wilson_interval(correct, photos) == pytest.approx((low, high), abs=5e-5)


def test_metrics_of_two_classes_equal_those_computed_by_hand() -> None:
    summary = metrics.summarize(LABELS, PROBABILITIES, CATDOG, bins=10)
    # Six pairs of a dog and a cat: the dogs' 0.8 exceeds all 3 cats', 0.25 exceeds 1.
    assert summary["roc_auc"] == round(4 / 6, 6)
    assert summary["loss"] == round(-math.log(0.9 * 0.6 * 0.3 * 0.8 * 0.25) / 5, 6)
    assert (summary["accuracy"], summary["photos"], summary["correct"]) == (0.6, 5, 3)
    assert (summary["accuracy_low"], summary["accuracy_high"]) == metrics.wilson_interval(3, 5)
    low, high = metrics.wilson_interval(2, 3)
    assert summary["classes"]["cat"] == {
        "accuracy": 0.666667,
        "low": low,
        "high": high,
        "precision": 0.666667,
        "photos": 3,
        "correct": 2,
    }
    assert summary["classes"]["dog"]["accuracy"] == summary["classes"]["dog"]["precision"] == 0.5
    assert summary["confusion"] == {"cat": {"cat": 2, "dog": 1}, "dog": {"cat": 1, "dog": 1}}


def test_balanced_accuracy_is_that_of_scikit_learn() -> None:
    generator = np.random.default_rng(1)
    labels = generator.choice(4, 300, p=[0.7, 0.2, 0.07, 0.03])
    probabilities = generator.dirichlet(np.ones(4), size=300)
    probabilities[np.arange(300), labels] += 0.3
    found = metrics.summarize(labels, probabilities, list("abcd"), bins=10)["balanced_accuracy"]
    expected = balanced_accuracy_score(labels, probabilities.argmax(1))
    assert found == pytest.approx(expected, abs=1e-6)
    assert found != pytest.approx((labels == probabilities.argmax(1)).mean(), abs=1e-3)


def test_a_model_that_always_predicts_the_largest_class_has_the_balanced_accuracy_of_chance() -> (
    None
):
    labels, probabilities = np.array([0] * 3 + [1] * 60), np.array([[0.1, 0.9]] * 63)
    summary = metrics.summarize(labels, probabilities, CATDOG, bins=10)
    assert (summary["accuracy"], summary["balanced_accuracy"]) == (round(60 / 63, 6), 0.5)


def test_calibration_error_is_the_mean_gap_weighted_by_photos() -> None:
    # Two bins: (0, 0.5] is empty, so one gap remains: mean confidence 0.75, accuracy 0.6.
    assert metrics.calibration_error(LABELS, PROBABILITIES, 2) == pytest.approx(0.15)
    # Four bins: (0.5, 0.75] has 0.6 correct, 0.7 and 0.75 wrong; (0.75, 1] has 0.9 and 0.8 correct.
    gaps = 3 * abs(1 / 3 - 2.05 / 3) + 2 * abs(1 - 0.85)
    assert metrics.calibration_error(LABELS, PROBABILITIES, 4) == pytest.approx(gaps / 5)


def test_a_confidence_on_the_edge_of_two_bins_belongs_to_the_lower_one() -> None:
    bins = metrics.calibration(LABELS, PROBABILITIES, 4)
    assert [(bin.photos, round(bin.confidence, 6), round(bin.accuracy, 6)) for bin in bins] == [
        (3, round(2.05 / 3, 6), round(1 / 3, 6)),
        (2, 0.85, 1.0),
    ]


def test_a_confidence_of_one_belongs_to_the_last_bin() -> None:
    bins = metrics.calibration(np.array([0, 1]), np.eye(2), 10)
    assert bins == [metrics.CalibrationBin(confidence=1.0, accuracy=1.0, photos=2)]


def test_metrics_of_three_classes_equal_those_computed_by_hand() -> None:
    labels = np.array([0, 1, 1, 2])
    probabilities = np.array([[0.8, 0.1, 0.1], [0.5, 0.4, 0.1], [0.1, 0.6, 0.3], [0.2, 0.3, 0.5]])
    summary = metrics.summarize(labels, probabilities, ["a", "b", "c"], bins=10)
    assert summary["accuracy"] == 0.75
    assert summary["confusion"]["b"] == {"a": 1, "b": 1, "c": 0}
    assert summary["classes"]["a"]["precision"] == 0.5
    # One against the rest: a 3 of 3 pairs, b 4 of 4 (0.4 and 0.6 against 0.1 and 0.3), c 3 of 3.
    assert summary["roc_auc"] == 1.0
    worse = probabilities[[0, 3, 2, 1]]  # swaps the last two photos of b and c
    # a: 0.8 above all, 3/3; b: 0.3 and 0.6 against 0.1 and 0.4, 3/4; c: 0.1 against 0.1, 0.5, 0.3.
    expected = round((1 + 3 / 4 + 0.5 / 3) / 3, 6)
    assert metrics.roc_auc(labels, worse) == expected


def test_perfect_predictions_have_perfect_metrics() -> None:
    summary = metrics.summarize(np.array([0, 1, 1]), np.eye(2)[[0, 1, 1]], CATDOG, bins=10)
    assert summary["accuracy"] == summary["roc_auc"] == summary["accuracy_high"] == 1
    assert summary["loss"] == summary["calibration_error"] == 0
    assert summary["classes"]["cat"]["precision"] == 1


def test_a_class_that_is_never_predicted_has_no_precision() -> None:
    summary = metrics.summarize(np.array([0, 1]), np.array([[0.7, 0.3]] * 2), CATDOG, bins=10)
    assert summary["classes"]["dog"]["precision"] is None
    assert summary["classes"]["dog"]["accuracy"] == 0
    assert summary["roc_auc"] == 0.5


def test_metrics_of_a_class_without_photos_are_none() -> None:
    labels, probabilities = np.array([0, 0]), np.array([[0.7, 0.3], [0.4, 0.6]])
    summary = metrics.summarize(labels, probabilities, CATDOG, bins=10)
    assert summary["roc_auc"] is None
    dog = summary["classes"]["dog"]
    assert dog["accuracy"] is dog["low"] is dog["high"] is None
    assert summary["balanced_accuracy"] == 0.5  # that of the only class with photos
    assert metrics.roc(labels, probabilities, CATDOG) == []


def test_a_mistake_with_full_confidence_has_a_finite_loss() -> None:
    assert metrics.loss(np.array([0]), np.array([[0.0, 1.0]])) == pytest.approx(36.04, abs=0.01)


def test_float32_probabilities_raise_no_warning() -> None:
    rows = np.random.default_rng(1).random((100, 3), dtype=np.float32)
    rows /= rows.sum(axis=1, keepdims=True)
    labels = np.arange(100) % 3
    expected = -np.log(rows[np.arange(100), labels].astype(np.float64)).mean()
    assert metrics.loss(labels, rows) == pytest.approx(expected, rel=1e-6)


def leaves(value: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from leaves(inner, name)
    else:
        yield key, value


def test_the_summary_is_valid_json_of_six_digits() -> None:
    summary = metrics.summarize(LABELS, PROBABILITIES, CATDOG, bins=10)
    assert json.loads(json.dumps(summary, allow_nan=False)) == summary
    for key, value in leaves(summary):
        assert type(value) in (int, float), key
        assert value == round(value, 6), key


def test_the_roc_curve_of_two_classes_is_that_of_the_second() -> None:
    points = metrics.roc(LABELS, PROBABILITIES, CATDOG)
    # By decreasing probability of dog: dog 0.8, cat 0.7, cat 0.4, dog 0.25, cat 0.1.
    assert [(point.fpr * 3, point.tpr * 2, point.threshold) for point in points] == [
        (0, 0, math.inf),
        (0, 1, 0.8),
        (2, 1, 0.4),
        (2, 2, 0.25),
        (3, 2, 0.1),
    ]
    assert {point.positive for point in points} == {"dog"}


def test_three_classes_have_three_roc_curves() -> None:
    labels = np.array([0, 1, 2])
    points = metrics.roc(labels, np.eye(3), ["a", "b", "c"])
    assert list(dict.fromkeys(point.positive for point in points)) == ["a", "b", "c"]


def test_a_long_roc_curve_is_thinned_and_keeps_its_area() -> None:
    generator = np.random.default_rng(1)
    labels = generator.integers(0, 2, 20_000)
    dog = 1 / (1 + np.exp(-generator.normal(labels, 1.0)))
    probabilities = np.stack([1 - dog, dog], axis=1)
    points = metrics.roc(labels, probabilities, CATDOG)
    assert len(points) == metrics.ROC_POINTS
    assert (points[0].fpr, points[0].tpr, points[-1].fpr, points[-1].tpr) == (0, 0, 1, 1)
    area = auc([point.fpr for point in points], [point.tpr for point in points])
    assert area == pytest.approx(metrics.roc_auc(labels, probabilities), abs=1e-3)
