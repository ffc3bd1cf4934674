"""Photos come in byte for byte, checked, and all at once; what is refused is listed."""

import csv
import errno
import io
import os
import random
import shutil
import signal
import subprocess
import sys
import tarfile
import time
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from rich.console import Console

from catdog.errors import CatdogError
from catdog.ingest import photo_import
from catdog.ingest.photo_import import ImportReport, import_photos, report_table

Photos = dict[str, bytes]
MakePhotos = Callable[[Path, int], Path]


def held(folder: Path) -> Photos:
    """Return every file below a folder, by its path."""
    files = (file for file in folder.rglob("*") if file.is_file())
    return {file.relative_to(folder).as_posix(): file.read_bytes() for file in files}


def write_zip(path: Path, files: Mapping[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def bring_in(archive: Path, root: Path, replace: bool = False) -> ImportReport:
    quarantine = root / "quarantine.csv"
    return import_photos(archive, root / "raw", replace=replace, quarantine=quarantine, workers=2)


def quarantined(root: Path) -> list[list[str]]:
    with (root / "quarantine.csv").open(encoding="utf-8", newline="") as stream:
        return list(csv.reader(stream))


def hidden(root: Path) -> list[str]:
    """Return what lies hidden beside the photos; the lock may stay."""
    return sorted(p.name for p in root.iterdir() if p.name[0] == "." and p.name != ".raw.lock")


def few(make_photos: MakePhotos, folder: Path) -> Photos:
    """Return three photos each of cats and dogs."""
    for name in ("cat", "dog"):
        make_photos(folder / name, 3)
    return held(folder)


BROKEN = {
    "cat/empty.jpg": (b"", "empty file"),
    "cat/text.jpg": (b"no pixels", "not a photo"),
    "dog/Thumbs.db": (b"x", "left by a file manager"),
    "dog/notes, old.txt": (b"x", "not a photo by its name"),
}


def test_photos_arrive_unchanged_whatever_holds_them(
    tmp_path: Path, make_photos: MakePhotos
) -> None:
    photos = few(make_photos, tmp_path / "folder")
    for name, (content, _) in BROKEN.items():
        (tmp_path / "folder" / name).write_bytes(content)
    write_zip(tmp_path / "a.zip", held(tmp_path / "folder"))
    with tarfile.open(tmp_path / "a.tar.gz", "w:gz") as archive:
        for name in ("cat", "dog"):
            archive.add(tmp_path / "folder" / name, name)
    for source in ("folder", "a.zip", "a.tar.gz"):
        root = tmp_path / f"from {source}"
        report = bring_in(tmp_path / source, root)
        assert held(root / "raw") == photos
        assert report.taken == {"cat": 3, "dog": 3}
        assert report.refused == [(name, reason) for name, (_, reason) in sorted(BROKEN.items())]
        assert hidden(root) == []


def test_kaggles_and_microsofts_layouts_become_class_folders(
    tmp_path: Path, make_photos: MakePhotos
) -> None:
    one, two = held(make_photos(tmp_path / "photos", 2)).values()
    layouts = {
        "kaggle": {"train/cat.0.jpg": one, "train/dog.0.jpg": two},
        "microsoft": {"PetImages/Cat/0.jpg": one, "PetImages/Dog/0.jpg": two},
    }
    for name, files in layouts.items():
        bring_in(write_zip(tmp_path / f"{name}.zip", files), tmp_path / name)
    assert held(tmp_path / "kaggle/raw") == {"cat/cat.0.jpg": one, "dog/dog.0.jpg": two}
    assert held(tmp_path / "microsoft/raw") == {"cat/0.jpg": one, "dog/0.jpg": two}


def test_the_quarantine_file_lists_each_refused_file_with_its_reason(
    tmp_path: Path, make_photos: MakePhotos
) -> None:
    photos = few(make_photos, tmp_path / "photos")
    whole = photos["cat/photo_0.jpg"]
    files = {name: content for name, (content, _) in BROKEN.items()}
    files |= {"cat/cut.jpg": whole[:-100], "../evil.jpg": whole, f"cat/{'x' * 300}.jpg": whole}
    bring_in(write_zip(tmp_path / "a.zip", photos | files), tmp_path / "to")
    header, *rows = quarantined(tmp_path / "to")
    reasons = {name: reason for name, (_, reason) in BROKEN.items()}
    reasons |= {"../evil.jpg": "its name leads out of the archive"}
    reasons |= {f"cat/{'x' * 300}.jpg": "its name is too long"}
    assert header == ["file", "reason"]
    assert rows == sorted(rows)
    assert dict(rows).pop("cat/cut.jpg").startswith("damaged: ")
    assert {name: reason for name, reason in rows if name != "cat/cut.jpg"} == reasons
    assert held(tmp_path / "to/raw") == photos
    assert not (tmp_path / "evil.jpg").exists()


def test_a_damaged_member_of_a_zip_is_refused_and_the_rest_comes_in(
    tmp_path: Path, make_photos: MakePhotos
) -> None:
    photos = few(make_photos, tmp_path / "photos")
    path = write_zip(tmp_path / "a.zip", photos)
    content = bytearray(path.read_bytes())
    content[content.index(photos["cat/photo_1.jpg"]) + 50] ^= 0xFF
    path.write_bytes(content)
    report = bring_in(path, tmp_path / "to")
    assert report.refused == [("cat/photo_1.jpg", "damaged in the archive: Bad CRC-32")]
    del photos["cat/photo_1.jpg"]
    assert held(tmp_path / "to/raw") == photos


def test_a_class_without_a_good_photo_leaves_no_empty_folder(
    tmp_path: Path, make_photos: MakePhotos
) -> None:
    photos = few(make_photos, tmp_path / "photos")
    path = write_zip(tmp_path / "a.zip", photos | {"lynx/1.jpg": b"no pixels"})
    assert bring_in(path, tmp_path / "to").taken == {"cat": 3, "dog": 3}
    assert sorted(folder.name for folder in (tmp_path / "to/raw").iterdir()) == ["cat", "dog"]


def test_photos_that_are_there_give_way_only_to_replace(
    tmp_path: Path, make_photos: MakePhotos
) -> None:
    old, new = (few(make_photos, tmp_path / name) for name in ("old", "new"))
    bring_in(tmp_path / "old", tmp_path / "to")
    with pytest.raises(CatdogError, match="raw: there are photos already; --replace"):
        bring_in(tmp_path / "new", tmp_path / "to")
    assert held(tmp_path / "to/raw") == old
    bring_in(tmp_path / "new", tmp_path / "to", replace=True)
    assert held(tmp_path / "to/raw") == new
    assert hidden(tmp_path / "to") == []


def test_a_linked_folder_stays_a_link(tmp_path: Path, make_photos: MakePhotos) -> None:
    few(make_photos, tmp_path / "old")
    new = few(make_photos, tmp_path / "new")
    bring_in(tmp_path / "old", tmp_path / "disk")
    (tmp_path / "to").mkdir()
    (tmp_path / "to/raw").symlink_to(tmp_path / "disk/raw")
    bring_in(tmp_path / "new", tmp_path / "to", replace=True)
    assert (tmp_path / "to/raw").is_symlink()
    assert held(tmp_path / "disk/raw") == new
    assert hidden(tmp_path / "disk") == []


@pytest.mark.parametrize(
    ("where", "why"),
    [
        ("raw/more.zip", "would be removed with the old photos of .*; move it"),
        ("raw", "would be removed with the old photos of .*; move it"),
        (".", "holds .*raw, which is to be replaced; give another folder"),
    ],
)
def test_what_would_be_removed_with_the_old_photos_is_refused(
    tmp_path: Path, make_photos: MakePhotos, where: str, why: str
) -> None:
    """An archive that somebody has put among the photos, or photos put there by hand."""
    old = few(make_photos, tmp_path / "old")
    bring_in(tmp_path / "old", tmp_path / "to")
    write_zip(tmp_path / "to/raw/more.zip", old)
    before = held(tmp_path / "to/raw")
    with pytest.raises(CatdogError, match=why):
        bring_in(tmp_path / "to" / where, tmp_path / "to", replace=True)
    assert held(tmp_path / "to/raw") == before
    assert hidden(tmp_path / "to") == []


def test_links_and_what_may_not_be_read_are_listed_with_their_reasons(
    tmp_path: Path, make_photos: MakePhotos, monkeypatch: pytest.MonkeyPatch
) -> None:
    few(make_photos, tmp_path / "photos")
    (tmp_path / "photos/cat/link.jpg").symlink_to(tmp_path / "photos/cat/photo_0.jpg")
    read = Path.read_bytes

    def refuse(path: Path) -> bytes:  # root, who may run the tests, may read all
        if path.name == "photo_1.jpg" and path.parent.name == "dog":
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return read(path)

    monkeypatch.setattr(Path, "read_bytes", refuse)
    report = bring_in(tmp_path / "photos", tmp_path / "to")
    assert report.refused == [
        ("cat/link.jpg", "a symbolic link"),
        ("dog/photo_1.jpg", "may not be read"),
    ]


def test_names_of_classes_are_no_markup(tmp_path: Path) -> None:
    report = ImportReport({"cat [indoor]": 1, "cat [outdoor]": 2}, [], tmp_path)
    console = Console(file=io.StringIO(), width=80)
    console.print(report_table(report))
    shown = console.file.getvalue()  # type: ignore[attr-defined]
    assert "cat [indoor]" in shown and "cat [outdoor]" in shown


@pytest.mark.parametrize("failing", ["rename", "rmtree"])
def test_two_renames_that_fail_leave_one_whole_set_in_place(
    tmp_path: Path, make_photos: MakePhotos, monkeypatch: pytest.MonkeyPatch, failing: str
) -> None:
    """Where folders cannot be exchanged: the second rename fails, or the old set stays in use."""
    old, new = (few(make_photos, tmp_path / name) for name in ("old", "new"))
    bring_in(tmp_path / "old", tmp_path / "to")
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
        patch.setattr(photo_import, "_exchange", lambda *_: False)
        if failing == "rename":
            patch.setattr(Path, "rename", refuse_rename)
            with pytest.raises(CatdogError, match=r"nothing was changed: .*Input/output error"):
                bring_in(tmp_path / "new", tmp_path / "to", replace=True)
        else:
            patch.setattr(shutil, "rmtree", refuse_rmtree)
            bring_in(tmp_path / "new", tmp_path / "to", replace=True)
    assert held(tmp_path / "to/raw") == (old if failing == "rename" else new)


def test_fewer_than_two_classes_change_nothing(tmp_path: Path, make_photos: MakePhotos) -> None:
    old = few(make_photos, tmp_path / "old")
    bring_in(tmp_path / "old", tmp_path / "to")
    photo = old["cat/photo_0.jpg"]
    path = write_zip(tmp_path / "a.zip", {"cat/1.jpg": photo, "dog/1.jpg": photo[:-100]})
    with pytest.raises(CatdogError, match=r"two classes.* good ones of: cat; .*quarantine\.csv"):
        bring_in(path, tmp_path / "to", replace=True)
    assert held(tmp_path / "to/raw") == old
    assert quarantined(tmp_path / "to")[1][0] == "dog/1.jpg"
    assert hidden(tmp_path / "to") == []


def test_an_archive_of_archives_says_which_one_to_give(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "a.zip", {"sampleSubmission.csv": b"", "train.zip": b"PK"})
    with pytest.raises(CatdogError, match=r"holds further archives; unpack it and give train\.zip"):
        bring_in(path, tmp_path / "to")
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
    """Start an import in a process of its own; return when it is about to begin."""
    command = [sys.executable, "-c", CHILD.format(change=change), str(archive), str(root)]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    with child.stdout:
        assert child.stdout.readline() == "ready\n"
    return child


def bring_in_after_a_kill(archive: Path, root: Path) -> None:
    """Import when the workers of the killed process, which hold the lock, have ended."""
    for _ in range(100):
        try:
            bring_in(archive, root, replace=True)
            return
        except CatdogError as error:
            assert "another import is running" in str(error)
            time.sleep(0.05)
    raise AssertionError("the workers of a killed import live on")


def test_a_second_import_at_the_same_time_is_refused(
    tmp_path: Path, make_photos: MakePhotos
) -> None:
    photos = few(make_photos, tmp_path / "photos")
    os.mkfifo(tmp_path / "slow.zip")
    child = start(tmp_path / "slow.zip", tmp_path / "to")
    try:
        # Opening a pipe to write waits for its reader, so the other import is in the middle now.
        with (tmp_path / "slow.zip").open("wb"):
            with pytest.raises(CatdogError, match="raw: another import is running; wait"):
                bring_in(tmp_path / "photos", tmp_path / "to")
            child.kill()
    finally:
        child.kill()
        child.wait()
    bring_in_after_a_kill(tmp_path / "photos", tmp_path / "to")
    assert held(tmp_path / "to/raw") == photos


def many(make_photos: MakePhotos, root: Path, name: str) -> tuple[Path, Photos]:
    """Return an archive of 160 photos, and what is in it."""
    for class_name in ("cat", "dog"):
        make_photos(root / name / class_name, 80)
    photos = held(root / name)
    return write_zip(root / f"{name}.zip", photos), photos


def test_a_kill_at_any_moment_leaves_the_old_or_the_new_set(
    tmp_path: Path, make_photos: MakePhotos
) -> None:
    sets = [many(make_photos, tmp_path, name) for name in ("one", "two")]
    root = tmp_path / "to"
    bring_in(sets[0][0], root)
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
        assert held(root / "raw") in (sets[0][1], sets[1][1])
        bring_in_after_a_kill(sets[0][0], root)
        assert held(root / "raw") == sets[0][1]
        assert hidden(root) == []
    assert -signal.SIGKILL in codes


TWO_RENAMES = "photo_import._exchange = lambda *_: False; "
WORST_MOMENTS = {
    "before the exchange": ("photo_import._exchange = die", "old"),
    "after the exchange": (
        "real = photo_import._exchange; "
        "photo_import._exchange = lambda *names: (real(*names), die())",
        "new",
    ),
    "between the two renames": (
        f"{TWO_RENAMES}real = Path.rename; Path.rename = lambda *names: (real(*names), die())",
        "none",
    ),
    "after the two renames": (
        f"{TWO_RENAMES}shutil.rmtree = lambda path, **_: path.exists() and die()",
        "new",
    ),
}


@pytest.mark.parametrize("moment", WORST_MOMENTS)
def test_a_kill_at_the_worst_moments_is_mended(
    tmp_path: Path, make_photos: MakePhotos, moment: str
) -> None:
    change, left = WORST_MOMENTS[moment]
    sets = {name: few(make_photos, tmp_path / name) for name in ("old", "new")}
    root = tmp_path / "to"
    bring_in(tmp_path / "old", root)
    assert start(tmp_path / "new", root, change).wait() == -signal.SIGKILL
    assert (root / "raw").exists() == (left != "none")
    assert hidden(root)
    photo_import.recover(root / "raw")
    assert held(root / "raw") == sets["new" if left == "new" else "old"]
    assert hidden(root) == []


def test_without_an_exchange_two_renames_do_it(
    tmp_path: Path, make_photos: MakePhotos, monkeypatch: pytest.MonkeyPatch
) -> None:
    few(make_photos, tmp_path / "old")
    new = few(make_photos, tmp_path / "new")
    bring_in(tmp_path / "old", tmp_path / "to")
    monkeypatch.setattr(photo_import, "_exchange", lambda *_: False)
    bring_in(tmp_path / "new", tmp_path / "to", replace=True)
    assert held(tmp_path / "to/raw") == new
    assert hidden(tmp_path / "to") == []


@pytest.mark.skipif(sys.platform not in ("linux", "darwin"), reason="this system cannot")
def test_this_system_exchanges_folders_in_one_step(tmp_path: Path) -> None:
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
        (tmp_path / name / name).touch()
    assert photo_import._exchange(tmp_path / "one", tmp_path / "other")
    assert sorted(held(tmp_path)) == ["one/other", "other/one"]
    shutil.rmtree(tmp_path / "one")
    with pytest.raises(OSError, match="other"):
        photo_import._exchange(tmp_path / "one", tmp_path / "other")


def printed(report: ImportReport) -> str:
    console = Console(file=io.StringIO(), width=120)
    console.print(report_table(report))
    return " ".join(console.file.getvalue().split())  # type: ignore[attr-defined]


def test_the_table_counts_photos_by_class_and_refused_files_by_reason(tmp_path: Path) -> None:
    refused = [("a.jpg", "not a photo"), ("b.jpg", "not a photo"), ("c.jpg", "empty file")]
    text = printed(ImportReport({"cat": 12_345, "dog": 2}, refused, tmp_path / "why.csv"))
    for row in ("12,345 │ cat", "2 │ dog", "2 │ refused: not a photo", "1 │ refused: empty file"):
        assert row in text
    assert "All refused files:" in text
    assert "quarantine" not in printed(ImportReport({"cat": 1, "dog": 1}, [], tmp_path / "q.csv"))


def test_the_table_sums_up_reasons_that_are_too_many_to_show(tmp_path: Path) -> None:
    refused = [(f"{number}.jpg", f"reason {number}") for number in range(15)]
    text = printed(ImportReport({"cat": 1, "dog": 1}, refused, tmp_path / "why.csv"))
    assert text.count("refused: reason") == photo_import.SHOWN_REASONS
    assert "3 │ refused for other reasons" in text
