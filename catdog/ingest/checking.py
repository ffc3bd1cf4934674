"""Validate the photos of a source in worker processes, and write the valid ones."""

import errno
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.progress import track

from catdog.errors import PhotoError, first_line
from catdog.ingest.entries import Entry
from catdog.ingest.members import Member, Source
from catdog.preparation.photo_limits import MAX_BYTES, TOO_LARGE
from catdog.preparation.photos import check_photo
from catdog.support.process_pool import map_chunks

CHUNK = 32  # maximum number of photos per task of a worker
CHUNK_BYTES = 1 << 22  # maximum number of bytes per task, approximately
PIECE_BYTES = 1 << 20  # per read from a source


@dataclass(frozen=True, slots=True)
class Candidate:
    """A file that may become a photo in data/raw."""

    path: str
    """where it is written if it is a valid photo"""
    content: bytes | None
    """None if it has been written to `path`, because it is larger than CHUNK_BYTES"""
    reason: str
    """why it could not be read; empty if it could"""


@dataclass(frozen=True, slots=True)
class Checked:
    """The result of checking one file."""

    reason: str
    """why it is refused; empty if it is a valid photo"""
    animated: bool = False
    """whether the photo has more frames or pages than the first"""


def check(source: Source, entries: list[Entry], target: Path, workers: int) -> Iterator[Checked]:
    """Yield the result of checking each entry, in order.

    A valid photo is written unchanged into the folder `target`, at the path of its entry. This
    process reads the source once, sequentially; the workers decode and write. Memory does not grow
    with the size of a source or a file: large files are passed to the workers on disk, and the
    number of pending chunks is limited. Raises OSError if a file cannot be written.
    """
    for folder in {entry.path.rpartition("/")[0] for entry in entries}:
        (target / folder).mkdir(parents=True, exist_ok=True)
    console = Console(stderr=True)
    shown = track(entries, "checking photos", console=console, disable=not console.is_terminal)
    results = map_chunks(_check, chunks(source, shown, target), workers, _failed)
    for entry, checked in zip(entries, results, strict=True):
        if checked.reason:
            (target / entry.path).unlink(missing_ok=True)
        yield checked


def chunks(source: Source, entries: Iterable[Entry], target: Path) -> Iterator[list[Candidate]]:
    """Yield lists of at most CHUNK candidates and about CHUNK_BYTES."""
    chunk: list[Candidate] = []
    size = 0
    for entry in entries:
        candidate, length = _load(source, entry.member, f"{target}/{entry.path}")
        chunk.append(candidate)
        size += length
        if len(chunk) == CHUNK or size >= CHUNK_BYTES:
            yield chunk
            chunk, size = [], 0
    if chunk:
        yield chunk


def _load(source: Source, member: Member, path: str) -> tuple[Candidate, int]:
    """Return a member for a worker, and its size in bytes; write a large one to `path`."""
    content = b""
    pieces = _pieces(source, member)
    try:
        for piece in pieces:
            content += piece
            if len(content) > CHUNK_BYTES:
                return _spool(content, pieces, path)
    except PhotoError as error:
        return Candidate(path, None, str(error)), 0
    return Candidate(path, content, ""), len(content)


def _spool(content: bytes, pieces: Iterator[bytes], path: str) -> tuple[Candidate, int]:
    with Path(path).open("wb") as stream:
        stream.write(content)
        for piece in pieces:
            stream.write(piece)
        return Candidate(path, None, ""), stream.tell()


def _pieces(source: Source, member: Member) -> Iterator[bytes]:
    """Yield the content of a member, at most MAX_BYTES; PhotoError if it cannot be read."""
    size = 0
    try:
        with closing(source.open(member)) as stream:
            while piece := stream.read(PIECE_BYTES):
                size += len(piece)
                if size > MAX_BYTES:
                    raise PhotoError(TOO_LARGE)
                yield piece
    except PhotoError:
        raise
    except PermissionError:
        raise PhotoError("permission denied") from None
    except Exception as error:  # zipfile, zlib and tarfile raise many types for damaged members
        # EINVAL: a position before the start of the archive; gzip raises OSError without errno
        if isinstance(error, OSError) and error.errno not in (None, errno.EINVAL):
            raise PhotoError(f"unreadable: {error.strerror}") from None
        reason = first_line(error).split(" for file ")[0]
        raise PhotoError(f"damaged in the archive: {reason}") from None


def _check(candidate: Candidate) -> Checked:
    """Write a candidate if it is a valid photo; return whether it is."""
    if candidate.reason:
        return Checked(candidate.reason)
    try:
        if candidate.content is None:
            return Checked("", check_photo(Path(candidate.path).read_bytes()))
        animated = check_photo(candidate.content)
        Path(candidate.path).write_bytes(candidate.content)
    except PhotoError as error:
        return Checked(str(error))
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            return Checked("file name too long")
        raise
    return Checked("", animated)


def _failed(_: Candidate, reason: str) -> Checked:
    return Checked(reason)
