"""Read params.yaml: YAML as DVC reads it, and one line for each mistake in it."""

import difflib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from catdog.errors import CatdogError
from catdog.params.schema import Params, Section

MOST_SHOWN = 4  # mistakes that one message names


class _Loader(yaml.SafeLoader):
    """YAML as DVC reads it: 1e-05 is a number too (YAML 1.1, and so PyYAML, wants a dot in it)."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(?:[0-9][0-9_]*)(?:\.[0-9_]*)?[eE][-+]?[0-9]+$"),
    list("-+0123456789"),
)


def load(path: Path = Path("params.yaml")) -> Params:
    """Read and validate a params file.

    Raises CatdogError with one line: file, key, value, and what is allowed.
    """
    return parse(read_yaml(path), str(path))


def read_yaml(path: Path) -> Any:
    """Return what a YAML file holds, numbers as DVC reads them; CatdogError if it cannot."""
    try:
        return yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)
    except FileNotFoundError:
        raise CatdogError(f"{path}: no such file; copy one from recipes/") from None
    except (OSError, UnicodeDecodeError) as error:
        raise CatdogError(f"{path}: cannot be read ({error})") from None
    except yaml.YAMLError as error:
        where = getattr(error, "problem_mark", None)
        line = f" in line {where.line + 1}" if where else ""
        problem = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise CatdogError(f"{path}: not valid YAML{line}: {problem}") from None


def parse(values: Any, source: str = "params") -> Params:
    """Return plain values, as YAML gives them, as validated params.

    Raises CatdogError with one line: `source`, key, value, and what is allowed.
    """
    if not isinstance(values, dict):
        raise CatdogError(f"{source}: must hold sections such as `train:`, see recipes/")
    try:
        return Params.model_validate(values)
    except ValidationError as error:
        problems = error.errors(include_url=False)
        more = f" (and {len(problems) - MOST_SHOWN} more)" if len(problems) > MOST_SHOWN else ""
        shown = "; ".join(_explain(dict(problem)) for problem in problems[:MOST_SHOWN])
        raise CatdogError(f"{source}: {shown}{more}") from None


def _explain(problem: dict[str, Any]) -> str:
    key = ".".join(str(part) for part in problem["loc"])
    match problem["type"]:
        case "missing":
            return f"{key} is missing; copy it from recipes/"
        case "extra_forbidden":
            near = _nearest(key)
            hint = f" (nearest: {', '.join(near)})" if near else ""
            return f"{key} is not a known key{hint}; docs/params.md has all of them"
        case "value_error":
            message = str(problem["ctx"]["error"])
            return f"{key}: {message}" if key else message
        case _:
            message = str(problem["msg"])
            return f"{key} is {problem['input']!r}, but: {message[0].lower()}{message[1:]}"


def _nearest(key: str) -> list[str]:
    """Return up to three keys that are spelt like `key` in its section, or nearly so elsewhere."""
    section, _, end = key.rpartition(".")
    places: dict[str, list[str]] = {}
    for known in _keys(Params):
        places.setdefault(known.rpartition(".")[2], []).append(known)
    here = [name for name, keys in places.items() if _join(section, name) in keys]
    alike = [_join(section, name) for name in difflib.get_close_matches(end, here, cutoff=0.5)]
    for name in difflib.get_close_matches(end, places, cutoff=0.8):
        alike += places[name]
    return list(dict.fromkeys(alike))[:3]


def _join(section: str, name: str) -> str:
    return f"{section}.{name}" if section else name


def _keys(section: type[Section], prefix: str = "") -> Iterator[str]:
    """Yield every key of a section, and those of the sections inside it."""
    for name, field in section.model_fields.items():
        yield f"{prefix}{name}"
        if isinstance(field.annotation, type) and issubclass(field.annotation, Section):
            yield from _keys(field.annotation, f"{prefix}{name}.")
