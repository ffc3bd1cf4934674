"""The study file: a YAML file that defines many runs, such as a grid of configurations × seeds.

    # studies/lr.yaml (a study is named after its file: lr)
    description: Which learning rate?      # title of the table and the plot
    revision: HEAD                         # commit, branch or tag to run (default: HEAD)
    recipe: quick                          # start from recipes/quick.yaml (default: params.yaml)
    overrides: [train.epochs=4]            # settings of every run, as for `dvc exp run -S`
    grid:                                  # every combination of these values
      optimizer.lr: [0.03, 0.06]
      train.batch_size: [64, 128]
    points:                                # further configurations, each with a name
      large: {train.batch_size: 512, optimizer.lr: 0.2}
    seeds: [1, 2, 3]                       # values of train.seed for each configuration
    metric: accuracy                       # metric of the plot (default: the first one)

All keys are optional, but a study needs `grid`, `points` or `seeds`. The example defines 15 points:
5 configurations (4 in the grid, and `large`) × 3 seeds. `points` may also be a list of
configurations without names.

A setting is a key of params.yaml, written with dots, and its value: a number, string, boolean,
null, or a list of these. A key that is set in `overrides` or by `seeds` cannot be set in `grid` or
`points` too.

Each point becomes one DVC experiment. Its name consists of the name of the study, the settings or
the name of the point, and the seed: `lr-lr=0.03-batch_size=64-seed=1`, `lr-large-seed=1`. Only the
last part of a key is used, unless two keys of the study have the same last part. If a name contains
characters that are not allowed, they become `_`, and a hash of the settings is appended.

A study can grow: a sweep finds finished points by their names and skips them. New values, points
and seeds change no existing name. A new key in `grid` renames all points of the grid, and a new key
with the same last part as another renames the points that set the other. After a change of `recipe`
or `overrides`, rename the file: points of the same name would have other params, which is an error.
"""

import hashlib
import itertools
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import PurePath
from typing import Annotated, Any, NamedTuple, Self

from dvc.utils.serialize import YAMLError, parse_yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    ValidationError,
    model_validator,
)

from flows.errors import FlowError
from flows.guards.yaml_nesting import check_nesting
from flows.runs.request import Override, Recipe, Revision

SEED = "train.seed"
MAX_NAME_LENGTH = 100  # git stores the name as a file name, of at most 255 bytes
PLAIN_TEXT = re.compile(r"[A-Za-z_][\w./-]*", re.ASCII)
HYDRA_KEYWORDS = {"null", "true", "false", "nan", "inf"}  # not text unless quoted


def _supported(value: Any) -> Any:
    """Return the value of a setting; ValueError if `dvc exp run -S` cannot set it."""
    items = value if isinstance(value, list) else [value]
    for item in items:
        if not (item is None or isinstance(item, bool | int | float | str)):
            kind = (
                "a mapping; write nested keys with dots" if isinstance(item, dict) else f"{item!r}"
            )
            raise ValueError(f"must be a number, string, boolean, null or list, not {kind}")
        if isinstance(item, str) and ("${" in item or _has_control_character(item)):
            raise ValueError(f"{item!r} has characters that `dvc exp run -S` does not support")
    return value


def _has_control_character(text: str) -> bool:
    """Return whether a text contains a line break or another control character."""
    return any(unicodedata.category(character) in ("Cc", "Zl", "Zp") for character in text)


def _unique(values: list[Any]) -> list[Any]:
    """Return the list; ValueError if it contains a value twice."""
    texts = [as_override("", value)[1:] for value in values]
    if repeated := [text for text, count in Counter(texts).items() if count > 1]:
        raise ValueError(f"contains {repeated[0]} twice")
    return values


Key = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z0-9_]+)*$")]
Name = Annotated[str, Field(max_length=50, pattern=r"^[A-Za-z0-9][A-Za-z0-9_+-]*$")]
Value = Annotated[Any, AfterValidator(_supported)]
Seed = Annotated[int, Field(ge=0, lt=2**31, strict=True)]
Settings = dict[Key, Value]
Points = Annotated[
    Annotated[dict[Name, Settings], Tag("dict")] | Annotated[list[Settings], Tag("list")],
    Discriminator(
        lambda value: type(value).__name__,
        custom_error_type="points_type",
        custom_error_message="must be a list of settings, or a mapping from names to settings",
    ),
]


