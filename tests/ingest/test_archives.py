"""Archives and folders: each file gets its class and a name of its own, or a reason why not."""

import io
import random
import tarfile
import zipfile
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from catdog.errors import CatdogError
from catdog.ingest.archives import open_source, sort_entries
from catdog.preparation.photos import PhotoError

LEADS_OUT = "its name leads out of the archive"
NO_CLASS = "no class: it lies in no class folder"


def placed(*names: str) -> list[str]:
    """Return class/name of each file, or why it has none."""
    entries = sort_entries(list(names))
    assert [entry.name for entry in entries] == list(names)
    return [entry.reason or f"{entry.class_name}/{entry.file_name}" for entry in entries]


def write_zip(path: Path, files: Mapping[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def held(path: Path) -> dict[str, bytes]:
    """Return all files of an archive or folder by name."""
    with closing(open_source(path)) as source:
        return {name: source.read(name) for name in source.names()}


def test_microsofts_layout_in_lower_case() -> None:
    assert placed("PetImages/Cat/0.jpg", "PetImages/Dog/0.jpg") == ["cat/0.jpg", "dog/0.jpg"]
    assert placed("readme[1].txt", "PetImages/Cat/Thumbs.db") == [
        "not a photo by its name",
        "left by a file manager",
    ]


@pytest.mark.parametrize("folder", ["", "train/", "dogs-vs-cats/train/", "./train/"])
def test_kaggles_layout_has_the_class_in_the_name(folder: str) -> None:
    assert placed(f"{folder}cat.0.jpg", f"{folder}dog.12.jpg") == [
        "cat/cat.0.jpg",
        "dog/dog.12.jpg",
    ]


def test_class_folders_win_over_names_like_kaggles() -> None:
    assert placed("train/lynx/cat.0.jpg") == ["lynx/cat.0.jpg"]


@pytest.mark.parametrize("wrapper", ["", "./", "train/", "my photos/2024/"])
def test_class_folders_of_any_names_in_any_wrapper(wrapper: str) -> None:
    names = [f"{wrapper}Maine Coon/a.jpg", f"{wrapper}Ñandú/b.PNG"]
    assert placed(*names) == ["Maine Coon/a.jpg", "Ñandú/b.PNG"]


@pytest.mark.parametrize("name", ["test1/1.jpg", "test/1.jpg", "Test1/1.jpg", "1.jpg", "./1.jpg"])
def test_a_photo_without_a_class_is_refused(name: str) -> None:
    assert placed(name) == [NO_CLASS]


@pytest.mark.parametrize(
    "name",
    [
        "../cat/1.jpg",
        "cat/../../1.jpg",
        "cat/../1.jpg",
        "/cat/1.jpg",
        "C:/cat/1.jpg",
        "C:\\cat\\1.jpg",
        "C:1.jpg",
        "..\\cat\\1.jpg",
        "\\\\server\\cat\\1.jpg",
    ],
)
def test_a_name_that_leads_out_of_the_archive_is_refused(name: str) -> None:
    assert placed(name) == [LEADS_OUT]


def test_backslashes_of_windows_part_folders() -> None:
    assert placed("PetImages\\Cat\\1.jpg", "train\\dog.1.jpg") == ["cat/1.jpg", "dog/dog.1.jpg"]


@pytest.mark.parametrize(
    "name",
    ["cat/.DS_Store", "cat/._1.jpg", "cat/Thumbs.db", "cat/desktop.ini", "__MACOSX/cat/1.jpg"],
)
def test_what_file_managers_leave_is_refused(name: str) -> None:
    assert placed(name) == ["left by a file manager"]


@pytest.mark.parametrize("name", [".git/1.jpg", "cat/.thumbnails/1.jpg", ".Trash/cat/1.jpg"])
def test_photos_in_hidden_folders_are_refused(name: str) -> None:
    assert placed(name) == ["its folder is hidden"]


@pytest.mark.parametrize("name", ["cat/notes.txt", "labels.csv", "cat/jpg", "in.zip", "."])
def test_what_is_no_photo_by_its_name_is_refused(name: str) -> None:
    assert placed(name) == ["not a photo by its name"]


def test_names_that_collide_are_numbered() -> None:
    assert placed("a/cat/1.jpg", "b/cat/1.jpg", "c/cat/1.jpg", "a/dog/1.jpg") == [
        "cat/1.jpg",
        "cat/1_2.jpg",
        "cat/1_3.jpg",
        "dog/1.jpg",
    ]


def test_names_that_differ_in_case_alone_are_numbered_too() -> None:
    """macOS and Windows hold the two for one file."""
    assert placed("cat/A.jpg", "cat/a.JPG") == ["cat/A.jpg", "cat/a_2.JPG"]


def test_a_number_never_takes_the_name_of_another_photo() -> None:
    names = placed("a/cat/1.jpg", "b/cat/1.jpg", "a/cat/1_2.jpg")
    assert len({name.casefold() for name in names}) == 3


PIECES = st.sampled_from(
    ["..", ".", "/", "\\", "C:", "cat", "Dog", "a.jpg", "cat.1.jpg", "train", "PetImages", "\0", ""]
)


@given(st.lists(st.lists(PIECES, max_size=6).map("".join), max_size=6))
def test_no_name_whatever_leads_out_of_its_class_folder_or_onto_another(names: list[str]) -> None:
    taken = [entry for entry in sort_entries(names) if not entry.reason]
    for entry in taken:
        for part in (entry.class_name, entry.file_name):
            assert part not in ("", ".", "..")
            assert not set(part) & set("/\\\0")
    places = [(entry.class_name.casefold(), entry.file_name.casefold()) for entry in taken]
    assert len(set(places)) == len(places)


FILES = {"cat/1.jpg": b"one", "cat/deep/2.jpg": b"", "dog/3.jpg": b"three" * 1000}


def test_a_folder_a_zip_and_every_tar_hold_the_same(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    for name, content in FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    assert held(folder) == FILES
    assert held(write_zip(tmp_path / "a.zip", FILES)) == FILES
    for mode, name in [("w", "a.tar"), ("w:gz", "a.tar.gz"), ("w:bz2", "a.tbz"), ("w:xz", "a.xz")]:
        with tarfile.open(tmp_path / name, mode) as archive:  # type: ignore[call-overload]
            archive.add(folder, ".")
        unpacked = held(tmp_path / name)
        assert {key.removeprefix("./"): content for key, content in unpacked.items()} == FILES


def test_links_in_a_tar_are_left_out(tmp_path: Path) -> None:
    path = tmp_path / "a.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
        photo = tarfile.TarInfo("cat/1.jpg")
        photo.size = 3
        archive.addfile(photo, io.BytesIO(b"one"))
        for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE):
            link = tarfile.TarInfo(f"cat/{kind.decode()}.jpg")
            link.type, link.linkname = kind, "/etc/passwd"
            archive.addfile(link)
    assert held(path) == {"cat/1.jpg": b"one"}


def test_links_in_a_folder_are_named_and_not_read(tmp_path: Path) -> None:
    (tmp_path / "in/cat").mkdir(parents=True)
    (tmp_path / "in/cat/1.jpg").write_bytes(b"one")
    (tmp_path / "secret.jpg").write_bytes(b"two")
    (tmp_path / "in/cat/2.jpg").symlink_to(tmp_path / "secret.jpg")
    with closing(open_source(tmp_path / "in")) as source:
        assert source.names() == ["cat/1.jpg", "cat/2.jpg"]
        assert source.read("cat/1.jpg") == b"one"
        with pytest.raises(PhotoError, match="a symbolic link"):
            source.read("cat/2.jpg")


def test_a_link_to_a_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "cats").mkdir()
    (tmp_path / "in").mkdir()
    (tmp_path / "in/cat").symlink_to(tmp_path / "cats")
    says = r"in/cat: a link to a folder; put the folder in its place"
    with (
        closing(open_source(tmp_path / "in")) as source,
        pytest.raises(CatdogError, match=says),
    ):
        source.names()


def test_a_zip_with_a_password_is_refused(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "a.zip", FILES)
    content = bytearray(path.read_bytes())
    # The lowest flag bit says "encrypted"; of the central directory's header it is the 9th byte.
    content[content.index(b"PK\1\2") + 8] |= 1
    path.write_bytes(content)
    with pytest.raises(CatdogError, match=r"a\.zip: needs a password; unpack it"):
        held(path)


def test_a_zip_with_a_damaged_directory_is_refused(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "a.zip", FILES)
    path.write_bytes(path.read_bytes().replace(b"PK\1\2", b"XX\1\2"))
    with pytest.raises(CatdogError, match=r"a\.zip: the archive is damaged .*get it again"):
        open_source(path)


@pytest.mark.parametrize("mode", ["w:gz", "w:bz2", "w:xz"])
@pytest.mark.parametrize("damage", ["cut", "flipped"])
def test_a_damaged_tar_is_refused(tmp_path: Path, mode: str, damage: str) -> None:
    path = tmp_path / "a.tar"
    noise = random.Random(0).randbytes(1_000_000)  # bzip2 checks each 900 kB
    with tarfile.open(path, mode) as archive:  # type: ignore[call-overload]
        for name in ("cat/1.jpg", "dog/1.jpg"):
            info = tarfile.TarInfo(name)
            info.size = len(noise)
            archive.addfile(info, io.BytesIO(noise))
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    if damage == "cut":
        del content[middle:]
    else:
        content[middle : middle + 8] = bytes(b ^ 0xFF for b in content[middle : middle + 8])
    path.write_bytes(content)
    with pytest.raises(CatdogError, match=r"a\.tar: the archive is damaged .*get it again"):
        open_source(path)


def test_what_is_no_archive_is_refused(tmp_path: Path) -> None:
    for content in (b"", b"no archive at all" * 100, b"PK\3\4 cut short"):
        (tmp_path / "a.zip").write_bytes(content)
        with pytest.raises(CatdogError, match=r"a\.zip: neither a zip nor a tar .* get it again"):
            open_source(tmp_path / "a.zip")


def test_a_missing_archive_is_named(tmp_path: Path) -> None:
    with pytest.raises(CatdogError, match=r"gone\.zip: no such file"):
        open_source(tmp_path / "gone.zip")
