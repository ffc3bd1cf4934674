"""Compare two or more revisions: what differs, and whether the difference is significant."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from catdog.errors import CatdogError
from catdog.experiments.replicates import Setting, check_settings_differ, find_replicates
from catdog.experiments.run_results import PREPARED, SEED, RunResults, read_results
from catdog.experiments.significance import (
    Correct,
    Difference,
    Standing,
    compare_runs,
    compare_settings,
    rank,
)
from catdog.experiments.snapshots import WORKSPACE, Project


@dataclass(frozen=True)
class DataChange:
    """How the photos of one revision differ from those of the first."""

    name: str
    added: int = 0
    removed: int = 0
    relabelled: int = 0
    moved: dict[str, int] = field(default_factory=dict)
    """number of photos by `train → test` and the like"""
    unknown: str = ""
    """why the photos that differ are unknown; empty if they are known"""


@dataclass(frozen=True)
class ChangedPrediction:
    """A test photo that one of two models classifies correctly and the other does not."""

    sha256: str
    path: str
    actual: str
    first: str
    """class predicted by the first model"""
    second: str


@dataclass(frozen=True)
class Comparison:
    """Several settings, each compared with the first."""

    settings: list[Setting]
    photos: int
    """test photos that every run has evaluated with the same class"""
    params: dict[str, list[Any]]
    """params that differ: a value for each setting"""
    data: list[DataChange]
    code: list[str]
    """folders and files of code that differ"""
    difference: Difference | None
    """of the second to the first, if there are two settings"""
    standings: list[Standing]
    """the ranking, if there are more than two settings"""
    right_to_wrong: list[ChangedPrediction]
    wrong_to_right: list[ChangedPrediction]
    notes: list[str]


def compare(names: Sequence[str], seeds: bool = False) -> Comparison:
    """Compare revisions with the first of them.

    One name is compared with the workspace; no name means HEAD and the workspace. With `seeds` each
    revision stands for all runs that differ from it only in train.seed. Raises CatdogError if a
    revision is unknown or cannot be read (NotCachedError), if it has no second seed (`seeds`), if
    the revisions have no test photo in common, and if the same one is named twice.
    """
    project = Project()
    found = [read_results(project, name) for name in _complete(names)]
    notes: list[str] = []
    settings = [Setting(run.name, [run]) for run in found]
    if seeds:
        settings = [find_replicates(project, run, notes) for run in found]
        check_settings_differ(settings)
    return compare_results(settings, notes)


def _complete(given: Sequence[str]) -> list[str]:
    """Return the names to compare, at least two."""
    names = [_shorten(name) for name in dict.fromkeys(given or ["HEAD"])]
    if len(given) > len(names) == 1:
        raise CatdogError(f"{names[0]}: given {len(given)} times; pass two different revisions")
    if names == [WORKSPACE]:
        return ["HEAD", WORKSPACE]
    return names if len(names) > 1 else [*names, WORKSPACE]


def _shorten(name: str) -> str:
    """Return a name as it is shown: ten digits of a full commit hash."""
    return name[:10] if re.fullmatch("[0-9a-f]{40}", name) else name


def compare_results(settings: list[Setting], notes: Sequence[str] = ()) -> Comparison:
    """Compare settings whose results have been read; `notes` are added to those of the runs.

    Raises CatdogError if all runs have too few test photos in common.
    """
    runs = [run for setting in settings for run in setting.runs]
    common = _common_photos(runs)
    if not common:
        raise CatdogError(
            f"{', '.join(setting.name for setting in settings)}: no test photos in common "
            "(the same content in the same class); evaluate them on the same photos and classes"
        )
    several = all(len(setting.runs) > 1 for setting in settings)
    if several and len(common) < 2:
        raise CatdogError(
            "--seeds: requires at least two test photos in common, found 1; omit --seeds"
        )
    correct = [_correct(setting.runs, common) for setting in settings]
    test = compare_settings if several else _compare_single
    two = len(settings) == 2
    right_to_wrong, wrong_to_right = (
        _changed_photos(settings, common) if two and not several else ([], [])
    )
    first, *others = (setting.runs[0] for setting in settings)
    return Comparison(
        settings=settings,
        photos=len(common),
        params=_different_params(settings, several),
        data=[change for other in others if (change := _data_change(first, other))],
        code=_different_code([first, *others]),
        difference=test(*correct) if two else None,
        standings=[] if two else rank(correct, test),
        right_to_wrong=right_to_wrong,
        wrong_to_right=wrong_to_right,
        notes=[*dict.fromkeys([*notes, *(note for run in runs for note in run.notes)])],
    )


def _compare_single(first: Correct, second: Correct) -> Difference:
    return compare_runs(first[0], second[0])


def _common_photos(runs: list[RunResults]) -> list[str]:
    """Return the sorted hashes of the test photos that all runs have, with the same class."""
    first, *others = (run.predictions for run in runs)
    return [
        sha256
        for sha256, seen in sorted(first.items())
        if all(sha256 in other and other[sha256].actual == seen.actual for other in others)
    ]


def _correct(runs: list[RunResults], common: list[str]) -> Correct:
    """Return whether each prediction is correct: booleans of shape (runs, photos)."""
    rows = [[run.predictions[sha256].correct for sha256 in common] for run in runs]
    return np.array(rows, dtype=bool)


def _changed_photos(
    settings: list[Setting], common: list[str]
) -> tuple[list[ChangedPrediction], list[ChangedPrediction]]:
    """Return the photos that went from right to wrong, and from wrong to right."""
    lists: tuple[list[ChangedPrediction], list[ChangedPrediction]] = ([], [])
    first, second = (setting.runs[0].predictions for setting in settings)
    for sha256 in common:
        before, after = first[sha256], second[sha256]
        if before.correct != after.correct:
            photo = ChangedPrediction(
                sha256, after.path, before.actual, before.predicted, after.predicted
            )
            lists[int(after.correct)].append(photo)
    return lists


def _different_params(settings: list[Setting], several: bool) -> dict[str, list[Any]]:
    params = [setting.runs[0].params for setting in settings]
    keys = dict.fromkeys(key for each in params for key in each if not (several and key == SEED))
    values = {key: [each.get(key) for each in params] for key in keys}
    return {key: row for key, row in values.items() if any(value != row[0] for value in row)}


def _different_code(runs: list[RunResults]) -> list[str]:
    paths = dict.fromkeys(path for run in runs for path in run.code)
    return [path for path in paths if len({run.code.get(path) for run in runs}) > 1]


def _data_change(first: RunResults, other: RunResults) -> DataChange | None:
    """Return how the photos differ, None if they do not."""
    if first.photos is None or other.photos is None:
        same = first.raw == other.raw and _shares(first) == _shares(other)
        uncached = first.name if first.photos is None else other.name
        reason = f"{PREPARED}/photos.csv of {uncached} is not in the DVC cache"
        return None if same else DataChange(other.name, unknown=reason)
    both = first.photos.keys() & other.photos.keys()
    moved: dict[str, int] = {}
    relabelled = 0
    for sha256 in sorted(both):
        (label, split), (new_label, new_split) = first.photos[sha256], other.photos[sha256]
        relabelled += label != new_label
        if split != new_split:
            moved[f"{split} → {new_split}"] = moved.get(f"{split} → {new_split}", 0) + 1
    added, removed = len(other.photos) - len(both), len(first.photos) - len(both)
    if not (added or removed or relabelled or moved):
        return None
    return DataChange(other.name, added, removed, relabelled, dict(sorted(moved.items())))


def _shares(run: RunResults) -> list[Any]:
    """Return the params that determine the splits."""
    return [value for key, value in sorted(run.params.items()) if key.startswith("prepare.")]
