"""Photos are validated and imported unchanged and atomically; refused files are listed."""

import csv
import errno
import os
import random
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO

import pytest
from PIL import Image

from catdog.errors import CatdogError
from catdog.ingest.folder_source import FolderSource
from catdog.ingest.photo_import import import_photos
from catdog.ingest.replacement import recover
from catdog.ingest.report import ImportReport
from catdog.preparation.class_folders import list_classes
from tests.helpers.archives import write_zip

Photos = dict[str, bytes]
MakePhotos = Callable[[Path, int], Path]


def content_of(folder: Path) -> Photos:
    """Return the content of all files below a folder, by path."""
    files = (file for file in folder.rglob("*") if file.is_file())
    return {file.relative_to(folder).as_posix(): file.read_bytes() for file in files}


def run_import(archive: Path, root: Path, replace: bool = False) -> ImportReport:
    quarantine = root / "quarantine.csv"
    return import_photos(archive, root / "raw", replace=replace, quarantine=quarantine, workers=2)


def quarantined(root: Path) -> list[list[str]]:
    with (root / "quarantine.csv").open(encoding="utf-8", newline="") as stream:
        return list(csv.reader(stream))


def hidden(root: Path) -> list[str]:
    """Return the hidden files next to the photos, except the lock file."""
    return sorted(p.name for p in root.iterdir() if p.name[0] == "." and p.name != ".raw.lock")


def few(make_photos: MakePhotos, folder: Path) -> Photos:
    """Return three photos each of cats and dogs."""
    for name in ("cat", "dog"):
        make_photos(folder / name, 3)
    return content_of(folder)


INVALID = {
    "cat/empty.jpg": (b"", "empty file"),
    "cat/text.jpg": (b"no pixels", "unsupported format: text"),
    "dog/Thumbs.db": (b"x", "hidden or system file"),
    "dog/notes, old.txt": (b"x", "unsupported format: text"),
}


def test_photos_are_imported_unchanged_from_every_kind_of_source(
    tmp_path: Path, make_photos: MakePhotos
) -> None:
    photos = few(make_photos, tmp_path / "folder")
    for name, (content, _) in INVALID.items():
        (tmp_path / "folder" / name).write_bytes(content)
    write_zip(tmp_path / "a.zip", content_of(tmp_path / "folder"))
    with tarfile.open(tmp_path / "a.tar.gz", "w:gz") as archive:
        for name in ("cat", "dog"):
            archive.add(tmp_path / "folder" / name, name)
    for source in ("folder", "a.zip", "a.tar.gz"):
        root = tmp_path / f"from {source}"
        report = run_import(tmp_path / source, root)
        assert content_of(root / "raw") == photos
        assert report.imported == {"cat": 3, "dog": 3}
        assert report.refused == [(name, reason) for name, (_, reason) in sorted(INVALID.items())]
        assert hidden(root) == []


def test_kaggles_and_microsofts_layouts_become_class_folders(
    tmp_path: Path, make_photos: MakePhotos
) -> None:
    one, two = content_of(make_photos(tmp_path / "photos", 2)).values()
    layouts = {
        "kaggle": {"train/cat.0.jpg": one, "train/dog.0.jpg": two},
        "microsoft": {"PetImages/Cat/0.jpg": one, "PetImages/Dog/0.jpg": two},
    }
    for name, files in layouts.items():
        run_import(write_zip(tmp_path / f"{name}.zip", files), tmp_path / name)
    assert content_of(tmp_path / "kaggle/raw") == {"cat/cat.0.jpg": one, "dog/dog.0.jpg": two}
    assert content_of(tmp_path / "microsoft/raw") == {"cat/0.jpg": one, "dog/0.jpg": two}


def test_the_quarantine_file_lists_each_refused_file_with_its_reason(
    tmp_path: Path, make_photos: MakePhotos
) -> None:
    photos = few(make_photos, tmp_path / "photos")
    photo = photos["cat/photo_0.jpg"]
    files = {name: content for name, (content, _) in INVALID.items()}
    files |= {"cat/cut.jpg": photo[:-100], "../evil.jpg": photo}
    run_import(write_zip(tmp_path / "a.zip", photos | files), tmp_path / "to")
    header, *rows = quarantined(tmp_path / "to")
    reasons = {name: reason for name, (_, reason) in INVALID.items()}
    reasons |= {"../evil.jpg": "path outside the archive"}
    assert header == ["file", "reason"]
    assert rows == sorted(rows)
    assert dict(rows).pop("cat/cut.jpg").startswith("damaged: ")
    assert {name: reason for name, reason in rows if name != "cat/cut.jpg"} == reasons
    assert content_of(tmp_path / "to/raw") == photos
    assert not (tmp_path / "evil.jpg").exists()


