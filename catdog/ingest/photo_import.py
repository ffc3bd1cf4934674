"""Bring photos in: check every one, put the good ones in place all at once, list the others."""

import ctypes
import errno
import glob
import io
import os
import secrets
import shutil
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from filelock import FileLock, Timeout
from rich.console import Console
from rich.progress import track
from rich.table import Table
from rich.text import Text

from catdog.errors import CatdogError
from catdog.ingest.archives import Entry, Source, open_source, sort_entries
from catdog.preparation.photos import PhotoError, open_photo
from catdog.support.atomic_files import write_rows
from catdog.support.process_pool import map_chunks, usable_cores

CHUNK = 32  # photos that a process checks at a time,
CHUNK_BYTES = 1 << 22  # or fewer, if they are large
AT_FDCWD, RENAME_EXCHANGE, RENAME_SWAP = -100, 2, 2  # of renameat2(2) and renamex_np(2)
SHOWN_REASONS = 12


@dataclass(frozen=True)
class ImportReport:
    """What came in and what did not."""

    taken: dict[str, int]
    """photos by class"""
    refused: list[tuple[str, str]]
    """file and reason"""
    quarantine: Path
    """where the refused files are listed"""


def import_photos(
    archive: Path, raw: Path, *, replace: bool, quarantine: Path, workers: int | None = None
) -> ImportReport:
    """Make `raw` hold the photos of an archive or folder, as raw/<class>/<name>, byte for byte.

    Every photo is decoded completely first; what fails, or is no photo, is listed in the CSV file
    `quarantine` (file, reason). The old set, if `replace` allows it, gives way in one step when
    all is ready: a kill at any moment leaves it or the new one. Raises CatdogError for a missing or
    damaged archive, or one that would go with the old set, for fewer than two classes, when `raw`
    is there, while another import runs, and when the disk is full.
    """
    if raw.is_symlink():
        raw = raw.resolve()  # the photos lie on another disk: exchange them there, keep the link
    refuse_to_lose(archive, raw)
    try:
        raw.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(_hidden(raw, "lock"), timeout=0):
            recover(raw)
            refuse_to_overwrite(raw, replace)
            return _import(archive, raw, quarantine, workers or usable_cores())
    except Timeout:
        raise CatdogError(f"{raw}: another import is running; wait for it to end") from None
    except BrokenProcessPool:
        raise CatdogError(
            f"{raw}: a process that checked photos was killed, perhaps for want of memory; "
            f"nothing was changed; try --workers 1"
        ) from None
    except OSError as error:
        raise CatdogError(f"{raw}: nothing was changed: {error}") from None


def refuse_to_overwrite(raw: Path, replace: bool) -> None:
    """Raise CatdogError if `raw` holds photos that may not be replaced."""
    if raw.exists() and not replace:
        raise CatdogError(f"{raw}: there are photos already; --replace puts the new ones there")


def refuse_to_lose(archive: Path, raw: Path) -> None:
    """Raise CatdogError if the archive or folder is in `raw`, is `raw`, or holds it.

    What is in `raw` is removed in the end: the archive itself, or the files that were refused.
    """
    source, target = archive.resolve(), raw.resolve()
    if source.is_relative_to(target):
        raise CatdogError(
            f"{archive}: would be removed with the old photos of {raw}; move it to another folder"
        )
    if target.is_relative_to(source) and raw.exists():
        raise CatdogError(f"{archive}: holds {raw}, which is to be replaced; give another folder")


def _import(archive: Path, raw: Path, quarantine: Path, workers: int) -> ImportReport:
    # A new name each time: a process of a killed import must find nothing to write into.
    incoming = _hidden(raw, f"incoming-{secrets.token_hex(4)}")
    incoming.mkdir()
    try:
        with closing(open_source(archive)) as source:
            entries = sort_entries(source.names())
            refused = [(entry.name, entry.reason) for entry in entries if entry.reason]
            taken: Counter[str] = Counter()
            for entry, reason in _check_all(source, entries, incoming, workers):
                if reason:
                    refused.append((entry.name, reason))
                else:
                    taken[entry.class_name] += 1
        write_rows(quarantine, ["file", "reason"], sorted(refused))
        if len(taken) < 2:
            raise CatdogError(_too_few(archive, taken, entries, quarantine))
        for folder in incoming.iterdir():
            if folder.name not in taken:  # none of its photos was good, and no class is empty
                folder.rmdir()
        swap(incoming, raw)
    finally:
        shutil.rmtree(incoming, ignore_errors=True)
    return ImportReport(dict(sorted(taken.items())), sorted(refused), quarantine)


def _too_few(archive: Path, taken: Counter[str], entries: list[Entry], quarantine: Path) -> str:
    nested = [e.name for e in entries if e.name.lower().endswith((".zip", ".tar", ".tar.gz"))]
    if nested:
        return f"{archive}: holds further archives; unpack it and give {nested[0]}"
    found = ", ".join(sorted(taken)) or "none"
    listed = f"; {quarantine} says what was refused and why" if len(entries) > taken.total() else ""
    return (
        f"{archive}: needs photos of at least two classes, in folders such as cat/ and dog/, but "
        f"has good ones of: {found}{listed}"
    )


