"""Archives and folders of photos: what lies in them, and which class each file belongs to.

Three layouts are known: Microsoft's `PetImages/Cat/1.jpg` and any other folder of class folders,
Kaggle's `train/cat.1.jpg`, and Kaggle's unlabelled `test1/1.jpg`, which nothing can be learnt from.
"""

import lzma
import os
import re
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Protocol

from catdog.errors import CatdogError
from catdog.preparation.photos import SUFFIXES, PhotoError, is_junk

KAGGLE = re.compile(r"^(?P<name>[^.]+)\.\d+\.[A-Za-z]+$")  # cat.1.jpg
KAGGLE_FOLDERS = frozenset({"", "train"})
DAMAGED = (OSError, EOFError, tarfile.TarError, zipfile.BadZipFile, zlib.error, lzma.LZMAError)
UNLABELLED = frozenset({"test", "test1"})


class Source(Protocol):
    """Something that holds named files."""

    def names(self) -> list[str]:
        """Return the names of all files, with / between folders."""

    def read(self, name: str) -> bytes:
        """Return the content of one file."""

    def close(self) -> None:
        """Let go of it."""


class FolderSource:
    """A plain folder."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def names(self) -> list[str]:
        """Return the names of all files below, and of links, which `read` refuses.

        Raises CatdogError for a link to a folder, and OSError for one that may not be read: all of
        its photos would be missing without a word.
        """
        found: list[str] = []
        for folder, folders, files in os.walk(self._path, onerror=_raise):
            for path in (Path(folder) / name for name in folders):
                if path.is_symlink():
                    raise CatdogError(f"{path}: a link to a folder; put the folder in its place")
            paths = (Path(folder) / name for name in files)
            found += [
                path.relative_to(self._path).as_posix()
                for path in paths
                if path.is_file() or path.is_symlink()
            ]
        return sorted(found)

    def read(self, name: str) -> bytes:
        """Return the content of one file; PhotoError if it is a link, which may lead anywhere."""
        if (self._path / name).is_symlink():
            raise PhotoError("a symbolic link")
        return (self._path / name).read_bytes()

    def close(self) -> None:
        """Nothing is held."""


def _raise(error: OSError) -> None:
    raise error


class ZipSource:
    """A zip archive."""

    def __init__(self, path: Path) -> None:
        self._zip = zipfile.ZipFile(path)

    def names(self) -> list[str]:
        """Return the names of all files, in the order of the archive."""
        if any(info.flag_bits & 0x1 for info in self._zip.infolist()):
            raise CatdogError(
                f"{self._zip.filename}: needs a password; unpack it and give the folder"
            )
        return [info.filename for info in self._zip.infolist() if not info.is_dir()]

    def read(self, name: str) -> bytes:
        """Return the content of one file."""
        return self._zip.read(name)

    def close(self) -> None:
        """Close the archive."""
        self._zip.close()


class TarSource:
    """A tar archive, plain or compressed; links and devices in it are left out."""

    def __init__(self, path: Path) -> None:
        self._tar = tarfile.open(path)  # noqa: SIM115 - closed by close()
        self._files = {member.name: member for member in self._tar if member.isfile()}
        # The checksum lies behind the last file: only who reads to the end learns of damage.
        while self._tar.fileobj and self._tar.fileobj.read(1 << 20):
            pass

    def names(self) -> list[str]:
        """Return the names of all plain files, in the order of the archive: to read it once."""
        return list(self._files)

    def read(self, name: str) -> bytes:
        """Return the content of one file."""
        stream: IO[bytes] | None = self._tar.extractfile(self._files[name])
        assert stream is not None  # plain files always have content
        with closing(stream):
            return stream.read()

    def close(self) -> None:
        """Close the archive."""
        self._tar.close()


def open_source(path: Path) -> Source:
    """Return what reads an archive or a folder; CatdogError if it is neither."""
    if path.is_dir():
        return FolderSource(path)
    if not path.exists():
        raise CatdogError(f"{path}: no such file; give a zip or tar archive, or a folder")
    try:
        if zipfile.is_zipfile(path):
            return ZipSource(path)
        if tarfile.is_tarfile(path):
            return TarSource(path)
    except DAMAGED as error:
        raise CatdogError(f"{path}: the archive is damaged ({error}); get it again") from None
    raise CatdogError(
        f"{path}: neither a zip nor a tar archive, nor a folder; if it should be one, get it again"
    )


@dataclass(frozen=True)
class Entry:
    """A file of an archive: the class and name it will have, or why it has none."""

    name: str
    class_name: str
    file_name: str
    reason: str


def sort_entries(names: list[str]) -> list[Entry]:
    """Return what each file is. Names that would collide in a class get a number.

    The class of a photo is the folder it lies in, in lower case for Microsoft's PetImages; for
    photos called as Kaggle's, the part before the first dot.
    """
    taken: set[tuple[str, str]] = set()
    return [_free(_entry(name), taken) for name in names]


def _entry(name: str) -> Entry:
    path = PurePosixPath(name.replace("\\", "/"))
    if reason := _why_not(path):
        return Entry(name, "", "", reason)
    folder = path.parent.name
    if folder.lower() in KAGGLE_FOLDERS and (match := KAGGLE.match(path.name)):
        return Entry(name, match["name"], path.name, "")
    if not folder or folder.lower() in UNLABELLED:
        return Entry(name, "", "", "no class: it lies in no class folder")
    class_name = folder.lower() if path.parent.parent.name == "PetImages" else folder
    return Entry(name, class_name, path.name, "")


def _why_not(path: PurePosixPath) -> str:
    """Return why a file cannot be a photo, by its name alone; "" if it can."""
    if path.is_absolute() or ".." in path.parts or ":" in "".join(path.parts[:1]):
        return "its name leads out of the archive"
    if not str(path).isprintable() or path.parent.name.strip(" ") != path.parent.name:
        return "its name, or its folder's, holds blanks or signs that cannot be shown"
    if is_junk(path.name) or "__MACOSX" in path.parts:
        return "left by a file manager"
    if path.suffix.lower() not in SUFFIXES:
        return "not a photo by its name"
    if any(part.startswith(".") for part in path.parent.parts):
        return "its folder is hidden"
    return ""


def _free(entry: Entry, taken: set[tuple[str, str]]) -> Entry:
    """Return the entry under a name that no other one has, whatever the case of its letters."""
    if entry.reason:
        return entry
    path = PurePosixPath(entry.file_name)
    for file_name in _variants(path):
        key = (entry.class_name.casefold(), file_name.casefold())
        if key not in taken:
            taken.add(key)
            return Entry(entry.name, entry.class_name, file_name, "")
    raise AssertionError("variants never end")


def _variants(path: PurePosixPath) -> Iterator[str]:
    yield path.name
    number = 1
    while True:
        number += 1
        yield f"{path.stem}_{number}{path.suffix}"
