"""Each member of a source gets a place in data/raw, or a reason why it is refused."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from catdog.errors import CatdogError
from catdog.ingest.entries import MAX_NAME_BYTES, classify
from catdog.ingest.members import Member


def placed(*names: str) -> list[str]:
    """Return the path in data/raw of each file, or why it is refused."""
    entries, _ = classify([Member(name, "", None) for name in names])
    assert len(entries) == len(names)
    return [entry.reason or entry.path for entry in entries]


def reason(name: str) -> str:
    """Return why a file beside two classes is refused."""
    *_, found = placed("cat/0.jpg", "dog/0.jpg", name)
    return found


def test_photos_are_placed_in_the_folder_of_their_class() -> None:
    names = ["PetImages/Cat/0.jpg", "PetImages/Dog/2023/0.jpg"]
    assert placed(*names) == ["cat/0.jpg", "dog/0.jpg"]


def test_given_split_folders_are_kept() -> None:
    names = ["Train/cat/0.jpg", "Validation/cat/0.jpg", "Train/dog/x/0.jpg"]
    assert placed(*names) == ["train/cat/0.jpg", "val/cat/0.jpg", "train/dog/0.jpg"]


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
        " ../1.jpg",
        "cat/.. /1.jpg",
        "..\\cat\\1.jpg",
        "\\\\server\\cat\\1.jpg",
    ],
)
def test_a_path_outside_the_archive_is_refused(name: str) -> None:
    assert reason(name) == "path outside the archive"


def test_a_colon_is_allowed_in_a_name() -> None:
    """Except after one letter, which is a drive of Windows."""
    assert placed("breed: collie/1.jpg", "cat/10:30.jpg") == [
        "breed: collie/1.jpg",
        "cat/10:30.jpg",
    ]


def test_a_path_longer_than_any_file_has_is_refused() -> None:
    assert reason("cat/" + "x/" * 2046 + "1.jpg") == "path too long"
    assert reason("cat/" + "x/" * 2043 + "1.jpg") == "cat/1.jpg"


def test_backslashes_separate_folders() -> None:
    names = ["PetImages\\Cat\\1.jpg", "PetImages\\Dog\\1.jpg"]
    assert placed(*names) == ["cat/1.jpg", "dog/1.jpg"]


@pytest.mark.parametrize(
    "name",
    ["cat/.DS_Store", "cat/._1.jpg", "cat/Thumbs.db", "cat/desktop.ini", "__MACOSX/cat/1.jpg"],
)
def test_hidden_and_system_files_are_refused(name: str) -> None:
    assert reason(name) == "hidden or system file"


@pytest.mark.parametrize(
    "name", [".git/1.jpg", "cat/.thumbnails/1.jpg", ".Trash/cat/1.jpg", " .x/1.jpg"]
)
def test_photos_in_hidden_folders_are_refused(name: str) -> None:
    assert reason(name) == "in a hidden folder"


@pytest.mark.parametrize("name", ["cat/a\tb.jpg", "\x1b[31mcat/1.jpg", "cat/\0.jpg", "cat/a\nb"])
def test_a_name_with_control_characters_is_refused_and_listed_with_them_escaped(name: str) -> None:
    (entry,), _ = classify([Member(name, "", None)])
    assert entry.reason == "non-printable characters in the path"
    assert entry.name == name.encode("unicode_escape").decode()


@pytest.mark.parametrize("name", ["cat/photo", "cat/1.heic", "cat/notes.txt", "cat/1.jpg~"])
def test_the_ending_of_a_name_refuses_no_file(name: str) -> None:
    assert placed("cat/1.jpg", "dog/1.jpg", name)[2] == name


def test_a_member_that_its_source_refuses_keeps_the_reason() -> None:
    (entry,), _ = classify([Member("cat/1.jpg", "symbolic link", None)])
    assert entry.reason == "symbolic link"


def test_equal_file_names_of_a_class_are_numbered() -> None:
    names = ["cat/a/1.jpg", "cat/b/1.jpg", "cat/c/1.jpg", "dog/a/1.jpg", "cat/a/1.jpg"]
    paths = ["cat/1.jpg", "cat/1_2.jpg", "cat/1_3.jpg", "dog/1.jpg", "cat/1_4.jpg"]
    assert placed(*names) == paths


def test_file_names_that_differ_only_in_case_or_unicode_form_are_numbered() -> None:
    """On macOS and Windows they are the same file."""
    composed, decomposed = (unicodedata.normalize(form, "é.jpg") for form in ("NFC", "NFD"))
    names = ["cat/A.jpg", "cat/a.JPG", f"dog/{composed}", f"dog/{decomposed}"]
    assert placed(*names) == ["cat/A.jpg", "cat/a_2.JPG", "dog/é.jpg", "dog/é_2.jpg"]


def test_a_numbered_name_never_equals_another_name() -> None:
    names = placed("cat/a/1.jpg", "cat/b/1.jpg", "cat/a/1_2.jpg", "dog/1.jpg")
    assert len({name.casefold() for name in names}) == 4


def test_a_long_file_name_is_shortened_and_keeps_its_ending() -> None:
    long = "写" * 200
    paths = placed(f"cat/{long}.jpg", f"cat/{long}.jpg", f"dog/{'x' * 300}")
    names = [path.split("/")[1] for path in paths]
    assert all(250 <= len(name.encode()) <= MAX_NAME_BYTES for name in names)
    assert names[0].endswith("写.jpg") and names[1].endswith("写_2.jpg")


def test_a_long_name_of_a_class_folder_is_refused() -> None:
    assert reason(f"{'x' * 300}/1.jpg") == "folder name too long"


def test_many_equal_names_take_linear_time() -> None:
    """Numbering each from 2 takes minutes for as many."""
    paths = placed(*["cat/1.jpg"] * 50_000, "dog/1.jpg")
    assert len(set(paths)) == 50_001


def test_an_empty_class_folder_is_named() -> None:
    members = [Member(name, "", None) for name in ("in/cat/1.jpg", "in/dog/1.jpg")]
    _, empty = classify(members, ["in/lynx", "in/cat/old", "in/.git", "in"])
    assert empty == {"lynx": "in/lynx"}


def test_two_readings_are_refused_with_the_option_that_decides() -> None:
    members = [Member(name, "", None) for name in ("train/cat/1.jpg", "dog/1.jpg")]
    with pytest.raises(
        CatdogError, match=r"--class-level 2 for the first reading, or .* 1 for the"
    ):
        classify(members)
    entries, _ = classify(members, class_level=2)
    assert [entry.reason or entry.path for entry in entries] == [
        "cat/1.jpg",
        "no folder at class level 2",
    ]


PIECES = st.sampled_from(
    ["..", ".", "/", "\\", "C:", "cat", "Dog", "a.jpg", "cat.1.jpg", "train", "PetImages", "\0"]
)


ODD_PIECES = st.sampled_from(["", " ", "é", "x" * 300])


@given(st.lists(st.lists(PIECES | ODD_PIECES, max_size=6).map("".join), max_size=6))
def test_no_name_leads_out_of_its_class_folder_or_to_another_photo(names: list[str]) -> None:
    try:
        entries, _ = classify([Member(name, "", None) for name in names])
    except CatdogError:
        return
    accepted = [entry for entry in entries if not entry.reason]
    for entry in accepted:
        parts = entry.path.split("/")
        assert len(parts) == 3 if entry.given_split else len(parts) == 2
        assert parts[-2] == entry.class_name
        for part in parts:
            assert part not in ("", ".", "..")
            assert len(part.encode()) <= MAX_NAME_BYTES
            assert not set(part) & set("\\\0")
    assert len({entry.path.casefold() for entry in accepted}) == len(accepted)
