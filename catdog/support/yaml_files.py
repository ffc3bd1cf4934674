"""Parse YAML exactly as DVC does, with one-line errors."""

import json
import re
from collections.abc import Iterator
from typing import Any

from dvc.utils import serialize
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError
from ruamel.yaml.events import (
    AliasEvent,
    CollectionEndEvent,
    CollectionStartEvent,
    NodeEvent,
    ScalarEvent,
)
from ruamel.yaml.reader import ReaderError

from catdog.errors import CatdogError

MAX_DEPTH = 50  # nested lists and mappings; Python's recursion limit ends far above
MAX_SHOWN = 80  # characters of a value
MAX_EXPANDED = 100_000  # values, if each alias is replaced by what it refers to
# 017 is 17 in YAML 1.2 and 15 in YAML 1.1; 0o17 is 15 and text
OCTAL = re.compile(r"[-+]?0o?[0-9_]+")
DATE = re.compile(r"\d{4}-\d\d?-\d\d?([Tt \t].*)?")


def parse_yaml(text: str, source: str, unambiguous: bool = False) -> Any:
    """Return the content of a YAML text; an empty one gives {}, as in DVC.

    DVC follows YAML 1.2, where 1e-05 is a number; in PyYAML, which follows YAML 1.1, it is text.
    With `unambiguous`, integers that the two read differently, dates and tags are errors. Raises
    CatdogError for invalid YAML, naming `source`, the line and the problem.
    """
    try:
        events = list(_check_size(YAML(typ="safe").parse(text)))
        if unambiguous:
            _check_spelling(events)
        return serialize.parse_yaml(text, source)
    except _ProblemError as error:
        line, problem = error.args
    except (YAMLError, serialize.YAMLFileCorruptedError) as error:
        line, problem = _describe(error if isinstance(error, YAMLError) else error.__cause__, text)
    # What ruamel.yaml raises for values such as 0x_, 2020-13-45, !!int and !!bool x
    except (ValueError, LookupError, AttributeError, TypeError, RecursionError) as error:
        line, problem = _find_invalid_value(events), str(error).partition("\n")[0]
    where = f" in line {line}" if line else ""
    raise CatdogError(f"{source}: invalid YAML{where}: {problem}; fix the file")


def parse_mapping(text: str, source: str) -> dict[str, Any]:
    """Return the mapping in a YAML text; CatdogError if it is invalid, empty or not a mapping."""
    content = parse_yaml(text, source)
    if not content or not isinstance(content, dict):
        raise CatdogError(f"{source}: must be a mapping; restore the file from git")
    return content


class _ProblemError(Exception):
    """A problem in a line: (number of the line, text)."""


def _check_size(events: Iterator[Any]) -> Iterator[Any]:
    """Yield the events of a text; _ProblemError for deep nesting or too large aliases."""
    sizes: dict[str, int] = {}  # number of values of each anchor, expanded
    open_nodes: list[tuple[str | None, int]] = []  # anchor, and the values before the node
    values = 0
    for event in events:
        line = event.start_mark.line + 1
        if isinstance(event, AliasEvent):
            if any(anchor == event.anchor for anchor, _ in open_nodes):
                raise _ProblemError(line, f"alias *{event.anchor} refers to itself")
            values += sizes.get(event.anchor, 0)
            if values > MAX_EXPANDED:
                raise _ProblemError(line, f"aliases expand to more than {MAX_EXPANDED:,} values")
        elif isinstance(event, NodeEvent):
            open_nodes.append((event.anchor, values))
            values += 1
            if len(open_nodes) > MAX_DEPTH:
                raise _ProblemError(line, f"more than {MAX_DEPTH} nested lists and mappings")
        if isinstance(event, ScalarEvent | CollectionEndEvent):
            anchor, before = open_nodes.pop()
            if anchor:
                sizes[anchor] = values - before
        yield event


def _check_spelling(events: list[Any]) -> None:
    for event in events:
        if not isinstance(event, ScalarEvent | CollectionStartEvent):
            continue
        line = event.start_mark.line + 1
        if event.tag is not None:
            raise _ProblemError(line, f"tag {event.tag} is not supported")
        if not isinstance(event, ScalarEvent) or not event.implicit[0]:
            continue
        shown = event.value[:MAX_SHOWN]
        if OCTAL.fullmatch(event.value):
            raise _ProblemError(
                line, f"octal form {shown} differs in YAML 1.1 and 1.2; write it in decimal"
            )
        if DATE.fullmatch(event.value):
            raise _ProblemError(line, f"{shown} is a date; no key has a date as its value")


def _describe(error: BaseException | None, text: str) -> tuple[int, str]:
    """Return line (0 if unknown) and problem of an error of ruamel.yaml."""
    if isinstance(error, ReaderError):
        letter = f"U+{ord(text[error.position]):04X}" if error.position < len(text) else "a byte"
        return text.count("\n", 0, error.position) + 1, f"{letter} is not allowed"
    mark = getattr(error, "problem_mark", None)
    problem = getattr(error, "problem", None) or str(error).partition("\n")[0]
    return mark.line + 1 if mark else 0, problem


def _find_invalid_value(events: list[Any]) -> int:
    """Return the line of the first value that cannot be constructed on its own; 0 if none."""
    for event in events:
        if isinstance(event, ScalarEvent):
            tag = f"!<{event.tag}> " if event.tag else ""
            plain = event.implicit[0] and not event.tag
            try:
                YAML(typ="safe").load(tag + (event.value if plain else json.dumps(event.value)))
            except Exception:  # any, as in `parse_yaml`
                return int(event.start_mark.line) + 1
    return 0
