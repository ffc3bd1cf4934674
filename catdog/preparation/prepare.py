"""Stage 1: split the raw photos by content hash and write them as arrays.

`catdog.dataset.prepared` documents and reads the format of data/prepared.
"""

import hashlib
import json
from collections import defaultdict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import astuple, replace
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt

from catdog import params
from catdog.dataset.prepared import COLUMNS, SPLITS, PhotoRow
from catdog.errors import CatdogError, PhotoError
from catdog.preparation.class_folders import RawPhoto, list_photos
from catdog.preparation.photos import open_photo, resize_to_square
from catdog.preparation.split import split_of
from catdog.support.atomic_files import replacing_folder, write_rows
from catdog.support.process_pool import map_chunks, usable_cores

CHUNK = 64  # photos per task of a worker: 3 MB of pixels at 128 px


def prepare(
    settings: params.Prepare, raw: Path, prepared: Path, workers: int | None = None
) -> dict[str, dict[str, int]]:
    """Write the dataset `prepared` from the photos in `raw`; return the photo counts.

    The counts are by split ("train", "val", "test", "refused") and class. `workers` processes
    decode (default: one per usable core); their number does not change the result. Raises
    CatdogError, without changing `prepared`, if there are fewer than two classes, or if a class has
    no photo in one of the splits.
    """
    photos = list_photos(raw)
    with replacing_folder(prepared) as folder:
        rows = refuse_duplicates(list(hash_files(raw, photos)))
        return _write(settings, raw, folder, rows, workers or usable_cores())


def hash_files(raw: Path, photos: list[RawPhoto]) -> Iterator[PhotoRow]:
    """Yield a row with path, class and content hash for each file in `raw`."""
    with ThreadPoolExecutor() as pool:
        for photo, sha256 in zip(photos, pool.map(_sha256, photos), strict=True):
            path = photo.path.relative_to(raw).as_posix()
            yield PhotoRow(path, photo.class_name, "", sha256, 0, 0, "")


def _sha256(photo: RawPhoto) -> str:
    with photo.path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def refuse_duplicates(rows: list[PhotoRow]) -> list[PhotoRow]:
    """Return the rows, with a reason for refusal in each duplicate.

    Of several copies in one class, the first is used. A photo that appears in two classes has no
    reliable label, so all its copies are refused.
    """
    copies: dict[str, list[PhotoRow]] = defaultdict(list)
    for row in rows:
        copies[row.sha256].append(row)

    def check(row: PhotoRow) -> PhotoRow:
        duplicates = copies[row.sha256]
        for other in duplicates:
            if other.class_name != row.class_name:
                return replace(row, reason=f"duplicate of {other.path} in another class")
        first = duplicates[0]
        return row if row is first else replace(row, reason=f"duplicate of {first.path}")

    return [check(row) for row in rows]


def _write(
    settings: params.Prepare, raw: Path, target: Path, rows: list[PhotoRow], workers: int
) -> dict[str, dict[str, int]]:
    side = settings.image_size
    written: list[PhotoRow] = []
    moments = np.zeros((2, 3), dtype=np.int64)  # sums and sums of squares per channel
    with closing(ArrayWriter(target, side)) as arrays:
        for row, pixels in _decode_all(raw, rows, side, workers):
            if pixels is None:
                written.append(row)
                continue
            split = split_of(row.sha256, settings.val_share, settings.test_share)
            written.append(replace(row, split=split))
            arrays.append(split, pixels)
            if split == "train":
                wide = pixels.reshape(-1, 3).astype(np.int64)
                moments += np.stack([wide.sum(0), (wide**2).sum(0)])
    counts = count(written)
    _check_that_no_split_is_empty(raw, counts)
    write_rows(target / "photos.csv", COLUMNS, map(astuple, written))
    stats = {"image_size": side, "counts": counts, **_mean_and_std(moments, counts, side)}
    (target / "stats.json").write_text(json.dumps(stats, indent=2) + "\n", encoding="utf-8")
    return counts


class ArrayWriter:
    """Appends photos to train.npy, val.npy and test.npy without holding the arrays in memory.

    NumPy pads the header of an .npy file so that the length of the first axis can be overwritten in
    place (up to 21 digits); `close` writes the final lengths.
    """

    def __init__(self, folder: Path, side: int) -> None:
        self._side = side
        self._streams = {split: (folder / f"{split}.npy").open("wb") for split in SPLITS}
        self._lengths = dict.fromkeys(SPLITS, 0)
        for split in SPLITS:
            self._write_header(split)

    def append(self, split: str, pixels: npt.NDArray[np.uint8]) -> None:
        """Append one photo (side, side, 3) to a split."""
        self._streams[split].write(pixels.tobytes())
        self._lengths[split] += 1

    def close(self) -> None:
        """Write the final lengths and close the files."""
        for split, stream in self._streams.items():
            stream.seek(0)
            self._write_header(split)
            stream.close()

    def _write_header(self, split: str) -> None:
        shape = (self._lengths[split], self._side, self._side, 3)
        header = {"descr": "|u1", "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(self._streams[split], header)


Decoded = tuple[PhotoRow, npt.NDArray[np.uint8] | None]


def _decode_all(raw: Path, rows: list[PhotoRow], side: int, workers: int) -> Iterator[Decoded]:
    """Yield every row in order, with its photo (side, side, 3), or None for a refused file."""
    chunks = (rows[start : start + CHUNK] for start in range(0, len(rows), CHUNK))
    return map_chunks(partial(_decode, raw, side), chunks, workers, _failed)


def _failed(row: PhotoRow, reason: str) -> Decoded:
    return replace(row, reason=reason), None


def _decode(raw: Path, side: int, row: PhotoRow) -> Decoded:
    if row.reason:
        return row, None
    try:
        photo = open_photo(raw / row.path, max_side=side)
    except PhotoError as error:
        return replace(row, reason=str(error)), None
    width, height = photo.info["width"], photo.info["height"]
    return replace(row, width=width, height=height), resize_to_square(photo, side)


def count(rows: list[PhotoRow]) -> dict[str, dict[str, int]]:
    """Return the number of photos by split and class; "refused" counts the refused files."""
    names = sorted({row.class_name for row in rows})
    counts = {split: dict.fromkeys(names, 0) for split in (*SPLITS, "refused")}
    for row in rows:
        counts[row.split or "refused"][row.class_name] += 1
    return counts


def _check_that_no_split_is_empty(raw: Path, counts: dict[str, dict[str, int]]) -> None:
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
                    f"{raw / name}: no photo in the {split} split, out of {total}; add photos or "
                    f"{change} in params.yaml"
                )


def _mean_and_std(
    moments: npt.NDArray[np.int64], counts: dict[str, dict[str, int]], side: int
) -> dict[str, list[float]]:
    """Return the per-channel mean and standard deviation of the training set, in [0, 1]."""
    pixels = sum(counts["train"].values()) * side * side
    mean = moments[0] / pixels
    std = np.sqrt(np.maximum(moments[1] / pixels - mean**2, 0))
    return {
        "mean": [round(float(value) / 255, 6) for value in mean],
        "std": [round(float(value) / 255, 6) for value in std],
    }
