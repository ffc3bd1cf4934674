"""Imports with killed processes, failing writes, unsafe and overlong names."""

import io
import os
import resource
import subprocess
import sys
import time
import tracemalloc
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
from PIL import Image

from catdog.errors import CatdogError
from catdog.ingest import checking
from catdog.ingest.entries import Entry
from catdog.ingest.members import Member
from catdog.ingest.photo_import import import_photos
from catdog.ingest.replacement import recover
from catdog.preparation.photo_limits import MAX_BYTES, TOO_LARGE
from tests.helpers.archives import jpeg, write_zip

IMPORT = """
import sys
from pathlib import Path
from catdog.ingest.photo_import import import_photos
raw = Path(sys.argv[2])
import_photos(Path(sys.argv[1]), raw, replace=True, quarantine=raw.with_name("q.csv"), workers=2)
"""


def is_running(pid: int) -> bool:
    """Return whether a process exists and is not a zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_the_workers_of_a_killed_import_end_and_cannot_write_into_the_next(tmp_path: Path) -> None:
    """Workers end with their parent, and every import uses another temporary folder."""
    photo = jpeg(0)
    archive = write_zip(
        tmp_path / "a.zip", {f"{c}/{n}.jpg": photo for n in range(4000) for c in "ab"}
    )
    staging = set()
    for _ in range(2):
        command = [sys.executable, "-c", IMPORT, str(archive), str(tmp_path / "raw")]
        process = subprocess.Popen(command)
        deadline = time.monotonic() + 60
        while not list(tmp_path.glob(".raw.incoming*/*/*")):
            assert time.monotonic() < deadline and process.poll() is None
            time.sleep(0.005)
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        staging |= {path.name for path in tmp_path.glob(".raw.incoming*")}
        process.kill()
        process.wait()
        assert len(children) == 2
        deadline = time.monotonic() + 20
        while any(is_running(int(pid)) for pid in children):
            if time.monotonic() > deadline:
                for pid in children:
                    os.kill(int(pid), 9)
                pytest.fail("a worker of the killed import is still running")
            time.sleep(0.01)
        recover(tmp_path / "raw")
    assert len(staging) == 2


class Zeros(io.RawIOBase):
    """A file of zeros that counts how many are read."""

    def __init__(self, size: int) -> None:
        self.rest = size

    def read(self, size: int = -1) -> bytes:
        size = min(size, self.rest)
        self.rest -= size
        return bytes(size)


class OneSize:
    """A source of files with the same size, whatever their members state."""

    members: ClassVar[list[Member]] = []
    empty_folders: ClassVar[list[str]] = []

    def __init__(self, size: int) -> None:
        self.stream = Zeros(size)
        self.size = size

    def open(self, member: Member) -> Zeros:
        self.stream = Zeros(self.size)
        return self.stream

    def close(self) -> None:
        pass


def entries(number: int) -> list[Entry]:
    member = Member("cat/1.jpg", "", None)
    return [Entry("", "cat", "", f"{n}.jpg", "", member) for n in range(number)]


def test_chunks_of_large_photos_are_smaller(tmp_path: Path) -> None:
    """Memory is limited by bytes: 32 camera photos of 20 MB per chunk would need too much."""
    source = OneSize(checking.CHUNK_BYTES // 2)
    chunks = checking.chunks(source, entries(5), tmp_path)  # type: ignore[arg-type]
    assert [len(chunk) for chunk in chunks] == [2, 2, 1]


def test_a_large_file_goes_to_the_workers_through_the_disk(tmp_path: Path) -> None:
    source = OneSize(20_000_000)
    tracemalloc.start()
    (chunk,) = checking.chunks(source, entries(1), tmp_path)  # type: ignore[arg-type]
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 4 * checking.CHUNK_BYTES
    assert (chunk[0].content, chunk[0].reason) == (None, "")
    assert Path(chunk[0].path).stat().st_size == 20_000_000


def test_a_member_is_read_up_to_the_limit_only(tmp_path: Path) -> None:
    """Archives state sizes that are not true."""
    source = OneSize(100 * MAX_BYTES)
    ((candidate,),) = checking.chunks(source, entries(1), tmp_path)  # type: ignore[arg-type]
    assert candidate.reason == TOO_LARGE
    assert source.stream.rest >= 98 * MAX_BYTES


def test_a_large_photo_is_imported_and_a_large_file_that_is_none_leaves_nothing(
    tmp_path: Path,
) -> None:
    """Both are larger than a chunk, so they are checked on the disk."""
    stream = io.BytesIO()
    pixels = np.random.default_rng(0).integers(0, 256, (1300, 1300, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(stream, "BMP")
    assert len(stream.getvalue()) > checking.CHUNK_BYTES
    files = {"cat/1.bmp": stream.getvalue(), "dog/1.jpg": jpeg(1), "dog/2.jpg": bytes(5_000_000)}
    archive = write_zip(tmp_path / "a.zip", files)
    report = import_photos(archive, tmp_path / "raw", replace=False, quarantine=tmp_path / "q.csv")
    assert report.refused == [("dog/2.jpg", "damaged: only zero bytes")]
    assert (tmp_path / "raw/cat/1.bmp").read_bytes() == stream.getvalue()
    assert sorted(path.name for path in (tmp_path / "raw").rglob("*.*")) == ["1.bmp", "1.jpg"]


def test_an_overlong_file_name_is_shortened(tmp_path: Path) -> None:
    files = {"cat/1.jpg": jpeg(0), f"dog/{'x' * 300}.jpg": jpeg(2)}
    archive, quarantine = write_zip(tmp_path / "a.zip", files), tmp_path / "q.csv"
    report = import_photos(archive, tmp_path / "raw", replace=False, quarantine=quarantine)
    assert report.imported == {"cat": 1, "dog": 1}
    assert [path.name for path in (tmp_path / "raw/dog").iterdir()] == [f"{'x' * 251}.jpg"]


def test_paths_that_lead_out_of_the_archive_write_nothing(tmp_path: Path) -> None:
    evil = ["../../e/evil.jpg", "/e/evil.jpg", "cat/../../../e/evil.jpg", "..\\..\\e\\evil.jpg"]
    files = {"cat/1.jpg": jpeg(0), "dog/1.jpg": jpeg(1)} | dict.fromkeys(evil, jpeg(2))
    home = tmp_path / "deep" / "down"
    archive = write_zip(tmp_path / "a.zip", files)
    report = import_photos(archive, home / "raw", replace=False, quarantine=home / "q.csv")
    assert report.imported == {"cat": 1, "dog": 1}
    assert sorted(name for name, _ in report.refused) == sorted(evil)
    assert not list(tmp_path.rglob("evil*"))


def test_a_failing_write_is_an_error_of_one_line_and_changes_nothing(tmp_path: Path) -> None:
    archive = write_zip(tmp_path / "a.zip", {"cat/1.jpg": jpeg(0), "dog/1.jpg": jpeg(1)})
    (tmp_path / "file").touch()
    with pytest.raises(CatdogError, match=r"; no files were changed$"):
        import_photos(
            archive, tmp_path / "raw", replace=False, quarantine=tmp_path / "file" / "q.csv"
        )
    assert not (tmp_path / "raw").exists()
    assert not list(tmp_path.glob(".raw.incoming*"))


def test_a_failing_write_of_a_photo_is_an_error_of_one_line_and_keeps_the_old_photos(
    tmp_path: Path,
) -> None:
    """As on a full disk; here, the files of this process are limited in size."""
    archive = write_zip(tmp_path / "a.zip", {"cat/1.jpg": jpeg(0), "dog/1.jpg": jpeg(1)})
    raw, quarantine = tmp_path / "raw", tmp_path / "q.csv"
    import_photos(archive, raw, replace=False, quarantine=quarantine)
    files = {f"{c}/{n}.bmp": bytes(2 * checking.CHUNK_BYTES) for n in range(2) for c in "ab"}
    large = write_zip(tmp_path / "b.zip", files)
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (checking.CHUNK_BYTES, limit[1]))
    try:
        with pytest.raises(CatdogError, match=r"File too large; no files were changed$"):
            import_photos(large, raw, replace=True, quarantine=quarantine)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    assert len(list(raw.rglob("*.jpg"))) == 2
    assert not list(tmp_path.glob(".raw.incoming*"))
