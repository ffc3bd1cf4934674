"""What the page of a run shows at its end: metrics, the difference to the parent, pictures, a word.

All of them are Prefect artifacts: they are on the run's page, and under their keys on the page
Artifacts, which keeps those of earlier runs.
"""

import base64
import json
import mimetypes
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prefect import get_run_logger
from prefect.artifacts import (
    create_image_artifact,
    create_markdown_artifact,
    create_table_artifact,
)
from prefect.events import emit_event

from flows.errors import FlowError
from flows.guards.child_processes import dvc_output
from flows.runs.repository import git
from flows.runs.stages import Report

PICTURES = ("reports/evaluate/confusion.png", "reports/evaluate/curves.png")
METRIC = "accuracy"  # whose drop is an event
DROPPED = "catdog.metric.dropped"
OUTCOMES = {
    "ran": "ran",
    "cached": "taken from the cache",
    "unchanged": "nothing to do",
}


@dataclass(frozen=True)
class Difference:
    """How a result differs from a revision: dotted names with the old and the new value."""

    revision: str
    params: Mapping[str, tuple[Any, Any]]
    metrics: Mapping[str, tuple[Any, Any]]


def difference(root: Path, environment: Mapping[str, str], revision: str) -> Difference:
    """Return how params and metrics in `root` differ from `revision`, as dvc tells it.

    Raises FlowError with dvc's reason if it cannot.
    """
    tables = [
        _changes(
            json.loads(dvc_output(root, environment, kind, "diff", "--json", revision) or "{}")
        )
        for kind in ("params", "metrics")
    ]
    return Difference(revision, *tables)


def against_parent(root: Path, environment: Mapping[str, str], revision: str) -> Difference | None:
    """Return how the result in `root` differs from `revision`, on which it is based.

    If it does not, since it is that revision's own, then from the commit before. None, and a word
    in the log, if dvc cannot compare: a good result is no failure for that.
    """
    try:
        found = difference(root, environment, revision)
        if found.params or found.metrics:
            return found
        return difference(root, environment, git(root, "rev-parse", "--verify", f"{revision}~1"))
    except FlowError as error:
        get_run_logger().info("there is no comparison with the parent revision: %s", error)
        return None


def _changes(files: Mapping[str, Mapping[str, Any]]) -> dict[str, tuple[Any, Any]]:
    """Return name: (old, new) of what `dvc params diff --json` and `dvc metrics diff` print."""
    return {
        name: (change.get("old"), change.get("new"))
        for changes in files.values()
        for name, change in changes.items()
    }


def show_metrics(metrics: Mapping[str, Any], where: str) -> None:
    """Make the table artifact `metrics`."""
    table = [{"metric": name, "value": value} for name, value in flatten(metrics)]
    show(create_table_artifact, table, key="metrics", description=f"metrics.json of {where}")


def show(create: Callable[..., object], content: object, **settings: str) -> None:
    """Make an artifact by one of Prefect's functions.

    A server that does not take it costs the page this artifact, and not the run its result.
    """
    try:
        create(content, **settings)
    except Exception as error:  # of the network, of the server, of its answer
        get_run_logger().warning("the page lacks %s: %s", settings["key"], error)


def flatten(metrics: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Yield each leaf of nested metrics as its dotted name and its text; floats with 4 decimals."""
    for key, value in metrics.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            yield from flatten(value, f"{name}.")
        elif isinstance(value, list):
            yield from flatten({str(place): item for place, item in enumerate(value)}, f"{name}.")
        else:
            yield name, f"{value:.4f}" if isinstance(value, float) else str(value)


def show_comparison(difference: Difference) -> None:
    """Make the markdown artifact `comparison`: params and metrics against the parent revision."""
    before = difference.revision[:12]
    parts = [
        f"## Compared with {before}",
        "### Params",
        _as_table(difference.params, with_change=False) or f"the same as those of {before}",
        "### Metrics",
        _as_table(difference.metrics, with_change=True) or f"the same as those of {before}",
    ]
    show(create_markdown_artifact, "\n\n".join(parts), key="comparison")


def _as_table(changes: Mapping[str, tuple[Any, Any]], with_change: bool) -> str:
    """Return a table in markdown, with a column for new − old if asked; empty without changes."""
    head = ["name", "before", "now", *(["change"] if with_change else [])]
    rows = [
        [name, _text(old), _text(new), *([_change(old, new)] if with_change else [])]
        for name, (old, new) in changes.items()
    ]
    lines = [head, ["---"] * len(head), *rows] if rows else []
    return "\n".join(map(_row, lines))


def _row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _text(value: Any) -> str:
    if value is None:
        return "–"
    text = f"{value:.6g}" if isinstance(value, float) else str(value)
    return text.replace("|", "\\|").replace("\n", " ")


def _change(old: Any, new: Any) -> str:
    numbers = isinstance(old, int | float) and isinstance(new, int | float)
    return f"{new - old:+.4g}" if numbers else ""


def show_pictures(root: Path, names: Iterable[str] = PICTURES) -> None:
    """Make an image artifact of each picture that is there, under its file's name.

    The picture itself is in the artifact: the server has no files, and the workspace goes.
    """
    for path in (root / name for name in names):
        if path.is_file():
            kind = mimetypes.guess_type(path.name)[0] or "image/png"
            data = base64.b64encode(path.read_bytes()).decode()
            content = f"data:{kind};base64,{data}"
            show(create_image_artifact, content, key=path.stem, description=path.name)


def show_summary(title: str, facts: Mapping[str, str], reports: Iterable[Report]) -> None:
    """Make the markdown artifact `summary`: facts as a list, and a table of what became of stages.

    A stage that another machine ran was restored here from what that one pushed.
    """
    rows = [["stage", "what became of it", "seconds", "log"], ["---"] * 4]
    for report in reports:
        outcome = f"ran on pool {report.pool}" if report.pool else OUTCOMES[report.outcome]
        rows.append([report.stage, outcome, f"{report.seconds:.1f}", f"`{report.log}`"])
    lines = [f"## {title}", "", *(f"- **{name}**: {fact}" for name, fact in facts.items()), ""]
    show(create_markdown_artifact, "\n".join([*lines, *map(_row, rows)]), key="summary")


def tell_of_a_drop(difference: Difference, allowed: float) -> bool:
    """Emit the event `catdog.metric.dropped` if accuracy fell by more than `allowed`.

    Returns whether it did. An automation that `make deploy` installs can call a webhook on it.
    """
    before, after = difference.metrics.get(METRIC, (None, None))
    numbers = isinstance(before, int | float) and isinstance(after, int | float)
    if not numbers or before - after <= allowed:
        return False
    payload = {"metric": METRIC, "before": before, "after": after, "parent": difference.revision}
    emit_event(DROPPED, {"prefect.resource.id": f"catdog.metric.{METRIC}"}, payload=payload)
    get_run_logger().warning("%s fell from %.4f to %.4f", METRIC, before, after)
    return True
