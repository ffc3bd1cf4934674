"""Stage 1: split the raw photos and write them as arrays.

`catdog.dataset.prepared` documents and reads the format of data/prepared.
"""

import hashlib
import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import astuple, replace
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt

from catdog import params
from catdog.dataset.prepared import COLUMNS, SPLITS, PhotoRow
from catdog.errors import PhotoError
from catdog.preparation.arrays import ArrayWriter, move_photos
from catdog.preparation.class_folders import RawPhoto, list_photos
from catdog.preparation.duplicates import refuse_duplicates
from catdog.preparation.photos import open_photo, resize_to_square
from catdog.preparation.split import assign_splits, check_that_no_split_is_empty, given_splits
from catdog.support.atomic_files import replacing_folder, write_rows
from catdog.support.process_pool import map_chunks, usable_cores

VERY_UNEQUAL = 10  # ratio of the largest class to the smallest, above which there is a warning
CHUNK = 64  # photos per task of a worker: 3 MB of pixels at 128 px


def prepare(
    settings: params.Prepare,
    raw: Path,
    prepared: Path,
    workers: int | None = None,
    warn: Callable[[str], None] = print,
) -> dict[str, dict[str, int]]:
    """Write the dataset `prepared` from the photos in `raw`; return the photo counts.

    The counts are by split ("train", "val", "test", "refused") and class. `workers` processes
    decode (default: one per usable core); their number does not change the result. `warn` is called
    with a line if given splits are ignored, and if the classes have very different sizes.
    Raises CatdogError, without changing `prepared`, if there are fewer than two classes, if a class
    has too few photos to be in every split, or if the splits are to be given and are not.
    """
    photos = list_photos(raw)
    given = given_splits(raw, photos) if settings.split == "given" else {}
    with replacing_folder(prepared) as folder:
        rows = refuse_duplicates(list(hash_files(raw, photos)), given)
        counts = _write(settings, raw, folder, rows, given, workers or usable_cores())
    if not given and any(photo.given_split for photo in photos):
        warn(
            f"{raw}: the train, val and test folders are ignored; set prepare.split: given in "
            "params.yaml to keep them"
        )
    if imbalance := describe_imbalance(counts):
        warn(f"{raw}: {imbalance}")
    return counts


def hash_files(raw: Path, photos: list[RawPhoto]) -> Iterator[PhotoRow]:
    """Yield a row with path, class and content hash for each file in `raw`."""
    with ThreadPoolExecutor() as pool:
        for photo, sha256 in zip(photos, pool.map(_sha256, photos), strict=True):
            path = photo.path.relative_to(raw).as_posix()
            yield PhotoRow(path, photo.class_name, "", sha256, 0, 0, "")


def _sha256(photo: RawPhoto) -> str:
    with photo.path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _write(
    settings: params.Prepare,
    raw: Path,
    target: Path,
    rows: list[PhotoRow],
    given: dict[str, str],
    workers: int,
) -> dict[str, dict[str, int]]:
    side = settings.image_size
    decoded: list[PhotoRow] = []
    with closing(ArrayWriter(target, side)) as arrays:
        for row, pixels in _decode_all(raw, assign_splits(rows, settings, given), side, workers):
            if pixels is None:
                decoded.append(replace(row, split=""))
            else:
                decoded.append(row)
                arrays.append(row.split, pixels)
    written, moments = assign_splits(decoded, settings, given), arrays.moments
    if written != decoded:  # the valid photos of a small class are in other splits than expected
        moves = ((old.split, new.split) for old, new in zip(decoded, written, strict=True))
        moments = move_photos(target, side, (move for move in moves if all(move)))
    counts = count(written)
    check_that_no_split_is_empty(raw, written, counts, given)
    write_rows(target / "photos.csv", COLUMNS, map(astuple, written))
    stats = {"image_size": side, "counts": counts, **_mean_and_std(moments, counts, side)}
    (target / "stats.json").write_text(json.dumps(stats, indent=2) + "\n", encoding="utf-8")
    return counts


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


def describe_imbalance(counts: dict[str, dict[str, int]]) -> str:
    """Return a warning if the largest class has over ten times the photos of the smallest.

    Otherwise the text is empty. `counts` are as in `count`.
    """
    photos = {name: sum(counts[split][name] for split in SPLITS) for name in counts["train"]}
    large, small = max(photos, key=photos.__getitem__), min(photos, key=photos.__getitem__)
    if photos[large] <= VERY_UNEQUAL * photos[small]:
        return ""
    accuracy = counts["test"][large] / sum(counts["test"].values())
    return (
        f"{large} has {photos[large]:,} photos, {small} only {photos[small]:,}: always predicting "
        f"{large} would have an accuracy of {100 * accuracy:.1f} % on the test set and a balanced "
        f"accuracy of {100 / len(photos):.1f} %; see train.class_weights, and compare models by "
        "balanced accuracy"
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
