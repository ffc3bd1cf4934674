"""Whether a difference between models is real, or what chance does.

`correct` arrays are booleans, true where a model judged a photo right; positions are the same
photos in every array. A difference is the second's accuracy minus the first's, as a share.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from scipy.stats import binomtest, norm, t

ALPHA = 0.05
POWER = 0.8  # how likely a test of the size that we advise sees the difference
MOST_SEEDS = 100  # more than anyone trains

Correct = npt.NDArray[np.bool_]
Kind = Literal["better", "worse", "no difference"]


@dataclass(frozen=True)
class Difference:
    """The second against the first, on the same photos."""

    kind: Kind
    """of the second"""
    difference: float
    low: float
    high: float
    """ends of the 95 % interval"""
    p: float
    photos: int
    test: str
    only_first: int | None = None
    """photos that only the first has right; None where either has several seeds"""
    only_second: int | None = None
    photos_needed: int | None = None
    """to show a difference of this size in 80 % of the cases; None if there is no such number"""
    seeds_needed: int | None = None
    """of each setting, on the same photos; None if there is no such number, or no replicates"""


@dataclass(frozen=True)
class Standing:
    """One of several models against the one of the highest accuracy."""

    index: int
    accuracy: float
    p: float
    """of the difference to the best, corrected for the number of pairs; 1 for the best itself"""
    among_best: bool
    """whether it cannot be told from the best"""


def compare_runs(first: Correct, second: Correct) -> Difference:
    """Compare two trained models on the same photos, `correct` arrays of shape (N,).

    The verdict is that of the exact McNemar test, the interval Newcombe's. Photos needed: Connor
    1987. ValueError without photos.
    """
    if first.size == 0 or first.shape != second.shape:
        raise ValueError(f"needs the same photos, and one at least: {first.shape}, {second.shape}")
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
    """Return the two-sided p of McNemar's exact test (McNemar 1947, in its binomial form)."""
    discordant = only_first + only_second
    return float(binomtest(only_first, discordant, 0.5).pvalue) if discordant else 1.0


def paired_interval(
    both: int, only_first: int, only_second: int, photos: int
) -> tuple[float, float]:
    """Return the 95 % interval of the second's share of right photos minus the first's.

    Method 10 of Newcombe 1998, "Improved confidence intervals for the difference between binomial
    proportions based on paired data", Statistics in Medicine 17, 2635–2650: the Wilson intervals
    of both shares, joined with the correlation of the two.
    """
    neither = photos - both - only_first - only_second
    right = [both + only_second, both + only_first]
    (p2, p1), ((low2, high2), (low1, high1)) = (
        [count / photos for count in right],
        [binomtest(count, photos).proportion_ci(0.95, method="wilson") for count in right],
    )
    phi = _correlation(both, only_first, only_second, neither)
    below = _join(p2 - low2, high1 - p1, phi)
    above = _join(high2 - p2, p1 - low1, phi)
    return max(-1.0, p2 - p1 - below), min(1.0, p2 - p1 + above)


def _join(one: float, other: float, phi: float) -> float:
    return math.sqrt(max(0.0, one**2 - 2 * phi * one * other + other**2))


def _correlation(both: int, only_first: int, only_second: int, neither: int) -> float:
    """Return Newcombe's phi, corrected for continuity where it is positive."""
    sides = (both + only_first, both + only_second, neither + only_first, neither + only_second)
    if 0 in sides:
        return 0.0
    top: float = both * neither - only_first * only_second
    if top > 0:
        top = max(top - sum(sides) / 4, 0)  # sum(sides) / 4 is half the photos
    return top / math.sqrt(math.prod(sides))


def photos_needed(only_first: float, only_second: float) -> int | None:
    """Return how many photos show a difference such as this one in 80 % of the cases.

    Takes the shares of photos that only one of the two has right. The formula: Connor 1987,
    "Sample size for testing differences in proportions for the paired-sample design", Biometrics
    43, 207–211. None if the shares are equal.
    """
    difference, discordant = only_second - only_first, only_second + only_first
    if difference == 0:
        return None
    of_chance = float(norm.ppf(1 - ALPHA / 2)) * math.sqrt(discordant)
    of_power = float(norm.ppf(POWER)) * math.sqrt(discordant - difference**2)
    return math.ceil(((of_chance + of_power) / difference) ** 2)


