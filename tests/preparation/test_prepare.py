"""Stage 1: splits depend on content only, arrays match photos.csv, invalid input is refused."""

import json
import math
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from catdog import params
from catdog.dataset.prepared import SPLITS, read_split, read_stats
from catdog.errors import CatdogError, PhotoError
from catdog.preparation import photos, prepare
from catdog.preparation.split import split_of
from tests.helpers.raw_photos import read_rows, row_of, write_photos

SETTINGS = params.Prepare(image_size=16, split="content", val_share=0.3, test_share=0.3)


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    """Return a folder with 24 photos of each of two classes."""
    write_photos(tmp_path / "raw/cat", 24, seed=1)
    write_photos(tmp_path / "raw/dog", 24, seed=2)
    return tmp_path / "raw"


def run(raw: Path, name: str = "prepared", settings: params.Prepare = SETTINGS) -> Path:
    prepared = raw.parent / name
    prepare.prepare(settings, raw, prepared, workers=1)
    return prepared


def splits_of(prepared: Path) -> dict[str, str]:
    """Return the split of each accepted photo, by content hash."""
    return {row["sha256"]: row["split"] for row in read_rows(prepared) if not row["reason"]}


def content(prepared: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in prepared.iterdir()}


def move_files(raw: Path) -> None:
    for index, file in enumerate(sorted((raw / "cat").iterdir())):
        target = raw / "cat" / f"below/{(index * 7) % 24}" / f"renamed {99 - index}"
        target.parent.mkdir(parents=True)
        file.rename(target)


def swap_classes(raw: Path) -> None:
    (raw / "cat").rename(raw / "elsewhere")
    (raw / "dog").rename(raw / "cat")
    (raw / "elsewhere").rename(raw / "dog")


def remove_some(raw: Path) -> None:
    for file in sorted((raw / "dog").iterdir())[:6]:
        file.unlink()


@pytest.mark.parametrize(
    "change",
    [
        lambda raw: write_photos(raw / "cat/new", 10, seed=3),
        remove_some,
        move_files,
        swap_classes,
        lambda raw: shutil.copytree(raw / "cat", raw / "cat/copies"),
        lambda raw: write_photos(raw / "bird", 24, seed=4),
    ],
    ids=["added", "removed", "renamed", "classes swapped", "duplicated", "class added"],
)
def test_no_photo_changes_its_split_when_others_are_added_or_removed(
    raw: Path, change: Callable[[Path], object]
) -> None:
    before = splits_of(run(raw, "before"))
    change(raw)
    after = splits_of(run(raw, "after"))
    both = before.keys() & after.keys()
    assert len(both) >= 42
    assert {sha: after[sha] for sha in both} == {sha: before[sha] for sha in both}


def hashes(count: int) -> list[str]:
    generator = np.random.default_rng(0)
    return [generator.bytes(32).hex() for _ in range(count)]


def test_the_test_set_only_grows_with_its_fraction() -> None:
    test = [
        {sha for sha in hashes(2000) if split_of(sha, 0.2, share) == "test"}
        for share in (0.1, 0.2, 0.5)
    ]
    assert test[0] < test[1] < test[2]


def test_the_test_set_does_not_depend_on_val_share() -> None:
    some = hashes(2000)
    one, other = ([split_of(sha, val, 0.2) == "test" for sha in some] for val in (0.1, 0.6))
    assert one == other


@pytest.mark.parametrize(("val_share", "test_share"), [(0.15, 0.25), (0.1, 0.1), (0.5, 0.4)])
def test_the_sizes_of_the_splits_match_their_fractions(val_share: float, test_share: float) -> None:
    found = Counter(split_of(sha, val_share, test_share) for sha in hashes(20_000))
    shares = {"val": val_share, "test": test_share, "train": 1 - val_share - test_share}
    for split, share in shares.items():
        # Within four standard deviations
        assert found[split] / 20_000 == pytest.approx(
            share, abs=4 * math.sqrt(share * (1 - share) / 20_000)
        )


def test_only_the_first_duplicate_in_a_class_is_used(raw: Path) -> None:
    shutil.copy(raw / "cat/05.png", raw / "cat/zz copy.png")
    prepared = run(raw)
    assert row_of(prepared, "cat/05.png")["reason"] == ""
    copy = row_of(prepared, "cat/zz copy.png")
    assert (copy["split"], copy["reason"]) == ("", "duplicate of cat/05.png")


