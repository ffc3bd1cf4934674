"""One rule gives each file its class and its split, from the paths of all files only."""

import re
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from catdog.errors import CatdogError
from catdog.preparation.layout import SPLIT_FOLDERS, Parts, read_layout
from tests.helpers.errors import error_line


def classes(*paths: str, **options: object) -> list[str]:
    """Return split/class of each path, or why it has none."""
    layout = read_layout([tuple(path.split("/")) for path in paths], **options)  # type: ignore[arg-type]
    return [
        p.reason or "/".join(filter(None, (p.given_split, p.class_name))) for p in layout.places
    ]


def test_the_class_is_the_first_folder_whatever_is_between_it_and_the_photo() -> None:
    assert classes("cat/2023/1.jpg", "cat/2024/May/2.jpg", "dog/3.jpg") == ["cat", "cat", "dog"]


@pytest.mark.parametrize("wrapper", ["", "photos/", "my photos/2024/", "train/", "data/Train/"])
def test_folders_that_contain_all_classes_are_ignored(wrapper: str) -> None:
    assert classes(f"{wrapper}cat/1.jpg", f"{wrapper}dog/2/3.jpg") == ["cat", "dog"]


@pytest.mark.parametrize(
    ("train", "val", "test"),
    [
        ("train", "val", "test"),
        ("TRAIN", "Valid", "Testing"),
        ("training", "validation", "test1"),
        ("dataset/train", "dataset/val", "dataset/test"),
    ],
)
def test_below_split_folders_the_class_is_their_folder(train: str, val: str, test: str) -> None:
    paths = [f"{train}/cat/1.jpg", f"{train}/dog/x/2.jpg", f"{val}/cat/1.jpg", f"{test}/dog/1.jpg"]
    assert classes(*paths) == ["train/cat", "train/dog", "val/cat", "test/dog"]


def test_split_folders_below_the_classes_are_given_splits() -> None:
    paths = ["cat/train/1.jpg", "cat/val/2.jpg", "dog/2023/train/3.jpg"]
    assert classes(*paths) == ["train/cat", "val/cat", "train/dog"]


def test_photos_of_a_single_split_have_no_given_split() -> None:
    assert classes("cat/1.jpg", "cat/test/2.jpg", "dog/3.jpg") == ["cat", "cat", "dog"]


@pytest.mark.parametrize("folder", ["", "train/", "dogs-vs-cats/train/", "train/train/"])
def test_in_kaggles_layout_the_class_is_in_the_file_name(folder: str) -> None:
    assert classes(f"{folder}cat.0.jpg", f"{folder}dog.12.jpg") == ["cat", "dog"]


def test_kaggles_test_photos_have_no_class() -> None:
    paths = ["train/cat.0.jpg", "train/dog.1.jpg", "test1/1.jpg"]
    assert classes(*paths) == ["cat", "dog", "not in a class folder"]


def test_class_folders_take_precedence_over_kaggles_names() -> None:
    assert classes("train/lynx/cat.0.jpg", "train/dog/cat.1.jpg") == ["lynx", "dog"]


def test_microsofts_classes_become_lower_case() -> None:
    assert classes("PetImages/Cat/0.jpg", "PetImages/Dog/0.jpg") == ["cat", "dog"]


def test_photos_beside_class_folders_have_no_class() -> None:
    assert classes("cat/1.jpg", "dog/1.jpg", "1.jpg")[2] == "not in a class folder"


@pytest.mark.parametrize("other", ["readme.txt", "labels/1.TXT", "train/list.csv", "a/b/c.tar.gz"])
def test_files_that_are_no_photos_do_not_decide_the_layout(other: str) -> None:
    assert classes("images/cat/1.jpg", "images/dog/2", other)[:2] == ["cat", "dog"]


def test_files_that_are_no_photos_are_in_the_class_of_their_folder() -> None:
    assert classes("cat/1.jpg", "cat/notes.txt", "dog/2.jpg") == ["cat", "cat", "dog"]


TWO_READINGS = [
    (["train/cat/1.jpg", "lynx/2.jpg"], ["train/cat/1.jpg", "lynx/2.jpg", "'cat'"], (2, 1)),
    (["x/train/cat/1.jpg", "x/lynx/2.jpg"], ["x/train/cat/1.jpg", "x/lynx/2.jpg"], (3, 2)),
    (["test/1.jpg", "cat/1.jpg"], ["'test'", "without a class", "cat/1.jpg"], (2, 1)),
    (["a/train/cat/1.jpg", "b/train/cat/2.jpg"], ["a/train/cat/1.jpg", "'a'", "'cat'"], (1, 3)),
    (["cat/train/x/1.jpg", "dog/2.jpg"], ["cat/train/x/1.jpg", "'cat'", "'x'"], (1, 3)),
]


@pytest.mark.parametrize(("paths", "shown", "levels"), TWO_READINGS)
def test_a_layout_that_can_be_read_in_two_ways_is_refused_with_both_readings_and_the_option(
    paths: list[str], shown: list[str], levels: tuple[int, int]
) -> None:
    message = error_line(classes, *paths, option="--class-level")
    assert all(text in message for text in ["two ways", *shown])
    first, second = levels
    assert f"--class-level {first} for the first reading, or --class-level {second}" in message
    assert "--class-level" not in error_line(classes, *paths)  # data/raw has no such option


