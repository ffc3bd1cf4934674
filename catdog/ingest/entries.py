"""The place in data/raw of each member of an archive or folder, or why it is refused."""

import unicodedata
from collections import Counter
from dataclasses import dataclass
from pathlib import PurePosixPath

from catdog.ingest.members import Member
from catdog.preparation.class_folders import is_hidden
from catdog.preparation.layout import Place, read_layout

MAX_NAME_BYTES = 255  # of a file or folder, in most file systems
MAX_SUFFIX_BYTES = 32


@dataclass(frozen=True, slots=True)
class Entry:
    """A member of a source: its class and its path in data/raw, or why it is refused."""

    name: str
    """in the source, with non-printable characters escaped"""
    class_name: str
    given_split: str
    """train, val or test, if the source has split folders"""
    path: str
    """[given split/]class/file name, relative to data/raw"""
    reason: str
    """why the member is refused; empty if it is imported"""
    member: Member


def classify(
    members: list[Member], empty_folders: list[str] | None = None, class_level: int | None = None
) -> tuple[list[Entry], dict[str, str]]:
    """Return an entry for each member, in order, and the empty class folders.

    The latter are the classes of `empty_folders` without any member, each with one such folder.
    `read_layout` states the classes. File names are in Unicode form NFC; those of one class that
    are equal, or differ only in case, are numbered, and too long ones are shortened. Raises
    CatdogError for a layout that can be read in two ways.
    """
    paths = [PurePosixPath(member.name.replace("\\", "/")) for member in members]
    reasons = [
        member.reason or _reason_to_refuse(path)
        for member, path in zip(members, paths, strict=True)
    ]
    accepted = [path.parts for path, reason in zip(paths, reasons, strict=True) if not reason]
    empty = [PurePosixPath(folder) for folder in empty_folders or []]
    layout = read_layout(
        accepted,
        [folder.parts for folder in empty if folder.parts and not _reason_to_refuse(folder / "a")],
        class_level=class_level,
        option="--class-level",
    )
    places = iter(layout.places)
    names = _UniqueNames()
    entries = [
        _entry(member, path.name, Place("", "", reason) if reason else next(places), names)
        for member, path, reason in zip(members, paths, reasons, strict=True)
    ]
    return entries, {name: "/".join(path) for name, path in layout.empty_classes.items()}


def printable(name: str) -> str:
    """Return a name with its non-printable characters escaped: they may change a terminal."""
    return name if name.isprintable() else name.encode("unicode_escape").decode()


def _entry(member: Member, file_name: str, place: Place, names: "_UniqueNames") -> Entry:
    reason = place.reason
    if len(place.class_name.encode()) > MAX_NAME_BYTES:
        reason = "folder name too long"
    if reason:
        return Entry(printable(member.name), "", "", "", reason, member)
    folder = "/".join(filter(None, (place.given_split, place.class_name)))
    path = f"{folder}/{names.add(folder, file_name)}"
    return Entry(printable(member.name), place.class_name, place.given_split, path, "", member)


def _reason_to_refuse(path: PurePosixPath) -> str:
    """Return why a file is refused because of its path alone; "" if it is not."""
    parts = [part.strip() for part in path.parts]  # as the layout does
    folders = parts[:-1]
    reasons = {
        "path outside the archive": path.is_absolute()
        or ".." in parts
        or ":" in "".join(parts[:1]),
        "no file name": not path.name,
        "non-printable characters in the path": not str(path).isprintable(),
        "hidden or system file": is_hidden(path.name) or "__MACOSX" in folders,
        "in a hidden folder": any(part.startswith(".") for part in folders),
    }
    return next((reason for reason, applies in reasons.items() if applies), "")


class _UniqueNames:
    """File names that are unique in their folder, ignoring case."""

    def __init__(self) -> None:
        self._used: set[tuple[str, str]] = set()
        self._numbers: Counter[tuple[str, str]] = Counter()

    def add(self, folder: str, name: str) -> str:
        """Return the name in Unicode form NFC, shortened to MAX_NAME_BYTES or numbered."""
        path = PurePosixPath(unicodedata.normalize("NFC", name))
        stem, suffix = path.stem, path.suffix
        if len(suffix.encode()) > MAX_SUFFIX_BYTES:
            stem, suffix = path.name, ""
        wanted = (folder.casefold(), path.name.casefold())
        while True:
            self._numbers[wanted] += 1
            number = self._numbers[wanted]
            end = suffix if number == 1 else f"_{number}{suffix}"
            found = _shortened(stem, MAX_NAME_BYTES - len(end.encode())) + end
            if (key := (wanted[0], found.casefold())) not in self._used:
                self._used.add(key)
                return found


def _shortened(text: str, size: int) -> str:
    """Return the longest beginning of a text that has at most `size` bytes in UTF-8."""
    return text.encode()[:size].decode(errors="ignore")