def test_a_photo_in_two_classes_is_refused_in_both(raw: Path) -> None:
    shutil.copy(raw / "cat/05.png", raw / "dog/also.png")
    shutil.copy(raw / "cat/05.png", raw / "cat/zz copy.png")
    prepared = run(raw)
    for path, other in (
        ("cat/05.png", "dog/also.png"),
        ("cat/zz copy.png", "dog/also.png"),
        ("dog/also.png", "cat/05.png"),
    ):
        row = row_of(prepared, path)
        assert row["split"] == ""
        assert row["reason"] == f"duplicate of {other} in another class"


def test_an_invalid_photo_has_a_row_with_the_reason(raw: Path) -> None:
    (raw / "cat/broken.jpg").write_bytes((raw / "cat/00.jpg").read_bytes()[:200])
    (raw / "cat/text.jpg").write_text("no photo")
    (raw / "dog/empty.jpg").touch()
    prepared = run(raw)
    for path in ("cat/broken.jpg", "cat/text.jpg", "dog/empty.jpg"):
        row = row_of(prepared, path)
        assert row["split"] == ""
        with pytest.raises(PhotoError) as refused:
            photos.open_photo(raw / path)
        assert row["reason"] == str(refused.value)
    counts = json.loads((prepared / "stats.json").read_text())["counts"]
    assert counts["refused"] == {"cat": 2, "dog": 1}


def test_every_file_found_has_a_row(raw: Path) -> None:
    (raw / "cat/notes.txt").write_text("no photo")
    found = {row["path"] for row in read_rows(run(raw))}
    assert found == {file.relative_to(raw).as_posix() for file in raw.rglob("*") if file.is_file()}


@pytest.mark.parametrize("split", SPLITS)
def test_the_arrays_contain_the_photos_in_the_order_of_the_rows(raw: Path, split: str) -> None:
    prepared = run(raw)
    pixels = np.load(prepared / f"{split}.npy", mmap_mode="r")
    of_split = [row for row in read_rows(prepared) if row["split"] == split]
    assert isinstance(pixels, np.memmap)
    assert pixels.dtype == np.uint8
    assert pixels.shape == (len(of_split), 16, 16, 3)
    for photo, row in zip(pixels, of_split, strict=True):
        expected = photos.resize_to_square(photos.open_photo(raw / row["path"], max_side=16), 16)
        assert np.array_equal(photo, expected)


def test_read_split_returns_matching_photos_labels_and_rows(raw: Path) -> None:
    prepared = run(raw)
    split = read_split(prepared, "val")
    assert split.classes == ["cat", "dog"]
    assert [split.classes[label] for label in split.labels] == [row["class"] for row in split.rows]
    assert {row["split"] for row in split.rows} == {"val"}
    for photo, row in zip(split.photos, split.rows, strict=True):
        opened = photos.open_photo(raw / row["path"], max_side=16)
        assert np.array_equal(photo, photos.resize_to_square(opened, 16))


def test_a_row_has_the_original_size_of_the_photo(raw: Path) -> None:
    large = Image.fromarray(np.random.default_rng(5).integers(0, 256, (120, 90, 3), np.uint8))
    large.save(raw / "cat/large.jpg")  # decoded at reduced size in draft mode
    exif = Image.Exif()
    exif[0x0112] = 6  # Orientation: rotate by 90°
    large.save(raw / "cat/rotated.jpg", exif=exif)
    prepared = run(raw)
    small = row_of(prepared, "cat/00.jpg")
    assert (small["width"], small["height"]) == ("20", "14")
    upright = row_of(prepared, "cat/large.jpg")
    assert (upright["width"], upright["height"]) == ("90", "120")
    rotated = row_of(prepared, "cat/rotated.jpg")
    assert (rotated["width"], rotated["height"]) == ("120", "90")


def test_mean_and_std_equal_numpys_on_the_training_set(raw: Path) -> None:
    prepared = run(raw)
    pixels = np.load(prepared / "train.npy") / 255
    stats = read_stats(prepared)
    assert stats.mean == pytest.approx(pixels.mean((0, 1, 2)).tolist(), abs=1e-6)
    assert stats.std == pytest.approx(pixels.std((0, 1, 2)).tolist(), abs=1e-6)


