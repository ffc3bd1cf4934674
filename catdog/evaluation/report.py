"""The pictures of stage 3, its one-page report, and its figures in words.

The same input gives the same bytes: no picture and no page holds a date or a version, and the
user's matplotlib settings are left out.
"""

import base64
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
import matplotlib.style
import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from rich.table import Table
from rich.text import Text

from catdog.evaluation.metrics import CalibrationBin, RocPoint
from catdog.params import Params
from catdog.support.atomic_files import replacing, write_text

GREEN, RED, GRAY = "#1a7f37", "#cf222e", "#8c959f"
COLUMNS = 8  # photos in a row
TITLES = {
    "examples": "Some photos of the test split",
    "mistakes": "The most confident mistakes",
    "curves": "The training",
    "confusion": "Confusion",
    "roc": "ROC",
    "calibration": "Calibration",
}


@dataclass(frozen=True)
class Judged:
    """A photo with what it shows and what the model says."""

    pixels: npt.NDArray[np.uint8]
    """(H, W, 3)"""
    actual: str
    prediction: str
    probability: float
    """of the prediction"""


def in_words(part: dict[str, Any], low: str = "low", high: str = "high") -> str:
    """Return an accuracy as `93.5 % (91.2 to 95.1) of 400 photos`.

    `part` holds `accuracy` and `photos`, and the ends of the interval under the names given.
    """
    if not part["photos"]:
        return "no photos"
    accuracy, lower, upper = (f"{100 * part[key]:.1f}" for key in ("accuracy", low, high))
    return f"{accuracy} % ({lower} to {upper}) of {part['photos']:,} photos"


def figures(metrics: dict[str, Any]) -> list[tuple[str, str]]:
    """Return name and value, in words, of every figure in metrics.json but the confusion."""
    rows = [("accuracy", in_words(metrics, "accuracy_low", "accuracy_high"))]
    for name, part in metrics["classes"].items():
        rows.append((f"accuracy of {name}", in_words(part)))
    for name, part in metrics["classes"].items():
        rows.append((f"precision of {name}", _percent(part["precision"])))
    auc = metrics["roc_auc"]
    return [
        *rows,
        ("loss", f"{metrics['loss']:.4f}"),
        ("ROC AUC", "–" if auc is None else f"{auc:.4f}"),
        ("calibration error", _percent(metrics["calibration_error"])),
        ("epoch kept", f"{metrics['epoch']:,}"),
        ("weights", f"{metrics['weights']:,}"),
        ("training, PFLOP", f"{metrics['train_pflop']:.4g}"),
    ]


def results_table(metrics: dict[str, Any]) -> Table:
    """Return the figures as a table for a terminal."""
    table = Table("test photos", "")
    for name, value in figures(metrics):
        table.add_row(Text(name), Text(value))
    return table


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{100 * share:.1f} %"


def write_page(
    path: Path, metrics: dict[str, Any], params: Params, pictures: dict[str, Path]
) -> None:
    """Write report.html: one page that needs no other file and no network.

    `pictures` are PNG files by name (see TITLES).
    """
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("catdog.evaluation", ""),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    page = environment.get_template("report.html.j2").render(
        headline=in_words(metrics, "accuracy_low", "accuracy_high"),
        classes=list(metrics["classes"]),
        figures=figures(metrics),
        params=_flatten(params.model_dump()),
        pictures=[(TITLES[name], _data_uri(file)) for name, file in pictures.items()],
    )
    write_text(path, page)


