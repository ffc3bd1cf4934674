"""The photos in data/raw: all of them have a class, or the folder is refused with the reason."""

import os
import re
import subprocess
from pathlib import Path

import pytest

from catdog.errors import CatdogError
from catdog.preparation.class_folders import list_classes, list_photos
from tests.helpers.raw_photos import touch


def listed(root: Path) -> list[tuple[str, str, str]]:
    return [
        (photo.path.relative_to(root).as_posix(), photo.class_name, photo.given_split)
        for photo in list_photos(root)
    ]


def refusal(root: Path) -> str:
    with pytest.raises(CatdogError) as refused:
        list_photos(root)
    assert "\n" not in str(refused.value)
    return str(refused.value)


def test_photos_are_sorted_by_class_and_path_whatever_the_split(tmp_path: Path) -> None:
    touch(tmp_path, "val/cat/1.jpg", "train/dog/b.jpg", "train/dog/a/c.jpg", "train/cat/x")
    assert listed(tmp_path) == [
        ("train/cat/x", "cat", "train"),
        ("val/cat/1.jpg", "cat", "val"),
        ("train/dog/a/c.jpg", "dog", "train"),
        ("train/dog/b.jpg", "dog", "train"),
    ]


def test_a_folder_with_the_name_of_a_system_file_is_a_class(tmp_path: Path) -> None:
    touch(tmp_path, "cat/1.jpg", "cat/Thumbs.db", "thumbs.db/1.jpg")
    assert listed(tmp_path) == [("cat/1.jpg", "cat", ""), ("thumbs.db/1.jpg", "thumbs.db", "")]


def test_links_to_files_are_listed(tmp_path: Path) -> None:
    """DVC stores the content of the file that they lead to."""
    touch(tmp_path, "blob", "raw/cat/1.jpg", "raw/dog/1.jpg")
    (tmp_path / "raw/dog/2.jpg").symlink_to("../../blob")
    assert len(listed(tmp_path / "raw")) == 3


def test_a_link_to_a_folder_is_refused_because_dvc_ignores_it(tmp_path: Path) -> None:
    touch(tmp_path, "pool/1.jpg", "raw/cat/1.jpg")
    (tmp_path / "raw/dog").symlink_to("../pool")
    assert "raw/dog: DVC ignores links to folders; replace" in refusal(tmp_path / "raw")


def test_data_raw_itself_may_not_be_a_link(tmp_path: Path) -> None:
    """The advice removes the link, not the photos, and names the folder to copy."""
    touch(tmp_path, "my disk/cat/1.jpg", "my disk/dog/1.jpg")
    (tmp_path / "raw").symlink_to("my disk")
    message = refusal(tmp_path / "raw")
    assert f"`make photos ARCHIVE='{tmp_path}/my disk'`" in message
    (remove,) = re.findall(r"`(rm .*?)`", message)
    subprocess.run(remove, shell=True, check=True)
    assert not (tmp_path / "raw").exists()
    assert len(listed(tmp_path / "my disk")) == 2


def test_a_folder_that_contains_data_raw_may_be_a_link(tmp_path: Path) -> None:
    """Such as the repository itself."""
    touch(tmp_path, "disk/raw/cat/1.jpg", "disk/raw/dog/1.jpg")
    (tmp_path / "repository").symlink_to("disk")
    assert len(listed(tmp_path / "repository/raw")) == 2


def test_a_broken_link_is_refused(tmp_path: Path) -> None:
    touch(tmp_path, "cat/1.jpg", "dog/1.jpg")
    (tmp_path / "dog/2.jpg").symlink_to("gone")
    assert "dog/2.jpg: broken symbolic link; remove it" in refusal(tmp_path)


def test_a_pipe_is_refused_and_not_opened(tmp_path: Path) -> None:
    touch(tmp_path, "cat/1.jpg", "dog/1.jpg")
    os.mkfifo(tmp_path / "dog/2.jpg")
    assert "dog/2.jpg: not a regular file; remove it" in refusal(tmp_path)


