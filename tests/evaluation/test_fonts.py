"""Class names in any script can be read in the plots."""

import warnings
from pathlib import Path

import matplotlib as mpl
import matplotlib.font_manager as manager
import pytest
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen
from matplotlib.figure import Figure

from catdog.evaluation import plots
from catdog.evaluation.fonts import DEFAULT, describe_unreadable, find_fonts

CHINESE = {"猫": 600, "犬": 800}  # widths of the glyphs
FAMILY = "Catdog Test"


def write_font(file: Path, characters: dict[str, int]) -> None:
    """Write a font with a filled rectangle for each character."""
    builder = FontBuilder(1000, isTTF=True)
    names = {ord(character): f"uni{ord(character):04X}" for character in characters}
    builder.setupGlyphOrder([".notdef", *names.values()])
    builder.setupCharacterMap(names)
    widths = {names[ord(character)]: width for character, width in characters.items()}
    builder.setupGlyf({name: rectangle(widths.get(name, 500)) for name in (".notdef", *widths)})
    builder.setupHorizontalMetrics({n: (widths.get(n, 500), 0) for n in (".notdef", *widths)})
    builder.setupHorizontalHeader(ascent=800, descent=-200)
    builder.setupNameTable({"familyName": FAMILY, "styleName": "Regular"})
    builder.setupOS2(sTypoAscender=800, usWeightClass=400)
    builder.setupPost()
    builder.save(file)


def rectangle(width: int) -> object:
    pen = TTGlyphPen(None)
    pen.moveTo((0, 0))
    for corner in ((0, 700), (width, 700), (width, 0)):
        pen.lineTo(corner)
    pen.closePath()
    return pen.glyph()


@pytest.fixture
def only_default(monkeypatch: pytest.MonkeyPatch) -> None:
    """A system without other fonts than matplotlib's."""
    own = Path(mpl.get_data_path())
    entries = [e for e in manager.fontManager.ttflist if Path(e.fname).is_relative_to(own)]
    monkeypatch.setattr(manager.fontManager, "ttflist", entries)
    monkeypatch.setattr("catdog.evaluation.fonts.findSystemFonts", list)


@pytest.fixture
def installed(tmp_path: Path, only_default: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """A system with a font for the characters of CHINESE, which matplotlib has not listed yet."""
    write_font(tmp_path / "test.ttf", CHINESE)
    (tmp_path / "broken.ttf").write_bytes(b"no font")
    files = [str(tmp_path / name) for name in ("broken.ttf", "test.ttf")]
    monkeypatch.setattr("catdog.evaluation.fonts.findSystemFonts", lambda: files)


def draw(names: list[str]) -> Figure:
    fonts = find_fonts(names)
    with plots.style(fonts.families), warnings.catch_warnings():
        warnings.simplefilter("error")  # matplotlib warns of each character without a glyph
        labels = list(fonts.labels.values())
        figure = plots.draw_confusion({name: dict.fromkeys(labels, 1) for name in labels})
        figure.canvas.draw()
    return figure


@pytest.mark.usefixtures("only_default")
def test_names_that_the_default_font_has_need_no_other() -> None:
    fonts = find_fonts(["cat", "Hündin", "кошка", "γάτα"])
    assert fonts.families == [DEFAULT]
    assert all(name == label for name, label in fonts.labels.items())
    assert describe_unreadable(fonts.labels) == ""


@pytest.mark.usefixtures("installed")
def test_an_installed_font_draws_the_characters_that_the_default_lacks() -> None:
    fonts = find_fonts(["dog", "猫"])
    assert fonts.families == [DEFAULT, FAMILY]
    assert fonts.labels == {"dog": "dog", "猫": "猫"}
    draw(["dog", "猫"])


@pytest.mark.usefixtures("only_default")
def test_names_that_no_font_can_draw_are_numbered_and_the_warning_names_them() -> None:
    fonts = find_fonts(["dog", "猫", "狐 fox"])
    assert fonts.labels == {"dog": "dog", "猫": "class 2", "狐 fox": "class 3"}
    warning = describe_unreadable(fonts.labels)
    assert "class 2 = 猫, class 3 = 狐 fox; install a font" in warning
    figure = draw(["dog", "猫", "狐 fox"])
    ticks = [tick.get_text() for tick in figure.axes[0].get_yticklabels()]
    assert ticks == ["dog", "class 2", "class 3"]


@pytest.mark.usefixtures("only_default")
def test_a_number_is_not_the_name_of_another_class() -> None:
    assert find_fonts(["class 2", "猫"]).labels == {"class 2": "class 2", "猫": "class #2"}
