"""Fonts for class names in any script: matplotlib's own has no Chinese characters, for example.

matplotlib draws characters without a glyph as boxes. From a list of families it takes each
character from the first one that has it
(https://matplotlib.org/stable/users/explain/text/fonts.html).
"""

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass

from matplotlib.font_manager import (
    FontEntry,
    FontProperties,
    findSystemFonts,
    fontManager,
    get_font,
)

DEFAULT = "DejaVu Sans"  # part of matplotlib
MOST_NAMED = 10  # classes in a warning
PLACEHOLDERS = "Last Resort"  # prefix of a font of matplotlib: it has a box for every character


@dataclass(frozen=True)
class Fonts:
    """The fonts of the plots, and what they show instead of class names that no font can draw."""

    families: list[str]
    labels: dict[str, str]
    """a different text for each class: its name, or `class 2` for the second class"""


def find_fonts(classes: Sequence[str]) -> Fonts:
    """Return fonts for the names of `classes`: matplotlib's own, and installed ones if necessary.

    The same fonts have to be installed for the same bytes; for names in Latin, Greek and Cyrillic
    letters, only matplotlib's own is used.
    """
    wanted = {ord(character) for name in classes for character in name}
    families = [DEFAULT]
    missing = wanted - _characters(fontManager.findfont(FontProperties(family=DEFAULT)))
    candidates = _other_fonts() if missing else iter(())
    while missing and (font := next(candidates, None)):
        if found := missing & _characters(font.fname):
            families.append(font.name)
            missing -= found
    labels = {
        name: name if missing.isdisjoint(map(ord, name)) else _label(number, classes)
        for number, name in enumerate(classes, start=1)
    }
    return Fonts(families, labels)


def _label(number: int, classes: Sequence[str]) -> str:
    """Return `class 2` for the second class, or `class #2` if a class has that name."""
    label = f"class {number}"
    while label in classes:
        label = label.replace("class ", "class #", 1)
    return label


def describe_unreadable(labels: dict[str, str]) -> str:
    """Return a warning if the plots show other texts than the names of classes; otherwise ""."""
    changed = [f"{text} = {name}" for name, text in labels.items() if text != name]
    if not changed:
        return ""
    more = f" and {len(changed) - MOST_NAMED:,} more" if len(changed) > MOST_NAMED else ""
    return (
        f"no installed font can draw some class names, so the plots show numbers instead: "
        f"{', '.join(changed[:MOST_NAMED])}{more}; install a font with these characters, such as "
        "Noto Sans CJK, and run `dvc repro --force --single-item evaluate`"
    )


def _other_fonts() -> Iterator[FontEntry]:
    """Yield the regular fonts of the system, also those installed since matplotlib listed them."""
    known = {entry.fname for entry in fontManager.ttflist}
    for file in findSystemFonts():
        if file not in known:
            with suppress(Exception):  # matplotlib's own list ignores unreadable fonts in this way
                fontManager.addfont(file)
    for entry in sorted(fontManager.ttflist, key=lambda entry: (entry.name, entry.fname)):
        regular = entry.style == "normal" and entry.weight == 400
        if regular and not entry.name.startswith(PLACEHOLDERS):
            yield entry


def _characters(file: str) -> set[int]:
    """Return the characters that a font can draw; none for a font of bitmaps, such as emoji."""
    try:
        font = get_font(file)
    except (OSError, RuntimeError):
        return set()
    return set(font.get_charmap()) if font.scalable else set()
