"""Import photos: validate every file, copy the valid ones to data/raw, list the refused ones."""

import errno
import glob
import secrets
import shutil
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

from catdog.errors import CatdogError, PhotoError
from catdog.ingest.archives import Source, open_source
from catdog.ingest.entries import Entry, classify
from catdog.preparation.class_folders import replaced_photos
from catdog.preparation.photos import check_photo
from catdog.support.atomic_files import write_rows
from catdog.support.process_pool import map_chunks, usable_cores

CHUNK = 32  # maximum number of files per task of a worker
CHUNK_BYTES = 1 << 22  # maximum number of bytes per task, approximately
SHOWN_REASONS = 12


@dataclass(frozen=True)
class ImportReport:
    """Which files were imported and which were refused."""

    imported: dict[str, int]
    """number of photos by class"""
    refused: list[tuple[str, str]]
    """file name and reason, sorted"""
    quarantine: Path
    """CSV file that lists the refused files"""


def import_photos(
    archive: Path, raw: Path, *, replace: bool, quarantine: Path, workers: int | None = None
) -> ImportReport:
    """Import the photos of an archive or folder, byte for byte, as raw/<class>/<name>.

    Every photo is decoded completely first; files that are not valid photos are listed in the CSV
    file `quarantine` (file, reason). With `replace`, existing photos in `raw` are replaced once the
    new ones are complete. If the process is killed, either the old or the new photos remain; if it
    is killed between the two renames of `replace_folder`, `raw` is missing until the next import,
    which restores the old photos. Raises CatdogError for a missing or damaged archive, for an
    archive that would be deleted with the old photos, for fewer than two classes, if `raw` exists
    and `replace` is false, while another import is in progress, and for errors of the file system
    such as a full disk.
    """
    if raw.is_symlink():
        raw = raw.resolve()  # replace the target of the link, and keep the link
    check_archive_is_outside(archive, raw)
    try:
        raw.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(_hidden(raw, "lock"), timeout=0):
            recover(raw)
            check_replaceable(raw, replace)
            return _import(archive, raw, quarantine, workers or usable_cores())
    except Timeout:
        raise CatdogError(f"{raw}: another import is in progress; wait for it to finish") from None
    except BrokenProcessPool:
        raise CatdogError(
            f"{raw}: a worker process was killed, possibly out of memory; no files were changed; "
            "retry with --workers 1"
        ) from None
    except OSError as error:
        raise CatdogError(f"{raw}: {error}; no files were changed") from None


def check_replaceable(raw: Path, replace: bool) -> None:
    """Raise CatdogError if `raw` exists and `replace` is false."""
    if raw.exists() and not replace:
        raise CatdogError(f"{raw}: already exists; use --replace to replace its photos")


def check_archive_is_outside(archive: Path, raw: Path) -> None:
    """Raise CatdogError if the archive or folder is `raw`, is inside it, or contains it.

    Replacing `raw` would delete the archive, or the files in `raw` that are refused.
    """
    source, target = archive.resolve(), raw.resolve()
    if source.is_relative_to(target):
        raise CatdogError(
            f"{archive}: would be deleted with the old photos of {raw}; move it to another folder"
        )
    if target.is_relative_to(source) and raw.exists():
        raise CatdogError(
            f"{archive}: contains {raw}, which would be replaced; pass another folder"
        )


def _import(archive: Path, raw: Path, quarantine: Path, workers: int) -> ImportReport:
    # A random name, so that leftover workers of a killed import cannot write into this folder.
    incoming = _hidden(raw, f"incoming-{secrets.token_hex(4)}")
    incoming.mkdir()
    try:
        with closing(open_source(archive)) as source:
            entries = classify(source.names())
            refused = [(entry.name, entry.reason) for entry in entries if entry.reason]
            imported: Counter[str] = Counter()
            for entry, reason in _check_all(source, entries, incoming, workers):
                if reason:
                    refused.append((entry.name, reason))
                else:
                    imported[entry.class_name] += 1
        write_rows(quarantine, ["file", "reason"], sorted(refused))
        if len(imported) < 2:
            raise CatdogError(_too_few_classes(archive, imported, entries, quarantine))
        for folder in incoming.iterdir():
            if folder.name not in imported:  # no valid photo: an empty folder is not a class
                folder.rmdir()
        replace_folder(raw, incoming)
    finally:
        shutil.rmtree(incoming, ignore_errors=True)
    return ImportReport(dict(sorted(imported.items())), sorted(refused), quarantine)


