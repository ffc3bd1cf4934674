"""The sample: its bytes are reproducible, and only shape distinguishes the classes."""

import hashlib
import io
import json
import random
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import yaml
from PIL import Image
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_score

from catdog.errors import CatdogError
from tools.draw_sample import anatomy, draw, draw_sample, sample

ROOT = Path(__file__).resolve().parents[2]
STORE = ROOT / "data" / "store" / "files" / "md5"


def contents(root: Path) -> dict[str, str]:
    files = sorted(path for path in root.rglob("*") if path.is_file())
    return {
        path.relative_to(root).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in files
    }


@pytest.fixture(scope="module")
def mean_colours() -> npt.NDArray[np.float64]:
    """Mean colours (2, 120, 3) of small pictures of each class."""
    pictures = [[draw(name, seed, side=32) for seed in range(120)] for name in ("cat", "dog")]
    return np.array([[np.asarray(p).mean(axis=(0, 1)) for p in row] for row in pictures])


def committed_md5s() -> dict[str, str]:
    """Return the md5 of each file of the committed sample, by its path, as DVC recorded them."""
    outs = yaml.safe_load((ROOT / "data" / "raw.dvc").read_text(encoding="utf-8"))["outs"]
    out = next((out for out in outs if out.get("remote") == "sample"), None)
    if out is None:
        pytest.skip("data/raw.dvc describes other photos")
    entries = json.loads((STORE / out["md5"][:2] / out["md5"][2:]).read_text(encoding="utf-8"))
    return {entry["relpath"]: entry["md5"] for entry in entries}


