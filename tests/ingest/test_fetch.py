"""The options of `catdog fetch`, and what it prints, in a folder without DVC."""

import io
import zipfile
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from catdog.errors import CatdogError
from catdog.ingest.fetch import fetch
from tests.helpers.archives import jpeg


def photo(path: Path, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(jpeg(seed))


def run(archive: Path, **options: Any) -> str:
    """Import with one worker; return what is printed besides the table."""
    console = Console(file=io.StringIO(), soft_wrap=True)
    fetch(archive, None, None, True, 1, console, **options)
    return console.file.getvalue()  # type: ignore[attr-defined, no-any-return]


def classes() -> list[str]:
    return sorted(path.name for path in Path("data/raw").iterdir())


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_the_class_level_decides_between_two_readings() -> None:
    for seed, name in enumerate(["a/train/cat/1.jpg", "a/train/dog/1.jpg", "b/train/cat/1.jpg"]):
        photo(Path("in") / name, seed)
    with pytest.raises(CatdogError, match=r"^in: folders can be read in two ways: .*class-level 3"):
        run(Path("in"))
    assert not Path("data/raw").exists()
    run(Path("in"), class_level=3)
    assert classes() == ["cat", "dog"]
    run(Path("in"), class_level=1)
    assert classes() == ["a", "b"]


def test_the_encoding_decides_how_names_are_read() -> None:
    photo(Path("1.jpg"), 0)
    content = Path("1.jpg").read_bytes()
    with zipfile.ZipFile("a.zip", "w") as archive:
        archive.writestr("XX/1.jpg", content)
        archive.writestr("YY/1.jpg", content + b"different")
    raw = Path("a.zip").read_bytes()
    raw = raw.replace(b"XX/", "猫/".encode("gbk")).replace(b"YY/", "狗/".encode("gbk"))
    Path("a.zip").write_bytes(raw)
    with pytest.raises(CatdogError, match=r"^a\.zip: .*; pass --encoding gbk \(狗, 猫\) or "):
        run(Path("a.zip"))
    run(Path("a.zip"), encoding="gbk")
    assert classes() == sorted(["猫", "狗"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"class_level": 0}, r"--class-level: invalid value 0; 1 is the outermost"),
        ({"encoding": "klingon"}, r"--encoding: unknown encoding 'klingon'; use one of"),
    ],
)
def test_an_invalid_option_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(CatdogError, match=message):
        run(Path("in"), **options)


def test_class_folders_without_a_valid_photo_are_named() -> None:
    for seed, name in enumerate(["cat", "dog"]):
        photo(Path("in") / name / "1.jpg", seed)
    Path("in/lynx").mkdir()
    Path("in/puma").mkdir()
    Path("in/puma/1.jpg").touch()
    assert "class folders without valid photos are not imported: lynx, puma" in run(Path("in"))


def test_the_home_folder_is_expanded(monkeypatch: pytest.MonkeyPatch) -> None:
    """The shell leaves ~ in `make photos ARCHIVE='~/in'`."""
    monkeypatch.setenv("HOME", str(Path("home").absolute()))
    for seed, name in enumerate(["cat", "dog"]):
        photo(Path("home/in") / name / "1.jpg", seed)
    run(Path("~/in"))
    assert classes() == ["cat", "dog"]
    with pytest.raises(CatdogError, match=r"^~nobody-has-this-name/in: no such file"):
        run(Path("~nobody-has-this-name/in"))
    with pytest.raises(CatdogError, match=r"~: neither a zip nor"):  # a file of this name
        Path("~").write_text("text")
        run(Path("~"))


def test_the_param_that_keeps_the_splits_is_named() -> None:
    for seed, name in enumerate(["train/cat", "train/dog", "test/cat", "test/dog"]):
        photo(Path("in") / name / "1.jpg", seed)
    assert "Splits: test, train. To use them, set `prepare.split: given`" in run(Path("in"))
    assert "prepare.split" not in run(Path("in/train"))