def _too_few_classes(
    archive: Path, imported: Counter[str], entries: list[Entry], quarantine: Path
) -> str:
    nested = [e.name for e in entries if e.name.lower().endswith((".zip", ".tar", ".tar.gz"))]
    if nested:
        return f"{archive}: contains other archives; unpack it and pass {nested[0]}"
    found = ", ".join(sorted(imported)) or "none"
    refused = len(entries) > imported.total()
    hint = f"; the refused files are listed in {quarantine}" if refused else ""
    return (
        f"{archive}: photos of at least two classes are required, in folders such as cat/ and "
        f"dog/; classes with valid photos: {found}{hint}"
    )


Checked = tuple[Entry, str]


def _check_all(
    source: Source, entries: list[Entry], target: Path, workers: int
) -> Iterator[Checked]:
    """Write valid photos to `target`; yield each entry and why it is refused, "" if it is valid.

    This process reads the archive once, sequentially; the workers decode and write. The number of
    pending chunks is limited, so memory does not grow with the size of the archive.
    """
    candidates = [entry for entry in entries if not entry.reason]
    for name in {entry.class_name for entry in candidates}:
        (target / name).mkdir(parents=True, exist_ok=True)
    console = Console(stderr=True)
    shown = track(candidates, "checking photos", console=console, disable=not console.is_terminal)
    return map_chunks(partial(_check, target), _chunks(source, shown), workers, _failed)


def _chunks(source: Source, entries: Iterable[Entry]) -> Iterator[list[tuple[Entry, bytes | str]]]:
    """Yield lists of entries with their content: at most CHUNK, and about CHUNK_BYTES at most."""
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
    """Return the content of a file, or the reason why it cannot be read."""
    try:
        return source.read(entry.name)
    except PhotoError as error:
        return str(error)
    except PermissionError:
        return "permission denied"
    except Exception as error:  # zipfile, zlib and tarfile raise many types for damaged members
        return f"damaged in the archive: {str(error).split(' for file ')[0]}"


def _check(target: Path, item: tuple[Entry, bytes | str]) -> Checked:
    entry, content = item
    return entry, _check_one(entry, content, target)


def _failed(item: tuple[Entry, bytes | str], reason: str) -> Checked:
    return item[0], reason


def _check_one(entry: Entry, content: bytes | str, target: Path) -> str:
    if isinstance(content, str):
        return content
    if not content:
        return "empty file"
    try:
        check_photo(content)
    except PhotoError as error:
        return str(error)
    try:
        (target / entry.class_name / entry.file_name).write_bytes(content)
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            return "file name too long"
        raise
    return ""


def replace_folder(raw: Path, incoming: Path) -> None:
    """Rename the folder `incoming` to `raw`, and remove the old `raw`, if any.

    An existing `raw` is renamed first. If the process is killed between the two renames, both
    folders have hidden names; `recover`, which every import runs first, restores the old one.
    """
    if not raw.exists():
        incoming.rename(raw)
        return
    old = replaced_photos(raw)
    raw.rename(old)
    try:
        incoming.rename(raw)
    except OSError:
        old.rename(raw)
        raise
    shutil.rmtree(old, ignore_errors=True)  # if this fails, `recover` retries in the next import


def recover(raw: Path) -> None:
    """Restore and clean up what a killed import left; the caller must hold the import lock."""
    old = replaced_photos(raw)
    if old.exists() and not raw.exists():
        old.rename(raw)
    incoming = f"{glob.escape(_hidden(raw, 'incoming').name)}*"
    for leftover in (old, *raw.parent.glob(incoming)):
        _remove(leftover)


def _remove(folder: Path) -> None:
    """Remove a folder, even while a worker of a killed import still writes a photo into it.

    With the start methods spawn and forkserver, workers do not inherit the import lock.
    """
    for _ in range(40):
        shutil.rmtree(folder, ignore_errors=True)
        if not folder.exists():
            return
        time.sleep(0.05)


def _hidden(raw: Path, suffix: str) -> Path:
    return raw.with_name(f".{raw.name}.{suffix}")


def report_table(report: ImportReport) -> Table:
    """Return a table of the imported photos by class and the refused files by reason."""
    table = Table("files", "class or reason", title="Imported photos")
    for name, photos in report.imported.items():
        table.add_row(f"{photos:,}", Text(name))  # Text, because "[indoor]" is not markup
    table.add_section()
    reasons = Counter(reason for _, reason in report.refused)
    for reason, files in reasons.most_common(SHOWN_REASONS):
        table.add_row(f"{files:,}", Text(f"refused: {reason}"))
    if rest := sum(reasons.values()) - sum(n for _, n in reasons.most_common(SHOWN_REASONS)):
        table.add_row(f"{rest:,}", "refused for other reasons")
    table.caption = f"All refused files: {report.quarantine}" if report.refused else None
    return table
