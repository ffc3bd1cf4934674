"""Files and folders are written completely or not at all."""

import csv
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from catdog.support.atomic_files import replacing, replacing_folder, write_rows, write_text


def test_the_new_content_replaces_the_old(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    write_text(path, "old")
    with replacing(path) as temporary:
        temporary.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


def test_missing_folders_are_created(tmp_path: Path) -> None:
    write_text(tmp_path / "b/c/a.txt", "text")
    assert (tmp_path / "b/c/a.txt").read_text() == "text"


def test_an_error_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    write_text(path, "old")
    with pytest.raises(RuntimeError), replacing(path) as temporary:
        temporary.write_text("half of the new con")
        raise RuntimeError
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_an_error_before_the_first_write_is_raised_unchanged(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), replacing(tmp_path / "a.txt"):
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []


KILLED = """
import os, signal, sys
from pathlib import Path
from catdog.support.atomic_files import replacing
with replacing(Path(sys.argv[1])) as temporary:
    temporary.write_text("half of the new con")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_kill_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    write_text(path, "old")
    done = subprocess.run([sys.executable, "-c", KILLED, str(path)], check=False)
    assert done.returncode == -signal.SIGKILL
    assert path.read_text() == "old"


def test_text_is_utf8_with_unix_line_endings(tmp_path: Path) -> None:
    write_text(tmp_path / "a.txt", "кошка\nпёс\n")
    assert (tmp_path / "a.txt").read_bytes() == "кошка\nпёс\n".encode()


def test_rows_with_any_characters_are_read_back(tmp_path: Path) -> None:
    rows = [["a\rb", "1"], ["a\nb", ""], ['a,"b', "\t"], ["é", " "]]
    write_rows(tmp_path / "a.csv", ["name", "value"], rows)
    with (tmp_path / "a.csv").open(encoding="utf-8", newline="") as stream:
        assert list(csv.reader(stream)) == [["name", "value"], *rows]


def test_a_file_has_the_permissions_of_the_umask(tmp_path: Path) -> None:
    write_text(tmp_path / "a.txt", "text")
    (tmp_path / "plain.txt").write_text("text")
    permissions = [os.stat(tmp_path / name).st_mode for name in ("a.txt", "plain.txt")]  # noqa: PTH116
    assert permissions[0] == permissions[1]


def test_a_new_folder_replaces_the_old_one_with_all_its_files(tmp_path: Path) -> None:
    path = tmp_path / "outputs"
    write_text(path / "file of an older version", "old")
    with replacing_folder(path) as folder:
        (folder / "a.txt").write_text("new")
        assert [file.name for file in path.iterdir()] == ["file of an older version"]
    assert [file.name for file in path.iterdir()] == ["a.txt"]
    assert list(tmp_path.iterdir()) == [path]


def test_an_error_leaves_the_old_folder_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "outputs"
    write_text(path / "a.txt", "old")
    with pytest.raises(RuntimeError), replacing_folder(path) as folder:
        (folder / "a.txt").write_text("half of the new con")
        raise RuntimeError
    assert (path / "a.txt").read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


KILLED_FOLDER = """
import os, signal, sys
from pathlib import Path
from catdog.support.atomic_files import replacing_folder
with replacing_folder(Path(sys.argv[1])) as folder:
    (folder / "b.txt").write_text("half of the new con")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_kill_leaves_the_old_folder_and_the_next_process_cleans_up(tmp_path: Path) -> None:
    path = tmp_path / "outputs"
    write_text(path / "a.txt", "old")
    done = subprocess.run([sys.executable, "-c", KILLED_FOLDER, str(path)], check=False)
    assert done.returncode == -signal.SIGKILL
    assert [file.name for file in path.iterdir()] == ["a.txt"]
    with replacing_folder(path) as folder:
        (folder / "c.txt").write_text("new")
    assert [file.name for file in path.iterdir()] == ["c.txt"]
    assert list(tmp_path.iterdir()) == [path]


def test_a_failed_replacement_puts_the_old_folder_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "models"
    folder.mkdir()
    (folder / "weights").write_text("old")
    rename = Path.rename

    def fail_for_the_new_one(self: Path, target: Path) -> Path:
        if self.name == ".models.tmp":
            raise OSError("no permission")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", fail_for_the_new_one)
    with pytest.raises(OSError, match="no permission"), replacing_folder(folder):
        pass
    assert (folder / "weights").read_text() == "old"
