"""Check that a revision's metrics match its params, code, photos and predictions."""

from collections.abc import Sequence
from typing import Any

from flatten_dict import flatten

from catdog import paths
from catdog.experiments.dvc_lock import params_used
from catdog.experiments.recovery import recovery_advice
from catdog.experiments.snapshots import Project, Snapshot
from catdog.support.yaml_files import parse_mapping

METRICS, REPORTS = str(paths.METRICS), str(paths.REPORTS)


def find_inconsistencies(
    project: Project, name: str, metrics: dict[str, Any], correct: Sequence[bool]
) -> list[str]:
    """Return a note for each inconsistency of a revision's metrics, and how to fix it.

    `correct` holds, for each row of the revision's predictions.csv, whether it is correct.
    Raises CatdogError if one of the files to check is invalid.
    """
    commit, notes = project.commit(name), []
    if changed := changes_since_run(project.snapshot(commit)):
        notes.append(
            f"{name}: metrics are outdated: changed since the evaluation: {', '.join(changed)}; "
            f"{recovery_advice(project, name, commit, REPORTS)}"
        )
    if (metrics.get("correct"), metrics.get("photos")) != (sum(correct), len(correct)):
        notes.append(
            f"{name}: {METRICS} and {REPORTS} are not from the same evaluation: in {REPORTS} "
            f"{sum(correct)} of {len(correct)} predictions are correct; run `dvc repro`"
        )
    return notes


def changes_since_run(snapshot: Snapshot) -> list[str]:
    """Return the params, code, photos and outputs that have changed since the evaluation.

    For example, after `dvc repro train` alone the model has changed: the metrics are still those of
    the previous one.
    """
    changed = []
    if (text := snapshot.read("params.yaml")) is not None:
        params = flatten(parse_mapping(text.decode("utf-8"), "params.yaml"), reducer="dot")
        used = params_used(snapshot.stages)
        changed += [f"params.yaml ({key})" for key in used if params.get(key) != used[key]]
    return changed + snapshot.changed_code() + snapshot.changed_data()
