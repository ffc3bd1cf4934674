"""The report of stage 3: report.html, and the metrics as text.

The same input gives the same bytes: the page contains no date and no version.
"""

import base64
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


def format_accuracy(values: dict[str, Any], low: str = "low", high: str = "high") -> str:
    """Return an accuracy formatted as `93.5 % (91.2 to 95.1) of 400 photos`.

    `values` holds `accuracy`, `photos`, and the ends of the interval under the keys given.
    """
    if not values["photos"]:
        return "no photos"
    accuracy, lower, upper = (f"{100 * values[key]:.1f}" for key in ("accuracy", low, high))
    return f"{accuracy} % ({lower} to {upper}) of {values['photos']:,} photos"


def format_metrics(metrics: dict[str, Any]) -> list[tuple[str, str]]:
    """Return the name and the formatted value of every metric but the confusion matrix."""
    rows = [("accuracy", format_accuracy(metrics, "accuracy_low", "accuracy_high"))]
    for name, values in metrics["classes"].items():
        rows.append((f"accuracy of {name}", format_accuracy(values)))
    for name, values in metrics["classes"].items():
        rows.append((f"precision of {name}", _format_percent(values["precision"])))
    auc = metrics["roc_auc"]
    return [
        *rows,
        ("loss", f"{metrics['loss']:.4f}"),
        ("ROC AUC", "–" if auc is None else f"{auc:.4f}"),
        ("calibration error", _format_percent(metrics["calibration_error"])),
        ("selected epoch", f"{metrics['epoch']:,}"),
        ("parameters", f"{metrics['weights']:,}"),
        ("training, PFLOP", f"{metrics['train_pflop']:.4g}"),
    ]


def metrics_table(metrics: dict[str, Any]) -> Table:
    """Return the metrics as a table for a terminal."""
    table = Table("metric (test set)", "value")
    for name, value in format_metrics(metrics):
        table.add_row(Text(name), Text(value))
    return table


def _format_percent(fraction: float | None) -> str:
    return "–" if fraction is None else f"{100 * fraction:.1f} %"


def write_page(path: Path, metrics: dict[str, Any], params: Params, plots: dict[str, Path]) -> None:
    """Write report.html, a self-contained page without external resources.

    `plots` are PNG files by the keys of TITLES.
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
        classes=list(metrics["classes"]),
        metrics=format_metrics(metrics),
        params=[(key, _format_param(value)) for key, value in values.items()],
        plots=[(TITLES[name], _data_uri(file)) for name, file in plots.items()],
    )
    write_text(path, page)


def _format_param(value: Any) -> str:
    """Return a param formatted as in params.yaml."""
    if isinstance(value, list):
        return ", ".join(map(_format_param, value))
    words = {None: "", True: "true", False: "false"}
    return words[value] if value is None or isinstance(value, bool) else str(value)


def _data_uri(file: Path) -> str:
    return "data:image/png;base64," + base64.b64encode(file.read_bytes()).decode("ascii")
