"""What `catdog train` takes beside its epochs: start, loading, photos to size, first batch, saving.

python -m benchmarks.overhead [--photos 20000] [--image-size 64]

A training of one epoch and one of two, in turns: the second epoch costs what an epoch costs, with
its views, steps and validation, and what the first training takes beyond that is the overhead.
Noise stands for photos. The network is tiny, since what it computes does not count here.
"""

import json
import os
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path

import numpy as np
import yaml

from benchmarks import measure
from catdog.files import write_rows
from catdog.prepare import COLUMNS

STORED = 128  # side of the stored photos, as in recipes/real.yaml
RECIPE = Path("recipes/real.yaml")


def write_prepared(folder: Path, photos: int) -> None:
    """Write arrays as `catdog prepare` does, of noise: `photos` to train on, 200 to validate."""
    folder.mkdir(parents=True)
    generator, rows = np.random.default_rng(1), []
    for split, count in (("train", photos), ("val", 200), ("test", 200)):
        shape = (count, STORED, STORED, 3)
        np.save(folder / f"{split}.npy", generator.integers(0, 256, shape, dtype=np.uint8))
        for index in range(count):
            name = ("cat", "dog")[index % 2]
            values = {"path": f"{name}/{split}{index}.jpg", "class": name, "split": split}
            rows.append([values.get(column, "") for column in COLUMNS])
    write_rows(folder / "photos.csv", COLUMNS, rows)
    stats = {"mean": [0.5] * 3, "std": [0.25] * 3}
    (folder / "stats.json").write_text(json.dumps(stats), encoding="utf-8")


def write_params(file: Path, image_size: int, epochs: int) -> None:
    """Write the real recipe with a tiny network and few epochs."""
    values = yaml.safe_load(RECIPE.read_text(encoding="utf-8"))
    values["model"]["residual"]["width"] = 8
    sizes = dict.fromkeys(("start_image_size", "image_size", "eval_image_size"), image_size)
    values["train"] |= {"epochs": epochs, **sizes}
    file.write_text(yaml.safe_dump(values), encoding="utf-8")


def train(folder: Path, image_size: int, epochs: int) -> None:
    """Train in `folder` as a user does."""
    write_params(folder / "params.yaml", image_size, epochs)
    locks = {**os.environ, "CATDOG_LOCKS": str(folder / "locks")}
    command = [sys.executable, "-m", "catdog", "train"]
    subprocess.run(command, cwd=folder, env=locks, check=True, stdout=subprocess.DEVNULL)


def main() -> None:
    """Parse the command line, measure and print."""
    parser = measure.parser(__doc__)
    parser.add_argument("--photos", type=int, default=20_000)
    parser.add_argument("--image-size", type=int, default=64)
    parser.add_argument("--trials", type=int, default=3)
    options = parser.parse_args()
    print(measure.hardware())
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_prepared(folder / "data/prepared", options.photos)
        trainings = {n: partial(train, folder, options.image_size, n) for n in (1, 2)}
        costs = measure.interleaved(trainings, options.trials)
    rows = []
    for one, two in zip(costs[1], costs[2], strict=True):
        epoch = two.seconds - one.seconds
        rows.append([f"{one.seconds:.1f}", f"{epoch:.1f}", f"{one.seconds - epoch:.1f}"])
    title = f"catdog train, {options.photos:,} photos at {options.image_size} px"
    measure.show(title, ["seconds of one epoch", "one epoch more", "overhead"], rows)


if __name__ == "__main__":
    measure.start(main)
