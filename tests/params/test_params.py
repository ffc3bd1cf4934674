"""params.yaml: validation, its error messages, and changes by `dvc exp run -S`."""

import re
from pathlib import Path
from typing import Any

import pytest
from dvc.utils.hydra import apply_overrides
from flatten_dict import flatten
from pydantic import ValidationError

from catdog import params
from catdog.errors import CatdogError
from catdog.params.docs import describe
from tests.helpers.errors import error_line

ROOT = Path(__file__).resolve().parents[2]
SEED = ROOT / "recipes/seed.yaml"
FILES = [ROOT / "params.yaml", *sorted((ROOT / "recipes").glob("*.yaml"))]


def values(**changes: object) -> dict[str, Any]:
    """Return the seed recipe with changes by `section__key`; Ellipsis removes a key."""
    found: dict[str, Any] = params.read_yaml(SEED)
    for name, value in changes.items():
        *sections, key = name.split("__")
        place = found
        for section in sections:
            place = place[section]
        place[key] = value
        if value is ...:
            del place[key]
    return found


def refusal(**changes: object) -> str:
    """Return the error of one line for the seed recipe with changes."""
    line = error_line(params.parse, values(**changes), "params.yaml")
    assert line.startswith("params.yaml: ")
    return line


def test_params_yaml_is_valid() -> None:
    params.load(ROOT / "params.yaml")


def test_an_unknown_key_is_reported() -> None:
    assert "optimizer.lrr: unknown key" in refusal(optimizer__lrr=0.1)
    line = refusal(extra={"nested": 1})
    assert "extra: unknown key" in line
    assert "extra.nested" not in line


@pytest.mark.parametrize(
    ("changes", "near"),
    [
        ({"optimizer__lrr": 0.1}, "optimizer.lrr: unknown key; similar: optimizer.lr;"),
        ({"train__lr": 0.1}, "train.lr: unknown key; similar: optimizer.lr;"),
        ({"model__width": 8}, "model.width: unknown key; similar: model.residual.width, "),
        (
            {"schedule__step": 0.5},
            "schedule.step: unknown key; similar: schedule.step_every;",
        ),
        ({"batch_sise": 8}, "batch_sise: unknown key; similar: train.batch_size;"),
        ({"optimiser": {"lr": 0.1}}, "optimiser: unknown key; similar: optimizer;"),
    ],
)
def test_similar_keys_are_suggested_for_an_unknown_key(changes: dict[str, Any], near: str) -> None:
    assert near in refusal(**changes)


def test_the_error_for_an_unknown_key_refers_to_the_list_of_keys() -> None:
    line = refusal(optimizer__xyz=0.1)
    assert "optimizer.xyz: unknown key; all keys are listed in docs/params.md" in line
    assert (ROOT / "docs/params.md").is_file()


def test_a_missing_key_is_reported() -> None:
    assert "model.seed.dropout: missing key" in refusal(model__seed__dropout=...)
    assert "schedule: missing key; add it" in refusal(schedule=...)


@pytest.mark.parametrize(
    ("key", "value", "allowed"),
    [
        ("train__epochs", "many", "integer"),
        ("train__epochs", True, "integer"),
        ("train__epochs", 1.0, "integer"),
        ("train__epochs", None, "integer"),
        ("optimizer__lr", "0.1", "number"),
        ("optimizer__lr", True, "number"),
        ("optimizer__lr", [0.1], "number"),
        ("optimizer__nesterov", "yes", "boolean"),
        ("optimizer__nesterov", 1, "boolean"),
        ("optimizer__name", "lion", "'sgd', 'adam', 'adamw' or 'muon'"),
        ("optimizer__name", True, "'sgd', 'adam', 'adamw' or 'muon'"),
        ("model__name", True, "string"),
        ("model__torchvision__weights", None, "string"),
        ("model__seed__kernel_size", True, "integer"),
        ("model__seed__kernel_size", 3.0, "integer"),
        ("model__seed__kernel_size", "3", "integer"),
        ("evaluate", 7, "dictionary"),
        ("normalization__mean", 0.5, "list"),
    ],
)
def test_a_wrong_type_is_reported_with_the_allowed_one(
    key: str, value: object, allowed: str
) -> None:
    line = refusal(**{key: value})
    assert f"{key.replace('__', '.')}: invalid value {value!r}; " in line
    assert allowed in line


def test_words_that_are_booleans_in_yaml_1_1_get_a_hint() -> None:
    assert refusal(optimizer__nesterov="yes").endswith("valid boolean: write true")
    assert refusal(optimizer__nesterov="Off").endswith("valid boolean: write false")
    assert "write" not in refusal(train__epochs="yes")


def test_a_long_value_is_shortened() -> None:
    assert len(refusal(train__epochs=["x" * 10_000] * 100)) < 300
    assert "train.seed: invalid value with too many digits" in refusal(train__seed=16**5000)


