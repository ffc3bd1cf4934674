"""Replace a folder of photos as a whole, and recover from an import that was killed."""

import glob
import shutil
import time
from pathlib import Path

from catdog.preparation.class_folders import replaced_photos


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
    incoming = f"{glob.escape(hidden(raw, 'incoming').name)}*"
    hidden(raw, "renamed").unlink(missing_ok=True)
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


def hidden(raw: Path, suffix: str) -> Path:
    """Return the path of a hidden file or folder next to `raw`."""
    return raw.with_name(f".{raw.name}.{suffix}")