def test_the_counts_are_those_of_the_rows(raw: Path) -> None:
    shutil.copy(raw / "cat/05.png", raw / "cat/copy.png")
    counts = prepare.prepare(SETTINGS, raw, raw.parent / "prepared", workers=1)
    found = Counter(
        (row["split"] or "refused", row["class"]) for row in read_rows(raw.parent / "prepared")
    )
    assert counts == {
        split: {name: found[split, name] for name in ("cat", "dog")}
        for split in (*SPLITS, "refused")
    }


def test_the_number_of_workers_does_not_change_the_output(
    raw: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prepare, "CHUNK", 3)  # more chunks than are pending at once
    (raw / "cat/text.jpg").write_text("no photo")
    one, two = raw.parent / "one", raw.parent / "two"
    prepare.prepare(SETTINGS, raw, one, workers=1)
    prepare.prepare(SETTINGS, raw, two, workers=2)
    assert content(one) == content(two)
    assert sorted(content(one)) == ["photos.csv", "stats.json", "test.npy", "train.npy", "val.npy"]


def test_class_names_are_arbitrary_and_sorted(tmp_path: Path) -> None:
    names = ["Žluťásek", 'a, "b"', "кошка"]
    for seed, name in enumerate(names):
        write_photos(tmp_path / "raw" / name, 24, seed)
    split = read_split(run(tmp_path / "raw"), "train")
    assert split.classes == sorted(names)
    assert set(split.labels.tolist()) == {0, 1, 2}


def test_a_file_name_that_is_not_utf8_is_accepted(raw: Path) -> None:
    odd = Path(str(raw / "cat") + "/caf\udce9.png")  # Latin-1, as in old archives
    (raw / "cat/05.png").rename(odd)
    prepared = run(raw)
    assert len([row for row in read_rows(prepared) if row["reason"] == ""]) == 48
    assert len(read_split(prepared, "train").labels) > 0


def empty_a_class(raw: Path) -> None:
    shutil.rmtree(raw / "dog")
    (raw / "dog").mkdir()


def damage_a_class(raw: Path) -> None:
    for file in (raw / "dog").iterdir():
        file.write_bytes(b"no photo")


def leave_one_photo(raw: Path) -> None:
    for file in sorted((raw / "dog").iterdir())[1:]:
        file.unlink()


REFUSALS = [
    pytest.param(empty_a_class, r"dog: class folder without photos", id="empty class"),
    pytest.param(damage_a_class, r"too small: dog \(0, and 24 refused\)", id="only damaged"),
    pytest.param(leave_one_photo, r"at least 3 .* too small: dog \(1\);", id="small class"),
    pytest.param(lambda raw: shutil.rmtree(raw / "dog"), r"at least two class", id="one class"),
    pytest.param(shutil.rmtree, r"no such folder", id="no folder"),
]


@pytest.mark.parametrize(("change", "message"), REFUSALS)
def test_invalid_input_is_refused_and_nothing_is_written(
    raw: Path, change: Callable[[Path], object], message: str
) -> None:
    change(raw)
    with pytest.raises(CatdogError, match=message) as refused:
        run(raw)
    assert "\n" not in str(refused.value)
    assert [path.name for path in raw.parent.iterdir() if path != raw] == []


@pytest.mark.parametrize(("change", "message"), REFUSALS)
def test_a_refusal_keeps_the_previous_output(
    raw: Path, change: Callable[[Path], object], message: str
) -> None:
    before = content(run(raw))
    change(raw)
    with pytest.raises(CatdogError, match=message):
        run(raw)
    assert content(raw.parent / "prepared") == before
    assert [path.name for path in raw.parent.iterdir() if path != raw] == ["prepared"]


def test_an_invalid_number_of_workers_is_refused_and_nothing_is_written(
    raw: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CATDOG_WORKERS", "many")
    with pytest.raises(CatdogError, match=r"^CATDOG_WORKERS: invalid value 'many'; "):
        prepare.prepare(SETTINGS, raw, raw.parent / "prepared")
    assert not (raw.parent / "prepared").exists()


def test_a_missing_dataset_is_an_error_of_one_line(tmp_path: Path) -> None:
    with pytest.raises(CatdogError, match=r"no such file; run `dvc repro prepare`"):
        read_split(tmp_path / "nothing", "train")