def _flatten(values: dict[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    rows: list[tuple[str, str]] = []
    for key, value in values.items():
        name = f"{prefix}{key}"
        rows += _flatten(value, f"{name}.") if isinstance(value, dict) else [(name, _scalar(value))]
    return rows


def _scalar(value: Any) -> str:
    """Return a param as params.yaml writes it."""
    if isinstance(value, list):
        return ", ".join(map(_scalar, value))
    words = {None: "", True: "true", False: "false"}
    return words[value] if value is None or isinstance(value, bool) else str(value)


def _data_uri(file: Path) -> str:
    return "data:image/png;base64," + base64.b64encode(file.read_bytes()).decode("ascii")


def style() -> AbstractContextManager[None]:
    """Return the context to draw in: matplotlib's own defaults, and `$` in a name is no formula."""
    ours: dict[Any, Any] = {
        "text.parse_math": False,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "legend.frameon": False,
    }
    return matplotlib.style.context(ours, after_reset=True)


def save_png(figure: Figure, path: Path) -> None:
    """Write a figure as PNG, whole or not at all."""
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png", dpi=100, metadata={"Software": None})


def _new_figure(width: float, height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.add_subplot()


def draw_confusion(counts: dict[str, dict[str, int]]) -> Figure:
    """Draw how many photos of each actual class have each prediction, coloured by their share."""
    classes = list(counts)
    matrix = np.array([list(row.values()) for row in counts.values()])
    shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    side = min(4 + 0.5 * len(classes), 20)
    figure, axes = _new_figure(side, side)
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    axes.set_xticks(range(len(classes)), classes, rotation=0 if len(classes) < 4 else 90)
    axes.set_yticks(range(len(classes)), classes)
    axes.set(xlabel="prediction", ylabel="actual class")
    for (row, column), share in np.ndenumerate(shares):
        text = f"{matrix[row, column]:,}\n{100 * share:.1f} %"
        colour = "white" if share > 0.5 else "black"
        axes.text(column, row, text, ha="center", va="center", color=colour, fontsize="small")
    return figure


def draw_roc(points: Sequence[RocPoint]) -> Figure:
    """Draw the ROC curves, each named by its positive class, with the diagonal of a blind guess."""
    figure, axes = _new_figure(5, 5)
    axes.plot([0, 1], [0, 1], color=GRAY, linestyle="--", linewidth=1)
    for name in dict.fromkeys(point.positive for point in points):
        curve = [(point.fpr, point.tpr) for point in points if point.positive == name]
        axes.plot(*zip(*curve, strict=True), label=f"{_clip(name)} is positive")
    if points:
        axes.legend(loc="lower right")
    axes.set(xlabel="false positive rate", ylabel="true positive rate", aspect="equal")
    return figure


def draw_calibration(bins: Sequence[CalibrationBin], classes: int) -> Figure:
    """Draw the accuracy of each bin over its confidence; a calibrated model is on the diagonal."""
    figure, axes = _new_figure(5, 5)
    axes.plot([0, 1], [0, 1], color=GRAY, linestyle="--", linewidth=1)
    confidence, accuracy = [bin.confidence for bin in bins], [bin.accuracy for bin in bins]
    axes.plot(confidence, accuracy, marker="o")
    for bin in bins:
        place = (bin.confidence, bin.accuracy)
        axes.annotate(f"{bin.photos:,}", place, (4, -12), textcoords="offset points", color=GRAY)
    axes.set(xlabel="confidence", ylabel="accuracy", xlim=(1 / classes, 1.05), ylim=(0, 1.05))
    axes.set_title("the small numbers count photos", fontsize="small", color=GRAY)
    return figure


def draw_curves(history: Sequence[dict[str, float]], kept: int) -> Figure:
    """Draw loss and accuracy over the epochs of history.csv, and mark the epoch that was kept."""
    figure = Figure(figsize=(9, 3.5), layout="constrained")
    epochs = [row["epoch"] for row in history]
    for axes, quantity in zip(figure.subplots(1, 2), ("loss", "accuracy"), strict=True):
        for split in ("train", "val"):
            values = [row[f"{split}_{quantity}"] for row in history]
            axes.plot(epochs, values, marker=".", label=split)
        axes.axvline(kept, color=GRAY, linestyle="--", linewidth=1, label="kept")
        axes.set(xlabel="epoch", ylabel=quantity)
        axes.xaxis.get_major_locator().set_params(integer=True)
    axes.legend(loc="lower right")
    return figure


def draw_photos(photos: Sequence[Judged]) -> Figure:
    """Draw a grid of photos with their predictions, the right ones in green, the wrong in red."""
    step = 1.4  # from photo to photo downwards: the photo and two lines of text
    rows = max(-(-len(photos) // COLUMNS), 1)
    figure = Figure(figsize=(1.25 * COLUMNS, 1.2 * step * rows))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    for index, photo in enumerate(photos):
        row, column = divmod(index, COLUMNS)
        _draw_photo(axes, photo, column * 1.05, row * step)
    if not photos:
        axes.text(COLUMNS / 2, step / 2, "none", ha="center", color=GRAY)
    axes.set(xlim=(-0.05, COLUMNS * 1.05), ylim=(rows * step, -0.05), aspect="equal")
    return figure


def _draw_photo(axes: Axes, photo: Judged, left: float, top: float) -> None:
    right = photo.prediction == photo.actual
    colour = GREEN if right else RED
    axes.imshow(photo.pixels, extent=(left, left + 1, top + 1, top))
    axes.add_patch(Rectangle((left, top), 1, 1, fill=False, edgecolor=colour, linewidth=2))
    text = f"{_clip(photo.prediction)} {100 * photo.probability:.1f} %"
    if not right:
        text += f"\nis {_clip(photo.actual)}"
    axes.text(left, top + 1.05, text, va="top", color=colour, fontsize=8)


def _clip(name: str) -> str:
    """Return a class name short enough to stand under a photo."""
    return name if len(name) <= 14 else f"{name[:13]}…"