def test_photos_with_several_frames_are_imported_and_counted(
    tmp_path: Path, make_photos: MakePhotos
) -> None:
    few(make_photos, tmp_path / "in")
    frames = [Image.new("RGB", (16, 16), colour) for colour in ("red", "blue")]
    for name, format in (("cat/moving.gif", "GIF"), ("dog/pages.tif", "TIFF")):
        frames[0].save(tmp_path / "in" / name, format, save_all=True, append_images=frames[1:])
    report = run_import(tmp_path / "in", tmp_path)
    assert (report.animated, report.refused) == (2, [])


def test_a_damaged_member_of_a_zip_is_refused_and_the_rest_imported(
    tmp_path: Path, make_photos: MakePhotos
) -> None:
    photos = few(make_photos, tmp_path / "photos")
    path = write_zip(tmp_path / "a.zip", photos)
    content = bytearray(path.read_bytes())
    content[content.index(photos["cat/photo_1.jpg"]) + 50] ^= 0xFF
    path.write_bytes(content)
    report = run_import(path, tmp_path / "to")
    assert report.refused == [("cat/photo_1.jpg", "damaged in the archive: Bad CRC-32")]
    del photos["cat/photo_1.jpg"]
    assert content_of(tmp_path / "to/raw") == photos


def test_a_class_without_a_valid_photo_is_named_and_leaves_no_empty_folder(
    tmp_path: Path, make_photos: MakePhotos
) -> None:
    photos = few(make_photos, tmp_path / "photos")
    path = write_zip(tmp_path / "a.zip", photos | {"lynx/1.jpg": b"no pixels"})
    report = run_import(path, tmp_path / "to")
    assert report.imported == {"cat": 3, "dog": 3}
    assert report.empty_classes == ["lynx"]
    assert sorted(folder.name for folder in (tmp_path / "to/raw").iterdir()) == ["cat", "dog"]


def test_existing_photos_are_replaced_only_on_request(
    tmp_path: Path, make_photos: MakePhotos
) -> None:
    old, new = (few(make_photos, tmp_path / name) for name in ("old", "new"))
    run_import(tmp_path / "old", tmp_path / "to")
    with pytest.raises(CatdogError, match="raw: already exists; use --replace"):
        run_import(tmp_path / "new", tmp_path / "to")
    assert content_of(tmp_path / "to/raw") == old
    run_import(tmp_path / "new", tmp_path / "to", replace=True)
    assert content_of(tmp_path / "to/raw") == new
    assert hidden(tmp_path / "to") == []


def test_a_symbolic_link_is_refused_before_any_photo_is_decoded(
    tmp_path: Path, make_photos: MakePhotos, monkeypatch: pytest.MonkeyPatch
) -> None:
    photos = few(make_photos, tmp_path / "pictures")
    (tmp_path / "to").mkdir()
    (tmp_path / "to/raw").symlink_to(tmp_path / "pictures")
    monkeypatch.delattr("catdog.ingest.photo_import.check")
    with pytest.raises(CatdogError, match=r"raw: is a symbolic link to .*pictures, where DVC"):
        run_import(tmp_path / "pictures", tmp_path / "to", replace=True)
    assert content_of(tmp_path / "pictures") == photos


@pytest.mark.parametrize(
    ("where", "why"),
    [
        ("raw/more.zip", "would be deleted with the old photos of .*; move it"),
        ("raw", "would be deleted with the old photos of .*; move it"),
        (".", "contains .*raw, which would be replaced; pass another folder"),
    ],
)
def test_an_archive_that_would_be_deleted_with_the_old_photos_is_refused(
    tmp_path: Path, make_photos: MakePhotos, where: str, why: str
) -> None:
    """An archive inside data/raw, data/raw itself, or a folder that contains it."""
    old = few(make_photos, tmp_path / "old")
    run_import(tmp_path / "old", tmp_path / "to")
    write_zip(tmp_path / "to/raw/more.zip", old)
    before = content_of(tmp_path / "to/raw")
    with pytest.raises(CatdogError, match=why):
        run_import(tmp_path / "to" / where, tmp_path / "to", replace=True)
    assert content_of(tmp_path / "to/raw") == before
    assert hidden(tmp_path / "to") == []


