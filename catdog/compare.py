"""Two or more revisions side by side: what differs, and whether the difference is real.

The only module that knows DVC: it reads what a revision's dvc.lock names from git and from DVC's
cache, and neither checks anything out nor writes anything.
"""

import csv
import hashlib
import io
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from catdog import revisions
from catdog.errors import CatdogError
from catdog.significance import Correct, Difference, Standing, compare_runs, compare_settings, rank

WORKSPACE = "workspace"
SEED = "train.seed"
EVALUATED, PREPARED, RAW = "reports/evaluate", "data/prepared", "data/raw"
METRICS, TIMING = "metrics.json", "reports/train/timing.csv"


@dataclass(frozen=True)
class Prediction:
    """What a model said of one test photo."""

    path: str
    actual: str
    predicted: str


@dataclass(frozen=True)
class Revision:
    """What a revision's own run left behind."""

    name: str
    params: dict[str, Any]
    """by dotted key, as the run used them (dvc.lock); not what params.yaml says by now"""
    metrics: dict[str, Any]
    predictions: dict[str, Prediction]
    """by content hash"""
    photos: dict[str, tuple[str, str]] | None
    """(class, split) by content hash; None if the cache lacks the table"""
    raw: str
    """DVC's hash of data/raw"""
    code: dict[str, str]
    """hashes of the files of code that computed it"""
    minutes: float | None
    """of the training; only the workspace knows them, as times are no DVC out"""
    notes: tuple[str, ...]
    """what makes its figures doubtful, and how to mend it"""

    @property
    def setting(self) -> str:
        """What its replicates share: params but the seed, photos and code."""
        params = {key: value for key, value in self.params.items() if key != SEED}
        return json.dumps([params, self.raw, self.code], sort_keys=True)


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


class NotCachedError(CatdogError):
    """An output of a revision that DVC's cache lacks."""


class Project:
    """The repository of the current folder, read through git and DVC."""

    def __init__(self) -> None:
        from dvc.exceptions import NotDvcRepoError  # noqa: PLC0415 (takes seconds)
        from dvc.repo import Repo  # noqa: PLC0415

        try:
            self._repo = Repo(".")
        except NotDvcRepoError:
            raise CatdogError("not in a DVC repository: change to a clone of catdog") from None
        self.root = Path(self._repo.root_dir)

    @cached_property
    def experiments(self) -> set[str]:
        """Names of the experiments."""
        return {name for _, name, _ in revisions.experiments()}

    def commit(self, name: str) -> str | None:
        """Return the commit that a name stands for, None for the workspace."""
        return None if name == WORKSPACE else revisions.resolve(name)

    def names(self) -> Iterator[str]:
        """Yield workspace, HEAD, branches, tags and experiments, each by a name that is its own."""
        yield from (WORKSPACE, "HEAD", *self._repo.scm.list_branches())
        yield from self._repo.scm.list_tags()
        found = revisions.experiments()
        names = [name for _, name, _ in found]
        # Experiments of several commits may share a name: those go by their own commits.
        yield from (name if names.count(name) == 1 else commit[:10] for _, name, commit in found)

    def tracked(self, commit: str | None, path: str) -> bytes | None:
        """Return a file as it is in a commit, or in the workspace; None if it is not there."""
        try:
            if commit is None:
                return (self.root / path).read_bytes()
            inside = self.root.relative_to(self._repo.scm.root_dir) / path
            with self._repo.scm.get_fs(commit).open(inside.as_posix(), mode="rb") as stream:
                return bytes(stream.read())
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            return None

    def cached(self, md5: str) -> bytes | None:
        """Return the content of an object in DVC's cache; None if it is not there."""
        if not md5:  # the revision has no such output
            return None
        try:
            return Path(self._repo.cache.local.oid_to_path(md5)).read_bytes()
        except FileNotFoundError:
            return None

    def ways_to_get(self, name: str, out: str) -> str:
        """Return the commands that bring an output of a revision into the cache."""
        if name == WORKSPACE:
            first = ""
        elif name in self.experiments:
            # `dvc exp apply` fails where the cache lacks outputs; an experiment is a commit, too.
            first = f"git checkout {revisions.resolve(name)[:10]} && "
        elif self.commit(name) == self.commit("HEAD"):
            first = "git stash && "
        else:
            first = f"git checkout {name} && "
        # Another kind of processor may compute other bytes than those that the revision names.
        again = f"`{first}dvc exp run -n again` computes it again, as the experiment `again`"
        if not self._repo.config["core"].get("remote"):
            return again
        return f"`{first}dvc pull {out}` brings it if the remote has it, {again}"


