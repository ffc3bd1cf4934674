"""Stage 1: a split that content alone decides, arrays that match their rows, and clear refusals."""

import csv
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
from catdog.dataset import splits
from catdog.errors import CatdogError
from catdog.preparation import photos, prepare
from catdog.support.process_pool import usable_cores

SETTINGS = params.Prepare(image_size=16, val_share=0.3, test_share=0.3)

Rows = list[dict[str, str]]


def write_photos(folder: Path, count: int, seed: int) -> Path:
    """Write small JPEG and PNG photos, the same ones for the same seed."""
    generator = np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    for index in range(count):
        pixels = generator.integers(0, 256, (14, 20, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{index:02d}.{'png' if index % 2 else 'jpg'}")
    return folder


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    """24 photos of either class."""
    write_photos(tmp_path / "raw/cat", 24, seed=1)
    write_photos(tmp_path / "raw/dog", 24, seed=2)
    return tmp_path / "raw"


def run(raw: Path, name: str = "prepared", settings: params.Prepare = SETTINGS) -> Path:
    prepared = raw.parent / name
    prepare.prepare(settings, raw, prepared, workers=1)
    return prepared


def rows(prepared: Path) -> Rows:
    with (prepared / "photos.csv").open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def splits_of(prepared: Path) -> dict[str, str]:
    """The split of each photo that was taken, by its content hash."""
    return {row["sha256"]: row["split"] for row in rows(prepared) if not row["reason"]}


def content(prepared: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in prepared.iterdir()}


def row_of(prepared: Path, path: str) -> dict[str, str]:
    (row,) = [row for row in rows(prepared) if row["path"] == path]
    return row


def move_about(raw: Path) -> None:
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
        move_about,
        swap_classes,
        lambda raw: shutil.copytree(raw / "cat", raw / "cat/copies"),
        lambda raw: write_photos(raw / "bird", 24, seed=4),
    ],
    ids=["added", "removed", "renamed", "moved to another class", "duplicated", "a class added"],
)
def test_no_photo_changes_its_split_when_others_come_and_go(
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


def test_test_photos_stay_test_photos_when_their_share_grows() -> None:
    test = [
        {sha for sha in hashes(2000) if prepare.split_of(sha, 0.2, share) == "test"}
        for share in (0.1, 0.2, 0.5)
    ]
    assert test[0] < test[1] < test[2]


def test_the_test_photos_do_not_depend_on_the_share_of_the_others() -> None:
    some = hashes(2000)
    one, other = ([prepare.split_of(sha, val, 0.2) == "test" for sha in some] for val in (0.1, 0.6))
    assert one == other


@pytest.mark.parametrize(("val_share", "test_share"), [(0.15, 0.25), (0.1, 0.1), (0.5, 0.4)])
def test_the_splits_are_as_large_as_their_shares(val_share: float, test_share: float) -> None:
    found = Counter(prepare.split_of(sha, val_share, test_share) for sha in hashes(20_000))
    shares = {"val": val_share, "test": test_share, "train": 1 - val_share - test_share}
    for split, share in shares.items():
        # Four standard deviations of a share of 20,000.
        assert found[split] / 20_000 == pytest.approx(
            share, abs=4 * math.sqrt(share * (1 - share) / 20_000)
        )


def test_of_copies_in_one_class_the_first_stays(raw: Path) -> None:
    shutil.copy(raw / "cat/05.png", raw / "cat/zz copy.png")
    prepared = run(raw)
    assert row_of(prepared, "cat/05.png")["reason"] == ""
    copy = row_of(prepared, "cat/zz copy.png")
    assert (copy["split"], copy["reason"]) == ("", "the same photo as cat/05.png")


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
        assert row["reason"] == f"the same photo is {other}, in another class"


def test_a_broken_photo_is_a_row_with_its_reason(raw: Path) -> None:
    (raw / "cat/broken.jpg").write_bytes((raw / "cat/00.jpg").read_bytes()[:200])
    (raw / "cat/text.jpg").write_text("no photo")
    (raw / "dog/empty.jpg").touch()
    prepared = run(raw)
    for path in ("cat/broken.jpg", "cat/text.jpg", "dog/empty.jpg"):
        row = row_of(prepared, path)
        assert row["split"] == ""
        with pytest.raises(photos.PhotoError) as refused:
            photos.open_photo(raw / path)
        assert row["reason"] == str(refused.value)
    counts = json.loads((prepared / "stats.json").read_text())["counts"]
    assert counts["refused"] == {"cat": 2, "dog": 1}


def test_every_file_found_has_a_row(raw: Path) -> None:
    (raw / "cat/notes.txt").write_text("no photo")
    found = {row["path"] for row in rows(run(raw))}
    assert found == {file.relative_to(raw).as_posix() for file in raw.rglob("*") if file.is_file()}


@pytest.mark.parametrize("split", splits.SPLITS)
def test_the_arrays_hold_the_photos_of_their_rows_in_order(raw: Path, split: str) -> None:
    prepared = run(raw)
    pixels = np.load(prepared / f"{split}.npy", mmap_mode="r")
    of_split = [row for row in rows(prepared) if row["split"] == split]
    assert isinstance(pixels, np.memmap)
    assert pixels.dtype == np.uint8
    assert pixels.shape == (len(of_split), 16, 16, 3)
    for photo, row in zip(pixels, of_split, strict=True):
        expected = photos.squish(photos.open_photo(raw / row["path"], max_side=16), 16)
        assert np.array_equal(photo, expected)


def test_read_split_gives_photos_labels_and_rows_together(raw: Path) -> None:
    prepared = run(raw)
    split = splits.read_split(prepared, "val")
    assert split.classes == ["cat", "dog"]
    assert [split.classes[label] for label in split.labels] == [row["class"] for row in split.rows]
    assert {row["split"] for row in split.rows} == {"val"}
    for photo, row in zip(split.photos, split.rows, strict=True):
        opened = photos.open_photo(raw / row["path"], max_side=16)
        assert np.array_equal(photo, photos.squish(opened, 16))


def test_a_row_holds_the_size_of_the_photo_as_it_came(raw: Path) -> None:
    large = Image.fromarray(np.random.default_rng(5).integers(0, 256, (120, 90, 3), np.uint8))
    large.save(raw / "cat/large.jpg")  # decoded at an eighth of its size for 16 px
    turned = Image.Exif()
    turned[0x0112] = 6  # EXIF orientation: to be turned by a quarter
    large.save(raw / "cat/turned.jpg", exif=turned)
    prepared = run(raw)
    small = row_of(prepared, "cat/00.jpg")
    assert (small["width"], small["height"]) == ("20", "14")
    upright = row_of(prepared, "cat/large.jpg")
    assert (upright["width"], upright["height"]) == ("90", "120")
    quarter = row_of(prepared, "cat/turned.jpg")
    assert (quarter["width"], quarter["height"]) == ("120", "90")


def test_mean_and_std_are_numpys_of_the_training_photos(raw: Path) -> None:
    prepared = run(raw)
    pixels = np.load(prepared / "train.npy") / 255
    stats = splits.read_stats(prepared)
    assert stats["mean"] == pytest.approx(pixels.mean((0, 1, 2)).tolist(), abs=1e-6)
    assert stats["std"] == pytest.approx(pixels.std((0, 1, 2)).tolist(), abs=1e-6)


def test_the_counts_are_those_of_the_rows(raw: Path) -> None:
    shutil.copy(raw / "cat/05.png", raw / "cat/copy.png")
    counts = prepare.prepare(SETTINGS, raw, raw.parent / "prepared", workers=1)
    found = Counter(
        (row["split"] or "refused", row["class"]) for row in rows(raw.parent / "prepared")
    )
    assert counts == {
        split: {name: found[split, name] for name in ("cat", "dog")}
        for split in (*splits.SPLITS, "refused")
    }


def test_two_workers_write_the_bytes_of_one(raw: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prepare, "CHUNK", 3)  # 16 chunks: more than are under way at once
    (raw / "cat/text.jpg").write_text("no photo")
    one, two = raw.parent / "one", raw.parent / "two"
    prepare.prepare(SETTINGS, raw, one, workers=1)
    prepare.prepare(SETTINGS, raw, two, workers=2)
    assert content(one) == content(two)
    assert sorted(content(one)) == ["photos.csv", "stats.json", "test.npy", "train.npy", "val.npy"]


def test_classes_are_the_folder_names_sorted_whatever_they_are(tmp_path: Path) -> None:
    names = ["Žluťásek", 'a, "b"', "кошка"]
    for seed, name in enumerate(names):
        write_photos(tmp_path / "raw" / name, 24, seed)
    split = splits.read_split(run(tmp_path / "raw"), "train")
    assert split.classes == sorted(names)
    assert set(split.labels.tolist()) == {0, 1, 2}


def test_a_file_name_that_is_no_utf8_is_taken_as_any_other(raw: Path) -> None:
    odd = Path(str(raw / "cat") + "/caf\udce9.png")  # as old archives have it
    (raw / "cat/05.png").rename(odd)
    prepared = run(raw)
    assert len([row for row in rows(prepared) if row["reason"] == ""]) == 48
    assert len(splits.read_split(prepared, "train").labels) > 0


def empty_a_class(raw: Path) -> None:
    shutil.rmtree(raw / "dog")
    (raw / "dog").mkdir()


def break_a_class(raw: Path) -> None:
    for file in (raw / "dog").iterdir():
        file.write_bytes(b"no photo")


def leave_one_photo(raw: Path) -> None:
    for file in sorted((raw / "dog").iterdir())[1:]:
        file.unlink()


REFUSALS = [
    pytest.param(empty_a_class, r"dog: the class has no photo", id="empty class"),
    pytest.param(break_a_class, r"dog: none of its 0 photos", id="only broken photos"),
    pytest.param(leave_one_photo, r"dog: none of its 1 photos .* the \w+ split", id="empty split"),
    pytest.param(lambda raw: shutil.rmtree(raw / "dog"), r"at least two class", id="one class"),
    pytest.param(shutil.rmtree, r"no such folder", id="no folder"),
]


@pytest.mark.parametrize(("change", "message"), REFUSALS)
def test_what_cannot_be_learnt_from_is_refused_and_nothing_is_left(
    raw: Path, change: Callable[[Path], object], message: str
) -> None:
    change(raw)
    with pytest.raises(CatdogError, match=message) as refused:
        run(raw)
    assert "\n" not in str(refused.value)
    assert [path.name for path in raw.parent.iterdir() if path != raw] == []


@pytest.mark.parametrize(("change", "message"), REFUSALS)
def test_a_refusal_leaves_an_older_result_as_it_was(
    raw: Path, change: Callable[[Path], object], message: str
) -> None:
    before = content(run(raw))
    change(raw)
    with pytest.raises(CatdogError, match=message):
        run(raw)
    assert content(raw.parent / "prepared") == before
    assert [path.name for path in raw.parent.iterdir() if path != raw] == ["prepared"]


@pytest.mark.parametrize("nonsense", ["0", "-1", "many", "1.5", " "])
def test_a_number_of_workers_that_is_none_is_refused(
    raw: Path, nonsense: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CATDOG_WORKERS", nonsense)
    with pytest.raises(CatdogError, match=r"CATDOG_WORKERS is .*, but must be a number from 1"):
        prepare.prepare(SETTINGS, raw, raw.parent / "prepared")
    assert not (raw.parent / "prepared").exists()


def test_the_number_of_workers_is_what_the_environment_says(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("CATDOG_WORKERS", "3")
    assert usable_cores() == 3
    monkeypatch.delenv("CATDOG_WORKERS")
    assert usable_cores() >= 1


def test_nothing_prepared_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(CatdogError, match=r"no prepared photos; run `dvc repro prepare`"):
        splits.read_split(tmp_path / "nothing", "train")
