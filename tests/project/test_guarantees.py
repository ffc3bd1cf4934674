"""Code and tests that docs/guarantees.md names exist."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "guarantees.md").read_text(encoding="utf-8")
# Rows of tables, without the headers and the lines below them.
ROWS = re.findall(r"^\| (?!Event |Guarantee ).*\|$", PAGE, re.MULTILINE)


def named_tests(row: str) -> list[tuple[str, str]]:
    """Return file and function of each test in a row; without a file, that of the one before."""
    found: list[tuple[str, str]] = []
    for file, function in re.findall(r"`(?:([\w/]+\.py)::)?(test_\w+)`", row):
        found.append((file or found[-1][0], function))
    return found


def exists(file: str, function: str) -> bool:
    path = ROOT / "tests" / file
    return path.is_file() and f"\ndef {function}(" in path.read_text(encoding="utf-8")


def test_each_guarantee_names_tests_that_exist() -> None:
    assert len(ROWS) > 50
    assert [row for row in ROWS if not named_tests(row)] == []
    named = [test for row in ROWS for test in named_tests(row)]
    assert [f"{file}::{function}" for file, function in named if not exists(file, function)] == []


def test_code_that_provides_the_guarantees_exists() -> None:
    paths = set(re.findall(r"`((?:catdog|flows)/[\w/]+\.py|dvc\.yaml)`", PAGE))
    assert len(paths) > 20
    assert [path for path in sorted(paths) if not (ROOT / path).is_file()] == []