def test_a_long_key_is_shortened() -> None:
    assert len(refusal(**{"k" * 10_000: 1})) < 300


def test_a_number_with_a_leading_zero_is_refused_with_its_line(tmp_path: Path) -> None:
    text = SEED.read_text().replace("epochs: ", "epochs: 0")
    (tmp_path / "params.yaml").write_text(text)
    line = next(n for n, row in enumerate(text.splitlines(), 1) if "epochs: 0" in row)
    with pytest.raises(CatdogError, match=f"invalid YAML in line {line}: .* write it in decimal"):
        params.load(tmp_path / "params.yaml")


@pytest.mark.parametrize("key", [1, None, True, ("a",), 1.5])
def test_a_key_that_is_no_text_is_refused(key: object) -> None:
    with pytest.raises(CatdogError) as error:
        params.parse({**values(), key: 1})
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("key", "value", "allowed"),
    [
        ("prepare__image_size", 15, "greater than or equal to 16"),
        ("prepare__image_size", 1025, "less than or equal to 1024"),
        ("prepare__test_share", 0.0, "greater than 0"),
        ("prepare__val_share", 1.0, "less than 1"),
        ("augmentation__crop_scale_min", 0.0, "greater than 0"),
        ("augmentation__crop_aspect", 0.9, "greater than or equal to 1"),
        ("augmentation__flip", 1.5, "less than or equal to 1"),
        ("augmentation__rotation", -1.0, "greater than or equal to 0"),
        ("augmentation__brightness", 1.0, "less than 1"),
        ("model__seed__conv_layers", 0, "greater than or equal to 1"),
        ("model__seed__kernel_size", 11, "less than or equal to 9"),
        ("model__residual__width", 4, "greater than or equal to 8"),
        ("model__torchvision__backbone_lr", 0.0, "greater than 0"),
        ("model__torchvision__freeze_epochs", -1, "greater than or equal to 0"),
        ("optimizer__lr", 0.0, "greater than 0"),
        ("optimizer__lr", float("nan"), "finite"),
        ("optimizer__lr", float("inf"), "finite"),
        ("optimizer__momentum", 1.0, "less than 1"),
        ("train__seed", 2**31, "less than 2147483648"),
        ("train__batch_size", 0, "greater than or equal to 1"),
        ("evaluate__calibration_bins", 1, "greater than or equal to 2"),
    ],
)
def test_a_value_out_of_range_is_reported_with_the_allowed_range(
    key: str, value: object, allowed: str
) -> None:
    line = refusal(**{key: value})
    assert f"{key.replace('__', '.')}: invalid value {value!r}; " in line
    assert allowed in line


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        (
            {"prepare__val_share": 0.5, "prepare__test_share": 0.6},
            ("prepare", "val_share (0.5)", "test_share (0.6)", "below 1"),
        ),
        ({"normalization__source": "given"}, ("normalization", "source: given", "three numbers")),
        (
            {"normalization__mean": [0.1, 0.2, 0.3]},
            ("normalization", "mean and std must be empty", "source: imagenet"),
        ),
        (
            {
                "normalization__source": "given",
                "normalization__mean": [0.5, 0.5, 0.5],
                "normalization__std": [0.5, 0.0, 0.5],
            },
            ("normalization", "std", "[0.5, 0.0, 0.5]", "from 0.001 to 1"),
        ),
        (
            {
                "normalization__source": "given",
                "normalization__mean": [124.0, 116.0, 104.0],
                "normalization__std": [0.5, 0.5, 0.5],
            },
            ("normalization", "mean must be from 0 to 1", "[124.0, 116.0, 104.0]"),
        ),
        (
            {"augmentation__crop_scale_min": 0.9, "augmentation__crop_scale_max": 0.8},
            ("augmentation", "crop_scale_min (0.9)", "crop_scale_max (0.8)"),
        ),
        ({"optimizer__nesterov": True}, ("optimizer", "nesterov", "momentum", "above 0")),
        (
            {"train__image_size": 48},
            ("train", "start_image_size (128)", "image_size (48)"),
        ),
        (
            {"train__precision": "portable", "train__threads": 0},
            ("train", "precision portable requires threads to be at least 1"),
        ),
        (
            {"train__grow_from": 0.8, "train__grow_until": 0.7},
            ("train", "grow_from (0.8)", "grow_until (0.7)"),
        ),
        (
            {"train__eval_image_size": 160},
            ("train.eval_image_size", "prepare.image_size (128)", "160"),
        ),
        (
            {"train__start_image_size": 64},
            (
                "model.name: seed",
                "start_image_size (64)",
                "train.image_size (128)",
                "the same value",
            ),
        ),
        ({"train__image_size": 15}, ("train.image_size", "must be 0", "at least 16", "15")),
        (
            {"model__seed__conv_layers": 8},
            ("model.seed.conv_layers: 8", "128 pixels"),
        ),
    ],
)
def test_inconsistent_keys_are_reported_with_their_values(
    changes: dict[str, object], named: tuple[str, ...]
) -> None:
    line = refusal(**changes)
    for part in named:
        assert part in line


