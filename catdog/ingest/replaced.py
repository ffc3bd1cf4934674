"""Keep the photos that an import replaces: in DVC's cache, with a command that restores them."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from catdog.errors import CatdogError
from catdog.ingest import dvc_add
from catdog.paths import REPLACED
from catdog.preparation.class_folders import raise_error, storage_problem
from catdog.support import git
from catdog.support.yaml_files import parse_mapping


def keep(raw: Path) -> str | None:
    """Track the photos in the folder `raw` with DVC as they are now, before they are replaced.

    Returns the command that restores them; None if there are no photos, or if the last commit has
    this version, so that git restores it. Without this, photos that were added by hand would be
    deleted, and nothing would name a version that was imported but not committed. Raises
    CatdogError for a file that DVC cannot read, and if DVC or git fails.
    """
    pointer = raw.with_name(f"{raw.name}.dvc")
    if not raw.is_dir():
        return None
    try:
        _check_readable(raw)
        if not pointer.is_file() or _is_changed(pointer):
            dvc_add.track(raw)
        if _is_committed(pointer):
            return None
    except CatdogError as error:
        raise CatdogError(f"{error}; no photos have been replaced") from None
    outs = parse_mapping(pointer.read_text(encoding="utf-8"), str(pointer))["outs"]
    version = next(out["md5"] for out in outs if out["path"] == raw.name)
    copy = REPLACED / f"{version[:10]}.dvc"
    copy.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(pointer, copy)
    return f"cp {copy} {pointer} && dvc checkout {pointer}"


def _check_readable(raw: Path) -> None:
    """Raise CatdogError for a file that DVC cannot read, also a hidden one.

    DVC reports a broken link as an unexpected error, and waits forever for a named pipe.
    """
    for folder, _, names in os.walk(raw, onerror=raise_error):
        for name in names:
            if problem := storage_problem(f"{folder}/{name}"):
                raise CatdogError(f"{folder}/{name}: {problem}")


def _is_changed(pointer: Path) -> bool:
    """Return whether the photos differ from the version in the .dvc file."""
    command = [sys.executable, "-m", "dvc", "status", "--quiet", str(pointer)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode not in (0, 1):
        raise CatdogError(f"dvc status failed: {dvc_add.reason(done)}")
    return done.returncode == 1


def _is_committed(pointer: Path) -> bool:
    """Return whether the last commit has this .dvc file, unchanged."""
    blob = git.find("rev-parse", "--verify", "--quiet", f"HEAD:./{pointer}")
    return bool(blob) and not git.find("diff", "--name-only", "HEAD", "--", str(pointer))
