"""The members of a tar archive."""

import bz2
import gzip
import lzma
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any, cast

from catdog.errors import CatdogError
from catdog.ingest import name_encoding
from catdog.ingest.members import (
    MAX_DIRECTORY_BYTES,
    MAX_MEMBERS,
    Member,
    too_many,
    without_members,
)
from catdog.preparation.photo_limits import MAX_BYTES, TOO_LARGE

COMPRESSION: dict[str, Callable[..., Any]] = {
    "tar": open,
    "tar.gz": gzip.open,
    "tar.bz2": bz2.open,
    "tar.xz": lzma.open,
}
TYPES = {
    tarfile.SYMTYPE: "symbolic link",
    tarfile.LNKTYPE: "hard link",
    tarfile.FIFOTYPE: "named pipe",
    tarfile.CHRTYPE: "device",
    tarfile.BLKTYPE: "device",
}
FILES = (tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.CONTTYPE)
ATTRIBUTES = (  # of the next member; tarfile reads them into memory
    tarfile.XHDTYPE,
    tarfile.XGLTYPE,
    tarfile.SOLARIS_XHDTYPE,
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
)
MAX_ATTRIBUTE_BYTES = 1 << 16  # per member
MAX_GLOBAL_ATTRIBUTES = 100
MAX_HEADER_BYTES = 1 << 20  # of a member, with its attributes and the map of a sparse file
MAX_PADDING = 1 << 26  # zeros after the mark of the end
MAX_RATIO = 100  # of unpacked to compressed size, beyond FREE_BYTES; photos hardly compress
FREE_BYTES = 1 << 30


class TarSource:
    """A plain or compressed tar archive, which stays open.

    The constructor reads the whole archive, which verifies the checksums of the headers and of the
    compression. It raises CatdogError for an archive with too many members, and exceptions of other
    types for a damaged one.
    """

    def __init__(self, path: Path, kind: str, encoding: str | None) -> None:
        self._stream: IO[bytes] = COMPRESSION[kind](path, "rb")
        try:
            self._tar = tarfile.open(  # noqa: SIM115 - closed by close()
                fileobj=cast("IO[bytes]", _HeaderStream(self._stream, path)),
                mode="r:",
                tarinfo=_StrictHeader,
                encoding="utf-8",
                errors="surrogateescape",
            )
            self._read_headers(path, encoding)
            self._tar.fileobj = self._stream  # the limits of headers are not those of photos
        except BaseException:
            self._stream.close()
            raise

    def open(self, member: Member) -> IO[bytes]:
        """Open a member for reading."""
        header = tarfile.TarInfo(member.name)
        header.offset_data, header.size = member.handle
        stream: IO[bytes] | None = self._tar.extractfile(header)
        assert stream is not None  # a regular file
        return stream

    def close(self) -> None:
        """Close the archive."""
        self._tar.close()
        self._stream.close()

    def _read_headers(self, path: Path, encoding: str | None) -> None:
        raw_names: list[bytes] = []
        size = 0
        found: list[tuple[bool, str, tuple[int, int]]] = []
        while header := self._tar.next():
            self._tar.members.clear()  # type: ignore[attr-defined]  # tarfile keeps 1 kB for each
            raw_names.append(header.name.encode("utf-8", "surrogateescape"))
            found.append((header.isdir(), _reason(header), (header.offset_data, header.size)))
            size += len(raw_names[-1])
            if len(found) > MAX_MEMBERS or size > MAX_DIRECTORY_BYTES:
                raise too_many(path)
            if header.size < 0:  # stated in the attributes, which _StrictHeader does not check
                raise tarfile.ReadError("invalid size of a member")
            if len(self._tar.pax_headers) > MAX_GLOBAL_ATTRIBUTES:
                raise tarfile.ReadError("too many global attributes")
        self._check_padding()
        names = name_encoding.decode_all(raw_names, encoding, str(path))
        self.members = [
            Member(name, reason, handle)
            for name, (is_folder, reason, handle) in zip(names, found, strict=True)
            if not is_folder
        ]
        folders = [name for name, (is_folder, _, _) in zip(names, found, strict=True) if is_folder]
        self.empty_folders = without_members(folders, self.members)

    def _check_padding(self) -> None:
        padding = 0
        while piece := self._stream.read(1 << 20):
            padding += len(piece)
            if piece.count(0) < len(piece):
                raise tarfile.ReadError("data after the end, such as a second archive")
            if padding > MAX_PADDING:
                raise tarfile.ReadError(f"more than {MAX_PADDING:,} bytes after the end")


class _HeaderStream:
    """The stream from which tarfile reads headers; it limits how much of an archive is unpacked."""

    def __init__(self, stream: IO[bytes], path: Path) -> None:
        self._stream, self._path = stream, path
        self._end = FREE_BYTES + MAX_RATIO * path.stat().st_size
        self._header_bytes = 0

    def tell(self) -> int:
        """Return the position in the unpacked archive."""
        return self._stream.tell()

    def seek(self, position: int) -> int:
        """Move to the end of a member; CatdogError if the archive unpacks to too many bytes."""
        if position > self._end:
            raise CatdogError(
                f"{self._path}: unpacks to over {MAX_RATIO} times its size, more than "
                f"{self._end:,} bytes; unpack it and pass the folder"
            )
        self._header_bytes = 0
        return self._stream.seek(position)

    def read(self, size: int) -> bytes:
        """Read a part of a header; ReadError for more than MAX_HEADER_BYTES since `seek`."""
        self._header_bytes += size
        if self._header_bytes > MAX_HEADER_BYTES:
            raise tarfile.ReadError("a header is too large")
        return self._stream.read(size)


class _StrictHeader(tarfile.TarInfo):
    """The header of a member; ReadError if it is invalid, where tarfile ends silently.

    https://github.com/python/cpython/issues/120740
    """

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> "_StrictHeader":
        """Return the header in a block of 512 bytes; ReadError if it is invalid."""
        if len(buf) == tarfile.BLOCKSIZE and not any(buf):
            return super().frombuf(buf, encoding, errors)  # raises EOFHeaderError
        if not buf:
            raise tarfile.ReadError("the end of the archive is missing")
        try:
            header = super().frombuf(buf, encoding, errors)
        except tarfile.HeaderError as error:
            raise tarfile.ReadError(str(error)) from None
        # A negative size would be an endless loop: CVE-2025-8194
        if header.size < 0 or (header.type in ATTRIBUTES and header.size > MAX_ATTRIBUTE_BYTES):
            raise tarfile.ReadError("invalid size in a header")
        return header


def _reason(header: tarfile.TarInfo) -> str:
    """Return why a member is refused without reading it; "" if it is not."""
    if header.type == tarfile.LNKTYPE:
        return "hard link"
    if header.issparse():
        return "sparse file"
    if header.type not in FILES:
        return TYPES.get(header.type, "unsupported type of entry")
    return TOO_LARGE if header.size > MAX_BYTES else ""
