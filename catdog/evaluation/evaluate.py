"""Stage 3: evaluate the model on the test set; write metrics.json, tables, plots, report.html."""

import csv
import json
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from catdog.dataset.prepared import Split, read_split
from catdog.errors import CatdogError
from catdog.evaluation import metrics, plots, report
from catdog.evaluation.fonts import Fonts, describe_unreadable, find_fonts
from catdog.evaluation.metrics import CalibrationBin, Probabilities, RocPoint
from catdog.evaluation.plots import PhotoResult
from catdog.model import saved
from catdog.model.inference import TrainedModel
from catdog.params import Params
from catdog.support.atomic_files import replacing_folder, write_rows, write_text

EXAMPLES = 24  # photos in examples.png
HISTORY_COLUMNS = ("epoch", "train_loss", "val_loss", "train_accuracy", "val_accuracy")


@dataclass(frozen=True)
class Evaluation:
    """A model's predictions for the test photos, and the metrics computed from them."""

    split: Split
    probabilities: Probabilities
    """(N, classes), float32, in the order of the split's rows"""
    order: list[int]
    """indices into both, sorted by sha256"""
    summary: dict[str, Any]
    """the content of metrics.json"""
    roc: list[RocPoint]
    calibration: list[CalibrationBin]

    def classes_of(self, index: int) -> tuple[str, str]:
        """Return the actual and the predicted class of a photo."""
        actual, predicted = self.split.labels[index], self.probabilities[index].argmax()
        return self.split.classes[actual], self.split.classes[predicted]

    def photo_results(self, indices: Iterable[int], labels: dict[str, str]) -> list[PhotoResult]:
        """Return the photos with these indices, with their predictions; `labels` of the classes."""
        results = []
        for index in indices:
            actual, predicted = self.classes_of(index)
            pixels, probability = self.split.photos[index], self.probabilities[index].max()
            results.append(
                PhotoResult(
                    np.asarray(pixels), labels[actual], labels[predicted], float(probability)
                )
            )
        return results

    def worst_mistakes(self, most: int) -> list[int]:
        """Return the indices of at most `most` wrong predictions, most confident first."""
        wrong = [index for index in self.order if len(set(self.classes_of(index))) == 2]
        return sorted(wrong, key=lambda index: -float(self.probabilities[index].max()))[:most]


def evaluate(
    params: Params,
    prepared: Path,
    models: Path,
    metrics_file: Path,
    reports: Path,
    history: Path,
    warn: Callable[[str], None] = print,
) -> dict[str, Any]:
    """Evaluate the model in `models` on the test photos in `prepared`; return its metrics.

    Replaces the content of `reports` with the tables, plots and report.html, and writes
    `metrics_file` last, so that it exists only if all other outputs do. `history` is train's
    history.csv. The same inputs give the same bytes. `warn` is called with a line if no installed
    font can draw the class names. Raises CatdogError if the test set is empty,
    or if the classes or the image size of the prepared photos are not those that the model was
    trained with.
    """
    epochs = read_history(history)
    split, model = read_split(prepared, "test"), saved.load(models)
    _check_compatible(split, model, prepared, models)
    evaluation = evaluate_model(split, model, params.evaluate.calibration_bins)
    with replacing_folder(reports) as folder:
        _write_tables(folder, evaluation)
        drawn = find_fonts(split.classes)
        files = _write_plots(folder, evaluation, epochs, params.evaluate.worst_mistakes, drawn)
        page = folder / "report.html"
        report.write_page(page, evaluation.summary, params, files, drawn.labels)
    text = json.dumps(evaluation.summary, indent=2, ensure_ascii=False)
    write_text(metrics_file, text + "\n")
    if unreadable := describe_unreadable(drawn.labels):
        warn(unreadable)
    return evaluation.summary


def evaluate_model(split: Split, model: TrainedModel, bins: int) -> Evaluation:
    """Return the predictions of `model` for the photos of `split`, and all metrics.

    `bins` is the number of calibration bins.
    """
    probabilities = model.probabilities(split.photos)
    labels = split.labels
    summary = metrics.summarize(labels, probabilities, split.classes, bins)
    card = model.card
    summary |= {"epoch": card.epoch, "weights": card.weights, "train_pflop": card.pflop}
    return Evaluation(
        split,
        probabilities,
        order=sorted(range(len(split.rows)), key=lambda index: split.rows[index]["sha256"]),
        summary=summary,
        roc=metrics.roc(labels, probabilities, split.classes),
        calibration=metrics.calibration(labels, probabilities, bins),
    )


