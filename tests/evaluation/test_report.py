"""The pictures, the page and the words."""

import io
import re
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image
from rich.console import Console

from catdog import params
from catdog.evaluation import metrics, report
from catdog.evaluation.report import Judged

PARAMS = params.load(Path(__file__).parents[2] / "params.yaml")
NASTY = ["<b>cat</b>", "[red]dog", "$x_1$"]


def summary(classes: list[str]) -> dict[str, Any]:
    labels = np.arange(12) % len(classes)
    probabilities = np.random.default_rng(1).dirichlet(np.ones(len(classes)), size=12)
    found = metrics.summarize(labels, probabilities, classes, bins=10)
    return {**found, "epoch": 3, "weights": 1_234_567, "train_pflop": 0.0123}


def test_an_accuracy_in_words_has_its_interval_and_its_photos() -> None:
    part = {"accuracy": 0.9351, "low": 0.9123, "high": 0.9508, "photos": 1400}
    assert report.in_words(part) == "93.5 % (91.2 to 95.1) of 1,400 photos"


def test_a_class_without_photos_has_words_too() -> None:
    found = metrics.summarize(np.array([0]), np.array([[0.9, 0.1]]), ["cat", "dog"], bins=10)
    rows = dict(report.figures({**found, "epoch": 1, "weights": 1, "train_pflop": 0.0123}))
    assert rows["accuracy of dog"] == "no photos"
    assert rows["ROC AUC"] == rows["precision of dog"] == "–"
    assert rows["training, PFLOP"] == "0.0123"


def test_the_table_of_results_shows_every_figure_and_class_names_as_they_are() -> None:
    stream = io.StringIO()
    found = summary(NASTY)
    Console(file=stream, width=100).print(report.results_table(found))
    text = stream.getvalue()
    for name, value in report.figures(found):
        assert name in text
        assert value in text
    assert "accuracy of [red]dog" in text


@pytest.fixture
def page(tmp_path: Path) -> str:
    picture = tmp_path / "roc.png"
    with report.style():
        report.save_png(report.draw_roc([]), picture)
    report.write_page(tmp_path / "report.html", summary(NASTY), PARAMS, {"roc": picture})
    return (tmp_path / "report.html").read_text(encoding="utf-8")


def test_the_page_escapes_class_names(page: str) -> None:
    assert "<b>" not in page
    assert "accuracy of &lt;b&gt;cat&lt;/b&gt;" in page


def test_the_page_needs_nothing_from_outside(page: str) -> None:
    sources = re.findall(r"""(?:src|href|srcset|action)\s*=\s*["']?([^"'\s>]*)""", page)
    assert sources
    assert all(source.startswith("data:image/png;base64,") for source in sources)
    assert not re.search(r"//[a-z]|url\(|@import|<script|<link", re.sub(r"data:[^\"]*", "", page))


def test_the_page_fits_a_phone(page: str) -> None:
    assert '<meta name="viewport" content="width=device-width' in page
    assert re.search(r"img \{[^}]*max-width: 100%", page)


def test_the_page_shows_params_as_params_yaml_writes_them(page: str) -> None:
    shown = dict(re.findall(r'<tr><th scope="row">([a-z_.]+)</th><td>(.*?)</td></tr>', page))
    assert shown["train.epochs"] == str(PARAMS.train.epochs)
    assert shown["model.residual.width"] == str(PARAMS.model.residual.width)
    assert shown["train.eval_flip"] == str(PARAMS.train.eval_flip).lower()
    assert shown["normalization.mean"] == ""


def judged(right: int, wrong: int) -> list[Judged]:
    pixels = np.full((16, 16, 3), 128, dtype=np.uint8)
    return [
        *[Judged(pixels, "$cat_1$", "$cat_1$", 0.99)] * right,
        *[Judged(pixels, "dog", "$cat_1$", 0.75)] * wrong,
    ]


def texts(figure: Figure) -> list[str]:
    return [text.get_text() for axes in figure.axes for text in axes.texts]


def test_a_drawn_photo_says_what_it_was_taken_for_and_what_it_is() -> None:
    figure = report.draw_photos(judged(right=1, wrong=1))
    assert texts(figure) == ["$cat_1$ 99.0 %", "$cat_1$ 75.0 %\nis dog"]
    colours = [text.get_color() for text in figure.axes[0].texts]
    assert colours == [report.GREEN, report.RED]


def test_a_class_name_is_no_formula(tmp_path: Path) -> None:
    name = "$\\frac$"  # as a formula this is an error
    photo = Judged(np.zeros((16, 16, 3), dtype=np.uint8), name, name, 0.9)
    with report.style():
        report.save_png(report.draw_photos([photo]), tmp_path / "examples.png")
        report.save_png(report.draw_confusion({name: {name: 1}}), tmp_path / "confusion.png")
        point = metrics.RocPoint(name, 0, 0, 1)
        report.save_png(report.draw_roc([point]), tmp_path / "roc.png")


def test_no_mistakes_are_a_picture_too(tmp_path: Path) -> None:
    with report.style():
        report.save_png(report.draw_photos([]), tmp_path / "mistakes.png")
    assert Image.open(tmp_path / "mistakes.png").size[0] == 1000


def test_the_confusion_names_counts_and_shares() -> None:
    figure = report.draw_confusion({"cat": {"cat": 3, "dog": 1}, "dog": {"cat": 0, "dog": 2}})
    assert texts(figure) == ["3\n75.0 %", "1\n25.0 %", "0\n0.0 %", "2\n100.0 %"]


def test_the_curves_show_train_and_val_of_both_quantities_and_the_kept_epoch() -> None:
    names = ("train_loss", "val_loss", "train_accuracy", "val_accuracy")
    history = [
        {"epoch": float(epoch), **{name: epoch / (2 + at) for at, name in enumerate(names)}}
        for epoch in (1, 2)
    ]
    loss, accuracy = report.draw_curves(history, kept=2).axes
    for axes, quantity in ((loss, "loss"), (accuracy, "accuracy")):
        train, val, kept = axes.lines
        for line, split in ((train, "train"), (val, "val")):
            assert line.get_label() == split
            assert list(map(float, np.asarray(line.get_ydata()))) == [
                row[f"{split}_{quantity}"] for row in history
            ]
        assert list(map(float, np.asarray(kept.get_xdata()))) == [2, 2]


def test_a_users_matplotlib_settings_change_no_picture(tmp_path: Path) -> None:
    def draw(file: Path) -> bytes:
        with report.style():
            report.save_png(report.draw_photos(judged(2, 1)), file)
        return file.read_bytes()

    before = draw(tmp_path / "a.png")
    with mpl.rc_context({"figure.facecolor": "red", "font.size": 20, "savefig.dpi": 50}):
        assert draw(tmp_path / "b.png") == before
    assert mpl.rcParams["text.parse_math"] is True


def test_a_picture_holds_neither_date_nor_version(tmp_path: Path) -> None:
    with report.style():
        report.save_png(report.draw_roc([]), tmp_path / "roc.png")
    with Image.open(tmp_path / "roc.png") as picture:
        assert set(picture.info) == {"dpi"}
