"""Two or more revisions side by side: what differs, and whether the difference is real."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from catdog.errors import CatdogError
from catdog.experiments.run_results import (
    PREPARED,
    SEED,
    WORKSPACE,
    NotCachedError,
    Project,
    Revision,
    params_of,
    read,
    read_lock,
)
from catdog.experiments.significance import (
    Correct,
    Difference,
    Standing,
    compare_runs,
    compare_settings,
    rank,
)


@dataclass(frozen=True)
class Setting:
    """One column: a revision, or with --seeds all runs that differ from it in the seed alone."""

    name: str
    runs: list[Revision]


@dataclass(frozen=True)
class DataChange:
    """How the photos of one revision differ from those of the first."""

    name: str
    added: int = 0
    removed: int = 0
    relabelled: int = 0
    moved: dict[str, int] = field(default_factory=dict)
    """by `train → test` and the like"""
    unknown: str = ""
    """why it is not known which photos differ"""


@dataclass(frozen=True)
class Changed:
    """A test photo that one of two models judges right and the other wrong."""

    sha256: str
    path: str
    actual: str
    first: str
    second: str


@dataclass(frozen=True)
class Comparison:
    """All that is said about some settings; the first one is what the others are compared with."""

    settings: list[Setting]
    photos: int
    """test photos that every run has judged, and whose class is the same in all"""
    params: dict[str, list[Any]]
    """a value for each setting, of the keys in which they differ"""
    data: list[DataChange]
    code: list[str]
    difference: Difference | None
    """of the second to the first, where there are two"""
    standings: list[Standing]
    """of all, where there are more than two"""
    right_to_wrong: list[Changed]
    wrong_to_right: list[Changed]
    notes: list[str]


def compare(names: Sequence[str], seeds: bool = False) -> Comparison:
    """Compare revisions with the first of them, which is HEAD if none is given.

    With one name the second is the workspace. With `seeds` each stands for all runs that differ
    from it in train.seed alone. Raises CatdogError if a revision is not there, cannot be read
    (NotCachedError) or, with `seeds`, has no other seed, if there is no test photo in common, and
    if one revision alone is named, twice.
    """
    given, names = names, [_shorter(name) for name in dict.fromkeys(names or ["HEAD"])]
    if len(given) > len(names) == 1:
        raise CatdogError(f"{names[0]} is named {len(given)} times: there is nothing to compare")
    names += [WORKSPACE] if len(names) == 1 and names != [WORKSPACE] else []
    names = ["HEAD", *names] if len(names) == 1 else names
    project = Project()
    found = [read(project, name) for name in names]
    notes: list[str] = []
    settings = [Setting(revision.name, [revision]) for revision in found]
    if seeds:
        settings = [_replicates(project, revision, notes) for revision in found]
        _refuse_twins(settings)
    return judge(settings, notes)


def verdict(first: str, second: str) -> Difference:
    """Return how the model of the second revision does against that of the first.

    On the test photos that both have judged. Raises CatdogError as `compare` does.
    """
    found = compare([first, second]).difference
    assert found is not None  # they are two
    return found


def _shorter(name: str) -> str:
    """Return a name as it is shown: of a commit's 40 digits ten are enough."""
    return name[:10] if re.fullmatch("[0-9a-f]{40}", name) else name


def _replicates(project: Project, revision: Revision, notes: list[str]) -> Setting:
    """Return all runs of a revision's setting, one a seed."""
    runs, seen, left_out = {revision.params.get(SEED): revision}, set(), list[str]()
    for name in project.names():
        try:
            if (commit := project.commit(name)) in seen:  # HEAD is a branch's, too
                continue
            seen.add(commit)
            lock = read_lock(project, name, commit)
            params = params_of(lock)
            seed = params.get(SEED)
            if seed in runs or {**params, SEED: None} != {**revision.params, SEED: None}:
                continue
            found = read(project, name)
        except NotCachedError as error:
            left_out.append(f"left out: {error}")
            continue
        except CatdogError:  # a branch on which nothing was run
            continue
        if found.setting != revision.setting:
            left_out.append(
                f"left out: {name} has the params of {revision.name}, but other code or photos"
            )
        elif found.notes:
            left_out.append(f"left out: {'; '.join(found.notes)}")
        else:
            runs[seed] = found
    if len(runs) < 2:
        raise CatdogError(
            f"{revision.name}: has one seed only, {SEED} {revision.params.get(SEED)}; "
            f"`dvc exp run -S {SEED}={_another(runs)}` with its other params brings a second"
            + "".join(f"; {note}" for note in left_out)
        )
    notes += left_out
    return Setting(revision.name, sorted(runs.values(), key=lambda run: run.params.get(SEED, 0)))


