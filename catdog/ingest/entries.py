"""Decide the class and the file name of each file of an archive or folder.

Supported layouts: class folders of any names, such as Microsoft's `PetImages/Cat/1.jpg`, and
Kaggle's `train/cat.1.jpg`. Kaggle's `test1/1.jpg` has no labels and is refused.
"""

import itertools
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath

from catdog.preparation.class_folders import is_hidden

KAGGLE_NAME = re.compile(r"^(?P<class_name>[^.]+)\.\d+\.[A-Za-z]+$")  # cat.1.jpg
KAGGLE_FOLDERS = frozenset({"", "train"})
UNLABELLED_FOLDERS = frozenset({"test", "test1"})


@dataclass(frozen=True)
class Entry:
    """A file of an archive: its class and file name in data/raw, or why it is refused."""

    name: str
    """in the archive"""
    class_name: str
    file_name: str
    reason: str
    """why the file is refused; empty if it is imported"""


def classify(names: list[str]) -> list[Entry]:
    """Return an entry for each file name of an archive, in order.

    The class of a photo is the name of its folder, in lower case inside PetImages; for names of
    Kaggle's layout it is the part before the first dot. Photos of one class with the same file name
    are numbered.
    """
    used: set[tuple[str, str]] = set()
    return [_with_unique_name(_entry(name), used) for name in names]


def _entry(name: str) -> Entry:
    path = PurePosixPath(name.replace("\\", "/"))
    if reason := _reason_to_refuse(path):
        return Entry(name, "", "", reason)
    folder = path.parent.name
    if folder.lower() in KAGGLE_FOLDERS and (match := KAGGLE_NAME.match(path.name)):
        return Entry(name, match["class_name"], path.name, "")
    if not folder or folder.lower() in UNLABELLED_FOLDERS:
        return Entry(name, "", "", "not in a class folder")
    class_name = folder.lower() if path.parent.parent.name == "PetImages" else folder
    return Entry(name, class_name, path.name, "")


def _reason_to_refuse(path: PurePosixPath) -> str:
    """Return why a file is refused because of its path alone; "" if it is not."""
    folder = path.parent
    outside = path.is_absolute() or ".." in path.parts or ":" in "".join(path.parts[:1])
    reasons = {
        "path outside the archive": outside,
        "non-printable characters in the path": not str(path).isprintable(),
        "leading or trailing spaces in the folder name": folder.name != folder.name.strip(" "),
        "hidden or system file": is_hidden(path.name) or "__MACOSX" in path.parts,
        "in a hidden folder": any(part.startswith(".") for part in folder.parts),
    }
    return next((reason for reason, applies in reasons.items() if applies), "")


def _with_unique_name(entry: Entry, used: set[tuple[str, str]]) -> Entry:
    """Return the entry with a file name that is unique in its class, ignoring case."""
    if entry.reason:
        return entry
    for file_name in _candidates(PurePosixPath(entry.file_name)):
        key = (entry.class_name.casefold(), file_name.casefold())
        if key not in used:
            used.add(key)
            return Entry(entry.name, entry.class_name, file_name, "")
    raise AssertionError("unreachable: there are infinitely many candidates")


def _candidates(path: PurePosixPath) -> Iterator[str]:
    """Yield the file name itself, then numbered variants, without end."""
    yield path.name
    for number in itertools.count(2):
        yield f"{path.stem}_{number}{path.suffix}"
