"""Statistical tests: is the difference between two models or settings significant?

`Correct` arrays are booleans, true where a model classified a photo correctly; a position is the
same photo in every array. A difference is the accuracy of the second minus that of the first, as a
fraction.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from scipy.stats import binomtest, norm, t

ALPHA = 0.05  # significance level
POWER = 0.8  # statistical power of the sample sizes photos_needed and seeds_needed
MAX_SEEDS = 100  # upper limit of the search for seeds_needed

Correct = npt.NDArray[np.bool_]
Kind = Literal["better", "worse", "no difference"]


@dataclass(frozen=True)
class Difference:
    """The difference between the second model or setting and the first, on the same photos."""

    kind: Kind
    """how the second compares with the first"""
    difference: float
    low: float
    high: float
    """ends of the 95 % interval"""
    p: float
    photos: int
    test: str
    only_first: int | None = None
    """photos that only the first classifies correctly; None if either has several seeds"""
    only_second: int | None = None
    photos_needed: int | None = None
    """to detect a difference of this size with 80 % power; None if no number does"""
    seeds_needed: int | None = None
    """per setting, for the same on these photos; None if no number does, or without replicates"""


@dataclass(frozen=True)
class Standing:
    """A model's place in the ranking of several."""

    index: int
    accuracy: float
    p: float
    """of the difference to the most accurate model, with Holm's correction; 1 for that model"""
    among_best: bool
    """whether it is not significantly worse than the most accurate model"""


def compare_runs(first: Correct, second: Correct) -> Difference:
    """Compare two trained models on the same photos, arrays of shape (N,).

    Test: exact McNemar test. Interval: Newcombe 1998. Photos needed: Connor 1987. Raises ValueError
    if the shapes differ or there are no photos.
    """
    if first.size == 0 or first.shape != second.shape:
        raise ValueError(f"requires the same photos, at least one: {first.shape}, {second.shape}")
    only_first = int((first & ~second).sum())
    only_second = int((second & ~first).sum())
    both, photos = int((first & second).sum()), len(first)
    low, high = paired_interval(both, only_first, only_second, photos)
    p, difference = mcnemar(only_first, only_second), (only_second - only_first) / photos
    return Difference(
        kind=_kind(p, difference),
        difference=difference,
        low=low,
        high=high,
        p=p,
        photos=photos,
        test="exact McNemar test",
        only_first=only_first,
        only_second=only_second,
        photos_needed=photos_needed(only_first / photos, only_second / photos),
    )


def mcnemar(only_first: int, only_second: int) -> float:
    """Return the two-sided p value of the exact (binomial) McNemar test (McNemar 1947)."""
    discordant = only_first + only_second
    return float(binomtest(only_first, discordant, 0.5).pvalue) if discordant else 1.0


def paired_interval(
    both: int, only_first: int, only_second: int, photos: int
) -> tuple[float, float]:
    """Return the 95 % interval of the second's accuracy minus the first's.

    `both`, `only_first` and `only_second` count the photos that both models, or only one, classify
    correctly. Method 10 of Newcombe 1998, "Improved confidence intervals for the difference between
    binomial proportions based on paired data", Statistics in Medicine 17, 2635–2650: the Wilson
    intervals of both proportions, combined with their correlation.
    """
    neither = photos - both - only_first - only_second
    correct = [both + only_second, both + only_first]
    (p2, p1), ((low2, high2), (low1, high1)) = (
        [count / photos for count in correct],
        [binomtest(count, photos).proportion_ci(0.95, method="wilson") for count in correct],
    )
    phi = _correlation(both, only_first, only_second, neither)
    below = _combine(p2 - low2, high1 - p1, phi)
    above = _combine(high2 - p2, p1 - low1, phi)
    return max(-1.0, p2 - p1 - below), min(1.0, p2 - p1 + above)


def _combine(one: float, other: float, phi: float) -> float:
    return math.sqrt(max(0.0, one**2 - 2 * phi * one * other + other**2))


def _correlation(both: int, only_first: int, only_second: int, neither: int) -> float:
    """Return Newcombe's phi, with a continuity correction if it is positive."""
    sides = (both + only_first, both + only_second, neither + only_first, neither + only_second)
    if 0 in sides:
        return 0.0
    top: float = both * neither - only_first * only_second
    if top > 0:
        top = max(top - sum(sides) / 4, 0)  # sum(sides) / 4 is half the photos
    return top / math.sqrt(math.prod(sides))