def _another(runs: dict[Any, Revision]) -> int:
    return next(seed for seed in range(1, len(runs) + 2) if seed not in runs)


def _refuse_twins(settings: list[Setting]) -> None:
    seen: dict[str, str] = {}
    for setting in settings:
        key = setting.runs[0].setting
        if key in seen:
            raise CatdogError(
                f"{seen[key]} and {setting.name} differ in {SEED} at most: with --seeds they are "
                "one setting, and there is nothing to compare; leave --seeds out"
            )
        seen[key] = setting.name


def judge(settings: list[Setting], notes: Sequence[str] = ()) -> Comparison:
    """Return the comparison of settings whose runs have been read, with these notes and theirs.

    CatdogError if there are too few test photos that all runs have judged.
    """
    runs = [run for setting in settings for run in setting.runs]
    common = _common(runs)
    data = [change for run in settings[1:] if (change := _data(settings[0].runs[0], run.runs[0]))]
    if not common:
        raise CatdogError(
            f"{', '.join(setting.name for setting in settings)}: no test photo in common, so "
            "nothing can be said; evaluate both on the same photos"
        )
    correct = [_correct(setting.runs, common) for setting in settings]
    several = all(len(setting.runs) > 1 for setting in settings)
    if several and len(common) < 2:
        raise CatdogError("one test photo in common says nothing of settings; leave --seeds out")
    test = compare_settings if several else _compare_single
    two = len(settings) == 2
    changed = _changed(settings, common) if two and not several else ([], [])
    return Comparison(
        settings=settings,
        photos=len(common),
        params=_params_that_differ(settings, several),
        data=data,
        code=_code_that_differs([setting.runs[0] for setting in settings]),
        difference=test(*correct) if two else None,
        standings=[] if two else rank(correct, test),
        right_to_wrong=changed[0],
        wrong_to_right=changed[1],
        notes=[*dict.fromkeys([*notes, *(note for run in runs for note in run.notes)])],
    )


def _compare_single(first: Correct, second: Correct) -> Difference:
    return compare_runs(first[0], second[0])


def _common(runs: list[Revision]) -> list[str]:
    """Return the hashes of the test photos that all runs judged as photos of the same class."""
    first, *others = (run.predictions for run in runs)
    return [
        sha256
        for sha256, seen in sorted(first.items())
        if all(sha256 in other and other[sha256].actual == seen.actual for other in others)
    ]


def _correct(runs: list[Revision], common: list[str]) -> Correct:
    """Return an array (runs, photos)."""
    seen = [[run.predictions[sha256] for sha256 in common] for run in runs]
    return np.array([[one.actual == one.predicted for one in row] for row in seen], dtype=bool)


def _changed(settings: list[Setting], common: list[str]) -> tuple[list[Changed], list[Changed]]:
    """Return the photos that went from right to wrong, and from wrong to right."""
    lists: tuple[list[Changed], list[Changed]] = ([], [])
    first, second = (setting.runs[0].predictions for setting in settings)
    for sha256 in common:
        one, other = first[sha256], second[sha256]
        was, now = one.predicted == one.actual, other.predicted == one.actual
        if was != now:
            row = Changed(sha256, other.path, one.actual, one.predicted, other.predicted)
            lists[int(now)].append(row)
    return lists


def _params_that_differ(settings: list[Setting], several: bool) -> dict[str, list[Any]]:
    rows = [setting.runs[0].params for setting in settings]
    keys = dict.fromkeys(key for row in rows for key in row if not (several and key == SEED))
    values = {key: [row.get(key) for row in rows] for key in keys}
    return {key: row for key, row in values.items() if any(value != row[0] for value in row)}


def _code_that_differs(runs: list[Revision]) -> list[str]:
    paths = dict.fromkeys(path for run in runs for path in run.code)
    return [path for path in paths if len({run.code.get(path) for run in runs}) > 1]


def _data(first: Revision, other: Revision) -> DataChange | None:
    """Return how the photos differ, None if they do not."""
    if first.photos is None or other.photos is None:
        same = first.raw == other.raw and _shares(first) == _shares(other)
        lacking = first.name if first.photos is None else other.name
        reason = f"the cache lacks {PREPARED}/photos.csv of {lacking}"
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


def _shares(run: Revision) -> list[Any]:
    return [value for key, value in sorted(run.params.items()) if key.startswith("prepare.")]
