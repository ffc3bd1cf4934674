"""Each file in recipes/ is a whole params.yaml, and says what it is for."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from catdog import params

ROOT = Path(__file__).resolve().parents[2]
RECIPES = sorted((ROOT / "recipes").glob("*.yaml"))

every_recipe = pytest.mark.parametrize("recipe", RECIPES, ids=lambda file: file.stem)


def keys(tree: dict[str, Any], prefix: str = "") -> Iterator[str]:
    """All keys in the order of the file."""
    for key, value in tree.items():
        yield f"{prefix}{key}"
        if isinstance(value, dict):
            yield from keys(value, f"{prefix}{key}.")


def test_the_recipes_are_here() -> None:
    assert {"sample", "seed", "quick", "real", "best", "transfer"} <= {
        file.stem for file in RECIPES
    }


@every_recipe
def test_a_recipe_is_valid(recipe: Path) -> None:
    params.load(recipe)


@every_recipe
def test_a_recipe_begins_with_what_it_is_for(recipe: Path) -> None:
    first = recipe.read_text().splitlines()[0]
    assert first.startswith("# ")
    assert len(first.split()) > 5


@every_recipe
def test_a_recipe_has_the_keys_of_params_yaml_in_their_order(recipe: Path) -> None:
    expected = list(keys(yaml.safe_load((ROOT / "params.yaml").read_text())))
    assert list(keys(yaml.safe_load(recipe.read_text()))) == expected


def test_the_seed_recipe_is_the_last_row_that_the_seed_ran() -> None:
    settings = params.load(ROOT / "recipes/seed.yaml").model_dump()
    assert settings["model"]["name"] == "seed"
    assert settings["model"]["seed"] == {
        "kernel_size": 3,
        "conv_layers": 3,
        "width": 32,
        "hidden_width": 8192,
        "dropout": 0.5,
    }
    assert settings["prepare"]["image_size"] == 128
    assert settings["normalization"] == {"mean": None, "std": None, "source": "imagenet"}
    # torchvision's RandomRotation(30), RandomResizedCrop(128) and RandomHorizontalFlip()
    assert settings["augmentation"] == {
        "crop_scale_min": 0.08,
        "crop_scale_max": 1.0,
        "crop_aspect": pytest.approx(4 / 3),
        "flip": 0.5,
        "rotation": 30.0,
        "fill": "black",
        "brightness": 0.0,
        "contrast": 0.0,
        "saturation": 0.0,
    }
    optimizer = settings["optimizer"]
    assert (optimizer["name"], optimizer["lr"]) == ("sgd", 0.008)
    assert (optimizer["momentum"], optimizer["weight_decay"]) == (0.0, 0.0)
    assert settings["schedule"]["name"] == "constant"
    train = settings["train"]
    assert (train["epochs"], train["batch_size"]) == (60, 10)
    assert train["start_image_size"] == train["image_size"] == train["eval_image_size"] == 128
    assert (train["label_smoothing"], train["ema"], train["eval_flip"]) == (0.0, 0.0, False)
    assert (train["select"], train["precision"]) == ("best", "float32")