def photos_needed(only_first: float, only_second: float) -> int | None:
    """Return how many photos are needed to detect a difference with 80 % power; None if it is 0.

    `only_first` and `only_second` are the fractions of photos that only one of the two classifies
    correctly. Formula: Connor 1987, "Sample size for testing differences in proportions for the
    paired-sample design", Biometrics 43, 207–211.
    """
    difference, discordant = only_second - only_first, only_second + only_first
    if difference == 0:
        return None
    alpha_term = float(norm.ppf(1 - ALPHA / 2)) * math.sqrt(discordant)
    power_term = float(norm.ppf(POWER)) * math.sqrt(discordant - difference**2)
    return math.ceil(((alpha_term + power_term) / difference) ** 2)


def compare_settings(first: Correct, second: Correct) -> Difference:
    """Compare two settings, each trained with several seeds: arrays of shape (seeds, N).

    Both seeds and photos are random samples. The test is min F' (Clark 1973, "The
    language-as-fixed-effect fallacy", Journal of Verbal Learning and Verbal Behavior 12, 335–359).
    With F1 of the seeds' accuracies (Welch) and F2 of the photos' differences (paired), min F' is
    F1·F2 / (F1 + F2), with (F1 + F2)² / (F1²/n2 + F2²/n1) degrees of freedom, where n1 and n2 are
    those of F1 and F2. The test is conservative. It is computed as d² / (V1 + V2), where d is the
    difference and V1, V2 are the squared standard errors of F1 and F2: this also holds for d = 0,
    and gives the interval.

    n1 is the smaller number of seeds minus one, the lower bound of Welch's degrees of freedom: with
    Welch's own, and seeds that matter more than photos, 57 of 1,000 simulated pairs of equal
    settings differed significantly.

    Raises ValueError with fewer than two seeds of either setting, or fewer than two photos.
    """
    if min(len(first), len(second), first.shape[1]) < 2 or first.shape[1] != second.shape[1]:
        raise ValueError(f"requires 2 seeds of each and 2 photos: {first.shape}, {second.shape}")
    difference = float(second.mean() - first.mean())
    errors = _SquaredErrors.of(first, second)
    error = math.sqrt(errors.seeds + errors.photos)
    freedom = errors.freedom
    p = 2 * float(t.sf(abs(difference) / error, freedom)) if error else float(difference == 0)
    margin = float(t.ppf(1 - ALPHA / 2, freedom)) * error if error else 0.0
    return Difference(
        kind=_kind(p, difference),
        difference=difference,
        low=max(-1.0, difference - margin),
        high=min(1.0, difference + margin),
        p=p,
        photos=first.shape[1],
        test="min F' over seeds and photos (Clark 1973)",
        photos_needed=errors.photos_needed(difference, first.shape[1]),
        seeds_needed=errors.seeds_needed(difference),
    )


@dataclass(frozen=True)
class _SquaredErrors:
    """Squared standard errors of the difference between two settings, and their components."""

    seeds: float
    """V1: estimated from the variance of the seeds' accuracies"""
    photos: float
    """V2: estimated from the variance of the photos' differences"""
    seeds_freedom: float
    photos_freedom: float
    one_seed: float
    """V1 with one seed per setting"""
    photos_alone: float
    """the part of V2 that does not depend on the number of seeds"""
    one_seed_photos: float
    """the part of V2 that decreases with the number of seeds, with one seed per setting"""

    @classmethod
    def of(cls, first: Correct, second: Correct) -> "_SquaredErrors":
        """Return the errors of two arrays of shape (seeds, N)."""
        both, photos = (first, second), first.shape[1]
        of_one = [float(setting.mean(axis=1).var(ddof=1)) for setting in both]
        per_setting = [one / len(setting) for one, setting in zip(of_one, both, strict=True)]
        by_photo = float((second.mean(axis=0) - first.mean(axis=0)).var(ddof=1))
        residual = [_residual(setting) for setting in both]
        of_seeds = sum(r / len(setting) for r, setting in zip(residual, both, strict=True))
        return cls(
            seeds=sum(per_setting),
            photos=by_photo / photos,
            seeds_freedom=min(len(setting) for setting in both) - 1,
            photos_freedom=photos - 1,
            one_seed=sum(of_one),
            photos_alone=max(0.0, by_photo - of_seeds) / photos,
            one_seed_photos=sum(residual) / photos,
        )

    @property
    def freedom(self) -> float:
        """Degrees of freedom of min F'."""
        parts = [self.seeds, self.photos]
        return float(_satterthwaite(parts, [self.seeds_freedom, self.photos_freedom]))

    def seeds_needed(self, difference: float) -> int | None:
        """Return how many seeds per setting are needed to detect it with 80 % power."""
        seeds = np.arange(2, MAX_SEEDS + 1)
        parts = (self.one_seed / seeds, self.photos_alone + self.one_seed_photos / seeds)
        freedoms = (seeds - 1, self.photos_freedom)
        return _smallest(seeds, _detected(difference, parts, freedoms))

    def photos_needed(self, difference: float, photos: int) -> int | None:
        """Return how many photos are needed with these seeds, with a precision of 2 %."""
        counts = np.unique(np.geomspace(2, 1000 * photos, 1000).astype(np.int64))
        parts = (self.seeds, self.photos * photos / counts)
        return _smallest(counts, _detected(difference, parts, (self.seeds_freedom, counts - 1)))


