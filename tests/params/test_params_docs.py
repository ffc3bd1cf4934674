"""docs/params.md describes every key of the schema, and is up to date."""

import subprocess
import sys
from pathlib import Path
from typing import Annotated, Literal

import pytest
from flatten_dict import flatten
from pydantic import Field

from catdog import params
from catdog.errors import CatdogError
from catdog.params import Section
from catdog.params.docs import DEFAULTS, KeyDescription, as_markdown, describe

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs/params.md"


class Inner(Section):
    """A nested section."""

    deep: bool = Field(description="whether")


class Example(Section):
    """One key of every type."""

    share: Annotated[float, Field(gt=0, le=1)] = Field(
        description="a share", json_schema_extra={"source": "a paper"}
    )
    count: Annotated[int, Field(ge=2, le=4000)] = Field(description="a number")
    kind: Literal["a", "b"] = Field(description="one | of two")
    three: Annotated[list[float], Field(min_length=3, max_length=3)] | None = Field(
        description="channels"
    )
    odd: int = Field(description="odd", json_schema_extra={"range": "1, 3 or 5"})
    inner: Inner


def example() -> list[KeyDescription]:
    inner = Inner(deep=True)
    return describe(
        Example(share=0.5, count=3, kind="a", three=None, odd=1, inner=inner), prefix="some."
    )


def test_the_committed_page_is_the_output_of_the_command() -> None:
    command = [sys.executable, "-m", "catdog", "params", "--markdown"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, check=True)
    hint = "run `catdog params --markdown > docs/params.md`"
    assert PAGE.read_bytes() == done.stdout, hint


def test_every_key_of_params_yaml_has_one_row() -> None:
    page = as_markdown(ROOT / DEFAULTS)
    shown = [line.split("`")[1] for line in page.splitlines() if line.startswith("| `")]
    assert shown == list(flatten(params.load(ROOT / DEFAULTS).model_dump(), reducer="dot"))


def sample_with(folder: Path, old: str, new: str) -> Path:
    """Write a copy of the sample recipe with one line changed; return its path."""
    text = (ROOT / DEFAULTS).read_text(encoding="utf-8")
    assert text.count(old) == 1
    path = folder / "sample.yaml"
    path.write_text(text.replace(old, new), encoding="utf-8")
    return path


def test_the_default_is_the_value_in_the_sample_recipe(tmp_path: Path) -> None:
    lr = params.load(ROOT / DEFAULTS).optimizer.lr
    page = as_markdown(sample_with(tmp_path, f" lr: {lr}\n", " lr: 0.0625\n"))
    (line,) = [line for line in page.splitlines() if "`optimizer.lr`" in line]
    assert "| `0.0625` |" in line


def test_values_are_spelled_as_in_params_yaml() -> None:
    lines = as_markdown(ROOT / DEFAULTS).splitlines()
    cells = {line.split("`")[1]: line.split(" | ")[3] for line in lines if line.startswith("| `")}
    assert cells["normalization.mean"] == "empty"
    assert cells["optimizer.nesterov"] == "`true`"
    assert cells["optimizer.name"] == "`sgd`"


def test_a_description_has_type_range_value_and_source() -> None:
    share, count, kind, three, odd, deep = example()
    assert share == KeyDescription(
        "some.share", "number", "above 0, at most 1", 0.5, "a share", "a paper"
    )
    assert (count.type, count.range, count.source) == ("integer", "2 to 4,000", "")
    assert (kind.type, kind.range, kind.value) == ("one of", "a, b", "a")
    assert (three.type, three.range) == ("list of numbers or empty", "exactly 3")
    assert three.value is None
    assert odd.range == "1, 3 or 5"
    assert (deep.key, deep.type, deep.value) == ("some.inner.deep", "true or false", True)


def test_every_key_but_booleans_has_a_range() -> None:
    found = describe(params.load(ROOT / DEFAULTS))
    assert {key.type for key in found if not key.range} == {"true or false"}


def test_a_vertical_bar_does_not_break_the_table(tmp_path: Path) -> None:
    page = as_markdown(sample_with(tmp_path, " weights: none", " weights: a|b.pth"))
    tables = [line for line in page.splitlines() if line.startswith("|")]
    assert {line.count("|") for line in tables} == {7}


def test_a_missing_sample_recipe_is_reported(tmp_path: Path) -> None:
    with pytest.raises(CatdogError, match=r"sample\.yaml: no such file"):
        as_markdown(tmp_path / "sample.yaml")
