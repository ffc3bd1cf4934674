"""docs/guarantees.md names code and tests that exist."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "guarantees.md").read_text(encoding="utf-8")
# Rows of tables, without their heads and the lines below them.
ROWS = re.findall(r"^\| (?!What happens |Guarantee ).*\|$", PAGE, re.MULTILINE)


def named_tests(row: str) -> list[tuple[Path, str]]:
    """Return file and function of each test in a row; a name without a file has the one before."""
    found: list[tuple[Path, str]] = []
    for file, name in re.findall(r"`(?:([\w/]+\.py)::)?(test_\w+)`", row):
        found.append((ROOT / "tests" / file if file else found[-1][0], name))
    return found


@pytest.mark.parametrize("row", ROWS, ids=range(len(ROWS)))
def test_each_row_names_a_test_that_exists(row: str) -> None:
    assert named_tests(row)
    for file, name in named_tests(row):
        assert file.is_file(), file
        assert re.search(rf"^def {name}\(", file.read_text(encoding="utf-8"), re.MULTILINE), name


def test_all_code_on_the_page_exists() -> None:
    paths = set(re.findall(r"`((?:catdog|flows)/[\w/]+\.py|dvc\.yaml)`", PAGE))
    assert len(paths) > 20
    assert [path for path in sorted(paths) if not (ROOT / path).is_file()] == []
