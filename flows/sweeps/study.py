"""A study: one file that names many runs, a grid of settings × seeds.

    # studies/lr.yaml: the file's name is the study's name
    description: Which learning rate?      # optional, like every key here
    revision: HEAD                         # the code and data: a commit, branch or tag
    recipe: quick                          # recipes/quick.yaml instead of params.yaml
    overrides: [train.epochs=4]            # for every run, as `dvc exp run -S` takes them
    grid:                                  # every combination of these
      optimizer.lr: [0.03, 0.06]
      train.batch_size: [64, 128]
    points:                                # and these: a list, or a mapping that names each
      large: {train.batch_size: 512, optimizer.lr: 0.2}
    seeds: [1, 2, 3]                       # values of train.seed, for each of the above
    metric: accuracy                       # what the picture shows; default: the first metric

Each point is one DVC experiment. Its name is made of the study's name and of what is set, such as
`lr-lr=0.03-batch_size=64-seed=1` or `lr-large-seed=1`: a key by its last part, or whole where two
keys that the study sets end alike. What a name cannot hold becomes `_`, and eight hexadecimal
digits that stand for the point's settings follow. Values that are added later so leave the other
names, and finished runs, as they are; so does a key, unless another that is set ends alike.

Values are numbers, text, true, false, empty, or a list of those, read as DVC reads params.yaml.
"""

import hashlib
import itertools
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
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
from flows.runs.request import Override, Recipe, Revision

SEED = "train.seed"
LONGEST_NAME = 100  # the name becomes a file's name in .git, where at most 255 bytes fit
PLAIN_TEXT = re.compile(r"[A-Za-z_][\w./-]*", re.ASCII)
PLACE_IN_YAML = ("problem", "problem_mark")
READ_OTHERWISE = {"null", "true", "false", "nan", "inf"}  # by hydra, unless quoted


def _value(value: Any) -> Any:
    """Return a setting's value if `-S` can carry it."""
    items = value if isinstance(value, list) else [value]
    for item in items:
        if not (item is None or isinstance(item, bool | int | float | str)):
            kind = "a section: join its keys with dots" if isinstance(item, dict) else f"{item!r}"
            raise ValueError(f"must be a number, text, true, false, empty or a list, not {kind}")
        if isinstance(item, str) and ("${" in item or _has_control(item)):
            raise ValueError(f"{item!r} holds characters that `dvc exp run -S` cannot carry")
    return value


def _has_control(text: str) -> bool:
    """Return whether a text has line ends or other control characters."""
    return any(unicodedata.category(character) in ("Cc", "Zl", "Zp") for character in text)


def _distinct(values: list[Any]) -> list[Any]:
    texts = [as_override("", value)[1:] for value in values]
    if twice := [text for text, count in Counter(texts).items() if count > 1]:
        raise ValueError(f"holds {twice[0]} twice")
    return values


Key = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z0-9_]+)*$")]
Name = Annotated[str, Field(max_length=50, pattern=r"^[A-Za-z0-9][A-Za-z0-9_+-]*$")]
Value = Annotated[Any, AfterValidator(_value)]
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
    """One run of a study: the experiment's name, all its overrides, and what only it sets.

    `label` is the same for all seeds of a setting.
    """

    name: str
    label: str
    overrides: list[str]
    settings: dict[str, Any]


