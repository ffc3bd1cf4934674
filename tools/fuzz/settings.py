"""Mutated params files through `params.load`; accepted ones through a tiny training run."""

import os
import random
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from catdog import params
from catdog.dataset.prepared import read_split
from catdog.model import pretrained, saved
from catdog.training.train import train
from tools.fuzz.mutations import UNUSUAL_VALUES, mutate_bytes
from tools.fuzz.prepared import write_prepared
from tools.fuzz.runner import GIGABYTE, InvariantError

RECIPES = Path(__file__).resolve().parents[2] / "recipes"
SNIPPETS = (
    *(": 017", ": 0x_", ": 2020-01-01", ": 2020-13-45", ": !!int x", ": !!python/object:a.B {}"),
    *(": yes", ": *a", ": &a [*a]", ": .nan", ": 1e400", ": 1_0", ": '", ": [", "\t", "\x00"),
    *("\n  <<: 3\n", "\n? [a]\n: b\n", "\n1: 2\n", "\n---\n", "\ufeff", "%YAML 1.1\n---\n"),
    *("{a: " * 60, "[" * 9000, ": " + "9" * 5000, ": =", "\u2028", "\x85"),
)
SIZES = (16, 17, 18, 23, 24, 31, 32, 33, 40, 48)
# Values at the edges of their ranges, and small enough to train in less than a second
CHOICES: dict[str, dict[str, tuple[Any, ...]]] = {
    "augmentation": {
        "crop_scale_min": (1e-300, 1e-9, 0.01, 0.5),
        "crop_scale_max": (0.5, 1, 1.0),
        "crop_aspect": (1, 1.2, 4),
        "flip": (0, 0.5, 1),
        "rotation": (0, 10, 180),
        "fill": ("black", "edge", "mirror"),
        "brightness": (0, 0.5, 0.999),
        "contrast": (0, 0.5, 0.999),
        "saturation": (0, 0.5, 0.999),
    },
    "model.residual": {"width": (8, 9, 16), "blocks": (0, 1, 2), "dropout": (0, 0.5, 0.99999)},
    "model.seed": {
        "kernel_size": (1, 3, 9),
        "conv_layers": (1, 2, 4, 5),
        "width": (1, 2, 5),
        "hidden_width": (1, 7, 32),
        "dropout": (0, 0.5, 0.9999),
    },
    "model.torchvision": {"backbone_lr": (1e-9, 1, 100), "freeze_epochs": (0, 1, 10_000)},
    "optimizer": {
        "name": ("sgd", "adam", "adamw", "muon"),
        "lr": (1e-300, 1e-12, 1e-3, 0.05, 1, 100),
        "rest_lr": (1e-12, 0.1, 100),
        "momentum": (0, 0.5, 0.9, 0.999999),
        "nesterov": (True, False),
        "weight_decay": (0, 1e-4, 1),
        "decay_norm_and_bias": (True, False),
    },
    "schedule": {
        "name": ("constant", "one_cycle", "cosine", "step"),
        "warmup": (0, 1e-300, 1e-9, 0.2, 0.999999),
        "final": (0, 0.01, 1),
        "step_every": (1e-300, 1e-9, 0.3, 1),
    },
    "train": {
        "seed": (0, 1, 2**31 - 1),
        "epochs": (1, 2, 3),
        "batch_size": (1, 2, 3, 4, 65536),
        "grow_from": (0, 0.0, 0.3, 0.5),
        "grow_until": (0.5, 1.0, 1),
        "eval_flip": (True, False),
        "label_smoothing": (0, 0.1, 0.999),
        "ema": (0, 0.5, 0.999999),
        "select": ("best", "last"),
        "class_weights": ("none", "balanced"),
        "precision": ("float32", "bfloat16", "auto"),
        "threads": (0, 1),
    },
}
GIVEN = (([0, 0, 0], [1, 1, 1]), ([0.5, 1, 0], [0.001, 0.2, 1]))
NETWORKS = ("residual", "seed", "squeezenet1_1", "shufflenet_v2_x0_5", "mobilenet_v3_small")
WEIGHTS_OF_NETWORKS = (8, 8, 1, 1, 1)


