"""Each file in recipes/ is a complete params.yaml that states its purpose."""

from pathlib import Path

import pytest
from flatten_dict import flatten

from catdog import params

ROOT = Path(__file__).resolve().parents[2]
RECIPES = sorted((ROOT / "recipes").glob("*.yaml"))

every_recipe = pytest.mark.parametrize("recipe", RECIPES, ids=lambda file: file.stem)


def test_all_recipes_exist() -> None:
    assert {"sample", "seed", "quick", "real", "best", "transfer"} <= {
        file.stem for file in RECIPES
    }


@every_recipe
def test_a_recipe_is_valid(recipe: Path) -> None:
    params.load(recipe)


@every_recipe
def test_a_recipe_starts_with_a_comment_on_its_purpose(recipe: Path) -> None:
    first = recipe.read_text().splitlines()[0]
    assert first.startswith("# ")
    assert len(first.split()) > 5


@every_recipe
def test_a_recipe_has_the_keys_of_params_yaml_in_the_same_order(recipe: Path) -> None:
    expected = list(flatten(params.read_yaml(ROOT / "params.yaml"), reducer="dot"))
    assert list(flatten(params.read_yaml(recipe), reducer="dot")) == expected


def test_the_seed_recipe_has_the_final_settings_of_the_2020_notebook() -> None:
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
    assert train["class_weights"] == "none"
    assert (train["select"], train["precision"]) == ("best", "float32")
