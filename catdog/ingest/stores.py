"""Refuse folders in which a program stores files by their hash, and which have no class folders."""

import re
from pathlib import Path

from catdog.errors import CatdogError
from catdog.ingest.members import Member

# https://huggingface.co/docs/huggingface_hub/guides/manage-cache: models--NAME/snapshots/COMMIT/…
# has links to models--NAME/blobs/HASH.
SNAPSHOT = re.compile(r"(?P<store>(?:.*/)?)snapshots/[0-9a-f]{40}/")
# https://dvc.org/doc/user-guide/project-structure/internal-files: files/md5/5c/dcedd0e4…
DVC_FILE = re.compile(r"[0-9a-f]{2}/[0-9a-f]{30}(?:\.dir)?")
IN_DVC_CACHE = re.compile(rf"(?:.*/)?files/md5/{DVC_FILE.pattern}")


def check(path: Path, members: list[Member]) -> None:
    """Raise CatdogError if a source is a cache of the Hugging Face Hub or of DVC.

    Its folders would become classes: `blobs` and `snapshots`, or `00` to `ff`.
    """
    names = [member.name.replace("\\", "/") for member in members]
    unpack = "" if path.is_dir() else "unpack it and "
    folder = f"{path}/" if path.is_dir() else ""
    for name in names:
        if match := SNAPSHOT.match(name):
            others = (f"{match['store']}blobs/", f"{match['store']}refs/")
            if any(other.startswith(others) for other in names):
                raise CatdogError(
                    f"{path}: cache of the Hugging Face Hub, whose folders are not classes; "
                    f"{unpack}pass one of its snapshots, such as {folder}{match[0]}".rstrip("/")
                )
            break
    # The cache also has other files; those in files/md5 may be all of a source.
    if any(map(IN_DVC_CACHE.fullmatch, names)) or all(map(DVC_FILE.fullmatch, names or [""])):
        raise CatdogError(
            f"{path}: cache of DVC, whose folders are not classes; run `dvc checkout` in its "
            "project and pass the folder of photos there"
        )
