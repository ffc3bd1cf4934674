"""Each file of an archive gets a class and a unique file name, or a reason why it is refused."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from catdog.ingest.entries import classify


def placed(*names: str) -> list[str]:
    """Return class/file_name of each file, or why it is refused."""
    entries = classify(list(names))
    assert [entry.name for entry in entries] == list(names)
    return [entry.reason or f"{entry.class_name}/{entry.file_name}" for entry in entries]


def test_microsofts_classes_become_lower_case() -> None:
    assert placed("PetImages/Cat/0.jpg", "PetImages/Dog/0.jpg") == ["cat/0.jpg", "dog/0.jpg"]
    assert placed("readme[1].txt", "PetImages/Cat/Thumbs.db") == [
        "unsupported file extension",
        "hidden or system file",
    ]


@pytest.mark.parametrize("folder", ["", "train/", "dogs-vs-cats/train/", "./train/"])
def test_in_kaggles_layout_the_class_is_in_the_file_name(folder: str) -> None:
    assert placed(f"{folder}cat.0.jpg", f"{folder}dog.12.jpg") == [
        "cat/cat.0.jpg",
        "dog/dog.12.jpg",
    ]


def test_class_folders_take_precedence_over_kaggles_names() -> None:
    assert placed("train/lynx/cat.0.jpg") == ["lynx/cat.0.jpg"]


@pytest.mark.parametrize("wrapper", ["", "./", "train/", "my photos/2024/"])
def test_class_folders_of_any_name_below_any_folder(wrapper: str) -> None:
    names = [f"{wrapper}Maine Coon/a.jpg", f"{wrapper}Ñandú/b.PNG"]
    assert placed(*names) == ["Maine Coon/a.jpg", "Ñandú/b.PNG"]


@pytest.mark.parametrize("name", ["test1/1.jpg", "test/1.jpg", "Test1/1.jpg", "1.jpg", "./1.jpg"])
def test_a_photo_without_a_class_is_refused(name: str) -> None:
    assert placed(name) == ["not in a class folder"]


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
def test_a_path_outside_the_archive_is_refused(name: str) -> None:
    assert placed(name) == ["path outside the archive"]


def test_backslashes_separate_folders() -> None:
    assert placed("PetImages\\Cat\\1.jpg", "train\\dog.1.jpg") == ["cat/1.jpg", "dog/dog.1.jpg"]


@pytest.mark.parametrize(
    "name",
    ["cat/.DS_Store", "cat/._1.jpg", "cat/Thumbs.db", "cat/desktop.ini", "__MACOSX/cat/1.jpg"],
)
def test_hidden_and_system_files_are_refused(name: str) -> None:
    assert placed(name) == ["hidden or system file"]


@pytest.mark.parametrize("name", [".git/1.jpg", "cat/.thumbnails/1.jpg", ".Trash/cat/1.jpg"])
def test_photos_in_hidden_folders_are_refused(name: str) -> None:
    assert placed(name) == ["in a hidden folder"]


@pytest.mark.parametrize("name", ["cat/notes.txt", "labels.csv", "cat/jpg", "in.zip", "."])
def test_an_unsupported_file_extension_is_refused(name: str) -> None:
    assert placed(name) == ["unsupported file extension"]


def test_equal_file_names_are_numbered() -> None:
    assert placed("a/cat/1.jpg", "b/cat/1.jpg", "c/cat/1.jpg", "a/dog/1.jpg") == [
        "cat/1.jpg",
        "cat/1_2.jpg",
        "cat/1_3.jpg",
        "dog/1.jpg",
    ]


def test_file_names_that_differ_only_in_case_are_numbered() -> None:
    """On macOS and Windows they are the same file."""
    assert placed("cat/A.jpg", "cat/a.JPG") == ["cat/A.jpg", "cat/a_2.JPG"]


def test_a_numbered_name_never_equals_another_name() -> None:
    names = placed("a/cat/1.jpg", "b/cat/1.jpg", "a/cat/1_2.jpg")
    assert len({name.casefold() for name in names}) == 3


PIECES = st.sampled_from(
    ["..", ".", "/", "\\", "C:", "cat", "Dog", "a.jpg", "cat.1.jpg", "train", "PetImages", "\0", ""]
)


@given(st.lists(st.lists(PIECES, max_size=6).map("".join), max_size=6))
def test_no_name_leads_out_of_its_class_folder_or_to_another_photo(names: list[str]) -> None:
    accepted = [entry for entry in classify(names) if not entry.reason]
    for entry in accepted:
        for part in (entry.class_name, entry.file_name):
            assert part not in ("", ".", "..")
            assert not set(part) & set("/\\\0")
    places = [(entry.class_name.casefold(), entry.file_name.casefold()) for entry in accepted]
    assert len(set(places)) == len(places)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("cat/a\tb.jpg", "non-printable characters in the path"),
        ("\x1b[31mcat/1.jpg", "non-printable characters in the path"),
        (" cat/1.jpg", "leading or trailing spaces in the folder name"),
        ("cat /1.jpg", "leading or trailing spaces in the folder name"),
    ],
)
def test_non_printable_and_padded_names_are_refused(name: str, reason: str) -> None:
    assert placed(name) == [reason]
