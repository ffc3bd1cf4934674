"""Parse YAML exactly as DVC does, with one-line errors."""

from typing import Any

from dvc.utils import serialize

from catdog.errors import CatdogError


def parse_yaml(text: str, source: str) -> Any:
    """Return the content of a YAML text; an empty one gives {}, as in DVC.

    DVC follows YAML 1.2, where 1e-05 is a number; in PyYAML, which follows YAML 1.1, it is text.
    Raises CatdogError for invalid YAML, naming `source`, the line and the problem.
    """
    try:
        return serialize.parse_yaml(text, source)
    except serialize.YAMLFileCorruptedError as error:
        cause = error.__cause__
        mark = getattr(cause, "problem_mark", None)
        line = f" in line {mark.line + 1}" if mark else ""
        problem = getattr(cause, "problem", None) or str(cause).partition("\n")[0]
        raise CatdogError(f"{source}: invalid YAML{line}: {problem}; fix the file") from None


def parse_mapping(text: str, source: str) -> dict[str, Any]:
    """Return the mapping in a YAML text; CatdogError if it is invalid, empty or not a mapping."""
    content = parse_yaml(text, source)
    if not content or not isinstance(content, dict):
        raise CatdogError(f"{source}: must be a mapping; restore the file from git")
    return content
