"""The photos in data/raw."""

import os
import shlex
import stat
from dataclasses import dataclass
from pathlib import Path

from catdog.errors import CatdogError
from catdog.preparation.layout import NO_CLASS, Parts, may_be_photo, read_layout

SHOWN_PATHS = 20
SYSTEM_FILES = frozenset({"thumbs.db", "desktop.ini"})  # created by file managers


@dataclass(frozen=True)
class RawPhoto:
    """A file in data/raw, before it is decoded."""

    path: Path
    class_name: str
    given_split: str
    """train, val or test if the file is in a folder of that split, otherwise empty"""


def list_photos(root: Path) -> list[RawPhoto]:
    """Return the files of all classes, sorted by class and path.

    `read_layout` determines the class and the split of each file; hidden and system files are
    ignored, and a class is usually a folder in `root`. Raises CatdogError if `root` is missing or
    a symbolic link, has fewer than two classes, or an empty one, if its folders can be read in two
    ways, and for files that DVC cannot store or that have no class.
    """
    check_is_no_link(root)
    if not root.is_dir():
        raise CatdogError(f"{root}: no such folder; {_how_to_get_photos(root)}")
    files, empty_folders = _scan(root)
    try:
        layout = read_layout(files, empty_folders)
    except CatdogError as error:
        raise CatdogError(f"{root}: {error}") from None
    photos = [
        RawPhoto(root.joinpath(*path), place.class_name, place.given_split)
        for path, place in zip(files, layout.places, strict=True)
        if place.class_name
    ]
    _check_classes(root, {photo.class_name for photo in photos}, layout.empty_classes)
    unlabelled = [
        "/".join(path)
        for path, place in zip(files, layout.places, strict=True)
        if place.reason and may_be_photo(path)
    ]
    if unlabelled:
        raise CatdogError(
            f"{root / unlabelled[0]}: {NO_CLASS}{_and_more(unlabelled)}; move it into one, or "
            "remove it"
        )
    return sorted(photos, key=lambda photo: (photo.class_name, photo.path))


def check_is_no_link(root: Path) -> None:
    """Raise CatdogError if `root` is a symbolic link.

    `dvc add` refuses such a folder, but `dvc repro` tracks the photos that the link leads to. A
    later `dvc checkout` of another version would then delete or overwrite them.
    """
    if not root.is_symlink():
        return
    target = shlex.quote(os.path.realpath(root))  # resolve() fails for a loop
    raise CatdogError(
        f"{root}: is a symbolic link to {target}, where DVC would overwrite and delete photos; run "
        f"`rm {root}`, which removes only the link, then `make photos ARCHIVE={target}`, which "
        "copies the photos"
    )


def list_classes(root: Path) -> dict[str, list[Path]]:
    """Return the files of each class, sorted; see `list_photos`."""
    classes: dict[str, list[Path]] = {}
    for photo in list_photos(root):
        classes.setdefault(photo.class_name, []).append(photo.path)
    return classes


def _scan(root: Path) -> tuple[list[Parts], list[Parts]]:
    """Return the files below `root` and the folders without files, except hidden ones.

    Raises CatdogError for what DVC ignores or cannot read: links to folders, broken links, named
    pipes and the like.
    """
    files: list[Parts] = []
    empty: list[Parts] = []
    for folder, folders, names in os.walk(root, onerror=raise_error):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        shown = sorted(name for name in names if not is_hidden(name))
        parts = Path(folder).relative_to(root).parts
        for name in (*folders, *shown):
            path = f"{folder}/{name}"
            if problem := storage_problem(path):
                raise CatdogError(f"{ascii(path)[1:-1]}: {problem}")
        files += [(*parts, name) for name in shown]
        if not folders and not shown and parts:
            empty.append(parts)
    return files, empty


def storage_problem(path: str) -> str:
    """Return why DVC cannot store a file or folder, and what to do; "" if it can."""
    mode = os.lstat(path).st_mode
    if stat.S_ISLNK(mode):
        if Path(path).is_dir():
            return "DVC ignores links to folders; replace the link with a copy of the folder"
        if not Path(path).is_file():
            return "broken symbolic link; remove it"
    elif not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
        return "not a regular file; remove it"
    return "" if os.access(path, os.R_OK) else "permission denied; make it readable or remove it"


def raise_error(error: OSError) -> None:
    """Raise an error of os.walk, which ignores errors otherwise."""
    raise error


def _check_classes(root: Path, classes: set[str], empty: dict[str, Parts]) -> None:
    """Raise CatdogError for classes without files, or fewer than two with files."""
    if empty and len(classes) + len(empty) >= 2:
        folders = ["/".join(path) for _, path in sorted(empty.items())]
        advice = "add photos or remove the folder"
        raise CatdogError(
            f"{root / folders[0]}: class folder without photos{_and_more(folders)}; {advice}"
        )
    if len(classes) < 2:
        found = f" ({', '.join(sorted(classes))})" if classes else ""
        raise CatdogError(
            f"{root}: at least two class folders are required, such as {root}/cat and "
            f"{root}/dog; found {len(classes)}{found}"
        )


def _and_more(paths: list[str]) -> str:
    """Return " (also PATH, … and N more)" for the paths after the first; "" if there are none."""
    more = ", ".join(paths[1:SHOWN_PATHS])
    rest = len(paths) - SHOWN_PATHS
    return (f" (also {more}" + (f" and {rest} more)" if rest > 0 else ")")) if more else ""


def replaced_photos(root: Path) -> Path:
    """Return where an import keeps the photos of `root` while it replaces them."""
    return root.with_name(f".{root.name}.old")


def _how_to_get_photos(root: Path) -> str:
    if replaced_photos(root).is_dir():
        return (
            "an import was killed while it replaced the photos; run `make photos ARCHIVE=PATH` "
            "again, which first restores the old ones"
        )
    return (
        "run `dvc pull data/raw.dvc` for the sample, or `make photos ARCHIVE=PATH` for your own "
        "photos"
    )


def is_hidden(name: str) -> bool:
    """Return whether a file name is that of a hidden or system file."""
    return name.startswith(".") or name.lower() in SYSTEM_FILES
