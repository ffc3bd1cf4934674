"""Import photos: validate every file, copy the valid ones to data/raw, list the refused ones."""

import os
import secrets
import shutil
from collections import Counter
from collections.abc import Iterable
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from catdog.errors import CatdogError
from catdog.ingest import stores
from catdog.ingest.checking import Checked, check
from catdog.ingest.entries import Entry, classify, is_renamed
from catdog.ingest.members import Source
from catdog.ingest.replacement import hidden, recover, replace_folder
from catdog.ingest.report import ImportReport, renamed_list
from catdog.ingest.sources import open_source
from catdog.preparation.class_folders import check_is_no_link
from catdog.support.atomic_files import write_rows
from catdog.support.process_pool import usable_cores

ARCHIVE_SUFFIXES = (".zip", ".tar", ".tar.gz", ".tgz", ".7z", ".rar")


@dataclass(frozen=True)
class _Options:
    workers: int
    class_level: int | None
    encoding: str | None


def import_photos(
    archive: Path,
    raw: Path,
    *,
    replace: bool,
    quarantine: Path,
    workers: int | None = None,
    class_level: int | None = None,
    encoding: str | None = None,
) -> ImportReport:
    """Import the photos of an archive or folder, byte for byte, as raw/<class>/<name>.

    If the source has split folders, the photos are in raw/<split>/<class>. `class_level` is that of
    `read_layout`, and `encoding` that of `open_source`. Every photo is decoded completely first;
    all other files are listed in the CSV file `quarantine` (file, reason), or, if nothing is
    imported, in `<quarantine>-failed.csv`. Photos that get another name, because it
    is too long or another file of the class has it, are listed in `renamed.csv` next to it (file,
    photo). With `replace`, existing photos in `raw` are replaced once the new ones are complete. If
    the process is killed, either the old or the new photos remain; if it is killed between the two
    renames of `replace_folder`, `raw` is missing until the next import, which restores the old
    photos. Raises CatdogError for a missing or damaged archive,
    for an archive that would be deleted with the old photos, for a layout that can be read in two
    ways, for fewer than two classes, if `raw` is a symbolic link, if it exists and `replace` is
    false, while another import is in progress, and for errors of the file system such as a full
    disk.
    """
    check_is_no_link(raw)
    check_archive_is_outside(archive, raw)
    try:
        raw.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(hidden(raw, "lock"), timeout=0):
            recover(raw)
            check_replaceable(raw, replace)
            options = _Options(workers or usable_cores(), class_level, encoding)
            return _import(archive, raw, quarantine, options)
    except Timeout:
        raise CatdogError(f"{raw}: another import is in progress; wait for it to finish") from None
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
    # Path.resolve raises RuntimeError for a link to itself.
    source, target = Path(os.path.realpath(archive)), Path(os.path.realpath(raw))
    if source.is_relative_to(target):
        raise CatdogError(
            f"{archive}: would be deleted with the old photos of {raw}; move it to another folder"
        )
    if target.is_relative_to(source) and raw.exists():
        raise CatdogError(
            f"{archive}: contains {raw}, which would be replaced; pass another folder"
        )


def _import(archive: Path, raw: Path, quarantine: Path, options: _Options) -> ImportReport:
    # A random name, so that remaining workers of a killed import cannot write into this folder.
    incoming = hidden(raw, f"incoming-{secrets.token_hex(4)}")
    incoming.mkdir()
    renamed = hidden(raw, "renamed")
    failed = quarantine.with_name(f"{quarantine.stem}-failed{quarantine.suffix}")
    try:
        with closing(open_source(archive, options.encoding)) as source:
            entries, empty = _classify(archive, source, options.class_level)
            results = check(source, [e for e in entries if not e.reason], incoming, options.workers)
            checked = [
                (entry, Checked(entry.reason) if entry.reason else next(results))
                for entry in entries
            ]
            next(results, None)  # ends the generator, which closes the pool of workers
        report = _report(checked, empty, quarantine)
        # The list in `quarantine` belongs to the photos in `raw` until they are replaced.
        write_rows(failed, ["file", "reason"], report.refused)
        if len(report.imported) < 2:
            raise CatdogError(_too_few_classes(archive, report, failed))
        for entry in {(e.given_split, e.class_name): e for e in entries if e.path}.values():
            with suppress(OSError):  # raised if there are photos in it
                os.removedirs((incoming / entry.path).parent)
        write_rows(renamed, ["file", "photo"], report.renamed)
        replace_folder(raw, incoming)
        failed.replace(quarantine)
        renamed.replace(renamed_list(quarantine))
    finally:
        renamed.unlink(missing_ok=True)
        shutil.rmtree(incoming, ignore_errors=True)
    return report


def _classify(
    archive: Path, source: Source, class_level: int | None
) -> tuple[list[Entry], dict[str, str]]:
    stores.check(archive, source.members)
    try:
        return classify(source.members, source.empty_folders, class_level)
    except CatdogError as error:
        raise CatdogError(f"{archive}: {error}") from None


def _report(
    checked: list[tuple[Entry, Checked]], empty_classes: Iterable[str], quarantine: Path
) -> ImportReport:
    photos = [entry for entry, result in checked if not result.reason]
    imported = Counter(entry.class_name for entry in photos)
    splits = Counter(entry.given_split for entry in photos if entry.given_split)
    named = {entry.class_name for entry, _ in checked} - {""}
    return ImportReport(
        imported=dict(sorted(imported.items())),
        refused=sorted((e.name, result.reason) for e, result in checked if result.reason),
        quarantine=quarantine,
        splits=dict(sorted(splits.items())),
        empty_classes=sorted((named | set(empty_classes)) - set(imported)),
        animated=sum(result.animated for _, result in checked),
        renamed=[(entry.name, entry.path) for entry in photos if is_renamed(entry)],
    )


def _too_few_classes(archive: Path, report: ImportReport, failed: Path) -> str:
    nested = [name for name, _ in report.refused if name.lower().endswith(ARCHIVE_SUFFIXES)]
    hint = f"; the refused files are listed in {failed}" if report.refused else ""
    if nested and not report.imported:
        return f"{archive}: contains other archives; unpack it and pass {nested[0]}{hint}"
    found = ", ".join(report.imported) or "none"
    empty = f"; without: {', '.join(report.empty_classes)}" if report.empty_classes else ""
    return (
        f"{archive}: photos of at least two classes are required, in folders such as cat/ and "
        f"dog/; classes with valid photos: {found}{empty}{hint}"
    )
