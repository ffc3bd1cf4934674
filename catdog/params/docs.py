"""docs/params.md: every key of params.yaml, from the models in params.py that check it."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from catdog import params
from catdog.params import Params, Section

DEFAULTS = Path("recipes/sample.yaml")
HEAD = """\
# Params

Every key of `params.yaml`, made by `catdog params --markdown > docs/params.md` from
`catdog/params/schema.py`, which refuses what is out of range. The default is the value in
`recipes/sample.yaml`, which `params.yaml` is at first. A source says where an idea, or our way of
it, comes from.
"""
COLUMNS = ("key", "type", "range", "default", "what it does", "source")
NAMES = {"boolean": "true or false", "integer": "whole number", "number": "number", "null": "empty"}


class Row(NamedTuple):
    """What is known of one key."""

    key: str
    type: str
    range: str
    default: str
    description: str
    source: str


def as_markdown(defaults: Path = DEFAULTS) -> str:
    """Return the page: for each section its text and a table with a row for each key.

    Raises CatdogError if the params file `defaults` is missing or wrong.
    """
    values = params.load(defaults)
    parts = [HEAD]
    for name in Params.model_fields:
        section = getattr(values, name)
        parts += [f"## {name}", type(section).__doc__ or "", _table(rows(section, f"{name}."))]
    return "\n".join(part.strip() + "\n" for part in parts)


def rows(section: Section, prefix: str = "") -> list[Row]:
    """Return a row for each key of a section and of the sections inside it, in their order."""
    schema = type(section).model_json_schema()
    found: list[Row] = []
    for name, facts in schema["properties"].items():
        value = getattr(section, name)
        if isinstance(value, Section):
            found += rows(value, f"{prefix}{name}.")
            continue
        found.append(
            Row(
                key=f"{prefix}{name}",
                type=_type(facts),
                range=facts.get("range") or "; ".join(_ranges(facts)),
                default=_value(value),
                description=facts["description"],
                source=facts.get("source", ""),
            )
        )
    return found


def _type(facts: dict[str, Any]) -> str:
    """Return the type in words; facts are JSON schema's."""
    match facts:
        case {"anyOf": kinds}:
            return " or ".join(map(_type, kinds))
        case {"enum": _}:
            return "one of"
        case {"type": "array", "items": item}:
            return f"list of {_type(item)}s"
        case _:
            return NAMES.get(facts["type"], "text")


def _ranges(facts: dict[str, Any]) -> Iterator[str]:
    """Yield what JSON schema says of the values that are allowed."""
    for kind in facts.get("anyOf", []):
        yield from _ranges(kind)
    if "enum" in facts:
        yield ", ".join(facts["enum"])
    if "minItems" in facts:
        yield f"{facts['minItems']} of them"  # no list here may be of several lengths
    low, high = facts.get("minimum"), facts.get("maximum")
    if low is not None and high is not None:
        yield f"{low:,} to {high:,}"
        return
    above, below = facts.get("exclusiveMinimum"), facts.get("exclusiveMaximum")
    bounds = {"at least": low, "above": above, "at most": high, "below": below}
    said = [f"{word} {bound:,}" for word, bound in bounds.items() if bound is not None]
    if said:
        yield ", ".join(said)


def _value(value: Any) -> str:
    """Return a value as params.yaml has it."""
    if value is None:
        return "empty"
    return f"`{value if isinstance(value, str) else json.dumps(value)}`"


def _table(found: list[Row]) -> str:
    lines = [COLUMNS, ("---",) * len(COLUMNS)]
    lines += [(f"`{row.key}`", *row[1:]) for row in found]
    return "".join(f"| {' | '.join(cell.replace('|', '/') for cell in line)} |\n" for line in lines)
