"""data/prepared as the other stages see it: splits of photos, and the statistics of their pixels.

The folder holds train.npy, val.npy and test.npy (uint8, N×H×W×3), photos.csv with one row for
every file found, and stats.json. The rows of photos.csv that belong to a split, in their order,
are the photos of its array.
"""

import csv
import json
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import numpy.typing as npt

from catdog.errors import CatdogError

SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class Row:
    """One row of photos.csv: a file that was found, and what became of it."""

    path: str
    class_name: str
    split: str
    sha256: str
    width: int
    height: int
    reason: str


COLUMNS = [field.name.replace("class_name", "class") for field in fields(Row)]


@dataclass(frozen=True)
class Split:
    """The photos of one split."""

    photos: npt.NDArray[np.uint8]
    """(N, H, W, 3), mapped from its file"""
    labels: npt.NDArray[np.int64]
    """(N,), each an index into `classes`"""
    classes: list[str]
    """sorted"""
    rows: list[dict[str, str]]
    """N rows of photos.csv"""


def read_split(prepared: Path, split: str) -> Split:
    """Return one split of what `prepare` wrote; CatdogError if it is not there."""
    try:
        photos = np.load(prepared / f"{split}.npy", mmap_mode="r")
        with (prepared / "photos.csv").open(encoding="utf-8", newline="") as stream:
            every = list(csv.DictReader(stream))
    except FileNotFoundError as error:
        raise CatdogError(
            f"{error.filename}: no prepared photos; run `dvc repro prepare`"
        ) from None
    classes = sorted({row["class"] for row in every})
    rows = [row for row in every if row["split"] == split]
    labels = np.array([classes.index(row["class"]) for row in rows], dtype=np.int64)
    return Split(photos, labels, classes, rows)


def read_stats(prepared: Path) -> dict[str, list[float]]:
    """Return mean and std per channel of the training photos, from stats.json."""
    stats = json.loads((prepared / "stats.json").read_text(encoding="utf-8"))
    return {"mean": stats["mean"], "std": stats["std"]}