@pytest.mark.parametrize("index", [1, 173, 400])
@pytest.mark.parametrize("class_name", ["cat", "dog"])
def test_the_committed_sample_is_what_the_program_draws(
    class_name: str, index: int, tmp_path: Path
) -> None:
    md5s = committed_md5s()
    assert len(md5s) == 800
    (tmp_path / class_name).mkdir()
    drawn = sample.save_picture(tmp_path, class_name, 1, index).read_bytes()
    md5 = md5s[f"{class_name}/{class_name}_{index:04}.jpg"]
    assert (STORE / md5[:2] / md5[2:]).read_bytes() == drawn
    assert hashlib.md5(drawn).hexdigest() == md5


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run `python -m tools.draw_sample`."""
    command = [sys.executable, "-m", "tools.draw_sample", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def test_the_command_draws_the_sample(tmp_path: Path) -> None:
    done = run(str(tmp_path / "a"), "--count", "4", "--seed", "5")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    draw_sample(tmp_path / "b", count=4, seed=5)
    assert contents(tmp_path / "a") == contents(tmp_path / "b")


def test_an_error_of_the_command_is_one_line(tmp_path: Path) -> None:
    done = run(str(tmp_path))
    assert done.returncode == 1
    assert done.stderr.startswith(f"catdog: {tmp_path}: already exists")
    assert len(done.stderr.splitlines()) == 1


def test_a_picture_is_rgb_and_has_the_requested_side() -> None:
    picture = draw("dog", 3, side=48)
    assert (picture.mode, picture.size) == ("RGB", (48, 48))


def test_the_same_seed_gives_the_same_bytes(tmp_path: Path) -> None:
    draw_sample(tmp_path / "a", count=8, seed=5)
    draw_sample(tmp_path / "b", count=8, seed=5)
    assert contents(tmp_path / "a") == contents(tmp_path / "b")


def test_another_seed_gives_different_pictures(tmp_path: Path) -> None:
    draw_sample(tmp_path / "a", count=4, seed=5)
    draw_sample(tmp_path / "b", count=4, seed=6)
    assert not set(contents(tmp_path / "a").values()) & set(contents(tmp_path / "b").values())


def test_all_pictures_of_a_sample_are_different(tmp_path: Path) -> None:
    draw_sample(tmp_path / "a", count=20)
    assert len(set(contents(tmp_path / "a").values())) == 20


def test_a_picture_does_not_depend_on_the_count(tmp_path: Path) -> None:
    draw_sample(tmp_path / "few", count=4)
    draw_sample(tmp_path / "more", count=12)
    few, more = contents(tmp_path / "few"), contents(tmp_path / "more")
    assert few.items() <= more.items()
    assert len(more) == 12


def test_half_of_the_pictures_are_cats_numbered_from_1(tmp_path: Path) -> None:
    draw_sample(tmp_path / "raw", count=4)
    assert list(contents(tmp_path / "raw")) == [
        "cat/cat_0001.jpg",
        "cat/cat_0002.jpg",
        "dog/dog_0001.jpg",
        "dog/dog_0002.jpg",
    ]


def test_files_are_small_enough_for_the_repository() -> None:
    sizes = []
    for seed in range(20):
        buffer = io.BytesIO()
        draw("cat", seed).save(buffer, "JPEG", quality=sample.JPEG_QUALITY)
        sizes.append(buffer.tell())
    assert np.mean(sizes) < 6000


def test_classes_have_the_same_mean_colour(mean_colours: npt.NDArray[np.float64]) -> None:
    cats, dogs = mean_colours
    standard_error = np.sqrt(cats.var(axis=0) / len(cats) + dogs.var(axis=0) / len(dogs))
    assert (abs(cats.mean(axis=0) - dogs.mean(axis=0)) < 4 * standard_error).all()


def test_the_mean_colour_does_not_predict_the_class(mean_colours: npt.NDArray[np.float64]) -> None:
    labels = np.repeat([0, 1], mean_colours.shape[1])
    features = mean_colours.reshape(-1, 3) / 255
    accuracy = cross_val_score(LogisticRegression(C=100), features, labels, cv=5).mean()
    assert accuracy < 0.62  # chance is 0.5, with a standard error of 0.03


def test_the_classes_differ_only_in_anatomy(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sample, "_generator", lambda class_name, seed: random.Random(seed))
    monkeypatch.setitem(anatomy.KINDS, "cat", anatomy.KINDS["dog"])
    assert draw("cat", 1).tobytes() == draw("dog", 1).tobytes()


def test_the_same_seed_gives_each_class_its_own_scene() -> None:
    cat, dog = (np.asarray(draw(name, 4))[:8, :8] for name in ("cat", "dog"))
    assert not np.array_equal(cat, dog)


def test_an_existing_folder_is_refused_and_not_changed(tmp_path: Path) -> None:
    root = tmp_path / "raw"
    root.mkdir()
    (root / "mine.txt").write_text("mine")
    with pytest.raises(CatdogError, match="raw: already exists"):
        draw_sample(root, count=2)
    assert [path.name for path in tmp_path.rglob("*")] == ["raw", "mine.txt"]


@pytest.mark.parametrize("count", [0, 3, -2])
def test_a_count_that_is_not_even_and_positive_is_refused(tmp_path: Path, count: int) -> None:
    with pytest.raises(CatdogError, match=f"--count {count}: invalid value"):
        draw_sample(tmp_path / "raw", count=count)
    assert not list(tmp_path.iterdir())


def test_an_unknown_class_is_refused() -> None:
    with pytest.raises(CatdogError, match="'fox'"):
        draw("fox", 1)


def test_a_negative_seed_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CatdogError, match="--seed -1: invalid value"):
        draw_sample(tmp_path / "raw", count=2, seed=-1)


@pytest.mark.parametrize("interruption", [KeyboardInterrupt(), OSError("disk full")])
def test_an_interruption_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, interruption: BaseException
) -> None:
    def draw_some(class_name: str, seed: int) -> Image.Image:
        if class_name == "dog":
            raise interruption
        return Image.new("RGB", (8, 8))

    monkeypatch.setattr(sample, "draw", draw_some)
    # Threads see the patch; whether processes do depends on how Python starts them.
    monkeypatch.setattr(sample, "process_pool", ThreadPoolExecutor)
    with pytest.raises((KeyboardInterrupt, OSError)):
        draw_sample(tmp_path / "raw", count=40)
    assert not list(tmp_path.iterdir())


def test_files_of_a_killed_run_are_removed(tmp_path: Path) -> None:
    leftovers = tmp_path / ".raw.tmp" / "cat"
    leftovers.mkdir(parents=True)
    (leftovers / "half.jpg").write_bytes(b"half")
    draw_sample(tmp_path / "raw", count=2)
    assert [path.name for path in tmp_path.iterdir()] == ["raw"]
    assert len(contents(tmp_path / "raw")) == 2
