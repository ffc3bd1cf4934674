"""The results of a revision's run: params, metrics, predictions, photos and code."""

import csv
import io
import json
from dataclasses import dataclass
from typing import Any

from catdog import paths
from catdog.errors import CatdogError
from catdog.experiments import dvc_lock
from catdog.experiments.consistency import find_inconsistencies
from catdog.experiments.recovery import recovery_advice
from catdog.experiments.snapshots import Project, Snapshot

SEED = "train.seed"
METRICS, PREPARED, REPORTS = str(paths.METRICS), str(paths.PREPARED), str(paths.REPORTS)
HISTORY, TIMING = str(paths.HISTORY), str(paths.TIMING)


@dataclass(frozen=True)
class Prediction:
    """What a model predicts for one test photo."""

    path: str
    actual: str
    predicted: str

    @property
    def correct(self) -> bool:
        """Whether the predicted class is the actual one."""
        return self.predicted == self.actual


@dataclass(frozen=True)
class RunResults:
    """The results of a revision's run."""

    name: str
    params: dict[str, Any]
    """by dotted key, as the run used them: from dvc.lock, since params.yaml may have changed"""
    metrics: dict[str, Any]
    predictions: dict[str, Prediction]
    """by content hash"""
    photos: dict[str, tuple[str, str]] | None
    """(class, split) by content hash; None if the table is not in the cache"""
    raw: str
    """DVC's hash of data/raw"""
    code: dict[str, str]
    """DVC's hashes of the folders and files of code that the stages depend on, by path"""
    minutes: float | None
    """duration of training; None for a commit, since times are not a DVC output"""
    notes: tuple[str, ...]
    """inconsistencies of the metrics, each with how to fix it"""

    @property
    def setting(self) -> str:
        """What runs that differ only in the seed have in common: other params, photos, code."""
        params = {key: value for key, value in self.params.items() if key != SEED}
        return json.dumps([params, self.raw, self.code], sort_keys=True)


class NotCachedError(CatdogError):
    """An output of a revision is not in the DVC cache; `commit` is None for the workspace."""

    def __init__(self, message: str, commit: str | None) -> None:
        super().__init__(message)
        self.commit = commit


def read_results(project: Project, name: str) -> RunResults:
    """Return the results of a revision's run.

    Raises NotCachedError, with the command that helps, if its predictions are not in the cache, and
    CatdogError if the revision has not been evaluated or one of its files is invalid.
    """
    commit = project.commit(name)
    snapshot, stages = project.snapshot(commit), evaluated_stages(project, name)
    content = snapshot.read(METRICS)
    if content is None:
        raise CatdogError(
            f"{name}: not evaluated: it has no {METRICS}; "
            f"{recovery_advice(project, name, commit, REPORTS)}"
        )
    rows = _read_csv(snapshot, f"{REPORTS}/predictions.csv")
    if rows is None:
        raise NotCachedError(
            f"{name}: {REPORTS}/predictions.csv is not in the DVC cache; "
            f"{recovery_advice(project, name, commit, REPORTS)}",
            commit,
        )
    predictions = {
        row["sha256"]: Prediction(row["path"], row["class"], row["prediction"]) for row in rows
    }
    metrics = _parse_json(content, name)
    correct = [prediction.correct for prediction in predictions.values()]
    return RunResults(
        name=name,
        params=dvc_lock.params_used(stages),
        metrics=metrics,
        predictions=predictions,
        photos=_read_photos(snapshot),
        raw=dvc_lock.hashes(stages, "deps").get(dvc_lock.RAW, ""),
        code=dvc_lock.code_hashes(stages),
        minutes=_read_minutes(snapshot) if commit is None else None,
        notes=tuple(find_inconsistencies(project, name, metrics, correct)),
    )


def evaluated_stages(project: Project, name: str) -> dvc_lock.Stages:
    """Return the stages in a revision's dvc.lock; CatdogError if `evaluate` is not among them."""
    commit = project.commit(name)
    stages = project.snapshot(commit).stages
    if "evaluate" not in stages:
        raise CatdogError(
            f"{name}: not evaluated: its dvc.lock has no stage evaluate; "
            f"{recovery_advice(project, name, commit, REPORTS)}"
        )
    return stages


def _read_csv(snapshot: Snapshot, path: str) -> list[dict[str, str]] | None:
    """Return the rows of a table, None if it is missing."""
    content = snapshot.read(path)
    if content is None:
        return None
    return list(csv.DictReader(io.StringIO(content.decode("utf-8"), newline="")))


def _read_photos(snapshot: Snapshot) -> dict[str, tuple[str, str]] | None:
    rows = _read_csv(snapshot, f"{PREPARED}/photos.csv")
    if rows is None:
        return None
    return {row["sha256"]: (row["class"], row["split"]) for row in rows if row["split"]}


def _parse_json(content: bytes, name: str) -> dict[str, Any]:
    try:
        return dict(json.loads(content))
    except ValueError as error:
        raise CatdogError(f"{name}: {METRICS} is not valid JSON ({error})") from None


def _read_minutes(workspace: Snapshot) -> float | None:
    """Return the duration of training; None if the recorded times are of another training run.

    Times are not a DVC output: if DVC restores the results of a training run from its cache,
    timing.csv remains that of the last training run here. Both tables contain the losses, so a
    mismatch can be detected.
    """
    times, epochs = _read_csv(workspace, TIMING), _read_csv(workspace, HISTORY)
    if times is None or epochs is None:
        return None
    if [row.get("train_loss") for row in times] != [row.get("train_loss") for row in epochs]:
        return None
    return round(sum(float(row["seconds"]) for row in times) / 60, 2)
