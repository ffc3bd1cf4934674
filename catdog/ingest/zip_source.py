"""The members of a zip archive."""

import os
import struct
import zipfile
import zlib
from pathlib import Path
from typing import IO

from catdog.errors import CatdogError
from catdog.ingest import name_encoding
from catdog.ingest.members import (
    MAX_DIRECTORY_BYTES,
    MAX_MEMBERS,
    Member,
    file_type,
    too_many,
    without_members,
)
from catdog.preparation.photo_limits import MAX_BYTES, TOO_LARGE

# Numbers and names of APPNOTE 4.4.5, https://pkware.cachefly.net/webdocs/casestudies/APPNOTE.TXT
METHODS = {
    1: "Shrink",
    6: "Implode",
    9: "Deflate64",
    12: "bzip2",
    14: "LZMA",
    93: "Zstandard",
    95: "xz",
    98: "PPMd",
    99: "AES encryption",
}
# zipfile unpacks the other methods without a limit: 1 kB of bzip2 may be 1 GB.
SUPPORTED = {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}
ENCRYPTED = 0x1  # bits of the general purpose flag, APPNOTE 4.4.4
UTF8_NAME = 0x800
UNIX = 3  # system that created a member, APPNOTE 4.4.2
UNICODE_PATH = 0x7075  # an extra field, APPNOTE 4.6.9
LOCAL_HEADER = b"PK\3\4"
LOCAL_BYTES = 30
DIRECTORY_ENTRY = b"PK\1\2"
ENTRY_BYTES = 46
END_OF_DIRECTORY = b"PK\5\6"
END_BYTES = 22
ZIP64_BYTES = 76  # of the two records that a large archive has before END_OF_DIRECTORY


class ZipSource:
    """A zip archive, which stays open.

    The constructor raises CatdogError for an archive that cannot be read completely, and exceptions
    of other types for a damaged one.
    """

    def __init__(self, path: Path, encoding: str | None) -> None:
        stated_members = _check_directory(path)
        self._zip = zipfile.ZipFile(path)
        infos = self._zip.infolist()
        # 0xFFFF: the number is in another record, since there may be more
        if stated_members not in (0xFFFF, len(infos) & 0xFFFF):
            raise zipfile.BadZipFile("the number of files differs from that in the directory")
        _check_methods(path, infos)
        overlapping = _find_overlaps(path, self._zip)
        named = list(zip(_names(infos, encoding, str(path)), infos, strict=True))
        self.members = [
            Member(name, _reason(info, overlapping), info)
            for name, info in named
            if not _is_folder(name, info)
        ]
        folders = [name for name, info in named if _is_folder(name, info)]
        self.empty_folders = without_members(folders, self.members)

    def open(self, member: Member) -> IO[bytes]:
        """Open a member for reading."""
        return self._zip.open(member.handle)

    def close(self) -> None:
        """Close the archive."""
        self._zip.close()


def _check_directory(path: Path) -> int:
    """Check the end of the archive and the size of its directory, before zipfile reads it.

    Returns the number of members that the end states, modulo 65,536. Raises BadZipFile if the end
    is damaged or followed by files, and CatdogError for too many members and for one part of
    several.
    """
    with path.open("rb") as stream:
        size = stream.seek(0, os.SEEK_END)
        stream.seek(max(0, size - END_BYTES - ZIP64_BYTES - 0xFFFF))
        tail = stream.read()
        end = tail.rfind(END_OF_DIRECTORY)
        if end < 0 or len(tail) - end < END_BYTES:
            raise zipfile.BadZipFile("the directory at the end is missing")
        disk, _, _, members, length, _ = struct.unpack("<HHHHLL", tail[end + 4 : end + 20])
        if disk not in (0, 0xFFFF):
            raise CatdogError(
                f"{path}: one of several parts of a zip archive; unpack all parts together and "
                "pass the folder"
            )
        if LOCAL_HEADER in tail[end:]:
            raise zipfile.BadZipFile("there are files after the directory")
        if length == 0xFFFFFFFF and end >= ZIP64_BYTES:
            (length,) = struct.unpack("<Q", tail[end - ZIP64_BYTES + 40 :][:8])
        if length > MAX_DIRECTORY_BYTES:
            raise too_many(path)
        if length > MAX_MEMBERS * ENTRY_BYTES:
            stream.seek(max(0, size - len(tail) + end - length - ZIP64_BYTES))
            if stream.read(length + ZIP64_BYTES).count(DIRECTORY_ENTRY) > MAX_MEMBERS:
                raise too_many(path)
    return int(members)


