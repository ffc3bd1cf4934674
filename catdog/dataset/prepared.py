"""The format of data/prepared, and functions that read it.

The folder contains train.npy, val.npy and test.npy (uint8, N×H×W×3), photos.csv with one row per
file found in data/raw, and stats.json with the pixel statistics of the training set. The rows of a
split in photos.csv are in the order of its array.
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
class PhotoRow:
    """One row of photos.csv: a file found in data/raw."""

    path: str
    """relative to data/raw"""
    class_name: str
    split: str
    """train, val or test; empty for a refused file"""
    sha256: str
    width: int
    """in pixels, before resizing; 0 for a refused file"""
    height: int
    reason: str
    """why the file was refused; empty for a photo of a split"""


COLUMNS = [field.name.replace("class_name", "class") for field in fields(PhotoRow)]


@dataclass(frozen=True)
class ChannelStats:
    """Mean and standard deviation per channel (red, green, blue), for values in [0, 1]."""

    mean: list[float]
    std: list[float]


@dataclass(frozen=True)
class Split:
    """The photos of one split."""

    photos: npt.NDArray[np.uint8]
    """(N, H, W, 3), memory-mapped"""
    labels: npt.NDArray[np.int64]
    """(N,), each an index into `classes`"""
    classes: list[str]
    """sorted"""
    rows: list[dict[str, str]]
    """N rows of photos.csv"""


def read_split(prepared: Path, split: str) -> Split:
    """Return the train, val or test split; CatdogError if the photos have not been prepared."""
    try:
        photos = np.load(prepared / f"{split}.npy", mmap_mode="r")
        with (prepared / "photos.csv").open(encoding="utf-8", newline="") as stream:
            files = list(csv.DictReader(stream))
    except FileNotFoundError as error:
        raise CatdogError(f"{error.filename}: no such file; run `dvc repro prepare`") from None
    classes = sorted({row["class"] for row in files})
    rows = [row for row in files if row["split"] == split]
    labels = np.array([classes.index(row["class"]) for row in rows], dtype=np.int64)
    return Split(photos, labels, classes, rows)


def read_stats(prepared: Path) -> ChannelStats:
    """Return the statistics of the training set; CatdogError if it has not been prepared."""
    try:
        stats = json.loads((prepared / "stats.json").read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise CatdogError(f"{error.filename}: no such file; run `dvc repro prepare`") from None
    return ChannelStats(stats["mean"], stats["std"])
