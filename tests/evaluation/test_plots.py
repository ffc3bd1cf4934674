"""The plots of stage 3."""

from pathlib import Path

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from catdog.evaluation import metrics, plots
from catdog.evaluation.plots import PhotoResult


def photo_results(correct: int, wrong: int) -> list[PhotoResult]:
    pixels = np.full((16, 16, 3), 128, dtype=np.uint8)
    return [
        *[PhotoResult(pixels, "$cat_1$", "$cat_1$", 0.99)] * correct,
        *[PhotoResult(pixels, "dog", "$cat_1$", 0.75)] * wrong,
    ]


def texts(figure: Figure) -> list[str]:
    return [text.get_text() for axes in figure.axes for text in axes.texts]


def test_a_photo_is_captioned_with_its_predicted_and_actual_class() -> None:
    figure = plots.draw_photos(photo_results(correct=1, wrong=1))
    assert texts(figure) == ["$cat_1$ 99.0 %", "$cat_1$ 75.0 %\nactual: dog"]
    colours = [text.get_color() for text in figure.axes[0].texts]
    assert colours == [plots.GREEN, plots.RED]


def test_a_class_name_is_not_read_as_a_formula(tmp_path: Path) -> None:
    name = "$\\frac$"  # as a formula this is an error
    photo = PhotoResult(np.zeros((16, 16, 3), dtype=np.uint8), name, name, 0.9)
    with plots.style():
        plots.save_png(plots.draw_photos([photo]), tmp_path / "examples.png")
        plots.save_png(plots.draw_confusion({name: {name: 1}}), tmp_path / "confusion.png")
        point = metrics.RocPoint(name, 0, 0, 1)
        plots.save_png(plots.draw_roc([point]), tmp_path / "roc.png")


def test_a_plot_without_photos_can_be_drawn(tmp_path: Path) -> None:
    with plots.style():
        plots.save_png(plots.draw_photos([]), tmp_path / "mistakes.png")
    assert Image.open(tmp_path / "mistakes.png").size[0] == 1000


def test_the_confusion_matrix_shows_counts_and_percentages() -> None:
    figure = plots.draw_confusion({"cat": {"cat": 3, "dog": 1}, "dog": {"cat": 0, "dog": 2}})
    assert texts(figure) == ["3\n75.0 %", "1\n25.0 %", "0\n0.0 %", "2\n100.0 %"]


def test_the_confusion_matrix_of_many_classes_has_no_numbers_that_would_overlap() -> None:
    names = [f"breed {index}" for index in range(plots.MAX_NUMBERED + 1)]
    figure = plots.draw_confusion({name: dict.fromkeys(names, 1) for name in names})
    assert texts(figure) == []
    assert [tick.get_text() for tick in figure.axes[0].get_yticklabels()] == names


@pytest.mark.parametrize(("classes", "labelled"), [(3, True), (plots.MAX_COLOURS + 1, False)])
def test_roc_curves_are_labelled_if_there_are_colours_for_all(classes: int, labelled: bool) -> None:
    points = [metrics.RocPoint(f"c{index}", 0, 0, 1) for index in range(classes)]
    (axes,) = plots.draw_roc(points).axes
    assert len(axes.lines) == 1 + classes
    legend = axes.get_legend()
    labels = [text.get_text() for text in legend.get_texts()] if legend else []
    assert labels == ([f"positive class: c{index}" for index in range(classes)] if labelled else [])
    assert axes.get_title() == ("" if labelled else "one curve for each of 11 classes")


def test_the_curves_show_train_and_val_of_both_quantities_and_the_selected_epoch() -> None:
    names = ("train_loss", "val_loss", "train_accuracy", "val_accuracy")
    history = [
        {"epoch": float(epoch), **{name: epoch / (2 + at) for at, name in enumerate(names)}}
        for epoch in (1, 2)
    ]
    loss, accuracy = plots.draw_curves(history, selected=2).axes
    for axes, quantity in ((loss, "loss"), (accuracy, "accuracy")):
        train, val, selected = axes.lines
        for line, split in ((train, "train"), (val, "val")):
            assert line.get_label() == split
            assert list(map(float, np.asarray(line.get_ydata()))) == [
                row[f"{split}_{quantity}"] for row in history
            ]
        assert list(map(float, np.asarray(selected.get_xdata()))) == [2, 2]


def test_the_users_matplotlib_settings_are_ignored(tmp_path: Path) -> None:
    def draw(file: Path) -> bytes:
        with plots.style():
            plots.save_png(plots.draw_photos(photo_results(2, 1)), file)
        return file.read_bytes()

    before = draw(tmp_path / "a.png")
    with mpl.rc_context({"figure.facecolor": "red", "font.size": 20, "savefig.dpi": 50}):
        assert draw(tmp_path / "b.png") == before
    assert mpl.rcParams["text.parse_math"] is True


def test_a_plot_contains_no_date_and_no_version(tmp_path: Path) -> None:
    with plots.style():
        plots.save_png(plots.draw_roc([]), tmp_path / "roc.png")
    with Image.open(tmp_path / "roc.png") as plot:
        assert set(plot.info) == {"dpi"}


@pytest.mark.parametrize(
    ("name", "caption"),
    [
        ("x" * 14, "x" * 14),
        ("x" * 15, "x" * 13 + "…"),
        ("猫" * 7, "猫" * 7),
        ("猫" * 8, "猫" * 6 + "…"),
    ],
)
def test_long_names_are_shortened_to_the_width_of_a_photo(name: str, caption: str) -> None:
    photo = PhotoResult(np.zeros((16, 16, 3), dtype=np.uint8), name, name, 0.9)
    assert texts(plots.draw_photos([photo])) == [f"{caption} 90.0 %"]