class Point(NamedTuple):
    """One run of a study.

    `name` is the name of the experiment; `label` is the same for all seeds of a configuration.
    `overrides` are all overrides of the run, `settings` those of its grid, points and seeds.
    """

    name: str
    label: str
    overrides: list[str]
    settings: dict[str, Any]


class Study(BaseModel):
    """The content of a study file, and the study's name; the module docstring explains the keys."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Name
    description: str = ""
    revision: Revision = "HEAD"
    recipe: Recipe | None = None
    overrides: list[Override] = []
    grid: dict[Key, Annotated[list[Value], Field(min_length=1), AfterValidator(_unique)]] = {}
    points: Points = []
    seeds: Annotated[list[Seed], AfterValidator(_unique)] = []
    metric: str | None = None

    @model_validator(mode="after")
    def _defines_runs(self) -> Self:
        if not (self.grid or self.points or self.seeds):
            raise ValueError("defines no runs; add grid, points or seeds")
        return self

    @model_validator(mode="after")
    def _each_key_is_set_once(self) -> Self:
        sections = {
            "overrides": {item.partition("=")[0] for item in self.overrides},
            "seeds": {SEED} if self.seeds else set(),
            "grid or points": set(self.grid).union(*self._listed()),
        }
        for (first, keys), (second, others) in itertools.combinations(sections.items(), 2):
            if both := sorted(keys & others):
                raise ValueError(f"{both[0]} is set both in {first} and in {second}; keep one")
        return self

    @model_validator(mode="after")
    def _points_are_unique(self) -> Self:
        found = points(self)
        names = Counter(point.name for point in found)
        settings = Counter(tuple(sorted(point.overrides)) for point in found)
        for point in found:
            if names[point.name] > 1 or settings[tuple(sorted(point.overrides))] > 1:
                raise ValueError(f"the point {point.name} is defined twice; keep one")
        return self

    def _listed(self) -> list[Settings]:
        return list(self.points.values() if isinstance(self.points, dict) else self.points)


def parse(text: str, path: str) -> Study:
    """Return the study in `text`, the content of the file at `path`.

    Raises FlowError, in one line with the key and the reason, if it is invalid.
    """
    check_nesting(text, path)
    try:
        values = parse_yaml(text, path)
    except YAMLError as error:
        problem = getattr(error.__cause__, "problem", None) or error.__cause__
        mark = getattr(error.__cause__, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark else ""
        raise FlowError(f"{path}: invalid YAML ({problem}{where})") from None
    # What ruamel.yaml raises for values such as 0x_ and 2020-13-45
    except (ValueError, LookupError, AttributeError, TypeError, RecursionError) as error:
        raise FlowError(f"{path}: invalid YAML ({str(error).partition(chr(10))[0]})") from None
    if not isinstance(values, dict):
        raise FlowError(f"{path}: must be a mapping with keys such as grid and seeds")
    if "name" in values:
        raise FlowError(f"{path}: name: unknown key; rename the file, which names the study")
    try:
        return Study.model_validate({**values, "name": PurePath(path).stem})
    except ValidationError as error:
        raise FlowError(f"{path}: {_explain(error)}") from None


def points(study: Study) -> list[Point]:
    """Return the points of `study`: first the grid, then `points`, each with all its seeds."""
    seeds: list[Settings] = [{SEED: seed} for seed in study.seeds] or [{}]
    without_seeds = list(_points_without_seeds(study))
    short = _short_keys(key for _, settings in without_seeds for key in [*settings, *seeds[0]])
    found = []
    for given_name, settings in without_seeds:
        parts = [given_name] if given_name else _name_parts(settings, short)
        label = " ".join(parts) or study.name
        for seed in seeds:
            own = {**settings, **seed}
            overrides = [as_override(key, value) for key, value in own.items()]
            text = "-".join([study.name, *parts, *_name_parts(seed, short)])
            name = _experiment_name(text, overrides)
            found.append(Point(name, label, [*study.overrides, *overrides], own))
    return found


def _name_parts(settings: Settings, short: Mapping[str, str]) -> list[str]:
    """Return a part such as `lr=0.03` for each setting."""
    return [f"{short[key]}={as_text(value)}" for key, value in settings.items()]


def _points_without_seeds(study: Study) -> Iterator[tuple[str | None, Settings]]:
    """Yield name and settings of each point, once for all seeds; the name is None if not given."""
    if study.grid or not study.points:
        for values in itertools.product(*study.grid.values()):
            yield None, dict(zip(study.grid, values, strict=True))
    if isinstance(study.points, dict):
        yield from study.points.items()
    else:
        yield from ((None, settings) for settings in study.points)


def _short_keys(keys: Iterable[str]) -> dict[str, str]:
    """Return the last part of each key, or the whole key if two keys have the same last part."""
    last_parts = {key: key.rpartition(".")[2] for key in set(keys)}
    count = Counter(last_parts.values())
    return {key: last if count[last] == 1 else key for key, last in last_parts.items()}


def _experiment_name(text: str, overrides: list[str]) -> str:
    """Return `text` as a name that git and DVC allow, with a hash appended if it had to change."""
    name = re.sub(r"[^A-Za-z0-9._+=-]+|\.(?=\.)|\.$|\.(?=lock$)", "_", text)[:MAX_NAME_LENGTH]
    if name == text:
        return name
    digest = hashlib.sha256("\n".join(overrides).encode()).hexdigest()[:8]
    return f"{name[: MAX_NAME_LENGTH - 9]}-{digest}"


def as_override(key: str, value: Any) -> str:
    """Return `key=value` in Hydra's override grammar, so that `dvc exp run -S` sets `value`."""
    if isinstance(value, list):
        return f"{key}=[{','.join(_as_hydra(item) for item in value)}]"
    return f"{key}={_as_hydra(value)}"