def test_photos_with_and_without_a_given_split_in_one_class_are_refused() -> None:
    paths = ["cat/1.jpg", "cat/train/2.jpg", "dog/test/3.jpg"]
    message = error_line(classes, *paths, option="--class-level")
    assert "cat/1.jpg" in message and "cat/train/2.jpg" in message
    assert classes(*paths, class_level=1) == ["cat", "cat", "dog"]


@pytest.mark.parametrize(
    ("level", "paths", "message"),
    [
        (3, ["a/cat/1.jpg", "a/2.jpg", "x/y/z/notes.txt"], "at most 2, so 1 to 2 or -2 to -1 are"),
        (-2, ["cat/1.jpg"], "^--class-level -2: too deep; .* at most 1, so 1 is allowed"),
        (1, ["1.jpg"], "at most 0$"),
    ],
)
def test_a_class_level_deeper_than_all_folders_is_refused(
    level: int, paths: list[str], message: str
) -> None:
    assert re.search(
        message, error_line(classes, *paths, class_level=level, option="--class-level")
    )


def test_the_class_level_decides() -> None:
    two = ["a/train/cat/1.jpg", "b/val/cat/2.jpg"]
    assert classes(*two, class_level=1) == ["train/a", "val/b"]
    assert classes(*two, class_level=3) == classes(*two, class_level=-1) == ["train/cat", "val/cat"]
    assert classes("cat/train/x/1.jpg", "dog/train/y/2.jpg", class_level=-1) == ["x", "y"]
    assert classes("cat/1.jpg", "dog/a/2.jpg", class_level=2) == ["no folder at class level 2", "a"]


def test_names_that_differ_in_unicode_form_or_in_spaces_at_an_end_are_one_class() -> None:
    names = [unicodedata.normalize(form, "Ñandú") for form in ("NFC", "NFD")]
    assert names[0] != names[1]
    found = classes(f"{names[0]}/1.jpg", f"{names[1]}/2.jpg", f" {names[0]} /3.jpg", "dog/4.jpg")
    assert found == [names[0]] * 3 + ["dog"]


@pytest.mark.parametrize("other", ["Cat", "CAT", "ｃａｔ"])
def test_names_that_differ_only_in_case_or_width_are_refused_with_both(other: str) -> None:
    message = error_line(classes, "cat/1.jpg", f"{other}/2.jpg")
    assert all(text in message for text in [ascii("cat"), ascii(other), "cat/1.jpg", "/2.jpg"])


@pytest.mark.parametrize("name", sorted(SPLIT_FOLDERS))
def test_a_class_with_the_name_of_a_split_folder_is_refused(name: str) -> None:
    """In data/raw it would be a split folder."""
    assert "reserved" in error_line(classes, f"{name}/1.jpg", "cat/2.jpg", class_level=1)


def test_empty_class_folders_are_named_and_decide_the_layout() -> None:
    files: list[Parts] = [("cat", "2023", "1.jpg"), ("cat", "2024", "2.jpg")]
    layout = read_layout(files, [("dog",), ("cat", "2025")])
    assert [place.class_name for place in layout.places] == ["cat", "cat"]
    assert layout.empty_classes == {"dog": ("dog",)}


@pytest.mark.parametrize("folder", [" ..", ".. ", " .git", "  "])
def test_a_hidden_folder_and_the_folder_above_are_no_classes(folder: str) -> None:
    """Without the spaces at their ends."""
    assert classes("cat/1.jpg", "dog/1.jpg", f"{folder}/1.jpg")[2] == "not in a class folder"


def test_the_page_about_photos_names_all_split_folders() -> None:
    page = (Path(__file__).parents[2] / "docs/photos.md").read_text(encoding="utf-8")
    row = next(
        line for line in page.splitlines() if line.startswith("| split folders, in any case:")
    )
    named = re.findall(r"`(\w+)`", row.split("|")[1])
    assert sorted(named) == sorted(SPLIT_FOLDERS)


NAMES = st.sampled_from(
    ["cat", "dog", "Cat", "train", "val", "test", "x", " cat ", "PetImages", "cat.1.jpg", "a.txt"]
)
PATHS = st.lists(st.lists(NAMES, min_size=1, max_size=5).map(tuple), min_size=1, max_size=8)


@given(PATHS, st.sampled_from([None, 1, 2, -1]))
def test_every_file_has_a_class_or_a_reason_or_the_layout_is_refused(
    paths: list[Parts], class_level: int | None
) -> None:
    try:
        layout = read_layout(paths, class_level=class_level)
    except CatdogError:
        return
    assert len(layout.places) == len(paths)
    assert all(bool(place.class_name) != bool(place.reason) for place in layout.places)


@given(PATHS, st.sampled_from([None, 1, 2, -1]))
def test_imported_photos_have_the_same_class_and_split_in_data_raw(
    paths: list[Parts], class_level: int | None
) -> None:
    """The import writes [split/]class/file."""
    try:
        places = read_layout(paths, class_level=class_level).places
    except CatdogError:
        return
    placed = [place for place in places if place.class_name]
    if len({place.class_name for place in placed}) < 2:
        return  # refused by the import
    raw = [(*filter(None, (p.given_split, p.class_name)), f"{i}.jpg") for i, p in enumerate(placed)]
    assert read_layout(raw).places == placed
