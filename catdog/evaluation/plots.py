"""The plots of stage 3.

The same input gives the same bytes: no plot contains a date or a version, and the user's matplotlib
settings are ignored.
"""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib.style
import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from rich.cells import cell_len, set_cell_size

from catdog.evaluation.fonts import DEFAULT
from catdog.evaluation.metrics import CalibrationBin, RocPoint
from catdog.support.atomic_files import replacing

GREEN, RED, GRAY, BLUE = "#1a7f37", "#cf222e", "#8c959f", "#0969da"
COLUMNS = 8  # photos per row
MAX_NUMBERED = 30  # classes up to which the cells of a confusion matrix have numbers
MAX_COLOURS = 10  # curves that matplotlib draws in different colours
STYLE_OF_MANY: dict[str, Any] = {"color": BLUE, "alpha": 0.4, "linewidth": 1}


@dataclass(frozen=True)
class PhotoResult:
    """A photo with its actual and its predicted class."""

    pixels: npt.NDArray[np.uint8]
    """(H, W, 3)"""
    actual: str
    predicted: str
    probability: float
    """of the predicted class"""


def style(families: Sequence[str] = (DEFAULT,)) -> AbstractContextManager[None]:
    """Return the context to draw in: matplotlib's default settings, with math text disabled.

    `families` are the font families, in order of preference.
    """
    settings: dict[Any, Any] = {
        "font.family": list(families),
        "text.parse_math": False,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "legend.frameon": False,
    }
    return matplotlib.style.context(settings, after_reset=True)


def save_png(figure: Figure, path: Path) -> None:
    """Write a figure to a PNG file atomically."""
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png", dpi=100, metadata={"Software": None})


def _new_figure(width: float, height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.add_subplot()


def draw_confusion(counts: dict[str, dict[str, int]]) -> Figure:
    """Draw a confusion matrix; with up to MAX_NUMBERED classes, also counts and row percentages.

    `counts[actual][predicted]` is a number of photos.
    """
    classes = list(counts)
    matrix = np.array([list(row.values()) for row in counts.values()])
    shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    side = min(4 + 0.5 * len(classes), 20)
    figure, axes = _new_figure(side, side)
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    axes.set_xticks(range(len(classes)), classes, rotation=0 if len(classes) < 4 else 90)
    axes.set_yticks(range(len(classes)), classes)
    axes.set(xlabel="predicted class", ylabel="actual class")
    for (row, column), share in np.ndenumerate(shares) if len(classes) <= MAX_NUMBERED else ():
        text = f"{matrix[row, column]:,}\n{100 * share:.1f} %"
        colour = "white" if share > 0.5 else "black"
        axes.text(column, row, text, ha="center", va="center", color=colour, fontsize="small")
    return figure


def draw_roc(points: Sequence[RocPoint]) -> Figure:
    """Draw the ROC curves and the diagonal of chance.

    Up to MAX_COLOURS curves are labelled with their positive class.
    """
    figure, axes = _new_figure(5, 5)
    axes.plot([0, 1], [0, 1], color=GRAY, linestyle="--", linewidth=1)
    names = list(dict.fromkeys(point.positive for point in points))
    few = len(names) <= MAX_COLOURS
    for name in names:
        curve = [(point.fpr, point.tpr) for point in points if point.positive == name]
        style = {"label": f"positive class: {_shorten(name)}"} if few else STYLE_OF_MANY
        axes.plot(*zip(*curve, strict=True), **style)
    if points and few:
        axes.legend(loc="lower right")
    elif points:
        axes.set_title(f"one curve for each of {len(names):,} classes", fontsize="small")
    axes.set(xlabel="false positive rate", ylabel="true positive rate", aspect="equal")
    return figure


def draw_calibration(bins: Sequence[CalibrationBin], classes: int) -> Figure:
    """Draw a reliability diagram: accuracy over confidence per bin.

    A perfectly calibrated model is on the diagonal. `classes` is the number of classes.
    """
    figure, axes = _new_figure(5, 5)
    axes.plot([0, 1], [0, 1], color=GRAY, linestyle="--", linewidth=1)
    confidence, accuracy = [bin.confidence for bin in bins], [bin.accuracy for bin in bins]
    axes.plot(confidence, accuracy, marker="o")
    for bin in bins:
        place = (bin.confidence, bin.accuracy)
        axes.annotate(f"{bin.photos:,}", place, (4, -12), textcoords="offset points", color=GRAY)
    axes.set(xlabel="confidence", ylabel="accuracy", xlim=(1 / classes, 1.05), ylim=(0, 1.05))
    axes.set_title("grey numbers: photos per bin", fontsize="small", color=GRAY)
    return figure


def draw_curves(history: Sequence[dict[str, float]], selected: int) -> Figure:
    """Draw loss and accuracy per epoch from history.csv, and mark the selected epoch."""
    figure = Figure(figsize=(9, 3.5), layout="constrained")
    epochs = [row["epoch"] for row in history]
    for axes, quantity in zip(figure.subplots(1, 2), ("loss", "accuracy"), strict=True):
        for split in ("train", "val"):
            values = [row[f"{split}_{quantity}"] for row in history]
            axes.plot(epochs, values, marker=".", label=split)
        axes.axvline(selected, color=GRAY, linestyle="--", linewidth=1, label="selected")
        axes.set(xlabel="epoch", ylabel=quantity)
        axes.xaxis.get_major_locator().set_params(integer=True)
    axes.legend(loc="lower right")
    return figure


def draw_photos(photos: Sequence[PhotoResult]) -> Figure:
    """Draw a grid of photos with their predictions: correct ones in green, wrong ones in red."""
    step = 1.4  # height of a row: the photo and two lines of text
    rows = max(-(-len(photos) // COLUMNS), 1)
    figure = Figure(figsize=(1.25 * COLUMNS, 1.2 * step * rows))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    for index, photo in enumerate(photos):
        row, column = divmod(index, COLUMNS)
        _draw_photo(axes, photo, column * 1.05, row * step)
    if not photos:
        axes.text(COLUMNS / 2, step / 2, "no photos", ha="center", color=GRAY)
    axes.set(xlim=(-0.05, COLUMNS * 1.05), ylim=(rows * step, -0.05), aspect="equal")
    return figure


def _draw_photo(axes: Axes, photo: PhotoResult, left: float, top: float) -> None:
    correct = photo.predicted == photo.actual
    colour = GREEN if correct else RED
    axes.imshow(photo.pixels, extent=(left, left + 1, top + 1, top))
    axes.add_patch(Rectangle((left, top), 1, 1, fill=False, edgecolor=colour, linewidth=2))
    text = f"{_shorten(photo.predicted)} {100 * photo.probability:.1f} %"
    if not correct:
        text += f"\nactual: {_shorten(photo.actual)}"
    axes.text(left, top + 1.05, text, va="top", color=colour, fontsize=8)


def _shorten(name: str) -> str:
    """Return a class name short enough for the caption of a photo; CJK characters are wide."""
    return name if cell_len(name) <= 14 else f"{set_cell_size(name, 13).rstrip()}…"
