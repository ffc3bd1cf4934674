"""Imports with killed processes, failing writes, unsafe and overlong names."""

import io
import os
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from catdog.errors import CatdogError
from catdog.ingest import photo_import
from catdog.ingest.entries import Entry
from catdog.ingest.photo_import import import_photos, recover

IMPORT = """
import sys
from pathlib import Path
from catdog.ingest.photo_import import import_photos
raw = Path(sys.argv[2])
import_photos(Path(sys.argv[1]), raw, replace=True, quarantine=raw.with_name("q.csv"), workers=2)
"""


def jpeg(seed: int) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (12, 16, 3), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "JPEG")
    return stream.getvalue()


def zipped(path: Path, files: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


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
    archive = zipped(tmp_path / "a.zip", {f"{c}/{n}.jpg": photo for n in range(4000) for c in "ab"})
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


def test_chunks_of_large_photos_are_smaller() -> None:
    """Memory is limited by bytes: 32 camera photos of 20 MB per chunk would need too much."""

    class Large:
        def names(self) -> list[str]:
            return []

        def read(self, name: str) -> bytes:
            return bytes(photo_import.CHUNK_BYTES // 2)

        def close(self) -> None:
            pass

    entries = [Entry(f"cat/{n}.jpg", "cat", f"{n}.jpg", "") for n in range(5)]
    assert [len(chunk) for chunk in photo_import._chunks(Large(), entries)] == [2, 2, 1]


def test_an_overlong_file_name_refuses_only_that_photo(tmp_path: Path) -> None:
    files = {"cat/1.jpg": jpeg(0), "dog/1.jpg": jpeg(1), f"dog/{'x' * 300}.jpg": jpeg(2)}
    archive, quarantine = zipped(tmp_path / "a.zip", files), tmp_path / "q.csv"
    report = import_photos(archive, tmp_path / "raw", replace=False, quarantine=quarantine)
    assert report.imported == {"cat": 1, "dog": 1}
    assert report.refused == [(f"dog/{'x' * 300}.jpg", "file name too long")]


def test_paths_that_lead_out_of_the_archive_write_nothing(tmp_path: Path) -> None:
    evil = ["../../e/evil.jpg", "/e/evil.jpg", "cat/../../../e/evil.jpg", "..\\..\\e\\evil.jpg"]
    files = {"cat/1.jpg": jpeg(0), "dog/1.jpg": jpeg(1)} | dict.fromkeys(evil, jpeg(2))
    home = tmp_path / "deep" / "down"
    archive = zipped(tmp_path / "a.zip", files)
    report = import_photos(archive, home / "raw", replace=False, quarantine=home / "q.csv")
    assert report.imported == {"cat": 1, "dog": 1}
    assert sorted(name for name, _ in report.refused) == sorted(evil)
    assert not list(tmp_path.rglob("evil*"))


def test_a_failing_write_is_an_error_of_one_line_and_changes_nothing(tmp_path: Path) -> None:
    archive = zipped(tmp_path / "a.zip", {"cat/1.jpg": jpeg(0), "dog/1.jpg": jpeg(1)})
    (tmp_path / "file").touch()
    with pytest.raises(CatdogError, match=r"; no files were changed$"):
        import_photos(
            archive, tmp_path / "raw", replace=False, quarantine=tmp_path / "file" / "q.csv"
        )
    assert not (tmp_path / "raw").exists()
    assert not list(tmp_path.glob(".raw.incoming*"))
