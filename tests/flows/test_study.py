"""Study files: which runs they define, how the runs are named, and which files are invalid."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from dvc.utils.hydra import apply_overrides
from dvc.utils.serialize import load_yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st

from flows.errors import FlowError
from flows.runs.request import RunRequest
from flows.sweeps.study import Point, as_override, parse, points

ROOT = Path(__file__).resolve().parents[2]
FILE = "studies/lr.yaml"


def names(text: str) -> list[str]:
    return [point.name for point in points(parse(text, FILE))]


def test_grid_and_seeds_give_every_combination_once() -> None:
    study = parse("{grid: {optimizer.lr: [0.03, 0.06], train.epochs: [2, 4]}, seeds: [1, 2]}", FILE)
    assert points(study) == [
        Point(
            f"lr-lr={lr}-epochs={epochs}-seed={seed}",
            f"lr={lr} epochs={epochs}",
            [f"optimizer.lr={lr}", f"train.epochs={epochs}", f"train.seed={seed}"],
            {"optimizer.lr": lr, "train.epochs": epochs, "train.seed": seed},
        )
        for lr in (0.03, 0.06)
        for epochs in (2, 4)
        for seed in (1, 2)
    ]


def test_points_are_added_to_the_grid_and_get_every_seed() -> None:
    text = "{grid: {a.x: [1]}, points: [{a.x: 2}, {a.y: no, a.x: 3}], seeds: [1, 2]}"
    assert names(text) == [
        "lr-x=1-seed=1",
        "lr-x=1-seed=2",
        "lr-x=2-seed=1",
        "lr-x=2-seed=2",
        "lr-y=no-x=3-seed=1",
        "lr-y=no-x=3-seed=2",
    ]


def test_points_can_be_given_without_a_grid() -> None:
    assert names("{points: [{a.x: 2}]}") == ["lr-x=2"]


def test_named_points_have_their_names() -> None:
    assert names("{points: {large: {a.x: 2, a.y: 3}, as-is: {}}, seeds: [1]}") == [
        "lr-large-seed=1",
        "lr-as-is-seed=1",
    ]


def test_a_study_can_consist_of_seeds_only() -> None:
    assert names("{seeds: [3, 4]}") == ["lr-seed=3", "lr-seed=4"]


def test_common_overrides_come_before_those_of_a_point() -> None:
    (point,) = points(parse("{overrides: [train.epochs=2], points: [{a.x: 1}]}", FILE))
    assert point.overrides == ["train.epochs=2", "a.x=1"]
    assert point.settings == {"a.x": 1}


def test_keys_with_the_same_last_part_are_not_shortened() -> None:
    text = "{points: [{model.seed.width: 1}, {model.residual.width: 1}, {a.b: 2}]}"
    assert names(text) == ["lr-model.seed.width=1", "lr-model.residual.width=1", "lr-b=2"]


def test_values_that_are_added_later_change_no_other_name() -> None:
    before = names("{grid: {a.x: [1, 2], a.y: [1]}, seeds: [1]}")
    after = names("{grid: {a.x: [0, 2, 1], a.y: [1, 7]}, points: [{a.z: 1}], seeds: [2, 1]}")
    assert set(before) < set(after)


# Finished runs are found by name, so these must never change.
@pytest.mark.parametrize(
    ("value", "name"),
    [
        ("1e-05", "lr-x=1e-05"),
        ("true", "lr-x=true"),
        ("", "lr-x=null"),
        ("resnet18", "lr-x=resnet18"),
        ("'null'", "lr-x=_null_-8266031a"),
        ("'1'", "lr-x=_1_-52d1559e"),
        ("[0.5, 0.5]", "lr-x=_0.5_0.5_-9d87d21b"),
        ("data/w.pth", "lr-x=data_w.pth-d3c0f869"),
        ("a.lock", "lr-x=a_lock-5706e940"),
    ],
)
def test_name_of_a_value(value: str, name: str) -> None:
    assert names(f"points: [{{a.x: {value}}}]") == [name]


text = st.text(st.characters(categories=["L", "N", "P", "S", "Zs"]), max_size=12)
scalar = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | text
value = (scalar | st.lists(scalar, max_size=3)).filter(lambda found: "${" not in repr(found))


@given(value)
@example("null")
@example("True")
@example("inf")
@example("1e-05")
@example("it's")
@example("a\\'b")
@example("a\\")
@example(["a,b", "[c]"])
@settings(max_examples=200, deadline=None)
def test_dvc_sets_exactly_the_value(tmp_path_factory: pytest.TempPathFactory, value: Any) -> None:
    file = tmp_path_factory.mktemp("params") / "params.yaml"
    file.write_text("a:\n  b: 5\n", encoding="utf-8")
    apply_overrides(file, [as_override("a.b", value)])
    found = load_yaml(file)["a"]["b"]
    assert (type(found), repr(found)) == (type(value), repr(value))


@given(st.lists(value, min_size=1, max_size=6, unique_by=repr))
@example(["a" * 120, "a" * 121])  # longer than a name is allowed to be
@example([None, "null", 1, "1", True, "true", 0.5, "0.5"])
@settings(deadline=None)
def test_names_are_unique_and_valid_for_git_dvc_and_the_pipeline(
    values: list[Any],
) -> None:
    study = parse(yaml.safe_dump({"grid": {"a.x": values}}), FILE)
    found = [point.name for point in points(study)]
    assert len(set(found)) == len(values)
    for point in points(study):
        RunRequest(overrides=tuple(point.overrides), experiment=point.name)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- 1", "must be a mapping"),
        ("", "defines no runs"),
        ("{recipe: quick}", "defines no runs"),
        ("grid: [", "invalid YAML (.*, line 2)"),
        ("grid: {a.x: [0x_]}", "invalid YAML (invalid literal for int() with base 16: '')"),
        ("grid: " + "[" * 100_000, "invalid YAML (more than 50 nested lists and mappings, line 1)"),
        ("{grid: {a.x: [1]}, grid: {a.y: [1]}}", "invalid YAML (found duplicate key .*, line 1)"),
        ("{name: x, seeds: [1]}", "name: unknown key"),
        ("{gird: {a.x: [1]}}", "gird: unknown key; choose one of description, .*"),
        ("{grid: {a.x: 1}}", "grid.a.x: must be a list, such as [1]"),
        ("{grid: {a.x: []}}", "grid.a.x: .* at least 1 item"),
        ("{grid: {a.x: [1, 2, 1]}}", "grid.a.x: contains 1 twice"),
        ("{grid: {a x: [1]}}", "grid.a x: invalid value 'a x'; must match"),
        ("{grid: {a.x: [{b: 1}]}}", "grid.a.x.0: .* not a mapping; write nested keys with dots"),
        ("{grid: {a.x: ['${b}']}}", "grid.a.x.0: '${b}' has characters that"),
        ("{points: 3}", "points: must be a list of settings, or a mapping"),
        ("{points: [{a: {x: 1}}]}", "points.0.a: .* write nested keys with dots"),
        ("{points: {a b: {a.x: 1}}}", "points.a b: invalid value 'a b'; must match"),
        ("{points: [{a.x: 1}, {a.x: 1}]}", "the point lr-x=1 is defined twice"),
        ("{points: [{a.x: 1}], grid: {a.x: [1]}}", "the point lr-x=1 is defined twice"),
        ("{points: {x=1: {}}}", "points.x=1: invalid value 'x=1'; must match"),
        ("{seeds: [1, one]}", "seeds.1: .* integer"),
        ("{seeds: [-1]}", "seeds.0: .* greater than or equal to 0"),
        ("{seeds: [1, 1]}", "seeds: contains 1 twice"),
        ("{seeds: [1], grid: {train.seed: [1]}}", "train.seed is set both in seeds and in grid or"),
        (
            "{seeds: [1], overrides: [train.seed=1]}",
            "train.seed is set both in overrides and in seeds",
        ),
        ("{overrides: [a.x=1], points: [{a.x: 2}]}", "a.x is set both in overrides and in grid or"),
        ("{overrides: [a.x], seeds: [1]}", "overrides.0: invalid value 'a.x'; must match"),
        ("{recipe: ../x, seeds: [1]}", "recipe: invalid value '../x'; must match"),
    ],
)
def test_an_invalid_study_is_rejected_in_one_line_with_the_key(text: str, message: str) -> None:
    with pytest.raises(FlowError) as error:
        parse(text, FILE)
    pattern = ".*".join(re.escape(part) for part in message.split(".*"))
    assert re.match(f"studies/lr.yaml: {pattern}", str(error.value))
    assert "\n" not in str(error.value)


def test_invalid_study_name_is_rejected() -> None:
    with pytest.raises(
        FlowError, match=r"^my study\.yaml: name: invalid value 'my study'; must match"
    ):
        parse("seeds: [1]", "my study.yaml")


@pytest.mark.parametrize(
    "file", sorted((ROOT / "studies").glob("*.yaml")), ids=lambda file: file.stem
)
def test_the_studies_of_this_repository_are_valid(file: Path, tmp_path: Path) -> None:
    study = parse(file.read_text(encoding="utf-8"), str(file))
    source = ROOT / (f"recipes/{study.recipe}.yaml" if study.recipe else "params.yaml")
    for point in points(study):
        target = tmp_path / "params.yaml"
        target.write_bytes(source.read_bytes())
        apply_overrides(target, point.overrides)
