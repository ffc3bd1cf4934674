"""List and read the files in zip archives, tar archives and folders."""

import lzma
import os
import tarfile
import zipfile
import zlib
from contextlib import closing
from pathlib import Path
from typing import IO, Protocol

from catdog.errors import CatdogError, PhotoError

DAMAGE_ERRORS = (
    OSError,
    EOFError,
    tarfile.TarError,
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
)


class Source(Protocol):
    """A collection of named files."""

    def names(self) -> list[str]:
        """Return the names of all files, with / as separator."""

    def read(self, name: str) -> bytes:
        """Return the content of one file."""

    def close(self) -> None:
        """Close the underlying file."""


class FolderSource:
    """The files below a folder."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def names(self) -> list[str]:
        """Return the names of all files and symbolic links, sorted; `read` refuses the links.

        Raises CatdogError for a link to a folder and OSError for an unreadable folder: otherwise
        their photos would be skipped silently.
        """
        found: list[str] = []
        for folder, folders, files in os.walk(self._path, onerror=_raise):
            for path in (Path(folder) / name for name in folders):
                if path.is_symlink():
                    raise CatdogError(
                        f"{path}: links to folders are not supported; replace the link with the "
                        "folder"
                    )
            paths = (Path(folder) / name for name in files)
            found += [
                path.relative_to(self._path).as_posix()
                for path in paths
                if path.is_file() or path.is_symlink()
            ]
        return sorted(found)

    def read(self, name: str) -> bytes:
        """Return the content of one file; PhotoError for a link, whose target may be anywhere."""
        if (self._path / name).is_symlink():
            raise PhotoError("symbolic link")
        return (self._path / name).read_bytes()

    def close(self) -> None:
        """Do nothing: no file is open."""


def _raise(error: OSError) -> None:
    raise error


class ZipSource:
    """The files of a zip archive."""

    def __init__(self, path: Path) -> None:
        self._zip = zipfile.ZipFile(path)

    def names(self) -> list[str]:
        """Return the names of all files in archive order; CatdogError if any is encrypted."""
        if any(info.flag_bits & 0x1 for info in self._zip.infolist()):
            raise CatdogError(
                f"{self._zip.filename}: encrypted archives are not supported; unpack it and pass "
                "the folder"
            )
        return [info.filename for info in self._zip.infolist() if not info.is_dir()]

    def read(self, name: str) -> bytes:
        """Return the content of one file."""
        return self._zip.read(name)

    def close(self) -> None:
        """Close the archive."""
        self._zip.close()


class TarSource:
    """The regular files of a plain or compressed tar archive; links and devices are ignored."""

    def __init__(self, path: Path) -> None:
        self._tar = tarfile.open(path)  # noqa: SIM115 - closed by close()
        self._files = {member.name: member for member in self._tar if member.isfile()}
        # Read to the end, which verifies the compressor's checksum after the last file.
        while self._tar.fileobj and self._tar.fileobj.read(1 << 20):
            pass

    def names(self) -> list[str]:
        """Return the names of all files in archive order, in which reading them is fastest."""
        return list(self._files)

    def read(self, name: str) -> bytes:
        """Return the content of one file."""
        stream: IO[bytes] | None = self._tar.extractfile(self._files[name])
        assert stream is not None  # regular files have content
        with closing(stream):
            return stream.read()

    def close(self) -> None:
        """Close the archive."""
        self._tar.close()


def open_source(path: Path) -> Source:
    """Open an archive or a folder; CatdogError if it is missing, damaged or neither."""
    if path.is_dir():
        return FolderSource(path)
    if not path.exists():
        raise CatdogError(f"{path}: no such file; pass a zip archive, a tar archive or a folder")
    try:
        if zipfile.is_zipfile(path):
            return ZipSource(path)
        if tarfile.is_tarfile(path):
            return TarSource(path)
    except DAMAGE_ERRORS as error:
        raise CatdogError(f"{path}: damaged archive ({error}); download it again") from None
    raise CatdogError(
        f"{path}: neither a zip nor a tar archive; pass another file, or download it again if it "
        "is incomplete"
    )
