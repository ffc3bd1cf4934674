"""The photos that an import replaces can be restored, whether or not they were committed."""

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from catdog.errors import CatdogError
from catdog.ingest import replaced
from catdog.ingest.photo_import import import_photos
from tools import tiny_project
from tools.tiny_project import git

RAW = Path("data/raw")


@pytest.fixture
def project(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make_photos: Callable[[Path, int], Path]
) -> Path:
    """A project with two committed photos, as the current folder."""
    folder = tiny_project.create(tmp_path / "project")
    make_photos(folder / RAW / "cat", 2)
    assert tiny_project.dvc(folder, "add", "-q", str(RAW)) == 0
    tiny_project.commit(folder, "Photos")
    monkeypatch.chdir(folder)
    return folder


def replace() -> None:
    """Replace the photos as an import does."""
    shutil.rmtree(RAW)
    (RAW / "dog").mkdir(parents=True)
    (RAW / "dog" / "new.jpg").write_bytes(b"new")
    assert tiny_project.dvc(Path(), "add", "-q", str(RAW)) == 0


def restore(command: str | None) -> list[str]:
    """Run the command; return the files in data/raw."""
    assert command is not None
    subprocess.run(command, shell=True, check=True)
    return sorted(path.name for path in RAW.rglob("*.jpg"))


def test_committed_photos_need_no_command(project: Path) -> None:
    assert replaced.keep(RAW) is None
    assert git(project, "status", "--porcelain") == ""


def test_photos_added_by_hand_are_restored_by_the_command(project: Path) -> None:
    (RAW / "cat" / "mine.jpg").write_bytes(b"mine")
    command = replaced.keep(RAW)
    replace()
    assert restore(command) == ["mine.jpg", "photo_0.jpg", "photo_1.jpg"]


def test_imported_but_uncommitted_photos_are_restored_by_the_command(project: Path) -> None:
    replace()
    command = replaced.keep(RAW)
    shutil.rmtree(RAW)
    git(project, "checkout", "-q", "data/raw.dvc")
    assert restore(command) == ["new.jpg"]


def test_photos_that_dvc_does_not_track_yet_are_restored_by_the_command(project: Path) -> None:
    git(project, "rm", "-q", "data/raw.dvc")
    git(project, "commit", "-q", "-m", "Photos that are not tracked")
    command = replaced.keep(RAW)
    replace()
    assert restore(command) == ["photo_0.jpg", "photo_1.jpg"]


def test_without_photos_there_is_nothing_to_keep(project: Path) -> None:
    shutil.rmtree(RAW)
    assert replaced.keep(RAW) is None


@pytest.mark.parametrize("pointer", [None, "nonsense"])
def test_an_error_of_dvc_says_that_no_photos_have_been_replaced(
    project: Path, pointer: str | None
) -> None:
    """`dvc add` fails outside of a DVC project, and `dvc status` with an invalid .dvc file."""
    Path("data/raw.dvc").unlink()
    if pointer:
        Path("data/raw.dvc").write_text(pointer)
    else:
        shutil.rmtree(".dvc")
    with pytest.raises(CatdogError, match=r"^dvc (add|status) failed: \S.*; no photos have been"):
        replaced.keep(RAW)


def test_files_that_dvc_cannot_read_are_named(project: Path) -> None:
    """DVC would wait for the pipe, and end with an unexpected error at the link."""
    path = RAW / "cat" / ".hidden"
    os.mkfifo(path)
    with pytest.raises(CatdogError, match=r"^data/raw/cat/.hidden: not a regular file; remove it"):
        replaced.keep(RAW)
    path.unlink()
    path.symlink_to("gone")
    with pytest.raises(CatdogError, match=r"cat/.hidden: broken symbolic link; .*have been repl"):
        replaced.keep(RAW)


def test_photos_may_be_links_to_a_cache_on_another_disk(project: Path, tmp_path: Path) -> None:
    """With the commands of docs/photos.md; an import replaces the links, not the cached files."""
    page = (Path(__file__).parents[2] / "docs/photos.md").read_text(encoding="utf-8")
    start = page.index("$ dvc config --local cache.dir")
    commands = page[start : page.index("```", start)].replace("$ ", "").split("\n")
    disk = tmp_path / "disk"
    disk.mkdir()
    for command in filter(None, commands):
        subprocess.run(command.replace("/disk", str(disk)), shell=True, check=True)
    assert all(path.is_symlink() for path in RAW.rglob("*.jpg"))
    cached = {path: path.read_bytes() for path in disk.rglob("*") if path.is_file()}
    source = tmp_path / "source"
    for name in ("ant", "bee"):
        shutil.copytree(RAW / "cat", source / name)
    assert replaced.keep(RAW) is None
    import_photos(source, RAW, replace=True, quarantine=Path("data/quarantine.csv"), workers=1)
    assert len(list(RAW.rglob("*.jpg"))) == 4
    assert tiny_project.dvc(Path(), "checkout", "--force", "-q", "data/raw.dvc") == 0
    assert sorted(path.name for path in RAW.rglob("*.jpg")) == ["photo_0.jpg", "photo_1.jpg"]
    assert {path: path.read_bytes() for path in cached} == cached
