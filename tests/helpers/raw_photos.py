"""Folders of small photos for prepare, and the rows of its photos.csv."""

import csv
from pathlib import Path

import numpy as np
from PIL import Image


def write_photos(folder: Path, count: int, seed: int) -> Path:
    """Write small JPEG and PNG photos, deterministic for a seed."""
    generator = np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    for index in range(count):
        pixels = generator.integers(0, 256, (14, 20, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{index:02d}.{'png' if index % 2 else 'jpg'}")
    return folder


def touch(root: Path, *names: str) -> Path:
    """Write empty files, with their folders; return the root."""
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def read_rows(prepared: Path) -> list[dict[str, str]]:
    """Return the rows of photos.csv."""
    with (prepared / "photos.csv").open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def row_of(prepared: Path, path: str) -> dict[str, str]:
    """Return the row of a photo; `path` is relative to the raw photos."""
    (row,) = [row for row in read_rows(prepared) if row["path"] == path]
    return row
