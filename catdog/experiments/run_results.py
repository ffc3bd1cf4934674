"""What a revision's own run left behind: params, metrics, predictions, photos, code.

It is read from git and from DVC's cache by the hashes in the revision's dvc.lock. Nothing is
checked out, and nothing written.
"""

import csv
import hashlib
import io
import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from catdog import paths
from catdog.errors import CatdogError
from catdog.experiments import revisions
from catdog.support.yaml_files import parse_mapping, parse_yaml

WORKSPACE = "workspace"
SEED = "train.seed"
RAW, METRICS, PREPARED = str(paths.RAW), str(paths.METRICS), str(paths.PREPARED)
EVALUATED, HISTORY, TIMING = str(paths.REPORTS), str(paths.HISTORY), str(paths.TIMING)


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
        self._commits: dict[str, str | None] = {WORKSPACE: None}
        self._locks: dict[str | None, dict[str, Any]] = {}

    @cached_property
    def experiments(self) -> set[str]:
        """Names of the experiments."""
        return {name for _, name, _ in revisions.experiments()}

    def commit(self, name: str) -> str | None:
        """Return the commit that a name stands for, None for the workspace."""
        if name not in self._commits:
            self._commits[name] = revisions.resolve(name)
        return self._commits[name]

    def stages(self, commit: str | None) -> dict[str, Any]:
        """Return the stages in a commit's dvc.lock, empty if it has none. To parse one is slow."""
        if commit not in self._locks:
            text = self.tracked(commit, "dvc.lock")
            self._locks[commit] = dict(_yaml(text, "dvc.lock").get("stages", {})) if text else {}
        return self._locks[commit]

    def names(self) -> Iterator[str]:
        """Yield HEAD, branches, tags, experiments, each by a name that is its own; then workspace.

        That comes last since its files need not be those of its dvc.lock.
        """
        yield from ("HEAD", *self._repo.scm.list_branches())
        yield from self._repo.scm.list_tags()
        found = revisions.experiments()
        names = [name for _, name, _ in found]
        # Experiments of several commits may share a name: those go by their own commits.
        for _, name, commit in found:
            own = name if names.count(name) == 1 else commit[:10]
            self._commits.setdefault(own, commit)
            yield own
        yield WORKSPACE

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
        elif (commit := self.commit(name)) == self.commit("HEAD"):
            first = "git stash && "
        elif commit and (name in self.experiments or name == revisions.CHAMPION):
            # `dvc exp apply` fails where the cache lacks outputs; an experiment is a commit, too.
            first = f"git checkout {commit[:10]} && "
        else:
            first = f"git checkout {name} && "
        # Another kind of processor may compute other bytes than those that the revision names.
        command = f"`{first}{revisions.run_again(self.commit(name), self.root)}`"
        again = f"{command} computes it again: name the experiment `again` instead"
        if not self._repo.config["core"].get("remote"):
            return again
        return f"`{first}dvc pull {out}` brings it if the remote has it, {again}"


def read(project: Project, name: str) -> Revision:
    """Return what the run of a revision left behind.

    Raises NotCachedError, with the command that helps, if the cache lacks its predictions, and
    CatdogError if nothing was run there.
    """
    commit = project.commit(name)
    lock, metrics = read_lock(project, name, commit), project.tracked(commit, METRICS)
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
        params=params_of(lock),
        metrics=_json(metrics, name),
        predictions={
            row["sha256"]: Prediction(row["path"], row["class"], row["prediction"])
            for row in predictions
        },
        photos=_photos(_rows(project, name, commit, lock, PREPARED, "photos.csv")),
        raw=_hashes(lock, "deps").get(RAW, ""),
        code={path: md5 for path, md5 in _hashes(lock, "deps").items() if path.endswith(".py")},
        minutes=_minutes(project.tracked(commit, TIMING), project.tracked(commit, HISTORY)),
        notes=tuple(_doubts(project, name, commit, lock)),
    )
    return _with_figures_that_agree(found)


def read_lock(project: Project, name: str, commit: str | None) -> dict[str, Any]:
    """Return the stages of a revision's dvc.lock; CatdogError if none of them evaluated."""
    stages = project.stages(commit)
    if "evaluate" not in stages:
        raise CatdogError(
            f"{name}: its dvc.lock has no stage evaluate, so nothing was evaluated there; "
            f"{project.ways_to_get(name, EVALUATED)}"
        )
    return stages


def _hashes(lock: dict[str, Any], kind: str) -> dict[str, str]:
    """Return the hashes of all deps or outs, by path."""
    return {
        entry["path"]: entry.get("md5", "")
        for stage in lock.values()
        for entry in stage.get(kind, [])
    }


def params_of(lock: dict[str, Any]) -> dict[str, Any]:
    """Return the params that the stages of a dvc.lock used, by dotted key."""
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


def _minutes(timing: bytes | None, history: bytes | None) -> float | None:
    """Return how long a training took; None if the times are not of the training of the history.

    Times are no DVC out: when DVC takes a training from its cache, those of the last one stay.
    """
    if timing is None or history is None:
        return None
    times, epochs = (
        list(csv.DictReader(io.StringIO(table.decode("utf-8"), newline="")))
        for table in (timing, history)
    )
    if [row.get("train_loss") for row in times] != [row.get("train_loss") for row in epochs]:
        return None
    return round(sum(float(row["seconds"]) for row in times) / 60, 2)


def _doubts(project: Project, name: str, commit: str | None, lock: dict[str, Any]) -> Iterator[str]:
    """Yield a note if params, code or photos have changed since the revision's results.

    Or the model: `dvc repro train` leaves the figures of the model before.
    """
    changed = []
    if (text := project.tracked(commit, "params.yaml")) is not None:
        now = dict(_leaves(_yaml(text, "params.yaml")))
        used = params_of(lock)
        changed += [f"params.yaml ({key})" for key in used if now.get(key) != used[key]]
    for path, md5 in _hashes(lock, "deps").items():
        if path.endswith((".py", ".j2")):
            content = project.tracked(commit, path)
            if content is None or hashlib.md5(content, usedforsecurity=False).hexdigest() != md5:
                changed.append(path)
    pointer = project.tracked(commit, f"{RAW}.dvc")
    if pointer and _photos_of(pointer.decode("utf-8")) != _hashes(lock, "deps").get(RAW):
        changed.append(RAW)
    made = _hashes(lock, "outs")
    read_by_evaluate = _hashes({"evaluate": lock["evaluate"]}, "deps")
    changed += [path for path, md5 in read_by_evaluate.items() if made.get(path, md5) != md5]
    if changed:
        yield (
            f"{name}: its figures are older than its {', '.join(changed)}; "
            f"{project.ways_to_get(name, EVALUATED)}"
        )


def _photos_of(pointer: str) -> str | None:
    """Return the hash that data/raw.dvc names."""
    outs: list[dict[str, str]] = parse_mapping(pointer, f"{RAW}.dvc").get("outs") or [{}]
    return outs[0].get("md5")


def _yaml(text: bytes, path: str) -> dict[str, Any]:
    """Return a YAML file as DVC reads it: 1e-05 is a number, which PyYAML takes for text."""
    return dict(parse_yaml(text.decode("utf-8"), path))


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
