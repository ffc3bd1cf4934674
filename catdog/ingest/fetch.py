"""`catdog fetch`: download or read photos, import them into data/raw, track them with DVC."""

from contextlib import suppress
from pathlib import Path

from rich.console import Console

from catdog.errors import CatdogError
from catdog.ingest import download, dvc_add, name_encoding, photo_import, replaced
from catdog.ingest.report import report_table
from catdog.paths import DOWNLOADS, QUARANTINE, RAW
from catdog.preparation.class_folders import check_is_no_link


def fetch(
    archive: Path | None,
    url: str | None,
    sha256: str | None,
    replace: bool,
    workers: int | None,
    console: Console,
    class_level: int | None = None,
    encoding: str | None = None,
) -> None:
    """Import photos into data/raw, and print on `console` what was imported and what changed.

    The source is `archive`, a zip archive, a tar archive or a folder, or else the archive at `url`
    (default: Microsoft's 25,000 cats and dogs), whose checksum must be `sha256`. Raises CatdogError
    if the source or an option is invalid, or if data/raw is a symbolic link, or
    exists and `replace` is not set.
    """
    if class_level == 0:
        raise CatdogError(
            "--class-level: invalid value 0; 1 is the outermost folder of a path, -1 the folder "
            "that contains the photo"
        )
    if encoding:
        name_encoding.check(encoding)
    if archive is not None and (url is not None or sha256 is not None):
        raise CatdogError(
            "--archive: cannot be combined with --url or --sha256; pass only one source"
        )
    archive = archive and _expanded(archive)
    check_is_no_link(RAW)
    photo_import.check_replaceable(RAW, replace)
    if archive is None:
        if url is None:
            url, sha256 = download.MICROSOFT_URL, sha256 or download.MICROSOFT_SHA256
        archive = download.download(url, DOWNLOADS, sha256)
    in_project = Path(".dvc").is_dir()
    restore = replaced.keep(RAW) if in_project else None
    report = photo_import.import_photos(
        archive,
        RAW,
        replace=replace,
        quarantine=QUARANTINE,
        workers=workers,
        class_level=class_level,
        encoding=encoding,
    )
    if restore:  # before DVC tracks the new photos, which may fail
        line = f"The replaced photos are in the DVC cache; to restore them: `{restore}`"
        console.print(line, markup=False, highlight=False)
    Console().print(report_table(report))
    if report.empty_classes:
        names = ", ".join(report.empty_classes)
        line = f"Warning: class folders without valid photos are not imported: {names}"
        console.print(line, markup=False, highlight=False)
    if report.splits:
        console.print(
            f"Splits: {', '.join(report.splits)}. To use them, set `prepare.split: given` in "
            "params.yaml; with `content`, they are ignored."
        )
    if in_project:
        _track(console)
    else:
        console.print(f"{RAW}: not tracked with DVC, since this folder is not a DVC project.")


def _expanded(path: Path) -> Path:
    """Return a path with the home folder for ~, which the shell leaves in ARCHIVE='~/photos'."""
    with suppress(RuntimeError):  # there is no user of this name
        return path if path.exists() else path.expanduser()
    return path


def _track(console: Console) -> None:
    """Track the new photos with DVC; print what changed in git."""
    changed = dvc_add.add(RAW)
    if changed is None:
        console.print(f"{RAW}: tracked with DVC, but not in git, since there is no git repository.")
        return
    console.print("Changed in git:" if changed else "No changes in git: the photos are the same.")
    for line in changed:
        console.print(f"  {line}", markup=False, highlight=False)
    if changed:
        console.print("Next: run `dvc repro`; commit to keep this version of the photos.")
