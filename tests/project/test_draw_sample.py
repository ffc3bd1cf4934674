"""What the embedded sample promises: the same bytes each time, and classes told apart by shape."""

import hashlib
import io
import random
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_score

from catdog.errors import CatdogError
from tools import draw_sample as drawings
from tools.draw_sample import draw, draw_sample


def contents(root: Path) -> dict[str, str]:
    files = sorted(path for path in root.rglob("*") if path.is_file())
    return {
        path.relative_to(root).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in files
    }


@pytest.fixture(scope="module")
def mean_colours() -> npt.NDArray[np.float64]:
    """(2, 120, 3): the mean colour of small pictures of each class."""
    pictures = [[draw(name, seed, side=32) for seed in range(120)] for name in ("cat", "dog")]
    return np.array([[np.asarray(p).mean(axis=(0, 1)) for p in row] for row in pictures])


def test_a_picture_is_rgb_and_of_the_side_asked_for() -> None:
    picture = draw("dog", 3, side=48)
    assert (picture.mode, picture.size) == ("RGB", (48, 48))


def test_the_same_seed_draws_the_same_sample_to_the_byte(tmp_path: Path) -> None:
    draw_sample(tmp_path / "a", count=8, seed=5)
    draw_sample(tmp_path / "b", count=8, seed=5)
    assert contents(tmp_path / "a") == contents(tmp_path / "b")


def test_another_seed_draws_other_pictures(tmp_path: Path) -> None:
    draw_sample(tmp_path / "a", count=4, seed=5)
    draw_sample(tmp_path / "b", count=4, seed=6)
    assert not set(contents(tmp_path / "a").values()) & set(contents(tmp_path / "b").values())


def test_no_two_pictures_of_a_sample_are_alike(tmp_path: Path) -> None:
    draw_sample(tmp_path / "a", count=20)
    assert len(set(contents(tmp_path / "a").values())) == 20


def test_more_pictures_leave_the_others_unchanged(tmp_path: Path) -> None:
    draw_sample(tmp_path / "few", count=4)
    draw_sample(tmp_path / "more", count=12)
    few, more = contents(tmp_path / "few"), contents(tmp_path / "more")
    assert few.items() <= more.items()
    assert len(more) == 12


def test_each_class_has_its_numbered_half(tmp_path: Path) -> None:
    draw_sample(tmp_path / "raw", count=4)
    assert list(contents(tmp_path / "raw")) == [
        "cat/cat_0001.jpg",
        "cat/cat_0002.jpg",
        "dog/dog_0001.jpg",
        "dog/dog_0002.jpg",
    ]


def test_a_file_is_small_enough_to_live_in_the_repository() -> None:
    sizes = []
    for seed in range(20):
        buffer = io.BytesIO()
        draw("cat", seed).save(buffer, "JPEG", quality=drawings.JPEG_QUALITY)
        sizes.append(buffer.tell())
    assert np.mean(sizes) < 6000


def test_classes_have_the_same_mean_colour(mean_colours: npt.NDArray[np.float64]) -> None:
    cats, dogs = mean_colours
    standard_error = np.sqrt(cats.var(axis=0) / len(cats) + dogs.var(axis=0) / len(dogs))
    assert (abs(cats.mean(axis=0) - dogs.mean(axis=0)) < 4 * standard_error).all()


def test_colour_alone_does_not_tell_the_class(mean_colours: npt.NDArray[np.float64]) -> None:
    labels = np.repeat([0, 1], mean_colours.shape[1])
    features = mean_colours.reshape(-1, 3) / 255
    accuracy = cross_val_score(LogisticRegression(C=100), features, labels, cv=5).mean()
    assert accuracy < 0.62  # chance is 0.5, with a standard error of 0.03


def test_only_what_the_anatomy_says_differs_between_the_classes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(drawings, "_generator", lambda class_name, seed: random.Random(seed))
    monkeypatch.setitem(drawings.KINDS, "cat", drawings.KINDS["dog"])
    assert draw("cat", 1).tobytes() == draw("dog", 1).tobytes()


def test_classes_do_not_share_scenes() -> None:
    cat, dog = (np.asarray(draw(name, 4))[:8, :8] for name in ("cat", "dog"))
    assert not np.array_equal(cat, dog)


def test_an_existing_folder_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    root = tmp_path / "raw"
    root.mkdir()
    (root / "mine.txt").write_text("mine")
    with pytest.raises(CatdogError, match="raw exists"):
        draw_sample(root, count=2)
    assert [path.name for path in tmp_path.rglob("*")] == ["raw", "mine.txt"]


@pytest.mark.parametrize("count", [0, 3, -2])
def test_a_count_that_cannot_be_halved_is_refused(tmp_path: Path, count: int) -> None:
    with pytest.raises(CatdogError, match=f"not {count}"):
        draw_sample(tmp_path / "raw", count=count)
    assert not list(tmp_path.iterdir())


def test_an_unknown_class_is_refused() -> None:
    with pytest.raises(CatdogError, match="'fox'"):
        draw("fox", 1)


@pytest.mark.parametrize("interruption", [KeyboardInterrupt(), OSError("disk full")])
def test_an_interruption_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, interruption: BaseException
) -> None:
    def draw_some(class_name: str, seed: int) -> Image.Image:
        if class_name == "dog":
            raise interruption
        return Image.new("RGB", (8, 8))

    monkeypatch.setattr(drawings, "draw", draw_some)
    # Threads see the patch; whether processes do depends on how Python starts them.
    monkeypatch.setattr(drawings, "process_pool", ThreadPoolExecutor)
    with pytest.raises((KeyboardInterrupt, OSError)):
        draw_sample(tmp_path / "raw", count=40)
    assert not list(tmp_path.iterdir())


def test_what_a_killed_run_left_is_not_taken_over(tmp_path: Path) -> None:
    left = tmp_path / ".raw.tmp" / "cat"
    left.mkdir(parents=True)
    (left / "half.jpg").write_bytes(b"half")
    draw_sample(tmp_path / "raw", count=2)
    assert [path.name for path in tmp_path.iterdir()] == ["raw"]
    assert len(contents(tmp_path / "raw")) == 2
