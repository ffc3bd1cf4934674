"""What `catdog predict` finds in folders, and how it reads pipes."""

import io
import os
import sys
import threading
from pathlib import Path

import pytest
from PIL import Image

from catdog.errors import CatdogError, PhotoError
from catdog.preparation.photo_inputs import find_photos, read_photo


def put(path: Path, content: bytes | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    if content is None:
        stream = io.BytesIO()
        Image.new("RGB", (8, 8), "red").save(stream, "PNG")
        content = stream.getvalue()
    path.write_bytes(content)
    return path


def names(root: Path, files: list[Path]) -> list[str]:
    return [file.relative_to(root).as_posix() for file in files]


def test_photos_in_folders_are_found_by_content_and_others_counted(tmp_path: Path) -> None:
    put(tmp_path / "in/b.JPG")
    put(tmp_path / "in/deep/no_extension")
    put(tmp_path / "in/deep/a.txt")
    put(tmp_path / "in/notes.txt", b"no photo")
    put(tmp_path / "in/film.mp4", b"\0\0\0\x18ftypmp42")
    put(tmp_path / "in/empty.jpg", b"")
    put(tmp_path / "in/damaged.jpg", b"no photo")
    for hidden in ("in/.hidden.jpg", "in/.cache/c.jpg", "in/Thumbs.db"):
        put(tmp_path / hidden)
    found, skipped = find_photos([tmp_path / "in"])
    assert names(tmp_path / "in", found) == [
        "b.JPG",
        "damaged.jpg",
        "deep/a.txt",
        "deep/no_extension",
        "empty.jpg",
    ]
    assert skipped == 2


def test_given_files_are_not_skipped_and_nothing_is_listed_twice(tmp_path: Path) -> None:
    given = put(tmp_path / "in/given.txt", b"no photo")
    photo = put(tmp_path / "in/a.png")
    paths: list[str | Path] = [tmp_path / "in", given, photo, str(photo), tmp_path / "in"]
    assert find_photos(paths) == ([photo, given], 0)


def test_links_to_files_and_folders_are_followed_but_not_in_a_loop(tmp_path: Path) -> None:
    put(tmp_path / "blobs/5f2a")
    put(tmp_path / "elsewhere/deep/x.png")
    put(tmp_path / "in/real/1.png")
    links = {
        "in/photo.jpg": tmp_path / "blobs/5f2a",
        "in/folder": tmp_path / "elsewhere",
        "in/a_link_to_real": tmp_path / "in/real",
        "in/real/loop": tmp_path / "in",
        "in/broken.jpg": tmp_path / "gone",
        "in/itself.jpg": tmp_path / "in/itself.jpg",
    }
    for name, target in links.items():
        (tmp_path / name).symlink_to(target)
    found, skipped = find_photos([tmp_path / "in"])
    assert names(tmp_path / "in", found) == [
        "broken.jpg",
        "folder/deep/x.png",
        "itself.jpg",
        "photo.jpg",
        "real/1.png",
    ]
    assert skipped == 0
    with pytest.raises(PhotoError, match=r"^not a file$"):
        read_photo(tmp_path / "in/broken.jpg", 8)


def test_pipes_in_a_folder_are_not_opened_but_a_given_one_is_read(tmp_path: Path) -> None:
    content = put(tmp_path / "photo.png").read_bytes()
    os.mkfifo(tmp_path / "pipe")
    assert find_photos([tmp_path]) == ([tmp_path / "photo.png"], 1)
    assert find_photos([tmp_path / "pipe"]) == ([tmp_path / "pipe"], 0)
    writer = threading.Thread(target=(tmp_path / "pipe").write_bytes, args=(content,))
    writer.start()
    assert read_photo(tmp_path / "pipe", 8).size == (8, 8)
    writer.join()


def test_a_dash_is_standard_input_and_a_file_of_that_name_has_its_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    put(tmp_path / "-")
    assert find_photos(["-"]) == ([Path("-")], 0)
    assert find_photos(["./-"]) == ([tmp_path / "-"], 0)
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO()))
    with pytest.raises(PhotoError, match=r"^empty file$"):
        read_photo(Path("-"), 8)


def test_a_missing_path_is_reported(tmp_path: Path) -> None:
    with pytest.raises(CatdogError, match=r"gone: no such file or folder; pass photos"):
        find_photos([tmp_path / "gone"])


@pytest.mark.parametrize("path", ["x" * 300 + ".jpg", "x/" * 3000 + "1.jpg"])
def test_a_path_that_is_too_long_for_a_file_is_reported(path: str) -> None:
    with pytest.raises(CatdogError, match=r"jpg: no such file or folder; pass photos"):
        find_photos([path])


def test_an_empty_path_is_not_the_current_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such as that of an empty variable of a script."""
    monkeypatch.chdir(tmp_path)
    put(tmp_path / "1.png")
    with pytest.raises(CatdogError, match=r"^empty path; pass photos"):
        find_photos(["", "1.png"])


def test_a_closed_standard_input_has_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", None)  # as Python sets it for `catdog predict - <&-`
    with pytest.raises(PhotoError, match="standard input is closed"):
        read_photo(Path("-"), 64)