def read(project: Project, name: str) -> Revision:
    """Return what the run of a revision left behind.

    Raises NotCachedError, with the command that helps, if the cache lacks its predictions, and
    CatdogError if nothing was run there.
    """
    commit = project.commit(name)
    lock, metrics = _lock(project, name, commit), project.tracked(commit, METRICS)
    if metrics is None:
        raise CatdogError(
            f"{name}: has no {METRICS}, so nothing was evaluated there; "
            f"{project.ways_to_get(name, EVALUATED)}"
        )
    predictions = _rows(project, name, commit, lock, EVALUATED, "predictions.csv")
    if predictions is None:
        raise NotCachedError(
            f"{name}: DVC's cache lacks its {EVALUATED}/predictions.csv; "
            f"{project.ways_to_get(name, EVALUATED)}"
        )
    found = Revision(
        name=name,
        params=_params(lock),
        metrics=_json(metrics, name),
        predictions={
            row["sha256"]: Prediction(row["path"], row["class"], row["prediction"])
            for row in predictions
        },
        photos=_photos(_rows(project, name, commit, lock, PREPARED, "photos.csv")),
        raw=_hashes(lock, "deps").get(RAW, ""),
        code={path: md5 for path, md5 in _hashes(lock, "deps").items() if path.endswith(".py")},
        minutes=_minutes(project.tracked(commit, TIMING)),
        notes=tuple(_doubts(project, name, commit, lock)),
    )
    return _with_figures_that_agree(found)


def _lock(project: Project, name: str, commit: str | None) -> dict[str, Any]:
    """Return the stages of a revision's dvc.lock."""
    text = project.tracked(commit, "dvc.lock")
    stages = _yaml(text, "dvc.lock").get("stages", {}) if text else {}
    if "evaluate" not in stages:
        raise CatdogError(
            f"{name}: its dvc.lock has no stage evaluate, so nothing was evaluated there; "
            f"{project.ways_to_get(name, EVALUATED)}"
        )
    return dict(stages)


def _hashes(lock: dict[str, Any], kind: str) -> dict[str, str]:
    """Return the hashes of all deps or outs, by path."""
    return {
        entry["path"]: entry.get("md5", "")
        for stage in lock.values()
        for entry in stage.get(kind, [])
    }


