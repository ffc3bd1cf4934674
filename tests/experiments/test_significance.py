"""The statistical tests: published examples, and error rates in simulations."""

import numpy as np
import pytest
from scipy.stats import f, ttest_ind, ttest_rel

from catdog.experiments.significance import (
    Correct,
    compare_runs,
    compare_settings,
    holm,
    mcnemar,
    paired_interval,
    photos_needed,
    rank,
)

TRIALS = 1000
PHOTOS = 400


def _run(both: int, only_first: int, only_second: int, neither: int) -> tuple[Correct, Correct]:
    counts = [both, only_first, only_second, neither]
    return np.repeat([True, True, False, False], counts), np.repeat([True, False] * 2, counts)


def _settings(
    generator: np.random.Generator,
    seeds: int,
    spread: float,
    gap: float = 0.0,
    second: tuple[int, float] | None = None,
) -> tuple[Correct, Correct]:
    """Simulate two settings on photos of unequal difficulty; seeds shift the logit by `spread`.

    `second` is the number of seeds and the spread of the second setting, if they differ.
    """
    difficulty = generator.normal(2, 1.5, PHOTOS)

    def train(shift: float, seeds: int, spread: float) -> Correct:
        of_seed = generator.normal(0, spread, (seeds, 1))
        noise = generator.normal(0, 0.5, (seeds, PHOTOS))
        probability = 1 / (1 + np.exp(-(difficulty + shift + of_seed + noise)))
        return np.asarray(generator.random((seeds, PHOTOS)) < probability)

    return train(0, seeds, spread), train(gap, *(second or (seeds, spread)))


@pytest.mark.parametrize(
    ("only_first", "only_second", "p"),
    # Fagerland, Lydersen, Laake 2013, BMC Medical Research Methodology 13:91, exact conditional
    # test: airway hyper-responsiveness (Bentur 2009), complete response (Cavo 2012).
    [(1, 7, 0.0703), (6, 16, 0.0525)],
)
def test_mcnemar_gives_the_published_p(only_first: int, only_second: int, p: float) -> None:
    assert mcnemar(only_first, only_second) == pytest.approx(p, abs=5e-5)


def test_the_interval_is_the_published_one() -> None:
    # Fagerland, Lydersen, Laake 2017, Statistical Analysis of Contingency Tables, chapter 8
    # (Cavo 2012): −0.0621 (−0.1186 to −0.0046) for the first minus the second.
    low, high = paired_interval(both=59, only_first=6, only_second=16, photos=161)
    assert (low, high) == pytest.approx((0.0046, 0.1186), abs=5e-5)


def test_the_interval_changes_sign_with_the_order() -> None:
    low, high = paired_interval(50, 3, 9, 80)
    assert paired_interval(50, 9, 3, 80) == pytest.approx((-high, -low))


@pytest.mark.parametrize("counts", [(10, 0, 0, 0), (0, 0, 0, 10), (0, 10, 0, 0), (1, 0, 0, 0)])
def test_the_interval_contains_the_difference_in_extreme_cases(counts: tuple[int, ...]) -> None:
    found = compare_runs(*_run(*counts))
    assert -1 <= found.low <= found.difference <= found.high <= 1


@pytest.mark.parametrize(
    ("only_first", "only_second", "photos"),
    # Calculators of powerandsamplesize.com and clinicaltrials-tools, both based on Connor 1987.
    [(0.05, 0.45, 23), (0.3, 0.15, 155)],
)
def test_photos_needed_equal_the_published_numbers(
    only_first: float, only_second: float, photos: int
) -> None:
    assert photos_needed(only_first, only_second) == photos


def test_holm_gives_the_published_corrections() -> None:
    # Wikipedia, "Holm–Bonferroni method": at 5 % only the hypotheses 1 and 4 are rejected.
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])


def test_settings_are_compared_by_clarks_formula() -> None:
    first, second = _settings(np.random.default_rng(3), seeds=4, spread=0.3, gap=0.8)
    by_seed = ttest_ind(second.mean(1), first.mean(1), equal_var=False)
    by_photo = ttest_rel(second.mean(0), first.mean(0))
    f1, f2 = by_seed.statistic**2, by_photo.statistic**2
    freedom = (f1 + f2) ** 2 / (f1**2 / by_photo.df + f2**2 / (4 - 1))
    expected = f.sf(f1 * f2 / (f1 + f2), 1, freedom)
    assert compare_settings(first, second).p == pytest.approx(expected)


def test_two_equal_models_differ_in_at_most_5_percent_of_1000_pairs() -> None:
    generator = np.random.default_rng(1)
    found = []
    for _ in range(TRIALS):
        difficulty = 1 / (1 + np.exp(-generator.normal(2, 1.5, PHOTOS)))
        first, second = generator.random((2, PHOTOS)) < difficulty
        found.append(compare_runs(first, second).kind)
    assert found.count("better") + found.count("worse") <= 0.05 * TRIALS
    assert {"better", "worse"} < set(found)


