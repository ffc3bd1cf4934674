"""Files that appear whole or not at all."""

import csv
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from catdog.errors import CatdogError


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; it is renamed to `path` when the block ends well.

    A kill or an error inside the block leaves the old file, if any, as it was.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def load_yaml(text: str, where: str) -> dict[str, Any]:
    """Return the mapping that a YAML text holds, as PyYAML reads it; CatdogError if it is none."""
    try:
        content = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise no_yaml(where, error) from None
    if not isinstance(content, dict):
        raise CatdogError(f"{where}: holds no mapping; take it from git again")
    return content


def no_yaml(where: str, error: Exception) -> CatdogError:
    """Return the error of a file that is no YAML, with the line and what the reader found there."""
    problem, mark = getattr(error, "problem", None), getattr(error, "problem_mark", None)
    line = f"line {mark.line + 1}: " if mark else ""
    return CatdogError(f"{where}: is no YAML: {line}{problem or error}; correct it")


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text with \\n line ends, whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")


def write_rows(path: Path, header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Write a CSV file in UTF-8 with \\n line ends, whole or not at all.

    The name of a file may hold bytes that are no UTF-8: they are written as \\udcXX.
    """
    with (
        replacing(path) as temporary,
        temporary.open("w", encoding="utf-8", errors="backslashreplace", newline="") as stream,
    ):
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)
