"""The rules that assign each photo to the training, validation or test split."""

from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from catdog import params
from catdog.dataset.prepared import SPLITS, PhotoRow
from catdog.errors import CatdogError
from catdog.preparation.class_folders import RawPhoto

USE_CONTENT = "set prepare.split: content in params.yaml"


def split_of(sha256: str, val_share: float, test_share: float) -> str:
    """Return the split of a photo, a function of its content hash (hexadecimal) only.

    The first 64 bits of the hash, as a number in [0, 1), are compared with the fractions. Adding or
    removing photos therefore never changes the split of another photo, and a larger `test_share`
    only adds photos to the test set.
    """
    position = int(sha256[:16], 16) / 2**64
    if position < test_share:
        return "test"
    return "val" if position < test_share + val_share else "train"


def split_class(hashes: list[str], val_share: float, test_share: float) -> dict[str, str]:
    """Return the split of each photo of a class, by its content hash; no split is empty.

    A split whose share is 0 is not used. The splits are those of `split_of` if these leave no split
    empty. Otherwise an empty split gets the photo with the hash nearest to its range. So the result
    depends only on the photos of the class, and adding photos moves others only while `split_of`
    leaves a split empty: then a moved photo may return to the split of its hash, for example from
    the test to the training set. With fewer photos than splits, the result is that of `split_of`.
    """
    order = sorted(hashes)
    plain = [split_of(sha256, val_share, test_share) for sha256 in order]  # test, val, then train
    test, val = int(test_share > 0), int(val_share > 0)  # the number of photos that each requires
    if len(order) > test + val:
        end_of_test = min(max(plain.count("test"), test), len(order) - 1 - val)
        end_of_val = min(max(len(order) - plain.count("train"), end_of_test + val), len(order) - 1)
        plain = [
            "test" if index < end_of_test else "val" if index < end_of_val else "train"
            for index in range(len(order))
        ]
    return dict(zip(order, plain, strict=True))


def given_splits(raw: Path, photos: list[RawPhoto]) -> dict[str, str]:
    """Return the split of the folder of each photo, by its path relative to `raw`.

    Raises CatdogError if a photo is in no train, val or test folder, or if none is in train.
    """
    outside = [photo for photo in photos if not photo.given_split]
    if outside:
        raise CatdogError(
            f"{raw}: prepare.split: given requires the photos in train, val and test folders, or "
            f"in train and one of the others; {len(outside):,} of {len(photos):,} photos are not, "
            f"such as {outside[0].path}; move them, or {USE_CONTENT}"
        )
    given = {photo.path.relative_to(raw).as_posix(): photo.given_split for photo in photos}
    if "train" not in given.values():
        found = " and ".join(sorted(set(given.values())))
        raise CatdogError(
            f"{raw}: prepare.split: given requires a train folder, but all photos are in {found}; "
            f"add photos for training, or {USE_CONTENT}"
        )
    return given


def assign_splits(
    rows: list[PhotoRow], settings: params.Prepare, given: Mapping[str, str]
) -> list[PhotoRow]:
    """Return the rows, each with its split; that of a refused file is empty.

    `given` has the split of a photo's folder by path; it is empty for a split by content. A given
    validation or test set is kept. If there is none, it is drawn from the photos for training of
    each class, see `split_class`.
    """
    val_share = 0.0 if "val" in given.values() else settings.val_share
    test_share = 0.0 if "test" in given.values() else settings.test_share
    hashes: dict[str, list[str]] = defaultdict(list)
    for row in rows:
        if not row.reason and given.get(row.path, "train") == "train":
            hashes[row.class_name].append(row.sha256)
    drawn = {name: split_class(found, val_share, test_share) for name, found in hashes.items()}

    def split(row: PhotoRow) -> str:
        if row.reason:
            return ""
        kept = given.get(row.path, "train")
        return drawn[row.class_name][row.sha256] if kept == "train" else kept

    return [replace(row, split=split(row)) for row in rows]


def check_that_no_split_is_empty(
    raw: Path, rows: list[PhotoRow], counts: dict[str, dict[str, int]], given: Mapping[str, str]
) -> None:
    """Raise CatdogError if a class has no photo in a split; it names all such classes.

    `rows` have the reason of each refused file; `counts` are numbers of photos by split (and
    "refused") and class; `given` as in `assign_splits`.
    """
    empty = [
        (name, split) for name in counts["train"] for split in SPLITS if not counts[split][name]
    ]
    if not empty:
        return
    classes = dict(empty)
    why = _describe_refused(raw, [row for row in rows if row.reason and row.class_name in classes])
    if given:
        missing = ", ".join(f"{name} in {split}" for name, split in empty)
        raise CatdogError(
            f"{raw}: with prepare.split: given each class needs a photo in each of train, val and "
            f"test; missing: {missing}{why}; add photos, or {USE_CONTENT}"
        )
    small = ", ".join(_describe(counts, name) for name in classes)
    raise CatdogError(
        f"{raw}: each class needs at least {len(SPLITS)} different photos, one per split; too "
        f"small: {small}{why}; add photos, or remove the folders of these classes"
    )


def _describe(counts: dict[str, dict[str, int]], name: str) -> str:
    photos, refused = sum(counts[split][name] for split in SPLITS), counts["refused"][name]
    return f"{name} ({photos}{f', and {refused:,} refused' if refused else ''})"


def _describe_refused(raw: Path, refused: list[PhotoRow]) -> str:
    """Return the most frequent reason of refused files, with an example; "" if there are none."""
    if not refused:
        return ""
    kinds = Counter(_kind(row) for row in refused)
    ((kind, files),) = kinds.most_common(1)
    example = next(row for row in refused if _kind(row) == kind)
    count = f"{files:,} of {len(refused):,} files, such as {raw / example.path}"
    return f"; refused most often: {example.reason} ({count})"


def _kind(refused: PhotoRow) -> str:
    """Return the reason without the names of other files: `duplicate of FILE`."""
    return refused.reason.partition(" of ")[0]
