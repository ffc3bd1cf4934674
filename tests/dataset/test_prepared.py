"""data/prepared: files that are damaged or do not match are refused in one line."""

import json
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from catdog.dataset.prepared import read_split, read_stats
from catdog.errors import CatdogError
from catdog.model.normalization import pick_normalization
from tests.helpers.prepared_data import settings, write_prepared


class WritesFile:
    """An object whose unpickling writes a file."""

    def __reduce__(self) -> tuple[Callable[[str], object], tuple[str]]:
        return exec, ("open('unpickled', 'w').close()",)


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-1])


def cut_in_the_header(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:50])


def pickled(file: Path) -> None:
    file.write_bytes(pickle.dumps(WritesFile()))


def objects(file: Path) -> None:
    np.save(file, np.array([WritesFile()], dtype=object), allow_pickle=True)


def zipped(file: Path) -> None:
    with file.open("wb") as stream:
        np.savez(stream, photos=np.zeros((48, 32, 32, 3), np.uint8))


def floats(file: Path) -> None:
    np.save(file, np.load(file).astype(np.float32))


def not_square(file: Path) -> None:
    np.save(file, np.load(file)[:, :30])


def grey(file: Path) -> None:
    np.save(file, np.load(file)[..., 0])


def header_with_a_huge_shape(file: Path) -> None:
    raw = file.read_bytes()
    file.write_bytes(raw.replace(b"(48, 32, 32, 3), } ", b"(9999999999, 32, 32, 3), } ", 1))


def fewer_photos(file: Path) -> None:
    np.save(file, np.load(file)[:-1])


def nested_header(file: Path) -> None:
    header = b"(" * 9_000
    length = len(header).to_bytes(2, "little")
    file.write_bytes(b"\x93NUMPY\x01\x00" + length + header)


@pytest.mark.parametrize(
    "damage",
    [
        cut,
        cut_in_the_header,
        pickled,
        objects,
        zipped,
        floats,
        not_square,
        grey,
        header_with_a_huge_shape,
        fewer_photos,
        nested_header,
    ],
)
def test_a_damaged_array_is_refused_in_one_line_and_nothing_is_unpickled(
    damage: Callable[[Path], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    prepared = write_prepared(tmp_path / "prepared", ["cat", "dog"])
    damage(prepared / "train.npy")
    with pytest.raises(CatdogError, match="not a file of prepared photos") as refused:
        read_split(prepared, "train")
    assert str(refused.value).startswith(f"{prepared / 'train.npy'}: ")
    assert str(refused.value).endswith("; run `dvc repro --force prepare`")
    assert "\n" not in str(refused.value)
    assert not (tmp_path / "unpickled").exists()


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text.replace("sha256", "md5"),
        lambda text: text.replace(",train,", ",training,", 1),
        lambda text: text + "cat/1.jpg,cat\n",
        lambda text: text + "cat/1.jpg,cat,train,0,1,1,,more\n",
        lambda text: text + '"' + "x" * 200_000 + '"\n',
        lambda text: "",
    ],
)
def test_a_damaged_table_is_refused_in_one_line(
    change: Callable[[str], str], tmp_path: Path
) -> None:
    prepared = write_prepared(tmp_path / "prepared", ["cat", "dog"])
    file = prepared / "photos.csv"
    file.write_text(change(file.read_text()))
    with pytest.raises(CatdogError, match="not a file of prepared photos") as refused:
        read_split(prepared, "test")
    assert str(refused.value).startswith(f"{file}: ")
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "[" * 100_000,
        '{"mean": [1, 2, 3]}',
        '{"mean": [0.4, 0.4], "std": [0.2, 0.2]}',
        '{"mean": [0.4, 0.4, NaN], "std": [0.2, 0.2, 0.2]}',
        '{"mean": [0.4, 0.4, 0.4], "std": [0.2, 0.2, -0.2]}',
        '{"mean": 1, "std": 2}',
        '{"mean": [null, 1, 1], "std": [1, 1, 1]}',
    ],
)
def test_damaged_statistics_are_refused_in_one_line(text: str, tmp_path: Path) -> None:
    (tmp_path / "stats.json").write_text(text)
    with pytest.raises(CatdogError, match="not a file of prepared photos") as refused:
        read_stats(tmp_path)
    assert str(refused.value).startswith(f"{tmp_path / 'stats.json'}: ")
    assert "\n" not in str(refused.value)


def test_a_channel_without_variation_is_divided_by_one(tmp_path: Path) -> None:
    """Photos without any blue, for example: 0 / 0 would make every input NaN."""
    stats = {"mean": [0.4, 0.4, 0.0], "std": [0.2, 0.2, 0.0]}
    (tmp_path / "stats.json").write_text(json.dumps(stats))
    found = pick_normalization(settings(normalization__source="data"), tmp_path)
    assert found.std == [0.2, 0.2, 1.0]
