"""Mutated archives and folders through import_photos, with accounts of every entry."""

import io
import os
import random
import tarfile
import zipfile
from functools import cache
from pathlib import Path

from PIL import Image

from catdog.errors import CatdogError
from catdog.ingest.photo_import import import_photos
from tools.fuzz.mutations import mutate_bytes
from tools.fuzz.runner import GIGABYTE, InvariantError

NAMES = (
    *("../../outside", "/tmp/catdog-fuzz-escape", "..\\..\\outside", "C:\\outside", "cat/../../x"),
    *("", ".", "/", "cat", "cat/", "cat//1.png", "CAT/1.png", "cat /1.png", "cat/\x00.png"),
    *("cat/" + "x" * 300 + ".png", "a/" * 200 + "1.png", "cat/é.png", "cat/e\u0301.png", "dog/CON"),
    *("test/cat/1.png", "__MACOSX/cat/._1.png", "cat/1.zip", "cat/2/1.png", "-rf", "cat/\n.png"),
)
TYPES = (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE, b"S", b"?")
OLD = ("cat/old.png", "dog/old.png")
ESCAPE = Path("/tmp/catdog-fuzz-escape")  # one of NAMES


class Archives:
    """The target; each input is an archive or a folder, and the number of its entries."""

    max_bytes = GIGABYTE

    def make(self, rng: random.Random, folder: Path) -> None:
        """Write an archive with strange entries, and mutate its bytes in half of the cases."""
        entries = [
            (f"{kind}/{index}.png", photos()[index])
            for kind in ("cat", "dog")
            for index in range(4)
        ]
        for _ in range(rng.choice((0, 0, 1, 2))):
            at = rng.randrange(len(entries))
            name = rng.choice((*NAMES, rng.choice(entries)[0]))
            content = rng.choice(
                (entries[at][1], b"", b"no photo", mutate_bytes(rng, entries[at][1]))
            )
            entries[at] = name, content
        kind = rng.choice(("zip", "zip", "tar", "tar.gz", "tar.xz", "folder"))
        if kind == "folder":
            number = _write_folder(rng, folder / "photos", entries)
        else:
            data = _zip(rng, entries) if kind == "zip" else _tar(rng, entries, kind[4:])
            if rng.random() < 0.5:
                data = mutate_bytes(rng, data, data)
            (folder / "photos").write_bytes(data)
            # An empty member of a zip archive with a slash at the end of its name is a folder.
            folders = [n for n, c in entries if kind == "zip" and n.endswith("/") and not c]
            number = len(entries) - len(folders)
        (folder / "entries").write_text(str(number))

    def check(self, folder: Path) -> None:
        """Import; every entry must be imported or refused, and a failure must change nothing."""
        raw, quarantine = Path("data/raw"), Path("data/quarantine.csv")
        for name in OLD:
            (raw / name).parent.mkdir(parents=True)
            (raw / name).write_bytes(photos()[0])
        before = _files(raw)
        try:
            report = import_photos(
                folder / "photos", raw, replace=True, quarantine=quarantine, workers=1
            )
        except CatdogError:
            if _files(raw) != before:
                raise InvariantError("changed on failure", "the old photos were changed") from None
            raise
        finally:
            if ESCAPE.exists():
                ESCAPE.unlink()
                raise InvariantError("escape", f"{ESCAPE} was written")
        written, imported = len(_files(raw)), sum(report.imported.values())
        if written != imported:
            raise InvariantError("data loss", f"{imported} imported, {written} files written")
        known, entries = imported + len(report.refused), int((folder / "entries").read_text())
        if known < entries:
            raise InvariantError("data loss", f"{known} of {entries} entries imported or refused")


@cache
def photos() -> tuple[bytes, ...]:
    """Return small photos with different content."""
    found = []
    for number in range(4):
        stream = io.BytesIO()
        noise = random.Random(number).randbytes(16 * 16 * 3)
        Image.frombytes("RGB", (16, 16), noise).save(stream, "PNG")
        found.append(stream.getvalue())
    return tuple(found)


def _files(folder: Path) -> dict[str, bytes]:
    return {str(f.relative_to(folder)): f.read_bytes() for f in folder.rglob("*") if f.is_file()}


def _zip(rng: random.Random, entries: list[tuple[str, bytes]]) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, content in entries:
            info = zipfile.ZipInfo(name)
            info.filename = name  # ZipInfo cuts at a null character
            info.compress_type = rng.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED))
            if rng.random() < 0.05:
                info.external_attr = 0o120777 << 16  # a symbolic link
            archive.writestr(info, content)
    return stream.getvalue()


def _tar(rng: random.Random, entries: list[tuple[str, bytes]], compression: str) -> bytes:
    stream = io.BytesIO()
    form = rng.choice((tarfile.PAX_FORMAT, tarfile.GNU_FORMAT))
    with tarfile.open(fileobj=stream, mode=f"w:{compression}", format=form) as archive:  # type: ignore[call-overload]
        for name, content in entries:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            if rng.random() < 0.05:
                info.type = rng.choice(TYPES)
                info.linkname = rng.choice(("../../outside", "/etc/passwd", "cat/0.png", name))
                info.size = 0
            archive.addfile(info, io.BytesIO(content))
    return stream.getvalue()


def _write_folder(rng: random.Random, root: Path, entries: list[tuple[str, bytes]]) -> int:
    """Write a folder with some links and pipes; return the number of files, links and pipes."""
    root.mkdir()
    for name, content in entries:
        file = root / name.replace("\\", "/").replace("\x00", "0").lstrip("/")
        try:
            if not Path(os.path.realpath(file)).is_relative_to(os.path.realpath(root)):
                continue
            file.parent.mkdir(parents=True, exist_ok=True)
            kind = rng.choice(("file",) * 12 + ("link", "loop", "pipe", "outside"))
            if kind == "file":
                file.write_bytes(content)
            elif kind == "pipe":
                os.mkfifo(file)
            else:
                goal = {"link": root / "cat/0.png", "loop": file.parent, "outside": Path("/etc")}
                file.symlink_to(goal[kind])
        except OSError:
            continue  # a name that is too long or taken
    return sum(not path.is_dir() or path.is_symlink() for path in _walk(root))


def _walk(folder: Path) -> list[Path]:
    """Return everything below a folder, without following links."""
    return [Path(at) / name for at, folders, files in os.walk(folder) for name in folders + files]
