"""Refuse the copies of a photo, so that no photo is in two splits or two classes."""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import replace

from catdog.dataset.prepared import PhotoRow

PRECEDENCE = ("test", "val", "train", "")  # of copies in several given splits, the first is used


def refuse_duplicates(rows: list[PhotoRow], given: Mapping[str, str]) -> list[PhotoRow]:
    """Return the rows, with a reason for refusal in each duplicate.

    Of several copies in one class, the first is used. `given` has the given split of a photo by
    path, if the given splits are kept: then a copy in the test split is used rather than one in the
    validation split, and that rather than one in the training split, so that no test photo is used
    for training. A photo that appears in two classes has no reliable label, so all its copies are
    refused.
    """
    copies: dict[str, list[PhotoRow]] = defaultdict(list)
    for row in rows:
        copies[row.sha256].append(row)

    def check(row: PhotoRow) -> PhotoRow:
        duplicates = copies[row.sha256]
        for other in duplicates:
            if other.class_name != row.class_name:
                return replace(row, reason=f"duplicate of {other.path} in another class")
        used = min(duplicates, key=lambda copy: PRECEDENCE.index(given.get(copy.path, "")))
        if row is used:
            return row
        split = given.get(used.path, "")
        where = f" in the {split} split" if split != given.get(row.path, "") else ""
        return replace(row, reason=f"duplicate of {used.path}{where}")

    return [check(row) for row in rows]
