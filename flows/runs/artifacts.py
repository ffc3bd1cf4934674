"""The Prefect artifacts of a finished run: metrics, comparison with the parent, plots, summary.

They are shown on the page of the run and, with those of earlier runs, on the page Artifacts.
"""

import base64
import json
import mimetypes
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flatten_dict import flatten
from prefect import get_run_logger
from prefect.artifacts import (
    create_image_artifact,
    create_markdown_artifact,
    create_table_artifact,
)
from prefect.events import emit_event

from flows.errors import FlowError
from flows.guards.child_processes import dvc_output
from flows.paths import PLOTS
from flows.runs.git import git
from flows.runs.stages import Report
from flows.runs.workspace import environment

METRIC = "accuracy"  # a drop of this metric emits an event
DROPPED = "catdog.metric.dropped"
OUTCOMES = {"ran": "ran", "cached": "restored from the cache", "unchanged": "up to date"}


@dataclass(frozen=True)
class Difference:
    """How a result differs from a revision: dotted names with the old and the new value."""

    revision: str
    params: Mapping[str, tuple[Any, Any]]
    metrics: Mapping[str, tuple[Any, Any]]


def difference(root: Path, revision: str) -> Difference:
    """Return how params and metrics in `root` differ from `revision`.

    Raises FlowError with dvc's reason if dvc cannot compare them.
    """
    tables = []
    for kind in ("params", "metrics"):
        printed = dvc_output(root, environment(root), kind, "diff", "--json", revision)
        tables.append(_changes(json.loads(printed or "{}")))
    return Difference(revision, *tables)


def difference_from_parent(root: Path, revision: str) -> Difference | None:
    """Return how the result in `root` differs from `revision`, on which it is based.

    If it does not differ, it is the result of `revision` and is compared with the commit before.
    Returns None and logs the reason if dvc cannot compare them; the run does not fail.
    """
    try:
        found = difference(root, revision)
        if found.params or found.metrics:
            return found
        return difference(root, git(root, "rev-parse", "--verify", f"{revision}~1"))
    except FlowError as error:
        get_run_logger().info("no comparison with the parent revision: %s", error)
        return None


def _changes(files: Mapping[str, Mapping[str, Any]]) -> dict[str, tuple[Any, Any]]:
    """Return name: (old, new) from the output of `dvc params diff` or `dvc metrics diff`."""
    return {
        name: (change.get("old"), change.get("new"))
        for changes in files.values()
        for name, change in changes.items()
    }


def show_metrics(metrics: Mapping[str, Any], revision: str) -> None:
    """Create the table artifact `metrics`."""
    table = [{"metric": name, "value": value} for name, value in as_text(metrics).items()]
    show(create_table_artifact, table, key="metrics", description=f"metrics.json of {revision}")


def show(create: Callable[..., object], content: object, **settings: str) -> None:
    """Create an artifact with one of Prefect's functions; log an error instead of raising it.

    A run must not fail because the server does not accept an artifact.
    """
    try:
        create(content, **settings)
    except Exception as error:  # of the network, or of the server
        get_run_logger().warning("cannot create artifact %s: %s", settings["key"], error)


def as_text(metrics: Mapping[str, Any]) -> dict[str, str]:
    """Return nested metrics as dotted names with their text; floats with 4 decimals."""
    flat = flatten(dict(metrics), reducer="dot", enumerate_types=(list,))
    return {
        str(name): f"{value:.4f}" if isinstance(value, float) else str(value)
        for name, value in flat.items()
    }


def show_comparison(difference: Difference) -> None:
    """Create the markdown artifact `comparison` with params and metrics of parent and result."""
    parent = difference.revision[:12]
    parts = [
        f"## Compared with {parent}",
        "### Params",
        _as_table(difference.params, with_change=False) or f"the same as in {parent}",
        "### Metrics",
        _as_table(difference.metrics, with_change=True) or f"the same as in {parent}",
    ]
    show(create_markdown_artifact, "\n\n".join(parts), key="comparison")


def _as_table(changes: Mapping[str, tuple[Any, Any]], with_change: bool) -> str:
    """Return a markdown table, with a column for new − old if requested; empty if no changes."""
    head = ["name", "before", "now", *(["change"] if with_change else [])]
    rows = [
        [name, _cell(old), _cell(new), *([_change(old, new)] if with_change else [])]
        for name, (old, new) in changes.items()
    ]
    lines = [head, ["---"] * len(head), *rows] if rows else []
    return "\n".join(map(_row, lines))


def _row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _cell(value: Any) -> str:
    if value is None:
        return "–"
    text = f"{value:.6g}" if isinstance(value, float) else str(value)
    return text.replace("|", "\\|").replace("\n", " ")


def _change(old: Any, new: Any) -> str:
    numbers = isinstance(old, int | float) and isinstance(new, int | float)
    return f"{new - old:+.4g}" if numbers else ""


def show_plots(root: Path, names: Iterable[str] = PLOTS) -> None:
    """Create an image artifact for each plot that exists; its key is the name of the file.

    The artifact contains the image itself, since the clone is removed.
    """
    for path in (root / name for name in names):
        if path.is_file():
            kind = mimetypes.guess_type(path.name)[0] or "image/png"
            data = base64.b64encode(path.read_bytes()).decode()
            content = f"data:{kind};base64,{data}"
            show(create_image_artifact, content, key=path.stem, description=path.name)


def show_summary(title: str, facts: Mapping[str, str], reports: Iterable[Report]) -> None:
    """Create the markdown artifact `summary`: a list of facts and a table of the stages.

    A stage that ran on another machine was then restored here from the remote.
    """
    rows = [["stage", "outcome", "seconds", "log"], ["---"] * 4]
    for report in reports:
        outcome = f"ran on pool {report.pool}" if report.pool else OUTCOMES[report.outcome]
        rows.append([report.stage, outcome, f"{report.seconds:.1f}", f"`{report.log}`"])
    lines = [f"## {title}", "", *(f"- **{name}**: {fact}" for name, fact in facts.items()), ""]
    show(create_markdown_artifact, "\n".join([*lines, *map(_row, rows)]), key="summary")


def report_drop(difference: Difference, allowed: float) -> bool:
    """Emit the event `catdog.metric.dropped` if accuracy fell by more than `allowed`.

    Returns whether it did. An automation that `make deploy` installs calls a webhook for it.
    """
    before, after = difference.metrics.get(METRIC, (None, None))
    numbers = isinstance(before, int | float) and isinstance(after, int | float)
    if not numbers or before - after <= allowed:
        return False
    payload = {"metric": METRIC, "before": before, "after": after, "parent": difference.revision}
    emit_event(DROPPED, {"prefect.resource.id": f"catdog.metric.{METRIC}"}, payload=payload)
    get_run_logger().warning("%s fell from %.4f to %.4f", METRIC, before, after)
    return True