@pytest.mark.parametrize(("link", "error"), [("in", "in: no such file"), ("raw", "is a symbolic")])
def test_a_link_to_itself_is_an_error_of_one_line(tmp_path: Path, link: str, error: str) -> None:
    (tmp_path / link).symlink_to(link)
    with pytest.raises(CatdogError, match=error):
        run_import(tmp_path / "in", tmp_path)


def test_links_and_unreadable_files_are_listed_with_their_reasons(
    tmp_path: Path, make_photos: MakePhotos, monkeypatch: pytest.MonkeyPatch
) -> None:
    few(make_photos, tmp_path / "photos")
    (tmp_path / "photos/cat/link.jpg").symlink_to(tmp_path / "gone")
    open_file = Path.open

    def refuse(path: Path, mode: str) -> IO[bytes]:  # patched, because root can read every file
        if path.name == "photo_1.jpg" and path.parent.name == "dog":
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return open_file(path, mode)

    monkeypatch.setattr(FolderSource, "open", lambda _, member: refuse(member.handle, "rb"))
    report = run_import(tmp_path / "photos", tmp_path / "to")
    assert report.refused == [
        ("cat/link.jpg", "broken symbolic link"),
        ("dog/photo_1.jpg", "permission denied"),
    ]


@pytest.mark.parametrize("failing", ["rename", "rmtree"])
def test_an_error_while_replacing_leaves_one_complete_set(
    tmp_path: Path, make_photos: MakePhotos, monkeypatch: pytest.MonkeyPatch, failing: str
) -> None:
    """The second rename fails, or the old photos cannot be removed."""
    old, new = (few(make_photos, tmp_path / name) for name in ("old", "new"))
    run_import(tmp_path / "old", tmp_path / "to")
    rename, rmtree = Path.rename, shutil.rmtree

    def refuse_rename(path: Path, target: Path) -> Path:
        if "incoming" in path.name:
            raise OSError(errno.EIO, "Input/output error")
        return rename(path, target)

    def refuse_rmtree(folder: Path, ignore_errors: bool = False) -> None:
        if not folder.name.endswith(".old"):
            rmtree(folder, ignore_errors)
        elif not ignore_errors:
            raise OSError(errno.ENOTEMPTY, "Directory not empty")

    with monkeypatch.context() as patch:
        if failing == "rename":
            patch.setattr(Path, "rename", refuse_rename)
            with pytest.raises(CatdogError, match=r"Input/output error; no files were changed$"):
                run_import(tmp_path / "new", tmp_path / "to", replace=True)
        else:
            patch.setattr(shutil, "rmtree", refuse_rmtree)
            run_import(tmp_path / "new", tmp_path / "to", replace=True)
    assert content_of(tmp_path / "to/raw") == (old if failing == "rename" else new)


def test_fewer_than_two_classes_change_nothing(tmp_path: Path, make_photos: MakePhotos) -> None:
    old = few(make_photos, tmp_path / "old")
    run_import(tmp_path / "old", tmp_path / "to")
    photo = old["cat/photo_0.jpg"]
    path = write_zip(tmp_path / "a.zip", {"cat/1.jpg": photo, "dog/1.jpg": photo[:-100]})
    before = quarantined(tmp_path / "to")
    message = r"two classes.* valid photos: cat; without: dog; .*quarantine-failed\.csv"
    with pytest.raises(CatdogError, match=message):
        run_import(path, tmp_path / "to", replace=True)
    assert content_of(tmp_path / "to/raw") == old
    assert "dog/1.jpg" in (tmp_path / "to/quarantine-failed.csv").read_text()
    assert quarantined(tmp_path / "to") == before  # the list of the photos in raw
    assert hidden(tmp_path / "to") == []


def test_an_archive_of_archives_is_refused_and_names_the_inner_one(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "a.zip", {"sampleSubmission.csv": b"", "train.zip": b"PK"})
    with pytest.raises(
        CatdogError, match=r"contains other archives; unpack it and pass train\.zip"
    ):
        run_import(path, tmp_path / "to")
    assert not (tmp_path / "to/raw").exists()


CHILD = """
import os, shutil, signal, sys
from pathlib import Path
from catdog.ingest import photo_import

def die(*_, **__):
    os.kill(os.getpid(), signal.SIGKILL)

{change}
archive, root = map(Path, sys.argv[1:])
print("ready", flush=True)
photo_import.import_photos(
    archive, root / "raw", replace=True, quarantine=root / "quarantine.csv", workers=2
)
"""