def _residual(setting: Correct) -> float:
    """Return the residual mean square of an array (seeds, N), after seed and photo effects."""
    values = setting.astype(np.float64)
    rest = values - values.mean(axis=0) - values.mean(axis=1, keepdims=True) + values.mean()
    return float((rest**2).sum() / ((len(values) - 1) * (values.shape[1] - 1)))


def _satterthwaite(parts: Sequence[Any], freedoms: Sequence[Any]) -> Any:
    """Return the effective degrees of freedom of a sum of variances (Satterthwaite 1946)."""
    below = sum(part**2 / freedom for part, freedom in zip(parts, freedoms, strict=True))
    return sum(parts) ** 2 / np.maximum(below, np.finfo(float).tiny) + (np.equal(below, 0))


def _detected(
    difference: float, parts: tuple[Any, Any], freedoms: tuple[Any, Any]
) -> npt.NDArray[np.bool_]:
    """Return where a t test with these squared errors detects the difference with 80 % power."""
    freedom = _satterthwaite(parts, freedoms)
    needed = t.ppf(1 - ALPHA / 2, freedom) + t.ppf(POWER, freedom)
    return np.asarray((abs(difference) >= needed * np.sqrt(sum(parts))) & (difference != 0))


def _smallest(sizes: npt.NDArray[np.int64], detected: npt.NDArray[np.bool_]) -> int | None:
    return int(sizes[detected.argmax()]) if detected.any() else None


def rank(
    models: Sequence[Correct], compare: Callable[[Correct, Correct], Difference]
) -> list[Standing]:
    """Rank models by decreasing accuracy, and test which are significantly worse than the best.

    `compare` is compare_runs or compare_settings. The best model is chosen on the same photos that
    the tests use, so Holm's correction covers all pairs of models, not only those with the best.
    """
    accuracies = [float(model.mean()) for model in models]
    pairs = list(combinations(range(len(models)), 2))
    corrected = holm([compare(models[one], models[other]).p for one, other in pairs])
    found = {frozenset(pair): p for pair, p in zip(pairs, corrected, strict=True)}
    order = sorted(range(len(models)), key=lambda index: -accuracies[index])
    best = order[0]
    return [
        Standing(index, accuracies[index], p := found.get(frozenset((index, best)), 1.0), p > ALPHA)
        for index in order
    ]


def holm(ps: Sequence[float]) -> list[float]:
    """Return p values with Holm's correction for multiple tests, in the given order.

    Holm 1979, "A simple sequentially rejective multiple test procedure", Scandinavian Journal of
    Statistics 6, 65–70: the family-wise error rate stays below the significance level.
    """
    corrected, maximum = [0.0] * len(ps), 0.0
    for step, index in enumerate(sorted(range(len(ps)), key=lambda index: ps[index])):
        maximum = max(maximum, min(1.0, (len(ps) - step) * ps[index]))
        corrected[index] = maximum
    return corrected


def _kind(p: float, difference: float) -> Kind:
    if p > ALPHA or difference == 0:
        return "no difference"
    return "better" if difference > 0 else "worse"
