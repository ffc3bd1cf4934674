"""Stage 3: the test photos judge the model. metrics.json, tables, pictures and report.html."""

import csv
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from catdog.dataset.splits import Split, read_split
from catdog.errors import CatdogError
from catdog.evaluation import metrics, report
from catdog.evaluation.metrics import CalibrationBin, Probabilities, RocPoint
from catdog.evaluation.report import Judged
from catdog.model import saved
from catdog.model.inference import TrainedModel
from catdog.params import Params
from catdog.support.atomic_files import write_rows, write_text

EXAMPLES = 24  # photos in examples.png


@dataclass(frozen=True)
class Judgement:
    """What a model says of the test photos, and all that follows from it."""

    split: Split
    probabilities: Probabilities
    """(N, classes), in the order of the split's rows"""
    order: list[int]
    """indices into both, by rising sha256"""
    summary: dict[str, Any]
    """the content of metrics.json"""
    roc: list[RocPoint]
    calibration: list[CalibrationBin]

    def names_of(self, index: int) -> tuple[str, str]:
        """Return the actual class and the prediction of one photo."""
        actual, predicted = self.split.labels[index], self.probabilities[index].argmax()
        return self.split.classes[actual], self.split.classes[predicted]

    def shown(self, indices: Iterable[int]) -> list[Judged]:
        """Return photos to draw."""
        return [
            Judged(
                np.asarray(self.split.photos[index]),
                *self.names_of(index),
                float(self.probabilities[index].max()),
            )
            for index in indices
        ]

    def worst_mistakes(self, most: int) -> list[int]:
        """Return the photos with a wrong prediction, the most confident ones first."""
        wrong = [index for index in self.order if len(set(self.names_of(index))) == 2]
        return sorted(wrong, key=lambda index: -float(self.probabilities[index].max()))[:most]


def evaluate(
    params: Params,
    prepared: Path,
    models: Path,
    metrics_file: Path,
    reports: Path,
    history: Path,
) -> dict[str, Any]:
    """Judge the model in `models` by the test photos in `prepared`, and return its metrics.

    Writes the tables, pictures and report.html into `reports`, and at last `metrics_file`, so that
    this one is there only if all others are. `history` is train's history.csv. The same inputs give
    the same bytes. Raises CatdogError if there is no test photo, or if the model was trained on
    other classes or sizes than the prepared photos have.
    """
    epochs = read_history(history)
    split, model = read_split(prepared, "test"), saved.load(models)
    _refuse_misfit(split, model, prepared, models)
    judgement = judge(split, model, params.evaluate.calibration_bins)
    _write_tables(reports, judgement)
    pictures = _draw(reports, judgement, epochs, params.evaluate.worst_mistakes)
    report.write_page(reports / "report.html", judgement.summary, params, pictures)
    text = json.dumps(judgement.summary, indent=2, ensure_ascii=False)
    write_text(metrics_file, text + "\n")
    return judgement.summary


def judge(split: Split, model: TrainedModel, bins: int) -> Judgement:
    """Return what `model` says of the photos of `split`, with all metrics."""
    probabilities = model.probabilities(split.photos)
    seen = split.labels, probabilities
    summary = metrics.summarize(*seen, split.classes, bins)
    card = model.card
    summary |= {"epoch": card.epoch, "weights": card.weights, "train_pflop": card.pflop}
    return Judgement(
        split,
        probabilities,
        order=sorted(range(len(split.rows)), key=lambda index: split.rows[index]["sha256"]),
        summary=summary,
        roc=metrics.roc(*seen, split.classes),
        calibration=metrics.calibration(*seen, bins),
    )


def read_history(file: Path) -> list[dict[str, float]]:
    """Return the rows of train's history.csv; CatdogError if it is not there."""
    try:
        with file.open(encoding="utf-8", newline="") as stream:
            return [
                {name: float(value) for name, value in row.items()}
                for row in csv.DictReader(stream)
            ]
    except FileNotFoundError:
        raise CatdogError(f"{file}: no history of a training; run `dvc repro train`") from None


def _refuse_misfit(split: Split, model: TrainedModel, prepared: Path, models: Path) -> None:
    if not split.rows:
        raise CatdogError(f"{prepared}: no test photos; raise prepare.test_share in params.yaml")
    card, side = model.card, split.photos.shape[1]
    if card.classes != split.classes:
        raise CatdogError(
            f"{models}: trained on the classes {', '.join(card.classes)}, but {prepared} has "
            f"{', '.join(split.classes)}; run `dvc repro`"
        )
    if card.stored_image_size != side:
        raise CatdogError(
            f"{models}: trained on photos stored at {card.stored_image_size} pixels, but those of "
            f"{prepared} have {side}; run `dvc repro`"
        )


def _write_tables(reports: Path, judgement: Judgement) -> None:
    """Write predictions.csv, confusion.csv, roc.csv and calibration.csv."""
    classes, rows = judgement.split.classes, judgement.split.rows
    names = {index: judgement.names_of(index) for index in judgement.order}
    write_rows(
        reports / "predictions.csv",
        ["sha256", "path", "class", "prediction", *(f"probability_{name}" for name in classes)],
        (
            [rows[i]["sha256"], rows[i]["path"], *names[i], *_fixed(judgement.probabilities[i])]
            for i in judgement.order
        ),
    )
    write_rows(reports / "confusion.csv", ["actual", "predicted"], names.values())
    _write_roc(reports / "roc.csv", judgement)
    write_rows(
        reports / "calibration.csv",
        ["confidence", "accuracy", "photos"],
        ([*_fixed([bin.confidence, bin.accuracy]), bin.photos] for bin in judgement.calibration),
    )


def _write_roc(file: Path, judgement: Judgement) -> None:
    """Write the ROC curves; of two classes there is one, whose positive class is the last one."""
    points = [(p.positive, *_fixed([p.fpr, p.tpr, p.threshold])) for p in judgement.roc]
    if len(judgement.split.classes) == 2:
        write_rows(file, ["fpr", "tpr", "threshold"], (point[1:] for point in points))
    else:
        write_rows(file, ["class", "fpr", "tpr", "threshold"], points)


def _fixed(numbers: Iterable[float]) -> list[str]:
    return [f"{number:.6f}" for number in numbers]


def _draw(
    reports: Path, judgement: Judgement, epochs: list[dict[str, float]], mistakes: int
) -> dict[str, Path]:
    """Write the pictures, and return their files by name in the order of the report."""
    summary = judgement.summary
    with report.style():
        drawn = {
            # The first photos by content hash: a random choice, and mostly the same one after
            # photos were added.
            "examples": report.draw_photos(judgement.shown(judgement.order[:EXAMPLES])),
            "mistakes": report.draw_photos(judgement.shown(judgement.worst_mistakes(mistakes))),
            "curves": report.draw_curves(epochs, summary["epoch"]),
            "confusion": report.draw_confusion(summary["confusion"]),
            "roc": report.draw_roc(judgement.roc),
            "calibration": report.draw_calibration(
                judgement.calibration, len(judgement.split.classes)
            ),
        }
        for name, figure in drawn.items():
            report.save_png(figure, reports / f"{name}.png")
    return {name: reports / f"{name}.png" for name in drawn}
