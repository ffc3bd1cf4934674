"""Read and validate params.yaml; all errors in it are reported in one line."""

import difflib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from catdog.errors import CatdogError
from catdog.params.fields import Section
from catdog.params.schema import Params
from catdog.support.yaml_files import parse_yaml

MAX_SHOWN = 4  # errors listed in one message
MAX_VALUE = 80  # characters of a key or a value
# Words that are booleans in YAML 1.1 only; DVC follows YAML 1.2
YES_OR_NO = {
    **dict.fromkeys(("yes", "on", "y"), ": write true"),
    **dict.fromkeys(("no", "off", "n"), ": write false"),
}


def load(path: Path = Path("params.yaml")) -> Params:
    """Read and validate a params file.

    Raises CatdogError with one line: file, key, value, and what is allowed.
    """
    return parse(read_yaml(path), str(path))


def read_yaml(path: Path) -> Any:
    """Return the content of a params file, not validated; CatdogError if it cannot be parsed."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise CatdogError(f"{path}: no such file; copy one from recipes/") from None
    except (OSError, UnicodeDecodeError) as error:
        raise CatdogError(
            f"{path}: cannot be read ({error}); check its permissions and encoding (UTF-8)"
        ) from None
    return parse_yaml(text, str(path), unambiguous=True)


def parse(values: Any, source: str = "params") -> Params:
    """Validate plain values, as parsed from YAML, and return them as params.

    Raises CatdogError with one line: `source`, key, value, and what is allowed.
    """
    if not values or not isinstance(values, dict):
        raise CatdogError(f"{source}: must contain sections such as `train:`; see recipes/")
    try:
        return Params.model_validate(values)
    except ValidationError as error:
        problems = error.errors(include_url=False)
        shown = " | ".join(_explain(dict(problem)) for problem in problems[:MAX_SHOWN])
        more = f" (and {len(problems) - MAX_SHOWN} more)" if len(problems) > MAX_SHOWN else ""
        raise CatdogError(f"{source}: {shown}{more}") from None


def _explain(problem: dict[str, Any]) -> str:
    """Return one of pydantic's errors as `key: what is wrong; what to do`."""
    key = _shortened(".".join(str(part) for part in problem["loc"]))
    match problem["type"]:
        case "missing":
            return f"{key}: missing key; add it (see the files in recipes/)"
        case "extra_forbidden":
            near = _nearest(key)
            hint = f"; similar: {', '.join(near)}" if near else ""
            return f"{key}: unknown key{hint}; all keys are listed in docs/params.md"
        case "value_error":
            message = str(problem["ctx"]["error"])
            return f"{key}: {message}" if key else message
        case _:
            allowed = str(problem["msg"]).replace("Input should be", "must be")
            shown = _shown(problem["input"])
            boolean = problem["type"] == "bool_type"
            hint = YES_OR_NO.get(str(problem["input"]).lower(), "") if boolean else ""
            return f"{key}: invalid value {shown}; {allowed[0].lower()}{allowed[1:]}{hint}"


def _shown(value: Any) -> str:
    try:
        return _shortened(repr(value))
    except ValueError:  # Python converts integers of over 4,300 digits to hexadecimal text only
        return "with too many digits"


def _shortened(text: str) -> str:
    return text if len(text) <= MAX_VALUE else f"{text[:MAX_VALUE]}…"


def _nearest(key: str) -> list[str]:
    """Return up to three known keys of similar spelling, those of the same section first."""
    section, _, end = key.rpartition(".")
    known: dict[str, list[str]] = {}  # by the last part of the key
    for name in _keys(Params):
        known.setdefault(name.rpartition(".")[2], []).append(name)
    siblings = [name for name, keys in known.items() if _join(section, name) in keys]
    similar = [
        _join(section, name) for name in difflib.get_close_matches(end, siblings, cutoff=0.5)
    ]
    for name in difflib.get_close_matches(end, known, cutoff=0.8):
        similar += known[name]
    return list(dict.fromkeys(similar))[:3]


def _join(section: str, name: str) -> str:
    return f"{section}.{name}" if section else name


def _keys(section: type[Section], prefix: str = "") -> Iterator[str]:
    """Yield the dotted names of all sections and keys inside a section."""
    for name, field in section.model_fields.items():
        yield f"{prefix}{name}"
        if isinstance(field.annotation, type) and issubclass(field.annotation, Section):
            yield from _keys(field.annotation, f"{prefix}{name}.")
