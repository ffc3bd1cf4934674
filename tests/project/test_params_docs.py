"""docs/params.md says of every key what params.py checks, and is current."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Literal

import pytest
from pydantic import Field

from catdog import params
from catdog.errors import CatdogError
from catdog.params import Section
from catdog.params.docs import DEFAULTS, Row, as_markdown, rows

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs/params.md"


class Inner(Section):
    """A section inside another."""

    deep: bool = Field(description="whether")


class Example(Section):
    """One key of every kind."""

    share: Annotated[float, Field(gt=0, le=1)] = Field(
        description="a share", json_schema_extra={"source": "a paper"}
    )
    count: Annotated[int, Field(ge=2, le=4000)] = Field(description="how many")
    kind: Literal["a", "b"] = Field(description="which | of two")
    three: Annotated[list[float], Field(min_length=3, max_length=3)] | None = Field(
        description="channels"
    )
    odd: int = Field(description="odd", json_schema_extra={"range": "1, 3 or 5"})
    inner: Inner


def example() -> list[Row]:
    inner = Inner(deep=True)
    return rows(
        Example(share=0.5, count=3, kind="a", three=None, odd=1, inner=inner), prefix="some."
    )


def keys_of(section: Section, prefix: str = "") -> Iterator[str]:
    for name, value in section:
        if isinstance(value, Section):
            yield from keys_of(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}"


def test_the_committed_page_is_what_the_command_writes() -> None:
    command = [sys.executable, "-m", "catdog", "params", "--markdown"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, check=True)
    hint = "run: catdog params --markdown > docs/params.md"
    assert PAGE.read_bytes() == done.stdout, hint


def test_every_key_of_params_yaml_has_one_row() -> None:
    page = as_markdown(ROOT / DEFAULTS)
    shown = [line.split("`")[1] for line in page.splitlines() if line.startswith("| `")]
    assert shown == list(keys_of(params.load(ROOT / DEFAULTS)))


def sample_with(folder: Path, old: str, new: str) -> Path:
    """Return a sample recipe of its own, in which one line is another."""
    text = (ROOT / DEFAULTS).read_text(encoding="utf-8")
    assert text.count(old) == 1
    path = folder / "sample.yaml"
    path.write_text(text.replace(old, new), encoding="utf-8")
    return path


def test_the_default_is_the_samples_value(tmp_path: Path) -> None:
    lr = params.load(ROOT / DEFAULTS).optimizer.lr
    page = as_markdown(sample_with(tmp_path, f" lr: {lr}\n", " lr: 0.0625\n"))
    (line,) = [line for line in page.splitlines() if "`optimizer.lr`" in line]
    assert "| `0.0625` |" in line


def test_a_row_says_type_range_default_and_source() -> None:
    share, count, kind, three, odd, deep = example()
    assert share == Row("some.share", "number", "above 0, at most 1", "`0.5`", "a share", "a paper")
    assert (count.type, count.range, count.source) == ("whole number", "2 to 4,000", "")
    assert (kind.type, kind.range, kind.default) == ("one of", "a, b", "`a`")
    assert (three.type, three.range) == ("list of numbers or empty", "3 of them")
    assert three.default == "empty"
    assert odd.range == "1, 3 or 5"
    assert (deep.key, deep.type, deep.default) == ("some.inner.deep", "true or false", "`true`")


def test_every_number_and_choice_has_a_range() -> None:
    found = rows(params.load(ROOT / DEFAULTS))
    assert {row.type for row in found if not row.range} == {"true or false"}


def test_no_text_breaks_a_table(tmp_path: Path) -> None:
    page = as_markdown(sample_with(tmp_path, " weights: none", " weights: a|b.pth"))
    tables = [line for line in page.splitlines() if line.startswith("|")]
    assert {line.count("|") for line in tables} == {7}


def test_without_the_sample_recipe_it_says_so(tmp_path: Path) -> None:
    with pytest.raises(CatdogError, match=r"sample\.yaml: no such file"):
        as_markdown(tmp_path / "sample.yaml")