class Settings:
    """The target; each input is a params.yaml, and how many photos to train on."""

    max_bytes = 3 * GIGABYTE  # torch alone takes half of one

    def make(self, rng: random.Random, folder: Path) -> None:
        """Write a recipe with other text, or with other values."""
        recipe = rng.choice(sorted(RECIPES.glob("*.yaml")))
        if rng.random() < 0.5:
            text = yaml.safe_dump(_other_values(rng, params.read_yaml(recipe)), sort_keys=False)
        else:
            text = _other_text(rng, recipe.read_text(encoding="utf-8"))
        (folder / "params.yaml").write_bytes(text.encode("utf-8", "surrogateescape"))
        (folder / "photos").write_text(str(rng.choice((2, 3, 4, 5, 9))))

    def check(self, folder: Path) -> None:
        """Load the params; if they are accepted, train, load the model and predict."""
        os.environ |= {"CATDOG_LOCKS": "", "CATDOG_DEVICE": "cpu", "CUDA_VISIBLE_DEVICES": ""}
        chosen = pretrained.resolve_weights_references(params.load(folder / "params.yaml"))
        if not _is_small(chosen):
            return
        prepared = Path("prepared")
        prepared.mkdir()
        photos = int((folder / "photos").read_text())
        write_prepared(prepared, chosen.prepare.image_size, (photos, 3, 2))
        train(chosen, prepared, Path("models"), Path("history.csv"))
        model = saved.load(Path("models"), "cpu")
        probabilities = model.probabilities(read_split(prepared, "test").photos)
        if not np.isfinite(probabilities).all():
            raise InvariantError("not finite", f"probabilities: {probabilities}")


def _is_small(chosen: params.Params) -> bool:
    """Return whether training takes about a second."""
    train, seed = chosen.train, chosen.model.seed
    if chosen.model.torchvision.weights != "none" and chosen.model.from_torchvision:
        return False  # would be downloaded
    sides = max(train.image_size, train.eval_image_size) <= 64 and train.epochs <= 3
    own = {
        "residual": chosen.model.residual.width <= 32,
        "seed": seed.width << seed.conv_layers <= 512 and seed.hidden_width <= 512,
    }
    return sides and own.get(chosen.model.name, chosen.model.name in NETWORKS)


def _other_values(rng: random.Random, values: dict[str, Any]) -> dict[str, Any]:
    for section, keys in CHOICES.items():
        place = values
        for part in section.split("."):
            place = place[part]
        place.update({key: rng.choice(options) for key, options in keys.items()})
    values["model"]["name"] = rng.choices(NETWORKS, WEIGHTS_OF_NETWORKS)[0]
    values["model"]["torchvision"]["weights"] = "none"
    stored = rng.choice(SIZES)
    fitting = [size for size in SIZES if size <= stored]
    start, end = sorted(rng.choice(fitting) for _ in range(2))
    evaluated = rng.choice(fitting)
    if values["model"]["name"] == "seed":
        start = evaluated = end
    values["prepare"]["image_size"] = stored
    sizes = {"start_image_size": start, "image_size": end, "eval_image_size": evaluated}
    values["train"].update(sizes)
    source = rng.choice(("data", "half", "imagenet", "given"))
    mean, std = rng.choice(GIVEN) if source == "given" else (None, None)
    values["normalization"] = {"source": source, "mean": mean, "std": std}
    if rng.random() < 0.1:
        section = rng.choice(list(values))
        values[section][rng.choice(list(values[section]))] = rng.choice(UNUSUAL_VALUES)
    return values


def _other_text(rng: random.Random, text: str) -> str:
    if rng.random() < 0.3:
        return mutate_bytes(rng, text.encode()).decode("utf-8", "surrogateescape")
    places = [index for index, letter in enumerate(text) if letter in ":\n"]
    for _ in range(rng.randint(1, 2)):
        at = rng.choice(places)
        end = at + rng.choice((0, 1, 4))
        text = text[:at] + rng.choice(SNIPPETS) + text[end:]
    return text