def compare_settings(first: Correct, second: Correct) -> Difference:
    """Compare two settings, each trained with several seeds: arrays of shape (seeds, N).

    Seeds and photos are both samples. The test is min F' (Clark 1973, "The language-as-fixed-
    effect fallacy", Journal of Verbal Learning and Verbal Behavior 12, 335–359): with F1 of the
    seeds' accuracies (Welch) and F2 of the photos' differences (paired), min F' is F1·F2 / (F1 +
    F2), on (F1 + F2)² / (F1²/n2 + F2²/n1) degrees of freedom, n1 and n2 being those of F1 and F2.
    It errs on the side of "no difference". With d the difference this is d² / (V1 + V2), V1 and V2
    the squared standard errors of F1 and F2, which also holds for d = 0, and gives the interval.

    n1 is the smaller number of seeds less one, the least that Welch's can be: with his own, and
    seeds that matter more than photos, 57 of 1,000 simulated pairs of equal settings differed.

    ValueError with fewer than two seeds of either, or two photos.
    """
    if min(len(first), len(second), first.shape[1]) < 2 or first.shape[1] != second.shape[1]:
        raise ValueError(f"needs 2 seeds of each and 2 photos: {first.shape}, {second.shape}")
    difference = float(second.mean() - first.mean())
    error = _Error.of(first, second)
    spread = math.sqrt(error.seeds + error.photos)
    freedom = error.freedom
    p = 2 * float(t.sf(abs(difference) / spread, freedom)) if spread else float(difference == 0)
    reach = float(t.ppf(1 - ALPHA / 2, freedom)) * spread if spread else 0.0
    return Difference(
        kind=_kind(p, difference),
        difference=difference,
        low=max(-1.0, difference - reach),
        high=min(1.0, difference + reach),
        p=p,
        photos=first.shape[1],
        test="min F' over seeds and photos (Clark 1973)",
        photos_needed=error.photos_needed(difference, first.shape[1]),
        seeds_needed=error.seeds_needed(difference),
    )


@dataclass(frozen=True)
class _Error:
    """Squared standard errors of a difference between two settings, and what they consist of."""

    seeds: float
    """V1: of the mean over seeds, seen from how the seeds' accuracies differ"""
    photos: float
    """V2: of the mean over photos, seen from how the photos' differences differ"""
    seeds_freedom: float
    photos_freedom: float
    one_seed: float
    """V1 if each setting had one seed"""
    photos_alone: float
    """the part of V2 that more seeds would not make smaller"""
    one_seed_photos: float
    """the part of V2 that shrinks with the seeds, if each setting had one"""

    @classmethod
    def of(cls, first: Correct, second: Correct) -> "_Error":
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
        """Return how many seeds of each setting show this difference in 80 % of the cases."""
        seeds = np.arange(2, MOST_SEEDS + 1)
        parts = (self.one_seed / seeds, self.photos_alone + self.one_seed_photos / seeds)
        freedoms = (seeds - 1, self.photos_freedom)
        return _first(seeds, _shown(difference, parts, freedoms))

    def photos_needed(self, difference: float, photos: int) -> int | None:
        """Return how many photos show it with these seeds, give or take 2 %."""
        counts = np.unique(np.geomspace(2, 1000 * photos, 1000).astype(np.int64))
        parts = (self.seeds, self.photos * photos / counts)
        return _first(counts, _shown(difference, parts, (self.seeds_freedom, counts - 1)))


def _residual(setting: Correct) -> float:
    """Return the mean square that neither seed nor photo explains, of an array (seeds, N)."""
    values = setting.astype(np.float64)
    rest = values - values.mean(axis=0) - values.mean(axis=1, keepdims=True) + values.mean()
    return float((rest**2).sum() / ((len(values) - 1) * (values.shape[1] - 1)))


def _satterthwaite(parts: Sequence[Any], freedoms: Sequence[Any]) -> Any:
    """Return the degrees of freedom of a sum of squared errors (Satterthwaite 1946)."""
    below = sum(part**2 / freedom for part, freedom in zip(parts, freedoms, strict=True))
    return sum(parts) ** 2 / np.maximum(below, np.finfo(float).tiny) + (np.equal(below, 0))


def _shown(
    difference: float, parts: tuple[Any, Any], freedoms: tuple[Any, Any]
) -> npt.NDArray[np.bool_]:
    """Return where a t test with these squared errors sees the difference in 80 % of cases."""
    freedom = _satterthwaite(parts, freedoms)
    needed = t.ppf(1 - ALPHA / 2, freedom) + t.ppf(POWER, freedom)
    return np.asarray((abs(difference) >= needed * np.sqrt(sum(parts))) & (difference != 0))


def _first(sizes: npt.NDArray[np.int64], shown: npt.NDArray[np.bool_]) -> int | None:
    return int(sizes[shown.argmax()]) if shown.any() else None


def rank(
    models: Sequence[Correct], compare: Callable[[Correct, Correct], Difference]
) -> list[Standing]:
    """Return several models by falling accuracy, each with whether it is as good as the best.

    `compare` is compare_runs or compare_settings. Which one is the best is known only from the
    same photos, so every pair is a test: Holm's correction is over all pairs.
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
    """Return p values corrected for their number, in the order given.

    Holm 1979, "A simple sequentially rejective multiple test procedure", Scandinavian Journal of
    Statistics 6, 65–70: the chance that any of them is below 0.05 by chance stays below 5 %.
    """
    corrected, so_far = [0.0] * len(ps), 0.0
    for step, index in enumerate(sorted(range(len(ps)), key=lambda index: ps[index])):
        so_far = max(so_far, min(1.0, (len(ps) - step) * ps[index]))
        corrected[index] = so_far
    return corrected


def _kind(p: float, difference: float) -> Kind:
    if p > ALPHA or difference == 0:
        return "no difference"
    return "better" if difference > 0 else "worse"
