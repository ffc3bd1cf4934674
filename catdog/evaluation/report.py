"""The report of stage 3: report.html, and the metrics as text.

The same input gives the same bytes: the page contains no date and no version.
"""

import base64
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import jinja2
from flatten_dict import flatten
from rich.table import Table
from rich.text import Text

from catdog.params import Params
from catdog.support.atomic_files import write_text

TITLES = {
    "examples": "Examples from the test split",
    "mistakes": "Most confident mistakes",
    "curves": "Training",
    "confusion": "Confusion matrix",
    "roc": "ROC curve",
    "calibration": "Calibration",
}
MAX_NAMED = 5  # classes in the title of the page
CLASS_COLUMNS = ("class", "accuracy", "precision")


def format_accuracy(values: dict[str, Any], low: str = "low", high: str = "high") -> str:
    """Return an accuracy formatted as `93.5 % (91.2 to 95.1) of 400 photos`.

    `values` holds `accuracy`, `photos`, and the ends of the interval under the keys given.
    """
    if not values["photos"]:
        return "no photos"
    accuracy, lower, upper = (f"{100 * values[key]:.1f}" for key in ("accuracy", low, high))
    return f"{accuracy} % ({lower} to {upper}) of {values['photos']:,} photos"


def format_metrics(metrics: dict[str, Any]) -> list[tuple[str, str]]:
    """Return the name and the formatted value of every metric of the whole test set."""
    auc = metrics["roc_auc"]
    return [
        ("accuracy", format_accuracy(metrics, "accuracy_low", "accuracy_high")),
        ("balanced accuracy", format_percent(metrics["balanced_accuracy"])),
        ("loss", f"{metrics['loss']:.4f}"),
        ("ROC AUC", "–" if auc is None else f"{auc:.4f}"),
        ("calibration error", format_percent(metrics["calibration_error"])),
        ("selected epoch", f"{metrics['epoch']:,}"),
        ("parameters", f"{metrics['weights']:,}"),
        ("training, PFLOP", f"{metrics['train_pflop']:.4g}"),
    ]


def format_classes(metrics: dict[str, Any]) -> list[tuple[str, str, str]]:
    """Return name, accuracy (the recall) and precision of each class, formatted."""
    return [
        (name, format_accuracy(values), format_percent(values["precision"]))
        for name, values in metrics["classes"].items()
    ]


def metrics_tables(metrics: dict[str, Any]) -> list[Table]:
    """Return the metrics as tables for a terminal: one row per class, then the whole test set."""
    return [
        _as_table(CLASS_COLUMNS, format_classes(metrics)),
        _as_table(("metric (test set)", "value"), format_metrics(metrics)),
    ]


def _as_table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> Table:
    table = Table(*columns)
    for row in rows:
        table.add_row(*map(Text, row))  # as Text, brackets in a name are not markup
    return table


def format_percent(fraction: float | None) -> str:
    """Return a fraction formatted as `93.5 %`; None as a dash."""
    return "–" if fraction is None else f"{100 * fraction:.1f} %"


def write_page(
    path: Path,
    metrics: dict[str, Any],
    params: Params,
    plots: dict[str, Path],
    labels: dict[str, str],
) -> None:
    """Write report.html, a self-contained page without external resources.

    `plots` are PNG files by the keys of TITLES, and `labels` the texts in them for each class.
    """
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("catdog.evaluation", ""),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    values = flatten(params.model_dump(), reducer="dot")
    page = environment.get_template("report.html.j2").render(
        accuracy=format_accuracy(metrics, "accuracy_low", "accuracy_high"),
        subject=_describe_classes(list(metrics["classes"])),
        metrics=format_metrics(metrics),
        class_columns=CLASS_COLUMNS,
        class_rows=format_classes(metrics),
        params=[(key, _format_param(value)) for key, value in values.items()],
        numbered=[f"{text} is {name}" for name, text in labels.items() if text != name],
        plots=[(TITLES[name], _data_uri(file)) for name, file in plots.items()],
    )
    write_text(path, page)


def _describe_classes(names: list[str]) -> str:
    """Return the names of a few classes, or the number of many."""
    return ", ".join(names) if len(names) <= MAX_NAMED else f"{len(names):,} classes"


def _format_param(value: Any) -> str:
    """Return a param formatted as in params.yaml."""
    if isinstance(value, list):
        return ", ".join(map(_format_param, value))
    words = {None: "", True: "true", False: "false"}
    return words[value] if value is None or isinstance(value, bool) else str(value)


def _data_uri(file: Path) -> str:
    return "data:image/png;base64," + base64.b64encode(file.read_bytes()).decode("ascii")