Checked = tuple[Entry, str]


def _check_all(
    source: Source, entries: list[Entry], target: Path, workers: int
) -> Iterator[Checked]:
    """Yield each entry with the reason for which it is refused, "" if it lies in `target` now.

    This process reads the archive once from front to back, the others decode and write. At most
    four chunks a process are under way, so memory grows neither with the archive nor its photos.
    """
    wanted = [entry for entry in entries if not entry.reason]
    for name in {entry.class_name for entry in wanted}:
        (target / name).mkdir(parents=True, exist_ok=True)
    console = Console(stderr=True)
    shown = track(wanted, "checking photos", console=console, disable=not console.is_terminal)
    return map_chunks(partial(_check, target), _chunks(source, shown), workers)


def _chunks(source: Source, entries: Iterable[Entry]) -> Iterator[list[tuple[Entry, bytes | str]]]:
    """Yield entries with what was read of them, at most CHUNK and few more than CHUNK_BYTES."""
    chunk: list[tuple[Entry, bytes | str]] = []
    size = 0
    for entry in entries:
        content = _read(source, entry)
        chunk.append((entry, content))
        size += len(content)
        if len(chunk) == CHUNK or size >= CHUNK_BYTES:
            yield chunk
            chunk, size = [], 0
    if chunk:
        yield chunk


def _read(source: Source, entry: Entry) -> bytes | str:
    """Return the bytes of a file, or the reason why they cannot be had."""
    try:
        return source.read(entry.name)
    except PhotoError as error:
        return str(error)
    except PermissionError:
        return "may not be read"
    except Exception as error:  # zipfile, zlib and tarfile raise many kinds for damaged members
        return f"damaged in the archive: {str(error).split(' for file ')[0]}"


def _check(target: Path, chunk: list[tuple[Entry, bytes | str]]) -> list[Checked]:
    return [(entry, _check_one(entry, content, target)) for entry, content in chunk]


def _check_one(entry: Entry, content: bytes | str, target: Path) -> str:
    if isinstance(content, str):
        return content
    if not content:
        return "empty file"
    try:
        open_photo(io.BytesIO(content))
    except PhotoError as error:
        return str(error)
    try:
        (target / entry.class_name / entry.file_name).write_bytes(content)
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            return "its name is too long"
        raise
    return ""


def swap(incoming: Path, raw: Path) -> None:
    """Put the folder `incoming` in the place of `raw`; the old one, if any, is removed.

    Linux and macOS exchange two folders in one step. Elsewhere it takes two renames, and `recover`
    mends what a kill between them leaves.
    """
    if not raw.exists():
        incoming.rename(raw)
    elif not _exchange(incoming, raw):
        old = _hidden(raw, "old")
        raw.rename(old)
        try:
            incoming.rename(raw)
        except OSError:
            old.rename(raw)
            raise
        shutil.rmtree(old, ignore_errors=True)  # the new ones are there; `recover` tries again


def recover(raw: Path) -> None:
    """Mend and remove what a killed import left; call it only while holding its lock."""
    old = _hidden(raw, "old")
    if old.exists() and not raw.exists():
        old.rename(raw)
    incoming = f"{glob.escape(_hidden(raw, 'incoming').name)}*"
    for leftover in (old, *raw.parent.glob(incoming)):
        _remove(leftover)


def _remove(folder: Path) -> None:
    """Remove a folder, even if a worker of a killed import writes its last photo into it now."""
    for _ in range(40):
        shutil.rmtree(folder, ignore_errors=True)
        if not folder.exists():
            return
        time.sleep(0.05)


def _exchange(one: Path, other: Path) -> bool:
    """Exchange two paths in one step; return whether this system and file system can."""
    if sys.platform not in ("linux", "darwin"):
        return False
    libc = ctypes.CDLL(None, use_errno=True)
    names = os.fsencode(one), os.fsencode(other)
    if sys.platform == "linux" and hasattr(libc, "renameat2"):
        failed = libc.renameat2(AT_FDCWD, names[0], AT_FDCWD, names[1], RENAME_EXCHANGE)
    elif sys.platform == "darwin":
        failed = libc.renamex_np(*names, RENAME_SWAP)
    else:
        return False
    if failed and ctypes.get_errno() not in (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), str(other))
    return not failed


def _hidden(raw: Path, what: str) -> Path:
    return raw.with_name(f".{raw.name}.{what}")


def report_table(report: ImportReport) -> Table:
    """Return a table of what came in and what did not."""
    table = Table("photos", "class, or why not", title="Imported")
    for name, photos in report.taken.items():
        table.add_row(f"{photos:,}", Text(name))  # [indoor] in it is no markup
    table.add_section()
    reasons = Counter(reason for _, reason in report.refused)
    for reason, files in reasons.most_common(SHOWN_REASONS):
        table.add_row(f"{files:,}", Text(f"refused: {reason}"))
    if rest := sum(reasons.values()) - sum(n for _, n in reasons.most_common(SHOWN_REASONS)):
        table.add_row(f"{rest:,}", "refused for other reasons")
    table.caption = f"All refused files: {report.quarantine}" if report.refused else None
    return table
