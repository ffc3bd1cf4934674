"""The members of a folder."""

import os
from collections.abc import Iterator
from pathlib import Path
from stat import S_ISDIR
from typing import IO

from catdog.errors import CatdogError
from catdog.ingest import name_encoding
from catdog.ingest.members import Member, file_type, without_members
from catdog.preparation.photo_limits import MAX_BYTES, TOO_LARGE


class FolderSource:
    """The files below a folder. Symbolic links are followed, also out of the folder.

    Each folder is read once, even if several links lead to it, so links cannot form loops. The
    constructor raises CatdogError for an unreadable folder, whose photos would be missing.
    """

    def __init__(self, path: Path, encoding: str | None) -> None:
        self._path = path
        self._folders: list[str] = []
        # A link to a parent folder of this one forms a loop, too.
        above = [folder.stat() for folder in path.resolve().parents]
        self._visited = {(status.st_dev, status.st_ino) for status in above}
        try:
            found = sorted(self._walk())
        except OSError as error:
            raise CatdogError(
                f"{error.filename or path}: unreadable folder ({error.strerror}), whose photos "
                "would be missing; make it readable, or pass another folder"
            ) from None
        raw_names = [os.fsencode(name) for name, _ in found]
        names = name_encoding.decode_all(raw_names, encoding, str(path))
        self.members = [
            Member(name, reason, path / relative)
            for name, (relative, reason) in zip(names, found, strict=True)
        ]
        folders = [os.fsencode(name) for name in self._folders]
        folder_names = name_encoding.decode_all(folders, encoding, str(path))
        self.empty_folders = without_members(folder_names, self.members)

    def open(self, member: Member) -> IO[bytes]:
        """Open a file for reading."""
        path: Path = member.handle
        # If a pipe has replaced the file since it was listed, do not wait for its other end.
        return os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb")

    def close(self) -> None:
        """Do nothing: no file is open."""

    def _walk(self) -> Iterator[tuple[str, str]]:
        """Yield the relative path of each file and why it is refused, "" if it is not.

        Links to folders come last, so that the files of a folder are listed under its own name, not
        that of a link. Raises OSError for an unreadable folder.
        """
        pending, links = [""], list[str]()
        while pending or links:
            folder = pending.pop() if pending else links.pop()
            status = (self._path / folder).stat()
            if (identity := (status.st_dev, status.st_ino)) in self._visited:
                yield folder, "link to a folder that contains it, or that has another name"
                continue
            self._visited.add(identity)
            self._folders.append(folder)
            with os.scandir(self._path / folder) as scan:
                entries = sorted(scan, key=lambda entry: entry.name, reverse=True)
            for entry in entries:
                name = f"{folder}/{entry.name}".lstrip("/")
                if "\\" in entry.name and os.sep != "\\":
                    # In an archive of a Windows program it separates folders, as in entries.py.
                    yield name, "backslash in the name"
                elif (reason := _reason(entry)) is None:
                    (links if entry.is_symlink() else pending).append(name)
                else:
                    yield name, reason


def _reason(entry: "os.DirEntry[str]") -> str | None:
    """Return why a file is refused without reading it; "" if it is not, None for a folder."""
    try:
        status = entry.stat()
    except FileNotFoundError:
        return "broken symbolic link"
    except OSError as error:
        return f"unreadable: {error.strerror}"
    if S_ISDIR(status.st_mode):
        return None
    return file_type(status.st_mode) or (TOO_LARGE if status.st_size > MAX_BYTES else "")
