"""Predict the classes of new photos with a trained model."""

import json
import os
import re
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Literal, TextIO

import numpy as np
import numpy.typing as npt
from rich.console import Console
from rich.table import Table
from rich.text import Text

from catdog.errors import CatdogError, PhotoError
from catdog.model import saved
from catdog.model.inference import BATCH_SIZE, TrainedModel
from catdog.preparation.photo_inputs import find_photos, read_photo
from catdog.preparation.photos import resize_to_square
from catdog.support import csv_rows
from catdog.support.printable import printable
from catdog.support.process_pool import usable_cores

Format = Literal["table", "csv", "json"]
SURROGATE = re.compile(r"[\ud800-\udfff]")
Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Prediction:
    """The prediction for one file, or the error if the file is not a readable photo."""

    path: Path
    prediction: str | None
    probabilities: dict[str, float] | None
    """by class, sorted by name"""
    error: str | None
    """why there is no prediction"""


def run_predict(
    paths: Iterable[str | Path], model_folder: Path, format: Format, stream: TextIO
) -> int:
    """Write the predictions of the model in `model_folder` for all photos in `paths`.

    `paths` are files, folders, and "-" for standard input; how many files in the folders are not
    photos is written to stderr. Returns the number of files that could not be read. Raises
    CatdogError, before anything is written, if the model is missing or there are no photos.
    """
    files, skipped = find_photos(paths)
    if skipped:
        noun = "file that is not a photo" if skipped == 1 else "files that are not photos"
        print(f"catdog: predict: skipped {skipped:,} {noun}", file=sys.stderr)
    if not files:
        raise CatdogError("predict: no photos found; pass photos, or folders that contain photos")
    model = saved.load(model_folder)
    errors = 0

    def counted() -> Iterator[Prediction]:
        nonlocal errors
        for prediction in predict(files, model):
            errors += prediction.error is not None
            yield prediction

    WRITERS[format](counted(), model.card.classes, stream)
    return errors


def predict(
    paths: list[Path], model: TrainedModel, workers: int | None = None
) -> Iterator[Prediction]:
    """Yield a prediction for each path, in order.

    `workers` threads (default: one per usable core) decode the next batch while the model processes
    the current one; at most two batches are in memory. Photos are decoded and resized as in
    `prepare`, so the probabilities equal those of `evaluate`.
    """
    for batch in _decode_ahead(paths, model.card.stored_image_size, workers or usable_cores()):
        readable = [pixels for _, pixels in batch if not isinstance(pixels, PhotoError)]
        probabilities = iter(model.probabilities(np.array(readable)))
        for path, pixels in batch:
            if isinstance(pixels, PhotoError):
                yield Prediction(path, None, None, str(pixels))
            else:
                yield _prediction(path, next(probabilities), model.card.classes)


def _prediction(path: Path, row: npt.NDArray[np.float32], classes: list[str]) -> Prediction:
    probabilities = dict(zip(classes, map(float, row), strict=True))
    return Prediction(path, classes[int(row.argmax())], probabilities, None)


Decoded = tuple[Path, Pixels | PhotoError]


def _decode_ahead(paths: list[Path], image_size: int, workers: int) -> Iterator[list[Decoded]]:
    """Yield batches of decoded photos (image_size, image_size, 3), or their PhotoError."""
    pending: deque[list[Future[Decoded]]] = deque()
    pool = ThreadPoolExecutor(workers)  # Pillow releases the GIL while it decodes and resizes
    try:
        for start in range(0, len(paths), BATCH_SIZE):
            batch = paths[start : start + BATCH_SIZE]
            pending.append([pool.submit(_decode, path, image_size) for path in batch])
            if len(pending) == 2:
                yield [future.result() for future in pending.popleft()]
        while pending:
            yield [future.result() for future in pending.popleft()]
    finally:
        pool.shutdown(cancel_futures=True)


def _decode(path: Path, image_size: int) -> Decoded:
    try:
        return path, resize_to_square(read_photo(path, image_size), image_size)
    except PhotoError as error:
        return path, error


def write_csv(predictions: Iterable[Prediction], classes: list[str], stream: TextIO) -> None:
    """Write CSV with columns path, prediction, probability_<class> for each class, and error.

    Bytes of a path that are not UTF-8 are written as \\xff.
    """
    header = ["path", "prediction", *(f"probability_{name}" for name in classes), "error"]
    csv_rows.write_csv(stream, chain([header], (_row(one, classes) for one in predictions)))


def _row(one: Prediction, classes: list[str]) -> list[str]:
    values = one.probabilities or {}
    columns = [f"{values[name]:.6f}" if values else "" for name in classes]
    return [_text(one.path), one.prediction or "", *columns, one.error or ""]


def write_json(predictions: Iterable[Prediction], classes: list[str], stream: TextIO) -> None:
    """Write a JSON list with one object per line.

    Bytes of a path that are not UTF-8 are escaped as \\udcff, as Python decodes them (PEP 383), so
    that `path.encode("utf-8", "surrogateescape")` returns the path.
    """
    separator = "[\n"
    for one in predictions:
        values = one.probabilities
        value = {
            "path": os.fsencode(one.path).decode("utf-8", "surrogateescape"),
            "prediction": one.prediction,
            "probabilities": values and {name: round(values[name], 6) for name in classes},
            "error": one.error,
        }
        text = json.dumps(value, ensure_ascii=False)
        stream.write(separator + SURROGATE.sub(lambda found: f"\\u{ord(found[0]):04x}", text))
        separator = ",\n"
    stream.write("\n]\n" if separator == ",\n" else "[]\n")


def write_table(predictions: Iterable[Prediction], classes: list[str], stream: TextIO) -> None:
    """Write a table for a terminal, after all predictions are computed.

    Control characters, which could change what the terminal shows, are escaped.
    """
    table = Table("photo", "prediction")
    table.columns[0].overflow = "fold"
    table.add_column("probability", justify="right")
    for one in predictions:
        # Text, because a path such as [red]/1.jpg is not markup
        path = Text(printable(_text(one.path)))
        if one.probabilities is None:
            table.add_row(path, Text(printable(f"error: {one.error}"), style="red"), "")
        else:
            percent = f"{100 * max(one.probabilities.values()):.1f} %"
            table.add_row(path, Text(printable(str(one.prediction))), percent)
    _Console(file=stream).print(table)


class _Console(Console):
    """A console that raises BrokenPipeError to its caller."""

    def on_broken_pipe(self) -> None:
        """Re-raise the BrokenPipeError; rich's own method would exit with code 1."""
        raise  # noqa: PLE0704 - rich calls this method while it handles the error


WRITERS: dict[str, Callable[[Iterable[Prediction], list[str], TextIO], None]] = {
    "table": write_table,
    "csv": write_csv,
    "json": write_json,
}


def _text(path: Path) -> str:
    """Return a path as text that can be encoded as UTF-8, whatever bytes its name contains."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")
