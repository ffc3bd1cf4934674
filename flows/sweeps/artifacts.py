"""The artifacts of a sweep in Prefect: a table of all points and a plot of one metric."""

import base64
import io
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dvc.utils.flatten import flatten
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from prefect import get_run_logger
from prefect.artifacts import create_image_artifact, create_table_artifact

from flows.runs import artifacts
from flows.sweeps.results import Result
from flows.sweeps.study import Point

DARK_BLUE, LIGHT_BLUE = "#1f4e79", "#9db7d0"


@dataclass(frozen=True)
class PointResult:
    """The outcome of a point: `state`, the `result` if there is one, and the `reason` if not."""

    point: Point
    state: str
    result: Result | None = None
    reason: str = ""


def show(points: Sequence[PointResult], title: str, metric: str | None) -> None:
    """Create the artifacts `sweep`, a table, and `sweep-picture`, a plot of `metric`.

    Without `metric`, the plot shows the first metric of the first point that has one.
    """
    artifacts.show(create_table_artifact, table(points), key="sweep", description=title)
    metric = metric or first_metric(points)
    values = values_by_label(points, metric) if metric else {}
    if not metric or not values:
        get_run_logger().info(
            "no plot created: no point has %s", f"the metric {metric}" if metric else "a metric"
        )
        return
    data = base64.b64encode(plot(values, metric, title)).decode()
    content, description = f"data:image/png;base64,{data}", f"{metric}: {title}"
    artifacts.show(create_image_artifact, content, key="sweep-picture", description=description)


def table(points: Sequence[PointResult]) -> list[dict[str, Any]]:
    """Return a row for each point: experiment, the params that the study varies, metrics, state.

    Params are those of the experiment or, without a result, those that the point sets. Metrics are
    the top-level ones of their file; `dvc exp show` has the nested ones.
    """
    varied = dict.fromkeys(key for each in points for key in each.point.settings)
    metrics = dict.fromkeys(name for each in points for name in _top_level(each.result))
    return [
        {
            "experiment": each.point.name,
            **{key: _cell(_params(each).get(key)) for key in varied},
            **{name: _cell(_top_level(each.result).get(name)) for name in metrics},
            "state": f"{each.state}: {each.reason}" if each.reason else each.state,
        }
        for each in points
    ]


def _params(each: PointResult) -> Mapping[str, Any]:
    return _flat(each.result.params) if each.result else each.point.settings


def _flat(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return nested values by their dotted names; a list is one value."""
    return dict(flatten(values))


def _top_level(result: Result | None) -> dict[str, Any]:
    metrics = result.metrics if result else {}
    return {name: value for name, value in metrics.items() if not isinstance(value, dict | list)}


def _cell(value: Any) -> Any:
    """Return a value for a table cell: a list as text, None as the empty text."""
    return "" if value is None else str(value) if isinstance(value, list) else value


def first_metric(points: Iterable[PointResult]) -> str | None:
    """Return the dotted name of the first number among the metrics; None if there is no number."""
    for each in points:
        for name, value in _flat(each.result.metrics).items() if each.result else ():
            if _is_number(value):
                return name
    return None


def values_by_label(points: Iterable[PointResult], metric: str) -> dict[str, list[float]]:
    """Return the values of `metric`, one per seed, by label of the configurations with results."""
    values: dict[str, list[float]] = {}
    for each in points:
        value = _flat(each.result.metrics).get(metric) if each.result else None
        if value is not None and _is_number(value):
            values.setdefault(each.point.label, []).append(value)
    return values


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def plot(by_label: Mapping[str, Sequence[float]], metric: str, title: str) -> bytes:
    """Return a PNG with a row for each configuration: a dot per seed, and a bar at their mean."""
    figure = Figure(figsize=(8, 1.4 + 0.35 * len(by_label)), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    for line, values in enumerate(by_label.values()):
        axes.plot(values, [line] * len(values), "o", color=DARK_BLUE, alpha=0.6, markeredgewidth=0)
        axes.plot([statistics.fmean(values)], [line], "|", color=DARK_BLUE, markersize=18)
    axes.set_yticks(range(len(by_label)), labels=list(by_label), parse_math=False)
    axes.set_ylim(len(by_label) - 0.5, -0.5)  # the first configuration at the top
    axes.grid(axis="both", color=LIGHT_BLUE, linewidth=0.5, alpha=0.5)
    axes.set_xlabel(f"{metric} (dots: seeds, bar: mean)")
    axes.set_title(title, fontsize=10, loc="left", parse_math=False)
    file = io.BytesIO()
    figure.savefig(file, format="png")
    return file.getvalue()
