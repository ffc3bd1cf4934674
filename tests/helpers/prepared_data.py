"""Params and a prepared folder of small noisy photos, for tests that train in seconds."""

import csv
import json
from pathlib import Path

import numpy as np

from catdog import params
from catdog.dataset.prepared import COLUMNS

ROOT = Path(__file__).resolve().parents[2]
SIDE = 32  # of the photos that `write_prepared` writes, in pixels


def settings(**changes: object) -> params.Params:
    """Return params.yaml, reduced to train within a second, with changes (`section__key`)."""
    values = params.read_yaml(ROOT / "params.yaml")
    small: dict[str, object] = {
        "prepare__image_size": SIDE,
        "train__start_image_size": 16,
        "train__image_size": SIDE,
        "train__eval_image_size": SIDE,
        "train__epochs": 3,
        "train__batch_size": 16,
        "train__ema": 0.0,
        "train__precision": "auto",
        "train__threads": 0,
        "train__select": "best",
        "optimizer__name": "sgd",
        "optimizer__lr": 0.05,
    }
    for name, value in {**small, **changes}.items():
        section, key = name.split("__")
        values[section][key] = value
    values["model"]["residual"]["width"] = 8
    values["model"]["seed"]["hidden_width"] = 32
    values["model"]["seed"]["width"] = 4
    return params.parse(values)


def write_prepared(folder: Path, classes: list[str], photos: int = 48, large: int = 1) -> Path:
    """Write a prepared folder of noisy photos; class i is brighter in colour channel i.

    For each photo of the first class there are `large` photos of each other class.
    """
    generator = np.random.default_rng(0)
    folder.mkdir(parents=True)
    rows = []
    order = np.array([0, *list(range(1, len(classes))) * large])
    for split, number in (("train", photos), ("val", 16), ("test", 16)):
        labels = np.resize(order, number)
        pixels = generator.integers(0, 156, (number, SIDE, SIDE, 3), dtype=np.uint8)
        for index, label in enumerate(labels):
            pixels[index, :, :, label] += 60
            rows.append(
                [f"{split}{index}.png", classes[label], split, f"{split}{index}", 32, 32, ""]
            )
        np.save(folder / f"{split}.npy", pixels)
    with (folder / "photos.csv").open("w", newline="") as stream:
        csv.writer(stream).writerows([COLUMNS, *rows])
    stats = {"mean": [0.4, 0.4, 0.4], "std": [0.2, 0.2, 0.2]}
    (folder / "stats.json").write_text(json.dumps(stats))
    return folder