def _as_hydra(value: bool | float | str | None) -> str:
    if not isinstance(value, str):
        return as_text(value)
    if PLAIN_TEXT.fullmatch(value) and value.lower() not in HYDRA_KEYWORDS:
        return value
    # In Hydra's grammar a backslash escapes only a quote, and a backslash before a quote.
    escaped = re.sub(r"(\\+)(?='|$)", r"\1\1", value).replace("'", r"\'")
    return f"'{escaped}'"


def as_text(value: Any) -> str:
    """Return `value` as one line of YAML: null, true, 0.03, text, 'null', [1, 2]."""
    match value:
        case str() if _needs_quotes(value):
            return f"'{value}'"
        case None:
            return "null"
        case bool():
            return str(value).lower()
        case list():
            return f"[{', '.join(as_text(item) for item in value)}]"
        case _:
            return str(value)


def _needs_quotes(text: str) -> bool:
    """Return whether a text is what `as_text` returns for null, a boolean or a number."""
    for convert in (int, float):
        with suppress(ValueError):
            if str(convert(text)) == text:
                return True
    return text in ("null", "true", "false")


def _explain(error: ValidationError) -> str:
    """Return the first error as one line: the key, and what is wrong with it."""
    problem = error.errors(include_url=False)[0]
    location = [str(part) for part in problem["loc"] if part != "[key]"]
    if location[:1] == ["points"] and location[1:2] in (["dict"], ["list"]):
        del location[1]  # the tag of the union
    match problem["type"]:
        case "extra_forbidden":
            known = ", ".join(key for key in Study.model_fields if key != "name")
            text = f"unknown key; choose one of {known}"
        case "string_pattern_mismatch":
            pattern = problem["ctx"]["pattern"]
            text = (
                f"invalid value {problem['input']!r}; must match the regular expression {pattern}"
            )
        case "list_type":
            text = f"must be a list, such as [{as_text(problem['input'])}]"
        case _:
            text = problem["msg"].removeprefix("Value error, ")
    return f"{'.'.join(location)}: {text}" if location else text
