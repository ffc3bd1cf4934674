"""A trained model on new photos."""

import csv
import json
import os
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TextIO

import numpy as np
import numpy.typing as npt
from rich.console import Console
from rich.table import Table
from rich.text import Text

from catdog.errors import CatdogError
from catdog.model import saved
from catdog.model.inference import BATCH_SIZE, TrainedModel
from catdog.preparation.photos import PhotoError, find_photos, open_photo, squish
from catdog.support.process_pool import usable_cores

Format = Literal["table", "csv", "json"]
Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Prediction:
    """What the model says of one file; without probabilities if the file is no readable photo."""

    path: Path
    prediction: str | None
    probabilities: dict[str, float] | None
    """by class, in sorted order"""
    error: str | None
    """why the two are missing"""


def run_predict(paths: Iterable[Path], model_folder: Path, format: Format, stream: TextIO) -> int:
    """Write what the model in `model_folder` says of every photo, and return how many were broken.

    Raises CatdogError, before anything is written, for a missing model and when there is no photo.
    """
    files = find_photos(paths)
    if not files:
        raise CatdogError("no photos to judge; name photos, or folders with photos in them")
    model = saved.load(model_folder)
    errors: Counter[bool] = Counter()
    rows = _counting(predict(files, model), errors)
    WRITERS[format](rows, model.card.classes, stream)
    return errors[True]


def predict(
    paths: list[Path], model: TrainedModel, workers: int | None = None
) -> Iterator[Prediction]:
    """Yield a prediction for each path, in order.

    Threads decode the next batch while the model judges this one; no more than two batches are held
    at a time. A photo is read just as `prepare` reads it, so it gets the probabilities that
    `evaluate` sees.
    """
    for batch in _decode_ahead(paths, model.card.stored_image_size, workers or usable_cores()):
        readable = [pixels for _, pixels in batch if not isinstance(pixels, PhotoError)]
        judged = iter(model.probabilities(np.array(readable)))
        for path, pixels in batch:
            if isinstance(pixels, PhotoError):
                yield Prediction(path, None, None, str(pixels))
            else:
                yield _prediction(path, next(judged), model.card.classes)


def _prediction(path: Path, row: npt.NDArray[np.float32], classes: list[str]) -> Prediction:
    probabilities = dict(zip(classes, map(float, row), strict=True))
    return Prediction(path, classes[int(row.argmax())], probabilities, None)


Decoded = tuple[Path, Pixels | PhotoError]


def _decode_ahead(paths: list[Path], image_size: int, workers: int) -> Iterator[list[Decoded]]:
    """Yield batches of photos (image_size, image_size, 3), or the reason why a file is none."""
    waiting: deque[list[Future[Decoded]]] = deque()
    pool = ThreadPoolExecutor(workers)  # Pillow decodes and resizes without holding the GIL
    try:
        for start in range(0, len(paths), BATCH_SIZE):
            batch = paths[start : start + BATCH_SIZE]
            waiting.append([pool.submit(_decode, path, image_size) for path in batch])
            if len(waiting) == 2:
                yield [future.result() for future in waiting.popleft()]
        while waiting:
            yield [future.result() for future in waiting.popleft()]
    finally:
        pool.shutdown(cancel_futures=True)


def _decode(path: Path, image_size: int) -> Decoded:
    try:
        return path, squish(open_photo(path, max_side=image_size), image_size)
    except PhotoError as error:
        return path, error


def _counting(rows: Iterable[Prediction], errors: Counter[bool]) -> Iterator[Prediction]:
    """Yield the rows as they are, and count in errors[True] those that have an error."""
    for row in rows:
        errors[row.error is not None] += 1
        yield row


def write_csv(rows: Iterable[Prediction], classes: list[str], stream: TextIO) -> None:
    """Write path, prediction, a probability_<class> for each class, and error, as they come."""
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(["path", "prediction", *(f"probability_{name}" for name in classes), "error"])
    for row in rows:
        given = row.probabilities or {}
        shares = [f"{given[name]:.6f}" if given else "" for name in classes]
        writer.writerow([_text(row.path), row.prediction or "", *shares, row.error or ""])


def write_json(rows: Iterable[Prediction], classes: list[str], stream: TextIO) -> None:
    """Write a list with one object for each row, each on a line of its own, as they come."""
    separator = "[\n"
    for row in rows:
        given = row.probabilities
        value = {
            "path": _text(row.path),
            "prediction": row.prediction,
            "probabilities": given and {name: round(given[name], 6) for name in classes},
            "error": row.error,
        }
        stream.write(separator + json.dumps(value, ensure_ascii=False))
        separator = ",\n"
    stream.write("\n]\n" if separator == ",\n" else "[]\n")


def write_table(rows: Iterable[Prediction], classes: list[str], stream: TextIO) -> None:
    """Write a table for people, once all rows are there."""
    table = Table("photo", "prediction")
    table.columns[0].overflow = "fold"
    table.add_column("probability", justify="right")
    for row in rows:
        # Text, since a path such as [red]/1.jpg is no markup.
        if row.probabilities is None:
            table.add_row(Text(_text(row.path)), Text(f"error: {row.error}", style="red"), "")
        else:
            share = f"{100 * max(row.probabilities.values()):.1f} %"
            table.add_row(Text(_text(row.path)), Text(str(row.prediction)), share)
    _Console(file=stream).print(table)


class _Console(Console):
    """A console that leaves it to its caller what the end of the reader of a pipe means."""

    def on_broken_pipe(self) -> None:
        """Raise the BrokenPipeError that is being handled; rich would end with exit code 1."""
        raise  # noqa: PLE0704 - rich calls it where the error is caught


WRITERS: dict[str, Callable[[Iterable[Prediction], list[str], TextIO], None]] = {
    "table": write_table,
    "csv": write_csv,
    "json": write_json,
}


def _text(path: Path) -> str:
    """Return a path that can be written as UTF-8, whatever bytes its name holds."""
    return os.fsencode(path).decode("utf-8", "replace")