def _params(lock: dict[str, Any]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for stage in lock.values():
        values |= stage.get("params", {}).get("params.yaml", {})
    return dict(_leaves(values))


def _leaves(values: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, dict):
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _rows(
    project: Project, name: str, commit: str | None, lock: dict[str, Any], out: str, file: str
) -> list[dict[str, str]] | None:
    """Return a table inside a DVC out; None if neither workspace nor cache has it."""
    content = project.tracked(None, f"{out}/{file}") if commit is None else None
    if content is None:
        listing = project.cached(_hashes(lock, "outs").get(out, ""))
        entries = json.loads(listing) if listing else []
        md5 = next((entry["md5"] for entry in entries if entry["relpath"] == file), None)
        content = project.cached(md5) if md5 else None
    if content is None:
        return None
    return list(csv.DictReader(io.StringIO(content.decode("utf-8"), newline="")))


def _photos(rows: list[dict[str, str]] | None) -> dict[str, tuple[str, str]] | None:
    if rows is None:
        return None
    return {row["sha256"]: (row["class"], row["split"]) for row in rows if row["split"]}


def _json(content: bytes, name: str) -> dict[str, Any]:
    try:
        return dict(json.loads(content))
    except ValueError as error:
        raise CatdogError(f"{name}: {METRICS} is not valid JSON ({error})") from None


def _minutes(timing: bytes | None) -> float | None:
    if timing is None:
        return None
    rows = csv.DictReader(io.StringIO(timing.decode("utf-8"), newline=""))
    return round(sum(float(row["seconds"]) for row in rows) / 60, 2)


def _doubts(project: Project, name: str, commit: str | None, lock: dict[str, Any]) -> Iterator[str]:
    """Yield a note if params, code or photos have changed since the revision's results."""
    changed = []
    if (text := project.tracked(commit, "params.yaml")) is not None:
        now = dict(_leaves(_yaml(text, "params.yaml")))
        used = _params(lock)
        changed += [f"params.yaml ({key})" for key in used if now.get(key) != used[key]]
    for path, md5 in _hashes(lock, "deps").items():
        if path.endswith((".py", ".j2")):
            content = project.tracked(commit, path)
            if content is None or hashlib.md5(content, usedforsecurity=False).hexdigest() != md5:
                changed.append(path)
    pointer = project.tracked(commit, f"{RAW}.dvc")
    if pointer and yaml.safe_load(pointer)["outs"][0].get("md5") != _hashes(lock, "deps").get(RAW):
        changed.append(RAW)
    if changed:
        yield (
            f"{name}: its figures are older than its {', '.join(changed)}; "
            f"{project.ways_to_get(name, EVALUATED)}"
        )


def _yaml(text: bytes, path: str) -> dict[str, Any]:
    """Return a YAML file as DVC reads it: 1e-05 is a number, which PyYAML takes for text."""
    from dvc.utils.serialize import parse_yaml  # noqa: PLC0415

    return dict(parse_yaml(text.decode("utf-8"), path) or {})


def _with_figures_that_agree(found: Revision) -> Revision:
    """Add a note if metrics.json is not of the same evaluation as the predictions."""
    right = sum(one.actual == one.predicted for one in found.predictions.values())
    said = found.metrics.get("correct"), found.metrics.get("photos")
    if said == (right, len(found.predictions)):
        return found
    note = (
        f"{found.name}: {METRICS} is not of the evaluation that wrote {EVALUATED}, of which "
        f"{right} of {len(found.predictions)} are right; `dvc repro` mends it"
    )
    return replace(found, notes=(*found.notes, note))


def compare(names: Sequence[str], seeds: bool = False) -> Comparison:
    """Compare revisions with the first of them, which is HEAD if none is given.

    With one name the second is the workspace. With `seeds` each stands for all runs that differ
    from it in train.seed alone. Raises CatdogError if a revision is not there, cannot be read
    (NotCachedError) or, with `seeds`, has no other seed, and if there is no test photo in common.
    """
    names = list(dict.fromkeys(names or ["HEAD"]))
    names += [WORKSPACE] if len(names) == 1 and names != [WORKSPACE] else []
    names = ["HEAD", *names] if len(names) == 1 else names
    project = Project()
    found = [read(project, name) for name in names]
    notes: list[str] = []
    settings = [Setting(revision.name, [revision]) for revision in found]
    if seeds:
        settings = [_replicates(project, revision, notes) for revision in found]
        _refuse_twins(settings)
    return _judge(settings, notes)


Verdict = Difference


def verdict(first: str, second: str) -> Verdict:
    """Return how the model of the second revision does against that of the first.

    On the test photos that both have judged. Raises CatdogError as `compare` does.
    """
    found = compare([first, second]).difference
    if found is None:  # one revision was named twice
        raise CatdogError(f"{first} and {second} are the same: there is nothing to compare")
    return found


def _replicates(project: Project, revision: Revision, notes: list[str]) -> Setting:
    """Return all runs of a revision's setting, one a seed."""
    runs = {revision.params.get(SEED): revision}
    for name in project.names():
        try:
            lock = _lock(project, name, project.commit(name))
            params = _params(lock)
            seed = params.get(SEED)
            if seed in runs or {**params, SEED: None} != {**revision.params, SEED: None}:
                continue
            found = read(project, name)
        except NotCachedError as error:
            notes.append(f"left out: {error}")
            continue
        except CatdogError:  # a branch on which nothing was run
            continue
        if found.setting == revision.setting:
            runs[seed] = found
        else:
            notes.append(
                f"left out: {name} has the params of {revision.name}, but other code or photos"
            )
    if len(runs) < 2:
        raise CatdogError(
            f"{revision.name}: has one seed only, {SEED} {revision.params.get(SEED)}; "
            f"`dvc exp run -S {SEED}={_another(runs)}` with its other params brings a second"
        )
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


def _judge(settings: list[Setting], notes: list[str]) -> Comparison:
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
