"""Folders of photos: one per class in data/raw."""

from dataclasses import dataclass
from pathlib import Path

from catdog.errors import CatdogError

SYSTEM_FILES = frozenset({"thumbs.db", "desktop.ini"})  # created by file managers


@dataclass(frozen=True)
class RawPhoto:
    """A file in data/raw, before it is decoded."""

    path: Path
    class_name: str
    given_split: str
    """train, val or test if the file is in a folder of that split, otherwise empty"""


def list_photos(root: Path) -> list[RawPhoto]:
    """Return the files of all classes, sorted by class and path; see `list_classes`."""
    classes = list_classes(root)
    return [RawPhoto(file, name, "") for name, files in classes.items() for file in files]


def list_classes(root: Path) -> dict[str, list[Path]]:
    """Return the files of each class, sorted; a class is a folder in `root`, sorted by name.

    Includes all files below a class folder, whatever their names, except hidden and system files.
    Raises CatdogError if `root` is missing, has fewer than two classes, or has an empty one.
    """
    if not root.is_dir():
        raise CatdogError(f"{root}: no such folder; {_how_to_get_photos(root)}")
    folders = sorted(f for f in root.iterdir() if f.is_dir() and not f.name.startswith("."))
    classes = {folder.name: _files(folder) for folder in folders}
    if len(classes) < 2:
        raise CatdogError(
            f"{root}: at least two class folders are required, such as {root}/cat and "
            f"{root}/dog; found {len(classes)}"
        )
    for name, files in classes.items():
        if not files:
            raise CatdogError(
                f"{root / name}: class folder without photos; add photos or remove the folder"
            )
    return classes


def replaced_photos(root: Path) -> Path:
    """Return where an import keeps the photos of `root` while it replaces them."""
    return root.with_name(f".{root.name}.old")


def _how_to_get_photos(root: Path) -> str:
    if replaced_photos(root.resolve()).is_dir():  # `root` may be a link to another disk
        return (
            "an import was killed while it replaced the photos; run `catdog fetch` again, which "
            "first restores the old ones"
        )
    return "run `dvc pull data/raw.dvc` for the sample, or `catdog fetch` for your own photos"


def _files(folder: Path) -> list[Path]:
    """Return all files below a folder, sorted by path, except hidden and system files."""
    return sorted(
        file
        for file in folder.rglob("*")
        if file.is_file() and not any(map(is_hidden, file.relative_to(folder).parts))
    )


def is_hidden(name: str) -> bool:
    """Return whether a file name is that of a hidden or system file."""
    return name.startswith(".") or name.lower() in SYSTEM_FILES