def test_an_unreadable_file_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(tmp_path, "cat/1.jpg", "dog/1.jpg")
    # patched, because root can read every file
    monkeypatch.setattr(os, "access", lambda path, _: not str(path).endswith("dog/1.jpg"))
    assert "dog/1.jpg: permission denied; make it readable or remove it" in refusal(tmp_path)


def test_all_empty_classes_are_named_at_once(tmp_path: Path) -> None:
    touch(tmp_path, "cat/1.jpg", "dog/1.jpg", "lynx/notes.txt", "ocelot/.hidden")
    (tmp_path / "puma").mkdir()
    message = refusal(tmp_path)
    assert "lynx: class folder without photos (also ocelot, puma); add photos" in message


def test_a_photo_without_a_class_is_refused(tmp_path: Path) -> None:
    touch(tmp_path, "cat/1.jpg", "dog/1.jpg", "1.jpg", "2.jpg", "README.md")
    message = refusal(tmp_path)
    assert "1.jpg: not in a class folder (also 2.jpg); move it into one, or remove it" in message


def test_a_layout_with_two_readings_is_refused_with_the_name_of_the_folder(tmp_path: Path) -> None:
    touch(tmp_path, "train/cat/1.jpg", "cat/1.jpg", "dog/1.jpg")
    message = refusal(tmp_path)
    assert message.startswith(f"{tmp_path}: folders can be read in two ways: either 'train' is")
    assert message.endswith("; rename or move the folders")


def test_many_paths_in_a_message_are_cut(tmp_path: Path) -> None:
    touch(tmp_path, "cat/1.jpg", "dog/1.jpg", *[f"{n:03}.jpg" for n in range(100)])
    assert "019.jpg and 80 more)" in refusal(tmp_path)


def relative(root: Path, files: list[Path]) -> list[str]:
    return [file.relative_to(root).as_posix() for file in files]


def test_classes_are_the_sorted_folders_with_all_their_files_below(tmp_path: Path) -> None:
    touch(tmp_path, "dog/b.jpg", "dog/a.jpg", "dog/puppies/c.jpg", "Cat/notes.txt", "Cat/1.jpg")
    classes = list_classes(tmp_path)
    assert list(classes) == ["Cat", "dog"]
    assert relative(tmp_path, classes["dog"]) == ["dog/a.jpg", "dog/b.jpg", "dog/puppies/c.jpg"]
    assert relative(tmp_path, classes["Cat"]) == ["Cat/1.jpg", "Cat/notes.txt"]


def test_hidden_and_system_files_are_not_listed(tmp_path: Path) -> None:
    touch(tmp_path, "cat/1.jpg", "cat/Thumbs.db", "cat/.DS_Store", "cat/desktop.ini")
    touch(tmp_path, "cat/._1.jpg", "dog/1.jpg", ".hidden/1.jpg", "dog/.thumbnails/1.jpg")
    classes = list_classes(tmp_path)
    assert {name: len(files) for name, files in classes.items()} == {"cat": 1, "dog": 1}


def test_one_class_is_refused(tmp_path: Path) -> None:
    touch(tmp_path, "cat/1.jpg")
    with pytest.raises(
        CatdogError, match=r"at least two class folders are required, .*; found 1 .cat.$"
    ):
        list_classes(tmp_path)


def test_a_missing_folder_is_reported_with_the_commands_that_create_it(tmp_path: Path) -> None:
    with pytest.raises(CatdogError, match=r"such folder; run `dvc pull .*`make photos ARCHIVE="):
        list_classes(tmp_path / "raw")


def test_photos_missing_after_a_killed_import_are_reported_as_such(tmp_path: Path) -> None:
    touch(tmp_path, ".raw.old/cat/1.jpg")
    with pytest.raises(CatdogError, match=r"such folder; .* run `make photos ARCHIVE=PATH` again"):
        list_classes(tmp_path / "raw")


def test_an_empty_class_is_refused(tmp_path: Path) -> None:
    touch(tmp_path, "cat/1.jpg", "dog/Thumbs.db")
    with pytest.raises(
        CatdogError, match=r"dog: class folder without photos; add photos or remove the folder"
    ):
        list_classes(tmp_path)
