"""What the page of a sweep shows at its end: a table of the points and a picture of one metric."""

import base64
import io
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from prefect import get_run_logger
from prefect.artifacts import create_image_artifact, create_table_artifact

from flows.runs import artifacts
from flows.sweeps.results import Result, leaves
from flows.sweeps.study import Point

INK, FAINT = "#1f4e79", "#9db7d0"


@dataclass(frozen=True)
class Row:
    """A point of a study, what became of it, its result if it has one, and why not if it failed."""

    point: Point
    state: str
    result: Result | None = None
    reason: str = ""


def show(rows: Sequence[Row], title: str, metric: str | None) -> None:
    """Make the artifacts `sweep`, a table, and `sweep-picture`, of `metric` or the first metric."""
    artifacts.show(create_table_artifact, table(rows), key="sweep", description=title)
    metric = metric or first_metric(rows)
    found = measured(rows, metric) if metric else {}
    if not metric or not found:
        get_run_logger().info("no picture: no point has the metric %s", metric or "at all")
        return
    data = base64.b64encode(draw(found, metric, title)).decode()
    content, description = f"data:image/png;base64,{data}", f"{metric}: {title}"
    artifacts.show(create_image_artifact, content, key="sweep-picture", description=description)


def table(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Return a row for each point: experiment, the params that the study varies, metrics, state.

    Params are those that the experiment had; without a result, those that the point sets. Metrics
    are those at the top of their file: further ones are in `dvc exp show`.
    """
    varied = dict.fromkeys(key for row in rows for key in row.point.settings)
    metrics = dict.fromkeys(name for row in rows for name in _plain(row.result))
    return [
        {
            "experiment": row.point.name,
            **{key: _cell(_params(row).get(key)) for key in varied},
            **{name: _cell(_plain(row.result).get(name)) for name in metrics},
            "state": f"{row.state}: {row.reason}" if row.reason else row.state,
        }
        for row in rows
    ]


def _params(row: Row) -> Mapping[str, Any]:
    return dict(leaves(row.result.params)) if row.result else row.point.settings


def _plain(result: Result | None) -> dict[str, Any]:
    metrics = result.metrics if result else {}
    return {name: value for name, value in metrics.items() if not isinstance(value, dict | list)}


def _cell(value: Any) -> Any:
    """Return a value as a table shows it: a list as text, and nothing as nothing."""
    return "" if value is None else str(value) if isinstance(value, list) else value


def first_metric(rows: Iterable[Row]) -> str | None:
    """Return the dotted name of the first number among the metrics; None if there is none."""
    for row in rows:
        for name, value in leaves(row.result.metrics) if row.result else ():
            if _is_number(value):
                return name
    return None


def measured(rows: Iterable[Row], metric: str) -> dict[str, list[float]]:
    """Return the values of `metric` of each setting that has some, one a seed."""
    found: dict[str, list[float]] = {}
    for row in rows:
        value = dict(leaves(row.result.metrics)).get(metric) if row.result else None
        if value is not None and _is_number(value):
            found.setdefault(row.point.label, []).append(value)
    return found


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def draw(found: Mapping[str, Sequence[float]], metric: str, title: str) -> bytes:
    """Return a PNG with a line for each setting: a dot for each seed, and a bar at their mean."""
    figure = Figure(figsize=(8, 1.4 + 0.35 * len(found)), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    for line, values in enumerate(found.values()):
        axes.plot(values, [line] * len(values), "o", color=INK, alpha=0.6, markeredgewidth=0)
        axes.plot([statistics.fmean(values)], [line], "|", color=INK, markersize=18)
    axes.set_yticks(range(len(found)), labels=list(found), parse_math=False)
    axes.set_ylim(len(found) - 0.5, -0.5)  # the first setting on top
    axes.grid(axis="both", color=FAINT, linewidth=0.5, alpha=0.5)
    axes.set_xlabel(f"{metric} (a dot for each seed, a bar at the mean)")
    axes.set_title(title, fontsize=10, loc="left", parse_math=False)
    file = io.BytesIO()
    figure.savefig(file, format="png")
    return file.getvalue()