def read_history(file: Path) -> list[dict[str, float]]:
    """Return the rows of train's history.csv; CatdogError if the file is missing or damaged."""
    try:
        with file.open(encoding="utf-8", newline="") as stream:
            rows = [
                {name: float(value) for name, value in row.items()}
                for row in csv.DictReader(stream)
            ]
        for name in HISTORY_COLUMNS:
            if not rows or not all(math.isfinite(row[name]) for row in rows):
                raise ValueError(f"column {name} without numbers")
    except FileNotFoundError:
        raise CatdogError(f"{file}: no such file; run `dvc repro train`") from None
    except (ValueError, KeyError, TypeError, csv.Error) as error:
        raise CatdogError(
            f"{file}: not the history of a training run ({error}); run `dvc repro --force train`"
        ) from None
    return rows


def _check_compatible(split: Split, model: TrainedModel, prepared: Path, models: Path) -> None:
    if not split.rows:
        raise CatdogError(f"{prepared}: no test photos; increase prepare.test_share in params.yaml")
    card, side = model.card, split.photos.shape[1]
    if card.classes != split.classes:
        raise CatdogError(
            f"{models}: trained on the classes {', '.join(card.classes)}, but {prepared} has "
            f"{', '.join(split.classes)}; run `dvc repro`"
        )
    if card.stored_image_size != side:
        raise CatdogError(
            f"{models}: trained on photos of {card.stored_image_size} pixels, but those in "
            f"{prepared} have {side}; run `dvc repro`"
        )


def _write_tables(reports: Path, evaluation: Evaluation) -> None:
    """Write predictions.csv, confusion.csv, roc.csv and calibration.csv."""
    classes, rows = evaluation.split.classes, evaluation.split.rows
    names = {index: evaluation.classes_of(index) for index in evaluation.order}
    write_rows(
        reports / "predictions.csv",
        ["sha256", "path", "class", "prediction", *(f"probability_{name}" for name in classes)],
        (
            [
                rows[i]["sha256"],
                rows[i]["path"],
                *names[i],
                *_format_floats(evaluation.probabilities[i]),
            ]
            for i in evaluation.order
        ),
    )
    write_rows(reports / "confusion.csv", ["actual", "predicted"], names.values())
    _write_roc(reports / "roc.csv", evaluation)
    write_rows(
        reports / "calibration.csv",
        ["confidence", "accuracy", "photos"],
        (
            [*_format_floats([bin.confidence, bin.accuracy]), bin.photos]
            for bin in evaluation.calibration
        ),
    )


def _write_roc(file: Path, evaluation: Evaluation) -> None:
    """Write the ROC curves: with two classes a single one, without a column for its class."""
    points = [(p.positive, *_format_floats([p.fpr, p.tpr, p.threshold])) for p in evaluation.roc]
    if len(evaluation.split.classes) == 2:
        write_rows(file, ["fpr", "tpr", "threshold"], (point[1:] for point in points))
    else:
        write_rows(file, ["class", "fpr", "tpr", "threshold"], points)


def _format_floats(numbers: Iterable[float]) -> list[str]:
    return [f"{number:.6f}" for number in numbers]


def _write_plots(
    reports: Path,
    evaluation: Evaluation,
    epochs: list[dict[str, float]],
    mistakes: int,
    fonts: Fonts,
) -> dict[str, Path]:
    """Write the plots; return their files by name, in the order of the report."""
    summary, labels = evaluation.summary, fonts.labels
    # The first photos by content hash are a random sample, which changes little when photos are
    # added.
    examples = evaluation.photo_results(evaluation.order[:EXAMPLES], labels)
    worst = evaluation.photo_results(evaluation.worst_mistakes(mistakes), labels)
    confusion = {
        labels[actual]: {labels[predicted]: photos for predicted, photos in row.items()}
        for actual, row in summary["confusion"].items()
    }
    roc = [replace(point, positive=labels[point.positive]) for point in evaluation.roc]
    with plots.style(fonts.families):
        figures = {
            "examples": plots.draw_photos(examples),
            "mistakes": plots.draw_photos(worst),
            "curves": plots.draw_curves(epochs, summary["epoch"]),
            "confusion": plots.draw_confusion(confusion),
            "roc": plots.draw_roc(roc),
            "calibration": plots.draw_calibration(
                evaluation.calibration, len(evaluation.split.classes)
            ),
        }
        for name, figure in figures.items():
            plots.save_png(figure, reports / f"{name}.png")
    return {name: reports / f"{name}.png" for name in figures}