@pytest.mark.parametrize(("seeds", "spread"), [(2, 0.2), (3, 0.0), (3, 1.0), (5, 1.0)])
def test_two_equal_settings_differ_in_at_most_5_percent_of_1000_pairs(
    seeds: int, spread: float
) -> None:
    generator = np.random.default_rng(2)
    found = [compare_settings(*_settings(generator, seeds, spread)).kind for _ in range(TRIALS)]
    assert found.count("no difference") >= 0.95 * TRIALS


def test_unequal_variances_keep_the_error_rate_with_equal_numbers_of_seeds_only() -> None:
    def differ(first: int, second: int) -> float:
        generator = np.random.default_rng(13)
        # A spread of 0.5 lowers the mean accuracy; the gap compensates for it.
        pairs = (
            _settings(generator, first, spread=0.1, gap=0.045, second=(second, 0.5))
            for _ in range(TRIALS)
        )
        return float(np.mean([compare_settings(*pair).kind != "no difference" for pair in pairs]))

    assert differ(3, 3) <= 0.05
    assert differ(8, 2) > 0.07  # docs/compare.md says so


def test_comparing_single_runs_of_equal_settings_finds_false_differences() -> None:
    generator = np.random.default_rng(2)
    pairs = [_settings(generator, seeds=3, spread=1.0) for _ in range(200)]
    significant = [
        compare_runs(first[0], second[0]).kind != "no difference" for first, second in pairs
    ]
    assert np.mean(significant) > 0.3


def test_at_most_5_percent_of_rankings_exclude_one_of_several_equal_models() -> None:
    generator = np.random.default_rng(4)
    excluded = 0
    for _ in range(300):
        difficulty = 1 / (1 + np.exp(-generator.normal(2, 1.5, PHOTOS)))
        models = list(generator.random((5, PHOTOS)) < difficulty)
        excluded += not all(row.among_best for row in rank(models, compare_runs))
    assert excluded <= 0.05 * 300


def test_models_are_ranked_by_accuracy_and_a_much_worse_one_is_not_among_the_best() -> None:
    generator = np.random.default_rng(5)
    good = generator.random(PHOTOS) < 0.95
    models = [generator.random(PHOTOS) < 0.6, good, good.copy()]
    models[2][:2] = False
    rows = rank(models, compare_runs)
    assert [row.index for row in rows] == [1, 2, 0]
    assert [row.among_best for row in rows] == [True, True, False]


def test_a_true_difference_is_detected_and_has_the_sign_of_the_second() -> None:
    first, second = _run(both=850, only_first=20, only_second=60, neither=70)
    assert compare_runs(first, second).kind == "better"
    assert compare_runs(second, first).kind == "worse"
    assert compare_runs(first, second).difference == pytest.approx(0.04)


def test_the_interval_covers_the_true_difference_in_95_percent_of_the_cases() -> None:
    generator, covered = np.random.default_rng(6), 0
    for _ in range(TRIALS):
        cells = generator.choice(4, PHOTOS, p=[0.85, 0.03, 0.06, 0.06])
        found = compare_runs(cells < 2, (cells == 0) | (cells == 2))
        covered += found.low <= 0.03 <= found.high
    assert 0.93 <= covered / TRIALS <= 0.97


def test_photos_needed_have_a_power_of_about_80_percent() -> None:
    generator, detected = np.random.default_rng(7), 0
    photos = photos_needed(0.03, 0.06)
    assert photos is not None
    for _ in range(500):
        cells = generator.choice(3, photos, p=[0.91, 0.03, 0.06])
        detected += compare_runs(cells != 2, cells != 1).kind == "better"
    assert 0.7 < detected / 500 < 0.9


def test_seeds_needed_have_a_power_of_over_70_percent() -> None:
    generator = np.random.default_rng(8)
    first, second = _settings(generator, seeds=60, spread=0.3, gap=0.8)
    seeds = compare_settings(first, second).seeds_needed
    assert seeds is not None
    chosen = [generator.choice(60, (2, seeds), replace=False) for _ in range(200)]
    detected = [compare_settings(first[a], second[b]).kind == "better" for a, b in chosen]
    assert np.mean(detected) > 0.7


def test_no_number_of_seeds_is_advised_if_only_more_photos_help() -> None:
    runs = _run(both=340, only_first=20, only_second=26, neither=14)
    found = compare_settings(
        *(np.tile(run, (3, 1)) for run in runs)
    )  # all seeds give the same predictions
    assert (found.kind, found.seeds_needed) == ("no difference", None)
    assert found.photos_needed is not None and found.photos_needed > PHOTOS


def test_no_number_of_photos_is_advised_for_equal_models() -> None:
    found = compare_runs(*_run(90, 5, 5, 0))
    assert (found.difference, found.p, found.photos_needed) == (0, 1, None)


def test_photos_and_replicates_are_required() -> None:
    none, one = np.zeros(0, dtype=bool), np.ones((1, 9), dtype=bool)
    with pytest.raises(ValueError, match="at least one"):
        compare_runs(none, none)
    with pytest.raises(ValueError, match="2 seeds"):
        compare_settings(one, one)
