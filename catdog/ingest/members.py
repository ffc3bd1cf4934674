"""The members of a source: the files of a folder, or the entries of an archive."""

import stat
from bisect import bisect_left
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Protocol

from catdog.errors import CatdogError

MAX_MEMBERS = 500_000
"""per archive; an import needs about 1.5 kB of memory per member, or 2.6 kB for long paths"""
MAX_DIRECTORY_BYTES = 100_000_000
"""of the names and attributes in an archive, which are kept in memory"""


@dataclass(frozen=True, slots=True)
class Member:
    """A file of a folder, or an entry of an archive that is not a folder."""

    name: str
    """its path in the source, with / as separator; several members may have the same name"""
    reason: str
    """why it is refused without being read; empty if it can be read"""
    handle: Any
    """what its source needs to open it"""


def too_many(path: Path) -> CatdogError:
    """Return the error for an archive over MAX_MEMBERS or MAX_DIRECTORY_BYTES."""
    return CatdogError(
        f"{path}: more than {MAX_MEMBERS:,} files, or more than "
        f"{MAX_DIRECTORY_BYTES // 1_000_000} MB of file names; unpack it and pass the folder"
    )


class Source(Protocol):
    """A folder or an archive."""

    @property
    def members(self) -> list[Member]:
        """All files and entries, each once, in the order in which reading them is fastest."""

    @property
    def empty_folders(self) -> list[str]:
        """The names of the folders without any member below them."""

    def open(self, member: Member) -> IO[bytes]:
        """Open a member whose `reason` is empty, for reading.

        Opening and reading a damaged member raises exceptions of any type.
        """

    def close(self) -> None:
        """Close the underlying file."""


def without_members(folders: list[str], members: list[Member]) -> list[str]:
    """Return the folders below which there is no member; their names may end with / or \\."""
    files = sorted(member.name.replace("\\", "/") for member in members)

    def has_members(folder: str) -> bool:
        following = bisect_left(files, f"{folder}/")
        return following < len(files) and files[following].startswith(f"{folder}/")

    different = {folder.replace("\\", "/").rstrip("/") for folder in folders} - {""}
    return sorted(folder for folder in different if not has_members(folder))


def file_type(mode: int) -> str:
    """Return what a file with a Unix mode is; "" for a regular file, or if the mode has no type."""
    types = {
        stat.S_IFLNK: "symbolic link",
        stat.S_IFIFO: "named pipe",
        stat.S_IFSOCK: "socket",
        stat.S_IFCHR: "device",
        stat.S_IFBLK: "device",
    }
    return types.get(stat.S_IFMT(mode), "")