def test_the_kernel_size_must_be_odd() -> None:
    assert refusal(model__seed__kernel_size=4).endswith("kernel_size: must be odd, not 4")
    assert params.parse(values(model__seed__kernel_size=7)).model.seed.kernel_size == 7


def test_several_errors_are_listed_and_further_ones_counted() -> None:
    line = refusal(train__epochs=0, train__batch_size=0)
    assert "train.epochs: invalid value 0" in line
    assert " | train.batch_size: invalid value 0; must be greater than or equal to 1" in line
    assert "more)" not in line
    sections = ("optimizer__lr", "schedule__warmup", "train__ema", "train__seed", "train__epochs")
    line = refusal(**dict.fromkeys(sections, -1.0), train__batch_size=0)
    assert line.endswith("(and 2 more)")
    assert "train.batch_size" not in line


@pytest.mark.parametrize("text", ["", "- a\n- b\n", "just text\n"])
def test_a_file_without_sections_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_text(text)
    with pytest.raises(CatdogError, match=r"params\.yaml: must contain sections"):
        params.load(tmp_path / "params.yaml")


def test_a_missing_file_is_an_error_of_one_line(tmp_path: Path) -> None:
    with pytest.raises(CatdogError, match=r"^.*none\.yaml: no such file; copy one from recipes/$"):
        params.load(tmp_path / "none.yaml")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"train:\n  seed: [1\n", r"invalid YAML in line \d"),
        (b"train:\n\tseed: 1\n", "invalid YAML in line 2"),
        (b"train: {a: 1}}\n", "invalid YAML in line 1"),
        (b"train: \x00\n", "invalid YAML"),
        (b"train: \xff\xfe\n", "cannot be read"),
        (b"train: !!python/object:os.system {}\n", "invalid YAML in line 1"),
    ],
)
def test_invalid_yaml_is_an_error_of_one_line_with_the_position(
    content: bytes, reason: str, tmp_path: Path
) -> None:
    (tmp_path / "params.yaml").write_bytes(content)
    with pytest.raises(CatdogError, match=reason) as refused:
        params.load(tmp_path / "params.yaml")
    assert "\n" not in str(refused.value)
    assert str(refused.value).startswith(str(tmp_path / "params.yaml"))


def test_an_integer_is_accepted_for_a_float() -> None:
    lr = params.parse(values(optimizer__lr=1)).optimizer.lr
    assert lr == 1.0
    assert isinstance(lr, float)


def test_params_are_immutable() -> None:
    settings = params.load(SEED)
    with pytest.raises(ValidationError, match="frozen"):
        settings.train.epochs = 3
    with pytest.raises(ValidationError, match="frozen"):
        settings.train = settings.train


def test_no_key_has_a_name_that_dvcs_run_cache_ignores() -> None:
    names = {key.split(".")[-1] for key in flatten(values(), reducer="dot")}
    assert not names & {"size", "nfiles"}


@pytest.fixture(params=FILES, ids=lambda file: str(file.relative_to(ROOT)))
def copy(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """Return a copy of params.yaml or of a recipe."""
    path = tmp_path / "params.yaml"
    path.write_bytes(request.param.read_bytes())
    return path


@pytest.mark.parametrize(
    ("written", "number"),
    [("0.00001", 1e-5), ("1e-05", 1e-5), ("1e-5", 1e-5), ("1.5e-06", 1.5e-6), ("3", 3.0)],
)
def test_a_small_number_written_by_dvc_is_a_float(
    written: str, number: float, tmp_path: Path
) -> None:
    path = tmp_path / "params.yaml"
    path.write_bytes(SEED.read_bytes())
    apply_overrides(path, [f"optimizer.lr={written}"])
    lr = params.load(path).optimizer.lr
    assert (type(lr), lr) == (float, number)


def test_dvc_changes_only_the_lines_of_the_keys_that_are_set(copy: Path) -> None:
    before = copy.read_text().splitlines()
    apply_overrides(copy, ["optimizer.lr=0.0123", "augmentation.rotation=17"])
    after = copy.read_text().splitlines()
    assert len(after) == len(before)
    changed = [line for old, line in zip(before, after, strict=True) if old != line]
    assert changed == ["  rotation: 17 # degrees", "  lr: 0.0123"]
    assert params.load(copy).optimizer.lr == 0.0123


def test_every_value_is_spelled_as_dvc_writes_it(copy: Path) -> None:
    before = copy.read_bytes()
    found = flatten(params.read_yaml(copy), reducer="dot")
    apply_overrides(
        copy, [f"{key}={'null' if value is None else value}" for key, value in found.items()]
    )
    assert copy.read_bytes() == before


def test_every_key_has_a_description() -> None:
    keys = describe(params.load(SEED))
    assert [key.key for key in keys if not re.search(r"\w", key.description)] == []
