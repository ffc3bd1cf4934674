"""report.html and the metrics as text."""

import html
import io
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from catdog import params
from catdog.evaluation import metrics, plots, report

PARAMS = params.load(Path(__file__).parents[2] / "params.yaml")
NASTY = ["<b>cat</b>", "[red]dog", "$x_1$"]


def summary(classes: list[str]) -> dict[str, Any]:
    labels = np.arange(12) % len(classes)
    probabilities = np.random.default_rng(1).dirichlet(np.ones(len(classes)), size=12)
    found = metrics.summarize(labels, probabilities, classes, bins=10)
    return {**found, "epoch": 3, "weights": 1_234_567, "train_pflop": 0.0123}


def test_an_accuracy_is_formatted_with_its_interval_and_photos() -> None:
    part = {"accuracy": 0.9351, "low": 0.9123, "high": 0.9508, "photos": 1400}
    assert report.format_accuracy(part) == "93.5 % (91.2 to 95.1) of 1,400 photos"


def test_metrics_of_a_class_without_photos_are_formatted() -> None:
    found = metrics.summarize(np.array([0]), np.array([[0.9, 0.1]]), ["cat", "dog"], bins=10)
    assert ("dog", "no photos", "–") in report.format_classes(found)
    rows = dict(report.format_metrics({**found, "epoch": 1, "weights": 1, "train_pflop": 0.0123}))
    assert rows["ROC AUC"] == "–"
    assert rows["training, PFLOP"] == "0.0123"


def test_balanced_accuracy_follows_accuracy() -> None:
    found = {**summary(["cat", "dog"]), "balanced_accuracy": 0.125}
    assert report.format_metrics(found)[1] == ("balanced accuracy", "12.5 %")


def terminal(found: dict[str, Any], width: int) -> str:
    """Return the tables as a terminal of this width shows them."""
    stream = io.StringIO()
    for table in report.metrics_tables(found):
        Console(file=stream, width=width).print(table)
    return stream.getvalue()


def test_the_tables_show_every_metric_and_class_names_without_markup() -> None:
    found = summary(NASTY)
    text = terminal(found, width=100)
    for row in (*report.format_metrics(found), *report.format_classes(found)):
        assert all(cell in text for cell in row)
    assert "[red]dog" in text


@pytest.mark.parametrize("classes", [2, 20, 100])
def test_a_terminal_of_80_columns_shows_a_class_per_line(classes: int) -> None:
    names = [f"breed_{index:03}" for index in range(classes)]
    found = summary(names)
    lines = terminal(found, width=80).splitlines()
    for name, *cells in report.format_classes(found):
        (line,) = [line for line in lines if name in line]
        assert all(cell in line for cell in cells)


@pytest.fixture
def page(tmp_path: Path) -> str:
    plot = tmp_path / "roc.png"
    with plots.style():
        plots.save_png(plots.draw_roc([]), plot)
    report.write_page(tmp_path / "report.html", summary(NASTY), PARAMS, {"roc": plot}, {})
    return (tmp_path / "report.html").read_text(encoding="utf-8")


def test_the_page_escapes_class_names(page: str) -> None:
    assert "In the plots" not in page
    assert "<b>" not in page
    assert '<th scope="row">&lt;b&gt;cat&lt;/b&gt;</th>' in page


def test_the_page_says_which_classes_the_plots_number(tmp_path: Path) -> None:
    labels = {"dog": "dog", "<猫>": "class 2"}
    report.write_page(tmp_path / "report.html", summary(list(labels)), PARAMS, {}, labels)
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "In the plots, class 2 is &lt;猫&gt;: no font" in text


def test_the_page_has_a_row_for_each_class(page: str) -> None:
    rows = re.findall(r'<tr><th scope="row">(.*?)</th><td>(.*?)</td><td>(.*?)</td></tr>', page)
    expected = report.format_classes(summary(NASTY))
    assert [(html.unescape(name), *cells) for name, *cells in rows] == expected


@pytest.mark.parametrize(("classes", "shown"), [(2, "c0, c1: "), (20, "20 classes: ")])
def test_the_title_names_few_classes_and_counts_many(
    classes: int, shown: str, tmp_path: Path
) -> None:
    names = [f"c{index}" for index in range(classes)]
    report.write_page(tmp_path / "report.html", summary(names), PARAMS, {}, {})
    assert f"<title>{shown}" in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_the_page_is_self_contained(page: str) -> None:
    sources = re.findall(r"""(?:src|href|srcset|action)\s*=\s*["']?([^"'\s>]*)""", page)
    assert sources
    assert all(source.startswith("data:image/png;base64,") for source in sources)
    assert not re.search(r"//[a-z]|url\(|@import|<script|<link", re.sub(r"data:[^\"]*", "", page))


def test_the_page_fits_a_narrow_screen(page: str) -> None:
    assert '<meta name="viewport" content="width=device-width' in page
    assert re.search(r"img \{[^}]*max-width: 100%", page)


def test_the_page_formats_params_as_in_params_yaml(page: str) -> None:
    shown = dict(re.findall(r'<tr><th scope="row">([a-z_.]+)</th><td>(.*?)</td></tr>', page))
    assert shown["train.epochs"] == str(PARAMS.train.epochs)
    assert shown["model.residual.width"] == str(PARAMS.model.residual.width)
    assert shown["train.eval_flip"] == str(PARAMS.train.eval_flip).lower()
    assert shown["normalization.mean"] == ""
