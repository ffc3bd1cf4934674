"""The photos to predict: files, folders with links, pipes and standard input."""

import errno
import os
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from PIL import Image

from catdog.errors import CatdogError, PhotoError
from catdog.preparation.class_folders import is_hidden, raise_error
from catdog.preparation.photo_formats import HEAD, sniff
from catdog.preparation.photos import open_photo

EXPECTED = "pass photos, or folders that contain photos"
STANDARD_INPUT = Path("-")
SUFFIXES = frozenset(
    {
        *(".avif", ".bmp", ".gif", ".heic", ".heif", ".jfif", ".jp2", ".jpe", ".jpeg", ".jpg"),
        *(".mpo", ".png", ".ppm", ".tif", ".tiff", ".webp"),
    }
)


def find_photos(paths: Iterable[str | Path]) -> tuple[list[Path], int]:
    """Return the given files and the photos below the given folders, and the number of other files.

    The photos are sorted, without duplicates; "-" is standard input. In folders, links are
    followed, each folder is read once, and hidden and system files are ignored. A file in a folder
    is a photo if its content or its extension is that of a photo. Raises CatdogError for an empty
    or missing path, and OSError for a folder that cannot be read.
    """
    found: set[Path] = set()
    skipped: set[Path] = set()
    for given in paths:
        if not os.fspath(given):  # Path("") is the current folder
            raise CatdogError(f"empty path; {EXPECTED}")
        path = Path(given)
        exists = _exists(path)
        if exists and path.is_dir():
            for file in _files(path):
                (found if _is_photo(file) else skipped).add(file)
        elif os.fspath(given) == "-":
            found.add(STANDARD_INPUT)
        elif exists:
            # "./-" is a file; pathlib shortens it to "-"
            found.add(path.absolute() if path == STANDARD_INPUT else path)
        else:
            raise CatdogError(f"{path}: no such file or folder; {EXPECTED}")
    return sorted(found), len(skipped - found)


def _exists(path: Path) -> bool:
    """Return whether there is a file; False for a path that is too long for one."""
    try:
        return path.exists()
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            return False
        raise


def read_photo(path: Path, max_side: int) -> Image.Image:
    """Return the photo of a path from `find_photos`, as `open_photo` does."""
    try:
        if path == STANDARD_INPUT:
            if sys.stdin is None:
                raise PhotoError("standard input is closed")
            return open_photo(sys.stdin.buffer, max_side)
        if path.is_file() or not path.exists():
            return open_photo(path, max_side)
        with path.open("rb") as pipe:
            return open_photo(pipe, max_side)
    except OSError as error:
        raise PhotoError((error.strerror or type(error).__name__).lower()) from None


def _files(folder: Path) -> Iterator[Path]:
    """Yield the files below a folder, through links to folders, each folder once."""
    read: set[tuple[int, int]] = set()
    for root, folders, files in os.walk(folder, onerror=raise_error, followlinks=True):
        status = Path(root).stat()
        if (status.st_dev, status.st_ino) in read:
            folders.clear()
            continue
        read.add((status.st_dev, status.st_ino))
        # Links last, so that files are listed under the name of their folder, not that of a link.
        folders[:] = sorted(
            (name for name in folders if not name.startswith(".")),
            key=lambda name: (Path(root, name).is_symlink(), name),
        )
        yield from (Path(root, name) for name in sorted(files) if not is_hidden(name))


def _is_photo(file: Path) -> bool:
    """Return whether a file in a folder is or should be a photo; pipes and devices are not."""
    if file.suffix.lower() in SUFFIXES:
        return file.is_file() or file.is_symlink()
    if not file.is_file():
        return False
    try:
        with file.open("rb") as stream:
            return sniff(stream.read(HEAD)) is not None
    except OSError:
        return True  # `read_photo` reports why it cannot be read
