"""The split of small classes, given splits, and the warning about unequal classes."""

import hashlib
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from catdog import params
from catdog.dataset.prepared import SPLITS, read_split, read_stats
from catdog.errors import CatdogError
from catdog.preparation import photos, prepare
from catdog.preparation.class_folders import RawPhoto
from catdog.preparation.split import given_splits, split_class, split_of
from tests.helpers.errors import error_line
from tests.helpers.raw_photos import read_rows, row_of, write_photos

CONTENT = params.Prepare(image_size=16, split="content", val_share=0.15, test_share=0.25)
GIVEN = CONTENT.model_copy(update={"split": "given"})
SHARES = [(0.15, 0.25), (0.1, 0.1), (0.5, 0.4), (0.001, 0.001), (0.0, 0.2), (0.2, 0.0), (0.0, 0.0)]

every_share = pytest.mark.parametrize(("val_share", "test_share"), SHARES)


def hashes(count: int, seed: int) -> list[str]:
    generator = np.random.default_rng(seed)
    return [generator.bytes(32).hex() for _ in range(count)]


def at(*positions: float) -> list[str]:
    """Return hashes at these positions between 0 and 1."""
    return [f"{int(position * 2**64):016x}".ljust(64, "0") for position in positions]


def used(val_share: float, test_share: float) -> set[str]:
    shares = {"train": 1.0, "val": val_share, "test": test_share}
    return {split for split, share in shares.items() if share}


@every_share
def test_a_class_with_a_photo_per_split_is_in_every_split(
    val_share: float, test_share: float
) -> None:
    for seed in range(60):
        found = split_class(hashes(3 + seed % 15, seed), val_share, test_share)
        assert set(found.values()) == used(val_share, test_share)


@every_share
def test_no_photo_moves_when_others_come_if_no_split_is_empty(
    val_share: float, test_share: float
) -> None:
    for seed in range(20):
        all_hashes = hashes(100, seed)
        plain = {sha: split_of(sha, val_share, test_share) for sha in all_hashes}
        for count in range(1, 101, 3):
            some = all_hashes[:count]
            if {plain[sha] for sha in some} == used(val_share, test_share):
                expected = {sha: plain[sha] for sha in some}
                assert split_class(some, val_share, test_share) == expected


@pytest.mark.parametrize(
    ("positions", "expected"),
    [
        # The test set is below 0.25, the validation set below 0.4.
        ((0.3, 0.5, 0.9), ["test", "val", "train"]),
        ((0.5, 0.6, 0.9), ["test", "val", "train"]),
        ((0.1, 0.5, 0.6, 0.9), ["test", "val", "train", "train"]),
        ((0.3, 0.35, 0.5, 0.9), ["test", "val", "train", "train"]),
        ((0.1, 0.2, 0.3), ["test", "val", "train"]),
        ((0.1, 0.2, 0.21, 0.22), ["test", "test", "val", "train"]),
        ((0.1, 0.3, 0.31, 0.35), ["test", "val", "val", "train"]),
        ((0.1, 0.11), ["test", "test"]),  # too few photos: unchanged
    ],
)
def test_an_empty_split_gets_the_photos_nearest_to_its_range(
    positions: tuple[float, ...], expected: list[str]
) -> None:
    assert list(split_class(at(*positions), 0.15, 0.25).values()) == expected


def test_the_order_of_the_photos_does_not_matter() -> None:
    found = hashes(7, seed=1)
    assert split_class(found[::-1], 0.1, 0.1) == split_class(found, 0.1, 0.1)


def test_a_moved_photo_returns_to_its_own_split_when_another_fills_the_empty_one() -> None:
    (moved, *rest), (new,) = at(0.3, 0.35, 0.5, 0.9), at(0.1)
    assert split_class([moved, *rest], 0.15, 0.25)[moved] == "test"
    assert split_class([moved, *rest, new], 0.15, 0.25)[moved] == "val"


def run(raw: Path, settings: params.Prepare = CONTENT) -> Path:
    """Prepare the photos next to `raw`."""
    prepare.prepare(settings, raw, raw.parent / "prepared", workers=1)
    return raw.parent / "prepared"


def splits(prepared: Path) -> dict[str, str]:
    """Return the split of each photo that is used, by path."""
    return {row["path"]: row["split"] for row in read_rows(prepared) if row["split"]}


