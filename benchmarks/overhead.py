"""What `catdog train` takes beside its epochs: start, loading, saving, end.

python -m benchmarks.overhead [--photos 20000] [--image-size 64]

A training of one epoch, as a command. What it takes beyond the seconds of its epoch, as timing.csv
has them (the wait for the first batch is part of these), is the overhead. Noise stands for photos.
The network is tiny, since what it computes does not count here.
"""

import csv
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import yaml

from benchmarks import measure
from catdog.dataset.splits import COLUMNS
from catdog.support.atomic_files import write_rows

STORED = 128  # side of the stored photos, as in recipes/real.yaml
RECIPE = Path("recipes/real.yaml")
TIMING = Path("reports/train/timing.csv")


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


def write_params(file: Path, image_size: int) -> None:
    """Write the real recipe with a tiny network, for one epoch."""
    values = yaml.safe_load(RECIPE.read_text(encoding="utf-8"))
    values["model"]["residual"]["width"] = 8
    sizes = dict.fromkeys(("start_image_size", "image_size", "eval_image_size"), image_size)
    values["train"] |= {"epochs": 1, **sizes}
    file.write_text(yaml.safe_dump(values), encoding="utf-8")


def train(folder: Path) -> float:
    """Train in `folder` as a user does; return the seconds of the epoch."""
    locks = {**os.environ, "CATDOG_LOCKS": str(folder / "locks")}
    command = [sys.executable, "-m", "catdog", "train"]
    subprocess.run(command, cwd=folder, env=locks, check=True, stdout=subprocess.DEVNULL)
    with (folder / TIMING).open(newline="", encoding="utf-8") as stream:
        return sum(float(row["seconds"]) for row in csv.DictReader(stream))


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
        write_params(folder / "params.yaml", options.image_size)
        epochs: list[float] = []
        costs = measure.interleaved({"": lambda: epochs.append(train(folder))}, options.trials)
    rows = [
        [f"{cost.seconds:.1f}", f"{epoch:.1f}", f"{cost.seconds - epoch:.1f}"]
        for cost, epoch in zip(costs[""], epochs[1:], strict=True)
    ]
    title = f"catdog train, {options.photos:,} photos at {options.image_size} px"
    measure.show(title, ["seconds of the command", "of its epoch", "overhead"], rows)


if __name__ == "__main__":
    measure.start(main)
