"""The metrics: accuracy with its interval, balanced accuracy, loss, ROC and calibration.

Throughout, `labels` are integers of shape (N,), indices into the sorted `classes`, and
`probabilities` have the shape (N, classes), with rows that sum to 1. The predicted class is the one
with the highest probability.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.stats import binomtest
from sklearn.metrics import confusion_matrix, log_loss, roc_auc_score, roc_curve

Labels = npt.NDArray[np.int64]
Probabilities = npt.NDArray[np.floating[Any]]

DIGITS = 6  # decimal places of every metric, so that diffs of metrics.json stay readable
ROC_POINTS = 500  # per curve: more than a plot can show


@dataclass(frozen=True)
class CalibrationBin:
    """The photos whose confidence falls into one bin: mean confidence, accuracy, count."""

    confidence: float
    accuracy: float
    photos: int


@dataclass(frozen=True)
class RocPoint:
    """A point of the ROC curve of the class `positive`.

    `threshold` is infinite where no photo is predicted positive.
    """

    positive: str
    fpr: float
    tpr: float
    threshold: float


def summarize(
    labels: Labels, probabilities: Probabilities, classes: list[str], bins: int
) -> dict[str, Any]:
    """Return all metrics as nested plain values, ready for JSON.

    `balanced_accuracy` is the mean accuracy of the classes that have photos, that of scikit-learn.
    `loss` is the mean negative log-likelihood. `roc_auc` has the second of two classes as positive
    class; with more than two classes it is the macro average of one-vs-rest. A metric without
    photos to compute it from (the recall of a missing class) is None.
    """
    counts = confusion(labels, probabilities, classes)
    photos, correct = len(labels), sum(counts[name][name] for name in classes)
    low, high = wilson_interval(correct, photos)
    described = {name: _describe_class(counts, name) for name in classes}
    recalls = [row["correct"] / row["photos"] for row in described.values() if row["photos"]]
    return {
        "accuracy": _share(correct, photos),
        "accuracy_low": low,
        "accuracy_high": high,
        "balanced_accuracy": _share(math.fsum(recalls), len(recalls)),
        "loss": round(loss(labels, probabilities), DIGITS),
        "roc_auc": roc_auc(labels, probabilities),
        "calibration_error": round(calibration_error(labels, probabilities, bins), DIGITS),
        "photos": photos,
        "correct": correct,
        "classes": described,
        "confusion": counts,
    }


def confusion(
    labels: Labels, probabilities: Probabilities, classes: list[str]
) -> dict[str, dict[str, int]]:
    """Return the confusion matrix: `counts[actual][predicted]` is a number of photos."""
    predicted = probabilities.argmax(axis=1)
    matrix = confusion_matrix(labels, predicted, labels=np.arange(len(classes)))
    return {
        actual: {name: int(cell) for name, cell in zip(classes, row, strict=True)}
        for actual, row in zip(classes, matrix, strict=True)
    }


def wilson_interval(correct: int, photos: int) -> tuple[float | None, float | None]:
    """Return the 95 % Wilson interval of `correct` / `photos`; None without photos."""
    if photos == 0:
        return None, None
    interval = binomtest(correct, photos).proportion_ci(0.95, method="wilson")
    return round(float(interval.low), DIGITS), round(float(interval.high), DIGITS)


def loss(labels: Labels, probabilities: Probabilities) -> float:
    """Return the mean of −ln(probability of the true class), probabilities clipped at 2.2e-16."""
    # scikit-learn warns about rows that sum to 1 only in float32 precision, hence the division.
    exact = probabilities.astype(np.float64)
    exact /= exact.sum(axis=1, keepdims=True)
    return float(log_loss(labels, exact, labels=np.arange(exact.shape[1])))


def roc_auc(labels: Labels, probabilities: Probabilities) -> float | None:
    """Return the area under the ROC curve (see `summarize`); None if a class has no photos."""
    classes = probabilities.shape[1]
    if len(set(labels.tolist())) < classes:
        return None
    areas = [
        roc_auc_score(labels == index, probabilities[:, index])
        for index in positive_classes(range(classes))
    ]
    return round(float(np.mean(areas)), DIGITS)


def roc(labels: Labels, probabilities: Probabilities, classes: list[str]) -> list[RocPoint]:
    """Return the ROC curves, each thinned to at most ROC_POINTS points with both ends kept.

    With two classes there is one curve, whose positive class is the last one; with more there is
    one curve per class against the rest. A class that has no photo, or all of them, has no curve.
    """
    points: list[RocPoint] = []
    for index in positive_classes(range(len(classes))):
        if not 0 < (labels == index).sum() < len(labels):
            continue
        curve = np.stack(roc_curve(labels == index, probabilities[:, index]), axis=1)
        chosen = np.unique(np.linspace(0, len(curve) - 1, ROC_POINTS).round().astype(int))
        points += [RocPoint(classes[index], *map(float, row)) for row in curve[chosen]]
    return points


def positive_classes(indices: range) -> range:
    """Return the classes with a ROC curve of their own: the second of two, or else all."""
    return indices[1:] if len(indices) == 2 else indices


def calibration(labels: Labels, probabilities: Probabilities, bins: int) -> list[CalibrationBin]:
    """Return the bins that contain photos, sorted by confidence.

    The confidence is the probability of the predicted class. Bin m of M is ((m − 1)/M, m/M], as in
    Guo et al. 2017 (arXiv:1706.04599).
    """
    confidence = probabilities.max(axis=1).astype(np.float64)
    correct = probabilities.argmax(axis=1) == labels
    which = np.digitize(confidence, np.linspace(0, 1, bins + 1)[1:-1], right=True)
    return [
        CalibrationBin(float(confidence[here].mean()), float(correct[here].mean()), int(here.sum()))
        for here in (which == index for index in range(bins))
        if here.any()
    ]


def calibration_error(labels: Labels, probabilities: Probabilities, bins: int) -> float:
    """Return the expected calibration error.

    That is the mean of |accuracy − confidence| over the bins, weighted by their photos (Guo et al.
    2017).
    """
    found = calibration(labels, probabilities, bins)
    # Not sum: since Python 3.12 it rounds differently.
    gaps = math.fsum(bin.photos * abs(bin.accuracy - bin.confidence) for bin in found)
    return gaps / len(labels)


def _describe_class(counts: dict[str, dict[str, int]], name: str) -> dict[str, Any]:
    """Return recall (as `accuracy`, with its interval), precision and counts of a class."""
    photos, correct = sum(counts[name].values()), counts[name][name]
    low, high = wilson_interval(correct, photos)
    predicted = sum(row[name] for row in counts.values())
    return {
        "accuracy": _share(correct, photos),
        "low": low,
        "high": high,
        "precision": _share(correct, predicted),
        "photos": photos,
        "correct": correct,
    }


def _share(part: float, whole: int) -> float | None:
    return round(part / whole, DIGITS) if whole else None
