"""Stage 1: raw photos become packed arrays, split by what is in them.

`catdog.dataset.splits` says what data/prepared holds then, and reads it.
"""

import hashlib
import json
import shutil
from collections import defaultdict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import astuple, replace
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
import numpy.typing as npt

from catdog import params
from catdog.dataset.splits import COLUMNS, SPLITS, Row
from catdog.errors import CatdogError
from catdog.preparation.photos import PhotoError, list_classes, open_photo, squish
from catdog.support.atomic_files import write_rows
from catdog.support.process_pool import map_chunks, usable_cores

CHUNK = 64  # photos a process decodes at a time: 3 MB of pixels at 128 px


def prepare(
    settings: params.Prepare, raw: Path, prepared: Path, workers: int | None = None
) -> dict[str, dict[str, int]]:
    """Write `prepared` from the photos in `raw`, and return the counts by split and class.

    Raises CatdogError, and leaves nothing behind, for fewer than two classes, and for a class that
    has no photo in one of the splits.
    """
    classes = list_classes(raw)
    temporary = prepared.with_name(f".{prepared.name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    try:
        rows = refuse_duplicates(list(hash_files(raw, classes)))
        counts = _pack(settings, raw, temporary, rows, workers or usable_cores())
        shutil.rmtree(prepared, ignore_errors=True)
        temporary.rename(prepared)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return counts


def split_of(sha256: str, val_share: float, test_share: float) -> str:
    """Return the split of the photo whose content hash (hexadecimal) is `sha256`.

    The hash alone decides: its first 64 bits as a number in [0, 1) are compared with the shares. So
    no photo moves when others come or go, and a larger test_share only adds to the test photos.
    """
    position = int(sha256[:16], 16) / 2**64
    if position < test_share:
        return "test"
    return "val" if position < test_share + val_share else "train"


def hash_files(raw: Path, classes: dict[str, list[Path]]) -> Iterator[Row]:
    """Yield a row for each file of each class, with its content hash and nothing else known yet."""
    files = [(name, file) for name, found in classes.items() for file in found]
    with ThreadPoolExecutor() as pool:
        for (name, file), sha256 in zip(files, pool.map(_sha256, files), strict=True):
            yield Row(file.relative_to(raw).as_posix(), name, "", sha256, 0, 0, "")


def _sha256(named: tuple[str, Path]) -> str:
    with named[1].open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def refuse_duplicates(rows: list[Row]) -> list[Row]:
    """Return the rows with a reason on each copy of a photo.

    Of copies in one class the first stays. A photo that stands in two classes has no true label, so
    none of its copies stays.
    """
    copies: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        copies[row.sha256].append(row)

    def judge(row: Row) -> Row:
        same = copies[row.sha256]
        for other in same:
            if other.class_name != row.class_name:
                return replace(row, reason=f"the same photo is {other.path}, in another class")
        first = same[0]
        return row if row is first else replace(row, reason=f"the same photo as {first.path}")

    return [judge(row) for row in rows]


def _pack(
    settings: params.Prepare, raw: Path, target: Path, rows: list[Row], workers: int
) -> dict[str, dict[str, int]]:
    side = settings.image_size
    kept: list[Row] = []
    moments = np.zeros((2, 3), dtype=np.int64)
    with ArrayWriter(target, side) as arrays:
        for row, pixels in _decode_all(raw, rows, side, workers):
            if pixels is None:
                kept.append(row)
                continue
            split = split_of(row.sha256, settings.val_share, settings.test_share)
            kept.append(replace(row, split=split))
            arrays.append(split, pixels)
            if split == "train":
                wide = pixels.reshape(-1, 3).astype(np.int64)
                moments += np.stack([wide.sum(0), (wide**2).sum(0)])
    counts = count(kept)
    _refuse_gaps(raw, counts)
    write_rows(target / "photos.csv", COLUMNS, map(astuple, kept))
    stats = {"image_size": side, "counts": counts, **_mean_and_std(moments, counts, side)}
    (target / "stats.json").write_text(json.dumps(stats, indent=2) + "\n", encoding="utf-8")
    return counts


class ArrayWriter:
    """Appends photos to {train,val,test}.npy, however many come, holding none of them in memory.

    numpy pads the header of an .npy file so that the length of the first axis can grow to 21 digits
    in place; the final one is written when the writer is closed.
    """

    def __init__(self, folder: Path, side: int) -> None:
        self._side = side
        self._streams = {split: (folder / f"{split}.npy").open("wb") for split in SPLITS}
        self._lengths = dict.fromkeys(SPLITS, 0)
        for split in SPLITS:
            self._write_header(split)

    def append(self, split: str, pixels: npt.NDArray[np.uint8]) -> None:
        """Add one photo (side, side, 3) to the end of a split."""
        self._streams[split].write(pixels.tobytes())
        self._lengths[split] += 1

    def __enter__(self) -> Self:
        """Return the writer."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Write the final lengths and close the files."""
        for split, stream in self._streams.items():
            stream.seek(0)
            self._write_header(split)
            stream.close()

    def _write_header(self, split: str) -> None:
        shape = (self._lengths[split], self._side, self._side, 3)
        header = {"descr": "|u1", "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(self._streams[split], header)


Decoded = tuple[Row, npt.NDArray[np.uint8] | None]


def _decode_all(raw: Path, rows: list[Row], side: int, workers: int) -> Iterator[Decoded]:
    """Yield every row in order, with its photo or, for a refused file, without."""
    chunks = (rows[start : start + CHUNK] for start in range(0, len(rows), CHUNK))
    return map_chunks(partial(_decode, raw, side), chunks, workers)


def _decode(raw: Path, side: int, rows: list[Row]) -> list[Decoded]:
    return [_decode_one(raw, row, side) for row in rows]


def _decode_one(raw: Path, row: Row, side: int) -> Decoded:
    if row.reason:
        return row, None
    try:
        photo = open_photo(raw / row.path, max_side=side)
    except PhotoError as error:
        return replace(row, reason=str(error)), None
    width, height = photo.info["width"], photo.info["height"]
    return replace(row, width=width, height=height), squish(photo, side)


def count(rows: list[Row]) -> dict[str, dict[str, int]]:
    """Return how many photos each class has in each split, and how many files were refused."""
    names = sorted({row.class_name for row in rows})
    counts = {split: dict.fromkeys(names, 0) for split in (*SPLITS, "refused")}
    for row in rows:
        counts[row.split or "refused"][row.class_name] += 1
    return counts


def _refuse_gaps(raw: Path, counts: dict[str, dict[str, int]]) -> None:
    for split in SPLITS:
        for name, photos in counts[split].items():
            if photos == 0:
                total = sum(counts[other][name] for other in SPLITS)
                change = {
                    "train": "lower prepare.val_share or prepare.test_share",
                    "val": "raise prepare.val_share",
                    "test": "raise prepare.test_share",
                }[split]
                raise CatdogError(
                    f"{raw / name}: none of its {total} photos falls into the {split} split; add "
                    f"photos, or {change} in params.yaml"
                )


def _mean_and_std(
    moments: npt.NDArray[np.int64], counts: dict[str, dict[str, int]], side: int
) -> dict[str, list[float]]:
    """Return mean and standard deviation per channel of the training photos, in [0, 1]."""
    pixels = sum(counts["train"].values()) * side * side
    mean = moments[0] / pixels
    std = np.sqrt(np.maximum(moments[1] / pixels - mean**2, 0))
    return {
        "mean": [round(float(value) / 255, 6) for value in mean],
        "std": [round(float(value) / 255, 6) for value in std],
    }