def start(archive: Path, root: Path, change: str = "") -> "subprocess.Popen[str]":
    """Start an import in a child process; return just before it begins."""
    command = [sys.executable, "-c", CHILD.format(change=change), str(archive), str(root)]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    with child.stdout:
        assert child.stdout.readline() == "ready\n"
    return child


def import_after_a_kill(archive: Path, root: Path, replace: bool = True) -> None:
    """Import once the workers of the killed process, which inherited its lock, have ended."""
    for _ in range(100):
        try:
            run_import(archive, root, replace=replace)
            return
        except CatdogError as error:
            if "another import is in progress" not in str(error):
                raise
            time.sleep(0.05)
    raise AssertionError("the workers of a killed import are still running")


def test_a_concurrent_import_is_refused(tmp_path: Path, make_photos: MakePhotos) -> None:
    photos = few(make_photos, tmp_path / "photos")
    os.mkfifo(tmp_path / "slow.zip")
    child = start(tmp_path / "slow.zip", tmp_path / "to")
    try:
        # Opening a pipe for writing blocks until the child reads it, so its import is in progress.
        with (tmp_path / "slow.zip").open("wb"):
            with pytest.raises(CatdogError, match="raw: another import is in progress; wait"):
                run_import(tmp_path / "photos", tmp_path / "to")
            child.kill()
    finally:
        child.kill()
        child.wait()
    import_after_a_kill(tmp_path / "photos", tmp_path / "to")
    assert content_of(tmp_path / "to/raw") == photos


def many(make_photos: MakePhotos, root: Path, name: str) -> tuple[Path, Photos]:
    """Return an archive of 160 photos, and its content."""
    for class_name in ("cat", "dog"):
        make_photos(root / name / class_name, 80)
    photos = content_of(root / name)
    return write_zip(root / f"{name}.zip", photos), photos


def test_after_a_kill_at_any_moment_the_next_import_finds_the_old_or_the_new_photos(
    tmp_path: Path, make_photos: MakePhotos
) -> None:
    sets = [many(make_photos, tmp_path, name) for name in ("one", "two")]
    root = tmp_path / "to"
    run_import(sets[0][0], root)
    child, began = start(sets[0][0], root), time.monotonic()
    assert child.wait() == 0
    duration = time.monotonic() - began
    moments = random.Random(0)
    codes = []
    for _ in range(6):
        child = start(sets[1][0], root)
        time.sleep(moments.uniform(0, 1.1) * duration)
        child.kill()
        codes.append(child.wait())
        with pytest.raises(CatdogError, match="already exists"):
            import_after_a_kill(sets[0][0], root, replace=False)
        assert content_of(root / "raw") in (sets[0][1], sets[1][1])
        assert hidden(root) == []
        import_after_a_kill(sets[0][0], root)
        assert content_of(root / "raw") == sets[0][1]
        assert hidden(root) == []
    assert -signal.SIGKILL in codes


KILLED_WHILE_REPLACING = {
    "before the first rename": ("Path.rename = die", "old"),
    "between the renames": (
        "rename = Path.rename; Path.rename = lambda *paths: (rename(*paths), die())",
        None,
    ),
    "after the second rename": (
        "shutil.rmtree = lambda path, **_: path.exists() and die()",
        "new",
    ),
}


@pytest.mark.parametrize("moment", KILLED_WHILE_REPLACING)
def test_a_kill_while_replacing_is_recovered(
    tmp_path: Path, make_photos: MakePhotos, moment: str
) -> None:
    """Before the recovery, data/raw is missing only after a kill between the two renames."""
    change, in_place = KILLED_WHILE_REPLACING[moment]
    sets = {name: few(make_photos, tmp_path / name) for name in ("old", "new")}
    root = tmp_path / "to"
    run_import(tmp_path / "old", root)
    assert start(tmp_path / "new", root, change).wait() == -signal.SIGKILL
    assert hidden(root)
    if in_place:
        assert content_of(root / "raw") == sets[in_place]
    else:
        with pytest.raises(CatdogError, match=r"raw: no such folder; an import was killed .*"):
            list_classes(root / "raw")
    recover(root / "raw")
    assert content_of(root / "raw") == sets[in_place or "old"]
    assert hidden(root) == []