def check_arrays(raw: Path, prepared: Path) -> None:
    """Check that every array has the photos of its rows, and stats.json those of train.npy."""
    for name in SPLITS:
        split = read_split(prepared, name)
        for photo, row in zip(split.photos, split.rows, strict=True):
            opened = photos.open_photo(raw / row["path"], max_side=16)
            assert np.array_equal(photo, photos.resize_to_square(opened, 16))
    pixels, stats = read_split(prepared, "train").photos / 255, read_stats(prepared)
    assert stats.mean == pytest.approx(pixels.mean((0, 1, 2)).tolist(), abs=1e-6)
    assert stats.std == pytest.approx(pixels.std((0, 1, 2)).tolist(), abs=1e-6)


def test_every_class_of_three_photos_is_in_every_split(tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    for index in range(20):
        write_photos(raw / f"class{index:02}", 3, seed=index)
    prepared = run(raw)
    found = Counter((row["class"], row["split"]) for row in read_rows(prepared))
    assert len(found) == 60
    assert set(found.values()) == {1}
    check_arrays(raw, prepared)


def test_a_photo_that_cannot_be_decoded_fills_no_split(tmp_path: Path) -> None:
    """The splits are those without the broken photo, whose hash is the lowest of its class."""
    few = CONTENT.model_copy(update={"val_share": 0.01, "test_share": 0.01})
    raw = write_photos(tmp_path / "raw/dog", 24, seed=1).parent
    write_photos(raw / "cat", 3, seed=2)
    before = splits(run(raw, few))
    broken = (f"no photo {index}".encode() for index in range(1000))
    lowest = min(broken, key=lambda content: hashlib.sha256(content).hexdigest())
    (raw / "cat/broken.jpg").write_bytes(lowest)
    prepared = run(raw, few)
    assert row_of(prepared, "cat/broken.jpg")["reason"] == "unsupported format: text"
    assert splits(prepared) == before
    check_arrays(raw, prepared)
    files = sorted(file.name for file in prepared.iterdir())
    assert files == ["photos.csv", "stats.json", "test.npy", "train.npy", "val.npy"]


def refusal(raw: Path, settings: params.Prepare) -> str:
    """Return the error of one line; nothing must be written."""
    message = error_line(run, raw, settings)
    assert not (raw.parent / "prepared").exists()
    return message


def test_all_classes_that_are_too_small_are_named_at_once(tmp_path: Path) -> None:
    raw = write_photos(tmp_path / "raw/cat", 3, seed=1).parent
    write_photos(raw / "bird", 2, seed=2)
    (write_photos(raw / "dog", 2, seed=3) / "broken.jpg").write_text("no photo")
    assert refusal(raw, CONTENT).removeprefix(str(raw)) == (
        ": each class needs at least 3 different photos, one per split; too small: bird (2), "
        "dog (2, and 1 refused); refused most often: unsupported format: text (1 of 1 files, such "
        f"as {raw}/dog/broken.jpg); add photos, or remove the folders of these classes"
    )


def test_the_most_frequent_reason_of_refused_files_is_named_with_an_example(tmp_path: Path) -> None:
    raw = write_photos(tmp_path / "raw/cat", 3, seed=1).parent
    dogs = write_photos(raw / "dog", 2, seed=2)
    for photo, copy in (("00.jpg", "b.jpg"), ("01.png", "c.png")):
        shutil.copy(dogs / photo, dogs / copy)
    (raw / "dog/a.jpg").write_text("no photo")
    reason = (
        f"; refused most often: duplicate of dog/00.jpg (2 of 3 files, such as {raw}/dog/b.jpg);"
    )
    assert reason in refusal(raw, CONTENT)


def given_folders(tmp_path: Path, **counts: int) -> Path:
    """Write folders of two classes below a folder per split, with a number of photos each."""
    for seed, (split, count) in enumerate(counts.items()):
        write_photos(tmp_path / "raw" / split / "cat", count, seed=2 * seed)
        write_photos(tmp_path / "raw" / split / "dog", count, seed=2 * seed + 1)
    return tmp_path / "raw"


def test_given_splits_are_kept_also_when_photos_are_added(tmp_path: Path) -> None:
    raw = given_folders(tmp_path, train=6, val=1, test=2)
    before = splits(run(raw, GIVEN))
    assert all(path.split("/")[0] == split for path, split in before.items())
    assert len(before) == 18
    write_photos(raw / "train/cat/new", 4, seed=9)
    after = splits(run(raw, GIVEN))
    assert before.items() <= after.items()
    assert Counter(after.values()) == {"train": 16, "val": 2, "test": 4}


@pytest.mark.parametrize(
    ("folders", "val_share", "test_share"),
    [(("train", "test"), 0.15, 0.0), (("train", "val"), 0.0, 0.25)],
)
def test_a_split_without_a_folder_is_drawn_from_the_training_photos_by_content(
    tmp_path: Path, folders: tuple[str, ...], val_share: float, test_share: float
) -> None:
    raw = given_folders(tmp_path, **dict.fromkeys(folders, 40))
    for row in read_rows(run(raw, GIVEN)):
        folder = row["path"].split("/")[0]
        drawn = split_of(row["sha256"], val_share, test_share)
        assert row["split"] == (drawn if folder == "train" else folder)


def test_a_small_class_is_in_the_splits_that_are_drawn(tmp_path: Path) -> None:
    raw = given_folders(tmp_path, train=2, test=1)
    found = Counter((row["class"], row["split"]) for row in read_rows(run(raw, GIVEN)))
    assert found == {(name, split): 1 for name in ("cat", "dog") for split in SPLITS}


def test_a_photo_in_two_given_splits_is_used_only_in_the_one_for_testing(tmp_path: Path) -> None:
    raw = given_folders(tmp_path, train=6, val=2, test=2)
    shutil.copy(raw / "test/cat/00.jpg", raw / "train/cat/copy.jpg")
    shutil.copy(raw / "test/cat/00.jpg", raw / "test/cat/zz.jpg")
    shutil.copy(raw / "val/dog/01.png", raw / "train/dog/copy.png")
    prepared = run(raw, GIVEN)
    found = {row["path"]: row["reason"] for row in read_rows(prepared) if row["reason"]}
    assert found == {
        "train/cat/copy.jpg": "duplicate of test/cat/00.jpg in the test split",
        "test/cat/zz.jpg": "duplicate of test/cat/00.jpg",
        "train/dog/copy.png": "duplicate of val/dog/01.png in the val split",
    }
    assert row_of(prepared, "test/cat/00.jpg")["split"] == "test"


def test_a_split_by_content_ignores_the_folders_and_says_how_to_keep_them(tmp_path: Path) -> None:
    raw, lines = given_folders(tmp_path, train=30, test=30), list[str]()
    prepare.prepare(CONTENT, raw, tmp_path / "prepared", workers=1, warn=lines.append)
    for row in read_rows(tmp_path / "prepared"):
        assert row["split"] == split_of(row["sha256"], 0.15, 0.25)
    (line,) = lines
    assert line.endswith("ignored; set prepare.split: given in params.yaml to keep them")


def test_all_classes_that_a_given_split_lacks_are_named_at_once(tmp_path: Path) -> None:
    raw = given_folders(tmp_path, train=6, val=2, test=2)
    write_photos(raw / "train/bird", 6, seed=8)
    for file in (raw / "val/dog").iterdir():
        file.write_text("no photo")
    line = refusal(raw, GIVEN)
    assert "missing: bird in val, bird in test, dog in val; refused most often: " in line
    assert line.endswith("set prepare.split: content in params.yaml")


def test_given_splits_without_training_photos_are_refused(tmp_path: Path) -> None:
    line = refusal(given_folders(tmp_path, val=3, test=3), GIVEN)
    assert "requires a train folder, but all photos are in test and val; add photos" in line


def test_photos_outside_the_folders_of_given_splits_are_refused(tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    photos = [
        RawPhoto(raw / "train/cat/1.jpg", "cat", "train"),
        RawPhoto(raw / "cat/2.jpg", "cat", ""),
    ]
    with pytest.raises(CatdogError, match=r"; 1 of 2 photos are not, such as .*cat/2.jpg; move"):
        given_splits(raw, photos)


@pytest.mark.parametrize(("dogs", "warned"), [(30, False), (31, True)])
def test_a_class_of_over_ten_times_the_photos_of_another_is_warned_about(
    tmp_path: Path, dogs: int, warned: bool
) -> None:
    raw, lines = write_photos(tmp_path / "raw/cat", 3, seed=1).parent, list[str]()
    write_photos(raw / "dog", dogs, seed=2)
    counts = prepare.prepare(CONTENT, raw, tmp_path / "prepared", workers=1, warn=lines.append)
    test = counts["test"]
    share = 100 * test["dog"] / (test["cat"] + test["dog"])
    expected = (
        f"{raw}: dog has 31 photos, cat only 3: always predicting dog would have an accuracy of "
        f"{share:.1f} % on the test set and a balanced accuracy of 50.0 %; see "
        "train.class_weights, and compare models by balanced accuracy"
    )
    assert lines == ([expected] if warned else [])
