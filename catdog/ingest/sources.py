"""Open a source of photos: a zip archive, a tar archive or a folder."""

import tarfile
import zipfile
from pathlib import Path

from catdog.errors import CatdogError, first_line
from catdog.ingest.folder_source import FolderSource
from catdog.ingest.members import Source
from catdog.ingest.tar_source import TarSource
from catdog.ingest.zip_source import ZipSource

# The first bytes of archives, https://www.garykessler.net/library/file_sigs.html
MAGIC = {
    b"PK\3\4": "zip",
    b"PK\5\6": "zip",
    b"PK\7\x08": "zip",
    b"\x1f\x8b": "tar.gz",
    b"BZh": "tar.bz2",
    b"\xfd7zXZ\0": "tar.xz",
    b"\x28\xb5\x2f\xfd": "tar.zst",
    b"7z\xbc\xaf\x27\x1c": "7z",
    b"Rar!\x1a\x07": "rar",
}
UNPACK = {
    "tar.zst": "unpack it with `tar --zstd -xf`",
    "7z": "unpack it with 7-Zip",
    "rar": "unpack it with unrar",
}
TAR_MAGIC = b"ustar"
TAR_MAGIC_OFFSET = 257


def archive_kind(head: bytes) -> str:
    """Return the kind of an archive, a key of MAGIC, from its first 512 bytes; "" for none."""
    if head[TAR_MAGIC_OFFSET:].startswith(TAR_MAGIC):
        return "tar"
    return next((kind for magic, kind in MAGIC.items() if head.startswith(magic)), "")


def open_source(path: Path, encoding: str | None = None) -> Source:
    """Open an archive or a folder, and list its members.

    `encoding` is that of file names for which an archive does not state it (default: detected).
    Raises CatdogError if the path is missing or of another kind, if the archive cannot be read to
    its end, and if the encoding cannot be detected.
    """
    if path.is_dir():
        return FolderSource(path, encoding)
    if not path.exists():
        raise CatdogError(f"{path}: no such file; pass a zip archive, a tar archive or a folder")
    with path.open("rb") as stream:
        kind = archive_kind(stream.read(tarfile.BLOCKSIZE))
    if kind in UNPACK:
        raise CatdogError(
            f"{path}: {kind} archives are not supported; {UNPACK[kind]} and pass the folder"
        )
    try:
        if kind == "zip" or (not kind and zipfile.is_zipfile(path)):
            return ZipSource(path, encoding)
        if kind or tarfile.is_tarfile(path):
            return TarSource(path, kind or "tar", encoding)
    except CatdogError:
        raise
    except Exception as error:  # zipfile, tarfile and the decompressors raise many types
        raise CatdogError(
            f"{path}: damaged archive ({first_line(error)}); download it again"
        ) from None
    raise CatdogError(
        f"{path}: neither a zip nor a tar archive; pass another file, or download it again if it "
        "is incomplete"
    )