def _find_overlaps(path: Path, archive: zipfile.ZipFile) -> set[int]:
    """Return the ids of the members that overlap with the next one, as in zip bombs.

    Raises BadZipFile if there are files between the members that the directory does not list.
    """
    members = sorted(archive.infolist(), key=lambda info: info.header_offset)
    overlapping: set[int] = set()
    with path.open("rb", buffering=0) as stream:
        starts = [info.header_offset for info in members] + [archive.start_dir]
        _check_gap(stream, 0, starts[0])
        for info, following in zip(members, starts[1:], strict=True):
            stream.seek(info.header_offset)
            header = stream.read(LOCAL_BYTES)
            if header[:4] != LOCAL_HEADER or len(header) < LOCAL_BYTES:
                continue  # a damaged member, which `open` refuses
            names = sum(struct.unpack("<HH", header[26:30]))  # lengths of name and extra field
            end = info.header_offset + LOCAL_BYTES + names + info.compress_size
            if end > following:
                overlapping.add(id(info))
            elif following - end >= LOCAL_BYTES:
                _check_gap(stream, end, following)
    return overlapping


def _check_gap(stream: IO[bytes], start: int, end: int) -> None:
    """Raise BadZipFile if there is the header of a file between two positions."""
    stream.seek(start)
    before = b""
    while start < end and (piece := stream.read(min(end - start, 1 << 20))):
        if LOCAL_HEADER in before + piece:
            raise zipfile.BadZipFile("the directory does not list all files")
        before = piece[-3:]
        start += len(piece)


def _check_methods(path: Path, infos: list[zipfile.ZipInfo]) -> None:
    """Raise CatdogError for encrypted members and unsupported methods of compression."""
    encrypted = [info for info in infos if info.flag_bits & ENCRYPTED]
    if encrypted:
        raise CatdogError(
            f"{path}: encrypted archives are not supported ({len(encrypted):,} of {len(infos):,} "
            "files are encrypted); unpack it and pass the folder"
        )
    for info in infos:
        if info.compress_type not in SUPPORTED:
            method = METHODS.get(info.compress_type, f"method {info.compress_type}")
            raise CatdogError(
                f"{path}: unsupported compression {method} of {info.filename!r}; unpack it with "
                "another program, such as 7-Zip, and pass the folder"
            )


def _names(infos: list[zipfile.ZipInfo], encoding: str | None, where: str) -> list[str]:
    """Return the names of all members; all names without a stated encoding have the same one."""
    names = {id(info): _stated_name(info) for info in infos}
    unknown = {id(info): _raw_name(info) for info in infos if names[id(info)] is None}
    decoded = name_encoding.decode_all(list(unknown.values()), encoding, where)
    found = {**names, **dict(zip(unknown, decoded, strict=True))}
    return [found[id(info)] or "" for info in infos]


def _stated_name(info: zipfile.ZipInfo) -> str | None:
    """Return the name of a member if the archive states its encoding, otherwise None."""
    if info.flag_bits & UTF8_NAME:
        return info.orig_filename
    raw, extra = _raw_name(info), info.extra
    while len(extra) >= 4:
        kind, size = struct.unpack("<HH", extra[:4])
        field, extra = extra[4 : 4 + size], extra[4 + size :]
        if kind == UNICODE_PATH and field[1:5] == struct.pack("<L", zlib.crc32(raw)):
            return name_encoding.decode(field[5:], "utf-8")
    return raw.decode() if raw.isascii() else None


def _raw_name(info: zipfile.ZipInfo) -> bytes:
    return info.orig_filename.encode("cp437")  # how zipfile has decoded it


def _is_folder(name: str, info: zipfile.ZipInfo) -> bool:
    return name.endswith(("/", "\\")) and info.file_size == 0


def _reason(info: zipfile.ZipInfo, overlapping: set[int]) -> str:
    """Return why a member is refused without reading it; "" if it is not."""
    if id(info) in overlapping:
        return "overlaps with another file of the archive"
    if info.file_size > MAX_BYTES:
        return TOO_LARGE
    return file_type(info.external_attr >> 16) if info.create_system == UNIX else ""
