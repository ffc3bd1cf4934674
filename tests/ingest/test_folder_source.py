"""Folders: links are followed, loops are not, and what is no file is never opened."""

import errno
import os
import socket
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from catdog.errors import CatdogError
from catdog.ingest.folder_source import FolderSource
from catdog.preparation.photo_limits import MAX_BYTES, TOO_LARGE


def reasons(path: Path) -> dict[str, str]:
    source = FolderSource(path, None)
    found = {member.name: member.reason for member in source.members}
    assert len(found) == len(source.members)
    return found


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with one photo, as cat/1.jpg."""
    (tmp_path / "in/cat").mkdir(parents=True)
    (tmp_path / "in/cat/1.jpg").write_bytes(b"one")
    return tmp_path / "in"


def test_links_to_files_and_folders_are_followed(folder: Path) -> None:
    """As in the caches of Hugging Face, git-annex and DVC."""
    outside = folder.parent / "blobs"
    outside.mkdir()
    (outside / "2.jpg").write_bytes(b"two")
    (folder / "cat/2.jpg").symlink_to("../../blobs/2.jpg")
    (folder / "dog").symlink_to(outside)
    source = FolderSource(folder, None)
    with closing(source):
        content = {member.name: source.open(member).read() for member in source.members}
    assert content == {"cat/1.jpg": b"one", "cat/2.jpg": b"two", "dog/2.jpg": b"two"}


@pytest.mark.parametrize("target", [".", "..", "../..", "../../..", "/"])
def test_a_link_to_a_folder_above_is_listed(folder: Path, target: str) -> None:
    (folder / "cat/loop").symlink_to(target)
    reason = "link to a folder that contains it, or that has another name"
    assert reasons(folder) == {"cat/1.jpg": "", "cat/loop": reason}


def test_links_between_folders_end(folder: Path) -> None:
    """Each folder has a link to each other one: without a limit, 20! paths."""
    for name in map(str, range(20)):
        (folder / name).mkdir()
        for other in map(str, range(20)):
            (folder / name / other).symlink_to(folder / other)
    found = reasons(folder)
    assert len(found) == 401 and found["cat/1.jpg"] == ""
    assert sum(reason.startswith("link to a folder") for reason in found.values()) == 400


def test_broken_links_and_links_to_themselves_are_listed(folder: Path) -> None:
    (folder / "cat/2.jpg").symlink_to("gone")
    (folder / "cat/3.jpg").symlink_to("3.jpg")
    found = reasons(folder)
    assert found["cat/2.jpg"] == "broken symbolic link"
    assert found["cat/3.jpg"].startswith("unreadable: ")


def test_pipes_sockets_and_devices_are_listed_and_not_opened(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Opening a pipe waits until another program writes to it."""
    os.mkfifo(folder / "cat/pipe")
    with socket.socket(socket.AF_UNIX) as server:
        monkeypatch.chdir(folder)  # the path of a socket has at most 108 bytes
        server.bind("cat/socket")
    (folder / "cat/device").symlink_to("/dev/zero")
    found = reasons(folder)
    assert (found["cat/pipe"], found["cat/socket"]) == ("named pipe", "socket")
    assert found["cat/device"] == "device"


def test_a_large_file_is_listed_without_reading_it(folder: Path) -> None:
    with (folder / "cat/large.jpg").open("wb") as stream:
        stream.truncate(3 << 30)
    with (folder / "cat/limit.jpg").open("wb") as stream:
        stream.truncate(MAX_BYTES)
    found = reasons(folder)
    assert (found["cat/large.jpg"], found["cat/limit.jpg"]) == (TOO_LARGE, "")


def test_hard_links_are_files(folder: Path) -> None:
    (folder / "cat/2.jpg").hardlink_to(folder / "cat/1.jpg")
    assert reasons(folder) == {"cat/1.jpg": "", "cat/2.jpg": ""}


@pytest.mark.skipif(os.sep == "\\", reason="a backslash separates folders")
def test_names_with_a_backslash_are_listed(folder: Path) -> None:
    """Read as an archive of Windows, a\\1 and a\\2 would be one class, a."""
    (folder / "a\\1").mkdir()
    (folder / "a\\1/1.jpg").write_bytes(b"one")
    (folder / "cat/1\\2.jpg").write_bytes(b"two")
    reason = "backslash in the name"
    assert reasons(folder) == {"cat/1.jpg": "", "a\\1": reason, "cat/1\\2.jpg": reason}


def test_a_pipe_that_has_replaced_a_file_is_not_waited_for(folder: Path) -> None:
    source = FolderSource(folder, None)
    (folder / "cat/1.jpg").unlink()
    os.mkfifo(folder / "cat/1.jpg")
    with source.open(source.members[0]) as stream:
        assert stream.read() == b""


def test_an_unreadable_folder_is_an_error(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scandir = os.scandir

    def refuse(path: Path) -> Any:  # patched, because root can read every folder
        if path.name == "cat":
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(CatdogError, match=r"in/cat: unreadable folder \(Permission denied\), "):
        FolderSource(folder, None)
