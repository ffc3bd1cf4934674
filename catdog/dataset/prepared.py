"""The format of data/prepared, and functions that read it.

The folder contains train.npy, val.npy and test.npy (uint8, N×H×W×3), photos.csv with one row per
file found in data/raw, and stats.json with the pixel statistics of the training set. The rows of a
split in photos.csv are in the order of its array.
"""

import csv
import json
import math
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import numpy.typing as npt

from catdog.errors import CatdogError, first_line

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
    """Return the train, val or test split.

    Raises CatdogError if the photos have not been prepared, or if a file is damaged or does not
    match the others.
    """
    photos = _read_photos(prepared / f"{split}.npy")
    files = _read_rows(prepared / "photos.csv")
    classes = sorted({row["class"] for row in files})
    rows = [row for row in files if row["split"] == split]
    if len(rows) != len(photos):
        reason = f"{len(photos)} photos, but photos.csv has {len(rows)} of this split"
        raise _invalid(prepared / f"{split}.npy", reason)
    labels = np.array([classes.index(row["class"]) for row in rows], dtype=np.int64)
    return Split(photos, labels, classes, rows)


def read_stats(prepared: Path) -> ChannelStats:
    """Return the statistics of the training set.

    Raises CatdogError if it has not been prepared, or if the file is damaged.
    """
    file = prepared / "stats.json"
    try:
        stats = json.loads(file.read_text(encoding="utf-8"))
        mean, std = ([float(value) for value in stats[key]] for key in ("mean", "std"))
    except FileNotFoundError:
        raise _missing(file) from None
    except (ValueError, KeyError, TypeError, RecursionError, OverflowError) as error:
        raise _invalid(file, error) from None
    if not len(mean) == len(std) == 3 or not all(map(math.isfinite, mean + std)) or min(std) < 0:
        raise _invalid(file, "mean and std must be three numbers each")
    return ChannelStats(mean, std)


def _read_photos(file: Path) -> npt.NDArray[np.uint8]:
    """Return the memory-mapped array (N, S, S, 3) of an .npy file, without unpickling."""
    try:
        photos = np.lib.format.open_memmap(file, mode="r")
    except FileNotFoundError:
        raise _missing(file) from None
    # NumPy parses the header as Python literals, which can raise nearly any exception.
    except Exception as error:
        raise _invalid(file, error) from None
    side = photos.shape[1] if photos.ndim == 4 else 0
    if photos.dtype != np.uint8 or photos.shape[1:] != (side, side, 3) or side < 16:
        raise _invalid(
            file, f"{photos.dtype} array of shape {photos.shape}, not uint8 (N, S, S, 3)"
        )
    return photos


def _read_rows(file: Path) -> list[dict[str, str]]:
    try:
        with file.open(encoding="utf-8", newline="") as stream:
            reader = csv.DictReader(stream)
            columns, rows = reader.fieldnames, list(reader)
    except FileNotFoundError:
        raise _missing(file) from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise _invalid(file, error) from None
    if columns != COLUMNS:
        raise _invalid(file, f"the columns must be {', '.join(COLUMNS)}")
    for number, row in enumerate(rows, start=1):
        if len(row) != len(COLUMNS) or None in row.values() or row["split"] not in ("", *SPLITS):
            raise _invalid(file, f"row {number} is damaged")
    return rows


def _missing(file: Path) -> CatdogError:
    return CatdogError(f"{file}: no such file; run `dvc repro prepare`")


def _invalid(file: Path, reason: object) -> CatdogError:
    return CatdogError(
        f"{file}: not a file of prepared photos ({first_line(reason)}); run `dvc repro --force "
        "prepare`"
    )
