"""The layout rule: the class and the given split of each file, from the paths of all files."""

import re
import unicodedata
from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass, replace

from catdog.errors import CatdogError

Parts = tuple[str, ...]
"""the parts of a path, relative to the root of an archive or folder"""

SPLIT_FOLDERS = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
    "testing": "test",
    "test1": "test",  # Kaggle's Dogs vs. Cats
}
KAGGLE_NAME = re.compile(r"^(?P<class_name>[^.]+)\.\d+\.[A-Za-z0-9]+$")  # cat.1.jpg
MICROSOFT_FOLDER = "PetImages"  # its class folders Cat and Dog become cat and dog
NO_CLASS = "not in a class folder"

# Files with these endings do not decide how the folders are read: annotations and documents may be
# in folders that are not classes.
# fmt: off
OTHER_SUFFIXES = (
    ".7z", ".csv", ".db", ".doc", ".docx", ".gz", ".htm", ".html", ".ini", ".ipynb", ".json",
    ".jsonl", ".log", ".mat", ".md", ".npy", ".npz", ".pdf", ".pickle", ".pkl", ".py", ".rar",
    ".rst", ".rtf", ".sh", ".tar", ".tsv", ".txt", ".url", ".xls", ".xlsx", ".xml", ".yaml",
    ".yml", ".zip",
)
# fmt: on


@dataclass(frozen=True)
class Place:
    """Where the layout puts a file."""

    class_name: str
    given_split: str
    """train, val or test if the files come in folders of at least two splits, otherwise empty"""
    reason: str
    """why the file has no class; empty if it has one"""


@dataclass(frozen=True)
class Layout:
    """The places of all files, in the order of the files."""

    places: list[Place]
    empty_classes: dict[str, Parts]
    """the classes of folders without photos, each with one such folder"""


def read_layout(
    files: Sequence[Parts],
    empty_folders: Iterable[Parts] = (),
    *,
    class_level: int | None = None,
    option: str = "",
) -> Layout:
    """Return the class and the given split of each file; a function of the paths only.

    Folders that contain all others are ignored. The class is the outermost remaining folder, and
    the split is that of a split folder directly above the file; or, if all outermost folders are
    split folders, the class is the folder in them. Without a folder, the class is the part before
    the first dot in names such as Kaggle's cat.1.jpg. With `class_level`, the class is the folder
    of that level: 1 is the outermost folder of a path, -1 the folder that contains the file.
    Class names are in Unicode form NFC, without spaces at the ends. Raises CatdogError for a layout
    that can be read in two ways, with the values of the command-line option `option`, if any, that
    decide, for a `class_level` that no path has, and for class names that differ only in case or
    Unicode form, or that are names of split folders.
    """
    deciding = [path for path in files if may_be_photo(path)] or list(files)
    empty = list(empty_folders)
    if class_level and deciding:
        _check_level(class_level, max(len(path) - 1 for path in deciding), option)
    rule = _Rule(deciding, empty, class_level, option)
    decided = {path: rule.place(path) for path in deciding}
    decided = _with_splits(decided, class_level, option)
    decided_folders = {path[:-1] for path in decided}
    classes = {place.class_name: path for path, place in decided.items() if place.class_name}
    _check_names(classes)
    splits = {place.given_split for place in decided.values() if place.class_name}
    places = [decided.get(path) or rule.place_of_other(path, classes, splits) for path in files]
    without_photo = [*empty, *{path[:-1] for path in files if len(path) > 1} - decided_folders]
    empty_classes = {rule.class_of_empty(folder): folder for folder in without_photo}
    return Layout(places, {k: v for k, v in empty_classes.items() if k and k not in classes})


def _check_level(class_level: int, levels: int, option: str) -> None:
    """Raise CatdogError if a class level is deeper than the folders of all files."""
    if abs(class_level) <= levels:
        return
    allowed = f"1 to {levels} or -{levels} to -1 are allowed" if levels > 1 else "1 is allowed"
    raise CatdogError(
        f"{option or 'class level'} {class_level}: too deep; the number of folders above a file is "
        f"at most {levels:,}" + (f", so {allowed}" if levels else "")
    )


def may_be_photo(path: Parts) -> bool:
    """Return whether a file decides the layout: its ending is not that of another kind of file."""
    return not path[-1].lower().endswith(OTHER_SUFFIXES)