class Study(BaseModel):
    """What a study's file holds, and its name; this module's text explains the keys."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Name
    description: str = ""
    revision: Revision = "HEAD"
    recipe: Recipe | None = None
    overrides: list[Override] = []
    grid: dict[Key, Annotated[list[Value], Field(min_length=1), AfterValidator(_distinct)]] = {}
    points: Points = []
    seeds: Annotated[list[Seed], AfterValidator(_distinct)] = []
    metric: str | None = None

    @model_validator(mode="after")
    def _names_runs(self) -> Self:
        if not (self.grid or self.points or self.seeds):
            raise ValueError("names no runs; give it grid, points or seeds")
        return self

    @model_validator(mode="after")
    def _each_key_in_one_place(self) -> Self:
        places = {
            "overrides": {item.partition("=")[0] for item in self.overrides},
            "seeds": {SEED} if self.seeds else set(),
            "grid or points": set(self.grid).union(*self._explicit()),
        }
        for (first, keys), (second, others) in itertools.combinations(places.items(), 2):
            if both := sorted(keys & others):
                raise ValueError(f"{both[0]} is set in {first} and in {second}; keep one")
        return self

    @model_validator(mode="after")
    def _each_point_once(self) -> Self:
        found = points(self)
        names = Counter(point.name for point in found)
        settings = Counter(tuple(sorted(point.overrides)) for point in found)
        for point in found:
            if names[point.name] > 1 or settings[tuple(sorted(point.overrides))] > 1:
                raise ValueError(f"the point {point.name} comes up twice; keep one")
        return self

    def _explicit(self) -> list[Settings]:
        return list(self.points.values() if isinstance(self.points, dict) else self.points)


def parse(text: str, path: str) -> Study:
    """Return the study that `text`, the content of the file at `path`, describes.

    Raises FlowError with one line that says what is wrong and where.
    """
    try:
        values = parse_yaml(text, path)
    except YAMLError as error:
        problem, mark = (getattr(error.__cause__, name, None) for name in PLACE_IN_YAML)
        where = f", line {mark.line + 1}" if mark else ""
        raise FlowError(f"{path}: is no YAML ({problem or error.__cause__}{where})") from None
    if not isinstance(values, dict):
        raise FlowError(f"{path}: must hold keys such as `grid:` and `seeds:`")
    if "name" in values:
        raise FlowError(f"{path}: name: is not a key here; the file's name is the study's name")
    try:
        return Study.model_validate({**values, "name": PurePath(path).stem})
    except ValidationError as error:
        raise FlowError(f"{path}: {_explain(error)}") from None


def points(study: Study) -> list[Point]:
    """Return the points of `study` in the order of its file: grid, then points; seeds inmost."""
    seeds: list[Settings] = [{SEED: seed} for seed in study.seeds] or [{}]
    kinds = list(_kinds(study))
    shorten = _shorter_keys(key for _, settings in kinds for key in [*settings, *seeds[0]])
    found = []
    for given, settings in kinds:
        label = given or " ".join(_said(settings, shorten)) or study.name
        for seed in seeds:
            parts = [study.name, *([given] if given else _said(settings, shorten))]
            own = {**settings, **seed}
            overrides = [as_override(key, value) for key, value in own.items()]
            name = _experiment_name("-".join([*parts, *_said(seed, shorten)]), overrides)
            found.append(Point(name, label, [*study.overrides, *overrides], own))
    return found


def _said(settings: Settings, shorter: Mapping[str, str]) -> list[str]:
    return [f"{shorter[key]}={as_text(value)}" for key, value in settings.items()]


def _kinds(study: Study) -> Iterator[tuple[str | None, Settings]]:
    """Yield each setting of the study, without seeds, with its name if it has one."""
    if study.grid or not study.points:
        for values in itertools.product(*study.grid.values()):
            yield None, dict(zip(study.grid, values, strict=True))
    if isinstance(study.points, dict):
        yield from study.points.items()
    else:
        yield from ((None, settings) for settings in study.points)


def _shorter_keys(keys: Iterable[str]) -> dict[str, str]:
    """Return each key's last part, or the whole key where another key ends in the same one."""
    distinct = set(keys)
    endings = Counter(key.rpartition(".")[2] for key in distinct)
    shorter = {key: key.rpartition(".")[2] for key in distinct}
    return {key: short if endings[short] == 1 else key for key, short in shorter.items()}


def _experiment_name(text: str, overrides: list[str]) -> str:
    """Return `text` as a name that git and dvc take; where it had to change, with a digest."""
    name = re.sub(r"[^A-Za-z0-9._+=-]+|\.(?=\.)|\.$|\.(?=lock$)", "_", text)[:LONGEST_NAME]
    if name == text:
        return name
    digest = hashlib.sha256("\n".join(overrides).encode()).hexdigest()[:8]
    return f"{name[: LONGEST_NAME - 9]}-{digest}"


def as_override(key: str, value: Any) -> str:
    """Return `key=value` in hydra's grammar, so that `dvc exp run -S` sets exactly `value`."""
    if isinstance(value, list):
        return f"{key}=[{','.join(_as_hydra(item) for item in value)}]"
    return f"{key}={_as_hydra(value)}"


def _as_hydra(value: bool | float | str | None) -> str:
    if not isinstance(value, str):
        return as_text(value)
    if PLAIN_TEXT.fullmatch(value) and value.lower() not in READ_OTHERWISE:
        return value
    # A backslash escapes only a quote, and backslashes that stand before one.
    escaped = re.sub(r"(\\+)(?='|$)", r"\1\1", value).replace("'", r"\'")
    return f"'{escaped}'"


def as_text(value: Any) -> str:
    """Return `value` as YAML writes it in one line: null, true, 0.03, text, [1, 2]."""
    match value:
        case None:
            return "null"
        case bool():
            return str(value).lower()
        case list():
            return f"[{', '.join(as_text(item) for item in value)}]"
        case _:
            return str(value)


def _explain(error: ValidationError) -> str:
    """Return the first mistake in one line: the key, and what is wrong with it."""
    problem = error.errors(include_url=False)[0]
    place = [str(part) for part in problem["loc"] if part != "[key]"]
    if place[:1] == ["points"] and place[1:2] in (["dict"], ["list"]):
        del place[1]  # the tag of the union
    match problem["type"]:
        case "extra_forbidden":
            known = ", ".join(key for key in Study.model_fields if key != "name")
            text = f"is not a key of a study (its keys are {known})"
        case "string_pattern_mismatch":
            text = f"{problem['input']!r} must match {problem['ctx']['pattern']}"
        case "list_type":
            text = f"must be a list, such as [{as_text(problem['input'])}]"
        case _:
            text = problem["msg"].removeprefix("Value error, ")
    return f"{'.'.join(place)}: {text}" if place else text
