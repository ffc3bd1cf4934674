"""The place in data/raw of each member of an archive or folder, or why it is refused."""

import re
import unicodedata
from collections import Counter
from dataclasses import dataclass

from catdog.ingest.members import Member
from catdog.preparation.class_folders import is_hidden
from catdog.preparation.layout import Parts, Place, read_layout
from catdog.support.printable import printable

MAX_NAME_BYTES = 255  # of a file or folder, in most file systems
MAX_SUFFIX_BYTES = 32
MAX_PATH_LENGTH = 4096  # in most operating systems; the parts of longer ones would need much memory
DRIVE = re.compile("[A-Za-z]:")


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

    The empty class folders are one of `empty_folders` for each class without any member.
    `read_layout` determines the classes. File names are in Unicode form NFC; names in one class
    that are equal, or differ only in case, are numbered, and names that are too long are shortened.
    Raises CatdogError for a layout that can be read in two ways.
    """
    paths = [_parts(member.name) for member in members]
    reasons = [
        member.reason or _reason_to_refuse(member.name, path)
        for member, path in zip(members, paths, strict=True)
    ]
    accepted = [path for path, reason in zip(paths, reasons, strict=True) if not reason]
    empty = [folder for folder in empty_folders or [] if _parts(folder)]
    layout = read_layout(
        accepted,
        [_parts(name) for name in empty if not _reason_to_refuse(name, (*_parts(name), "a"))],
        class_level=class_level,
        option="--class-level",
    )
    places = iter(layout.places)
    names = _UniqueNames()
    entries = [
        _entry(
            member,
            path[-1] if path else "",
            Place("", "", reason) if reason else next(places),
            names,
        )
        for member, path, reason in zip(members, paths, reasons, strict=True)
    ]
    return entries, {name: "/".join(path) for name, path in layout.empty_classes.items()}


def is_renamed(entry: Entry) -> bool:
    """Return whether a file has another name in data/raw than in its source."""
    wanted = unicodedata.normalize("NFC", _parts(entry.member.name)[-1])
    return entry.path.rpartition("/")[2] != wanted


def _entry(member: Member, file_name: str, place: Place, names: "_UniqueNames") -> Entry:
    reason = place.reason
    if len(place.class_name.encode()) > MAX_NAME_BYTES:
        reason = "folder name too long"
    if reason:
        return Entry(printable(member.name), "", "", "", reason, member)
    folder = "/".join(filter(None, (place.given_split, place.class_name)))
    path = f"{folder}/{names.add(folder, file_name)}"
    return Entry(printable(member.name), place.class_name, place.given_split, path, "", member)


def _parts(name: str) -> Parts:
    """Return the parts of a path, none if it is too long; Windows separates with backslashes."""
    if len(name) > MAX_PATH_LENGTH:
        return ()
    return tuple(part for part in name.replace("\\", "/").split("/") if part not in ("", "."))


def _reason_to_refuse(name: str, path: Parts) -> str:
    """Return why a file is refused because of its path alone; "" if it is not."""
    if not path:
        return "path too long" if len(name) > MAX_PATH_LENGTH else "no file name"
    stripped = [part.strip() for part in path]  # as the layout does
    if name.startswith(("/", "\\")) or ".." in stripped or DRIVE.match(path[0]):
        return "path outside the archive"
    if not name.isprintable():
        return "non-printable characters in the path"
    if is_hidden(path[-1]) or "__MACOSX" in stripped[:-1]:
        return "hidden or system file"
    return "in a hidden folder" if any(p.startswith(".") for p in stripped[:-1]) else ""


class _UniqueNames:
    """File names that are unique in their folder, ignoring case."""

    def __init__(self) -> None:
        self._used: set[tuple[str, str]] = set()
        self._numbers: Counter[tuple[str, str]] = Counter()

    def add(self, folder: str, name: str) -> str:
        """Return the name in Unicode form NFC, shortened to MAX_NAME_BYTES or numbered."""
        name = unicodedata.normalize("NFC", name)
        stem, dot, ending = name.rpartition(".")
        suffix = dot + ending
        if not stem or len(suffix.encode()) > MAX_SUFFIX_BYTES:
            stem, suffix = name, ""
        wanted = (folder.casefold(), name.casefold())
        while True:
            self._numbers[wanted] += 1
            number = self._numbers[wanted]
            end = suffix if number == 1 else f"_{number}{suffix}"
            found = _shortened(stem, MAX_NAME_BYTES - len(end.encode())) + end
            if (key := (wanted[0], found.casefold())) not in self._used:
                self._used.add(key)
                return found


def _shortened(text: str, size: int) -> str:
    """Return the longest prefix of a text with at most `size` bytes in UTF-8."""
    return text.encode()[:size].decode(errors="ignore")