class _Rule:
    """The classes and splits of paths, by the layout of the deciding files."""

    def __init__(
        self, files: list[Parts], empty: list[Parts], class_level: int | None, option: str
    ) -> None:
        self._class_level = class_level
        self._option = option
        self._root = () if class_level else _root(files, empty)
        level = len(self._root)
        folders = {path[level]: path for path in reversed(files) if len(path) > level + 1}
        splits = {name: path for name, path in folders.items() if _split_of(name)}
        self._below_splits = bool(splits) and not class_level
        if self._below_splits and len(splits) < len(folders):
            other = next(path for name, path in folders.items() if name not in splits)
            self._refuse_mixture(next(iter(splits.values())), other, level)

    def place_of_other(self, path: Parts, classes: Container[str], splits: Container[str]) -> Place:
        """Return the place of a file that does not decide the layout: in its classes and splits."""
        unclassified = Place("", "", NO_CLASS)
        try:
            place = self.place(path)
        except CatdogError:
            return unclassified
        if place.given_split not in splits:
            place = replace(place, given_split="") if "" in splits else unclassified
        return place if place.reason or place.class_name in classes else unclassified

    def class_of_empty(self, folder: Parts) -> str:
        """Return the class that files in an empty folder would have; "" for none."""
        try:
            name = self.place((*folder, "")).class_name
        except CatdogError:
            return ""
        return "" if _split_of(name) else name

    def place(self, path: Parts) -> Place:
        """Return the place of a file, with the split of its path."""
        if self._class_level:
            return self._place_at_level(path, self._class_level)
        level = len(self._root)
        if path[:-1][:level] != self._root:
            return Place("", "", NO_CLASS)
        split = _split_of(path[level]) if self._below_splits and len(path) > level + 1 else ""
        while split and len(path) > level + 1 and _split_of(path[level]) == split:
            level += 1
        if len(path) == level + 1:
            match = KAGGLE_NAME.match(path[level])
            return _place(match["class_name"], split) if match else Place("", "", NO_CLASS)
        inner = [_split_of(name) for name in path[level:-1]]
        found = {name for name in inner if name} - {split}
        if found and (split or any(inner[:-1])):
            self._refuse_inner_split(path, level, inner)
        return _place(_name_at(path, level), split or inner[-1])

    def _place_at_level(self, path: Parts, class_level: int) -> Place:
        folders = path[:-1]
        index = class_level - 1 if class_level > 0 else len(folders) + class_level
        if not 0 <= index < len(folders):
            return Place("", "", f"no folder at class level {class_level}")
        splits = {_split_of(name) for name in (*folders[:index], *folders[index + 1 :])} - {""}
        return _place(_name_at(path, index), splits.pop() if len(splits) == 1 else "")

    def _refuse_mixture(self, in_split: Parts, other: Parts, level: int) -> None:
        inner = in_split[level + 1] if len(in_split) > level + 2 else ""
        below = f"of class {inner!r}" if inner else "without a class"
        raise CatdogError(
            f"folders can be read in two ways: either {in_split[level]!r} is a split folder and "
            f"{_text(in_split)!r} is {below}, or {in_split[level]!r} is a class, like "
            f"{other[level]!r} in {_text(other)!r};"
            f" {self._choice(level + 2, level + 1)}"
        )

    def _refuse_inner_split(self, path: Parts, level: int, inner: list[str]) -> None:
        index = level + max(i for i, name in enumerate(inner) if name)
        if index == level:
            raise CatdogError(
                f"{_text(path)!r}: in folders of two splits, {path[level - 1]!r} and "
                f"{path[level]!r}; rename one of them"
            )
        below = min(index + 1, len(path) - 2)
        raise CatdogError(
            f"folders can be read in two ways: {_text(path)!r} is of class {path[level]!r}, or of "
            f"class {path[below]!r}, since {path[index]!r} is the name of a split folder; "
            f"{self._choice(level + 1, below + 1)}"
        )

    def _choice(self, first: int, second: int) -> str:
        """Return the advice to select one of two class levels."""
        if not self._option:
            return "rename or move the folders"
        option = self._option
        return f"pass {option} {first} for the first reading, or {option} {second} for the second"


def _root(files: list[Parts], empty: list[Parts]) -> Parts:
    """Return the folder that directly contains the class folders or split folders."""
    root: Parts = ()
    while True:
        level = len(root)
        folders = {path[level] for path in files if len(path) > level + 1}
        folders |= {path[level] for path in empty if len(path) > level}
        labelled = any(len(p) == level + 1 and KAGGLE_NAME.match(p[level]) for p in files)
        if labelled or len(folders) > 1 or any(map(_split_of, folders)):
            return root
        if not folders:
            return ()  # a single folder in each folder: the outermost is the only class
        root = (*root, *folders)


def _split_of(folder: str) -> str:
    return SPLIT_FOLDERS.get(folder.strip().lower(), "")


def _name_at(path: Parts, level: int) -> str:
    is_microsoft = level > 0 and path[level - 1] == MICROSOFT_FOLDER
    return path[level].lower() if is_microsoft else path[level]


def _place(name: str, split: str) -> Place:
    class_name = unicodedata.normalize("NFC", name).strip()
    is_hidden = not class_name or class_name.startswith(".")  # also "..", a folder above
    return Place("", "", NO_CLASS) if is_hidden else Place(class_name, split, "")


def _check_names(examples: dict[str, Parts]) -> None:
    """Raise CatdogError for a class with the name of a split, or two with almost the same name."""
    seen: dict[str, str] = {}
    for name in sorted(examples):
        if _split_of(name):
            raise CatdogError(
                f"{_text(examples[name])!r}: class {name!r} has the name of a split folder, which "
                "is reserved; rename or remove the folder"
            )
        other = seen.setdefault(unicodedata.normalize("NFKC", name).casefold(), name)
        if other != name:
            raise CatdogError(
                f"class names differ only in case or Unicode form: {other!a} of "
                f"{_text(examples[other])!r} and {name!a} of {_text(examples[name])!r}; rename"
                " one of the folders"
            )


def _with_splits(
    places: dict[Parts, Place], class_level: int | None, option: str
) -> dict[Parts, Place]:
    """Return the places with the given splits; without them if there are fewer than two."""
    examples: dict[str, Parts] = {}
    for path, place in places.items():
        if place.class_name:
            examples.setdefault(place.given_split, path)
    missing = examples.pop("", None)
    if len(examples) < 2 or (missing and class_level):
        return {path: replace(place, given_split="") for path, place in places.items()}
    if missing:
        example = next(iter(examples.values()))
        raise CatdogError(
            f"folders can be read in two ways: {_text(example)!r} is in a split folder, but "
            f"{_text(missing)!r} is not; move it into one"
            + (f", or pass {option} to ignore the split folders" if option else "")
        )
    return places


def _text(path: Parts) -> str:
    return "/".join(path)
