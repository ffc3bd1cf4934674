"""The overhead of `catdog train` outside of its epochs: startup, loading, saving, shutdown.

python -m benchmarks.training_overhead [--photos 20000] [--image-size 64]

The command trains for one epoch. The overhead is its time minus the seconds of the epoch in
timing.csv, which include the wait for the first batch. The photos are noise. The network is tiny,
since its computation is not part of the overhead.
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

from catdog.dataset.prepared import COLUMNS
from catdog.support.atomic_files import write_rows
from tools import command_line, measure

STORED_SIZE = 128  # of the prepared photos, as in recipes/real.yaml
RECIPE = Path("recipes/real.yaml")
TIMING = Path("reports/train/timing.csv")


def write_prepared(folder: Path, photos: int) -> None:
    """Write a prepared folder of noise: `photos` training photos, 200 validation, 200 test."""
    folder.mkdir(parents=True)
    generator, rows = np.random.default_rng(1), []
    for split, count in (("train", photos), ("val", 200), ("test", 200)):
        shape = (count, STORED_SIZE, STORED_SIZE, 3)
        np.save(folder / f"{split}.npy", generator.integers(0, 256, shape, dtype=np.uint8))
        for index in range(count):
            name = ("cat", "dog")[index % 2]
            values = {"path": f"{name}/{split}{index}.jpg", "class": name, "split": split}
            rows.append([values.get(column, "") for column in COLUMNS])
    write_rows(folder / "photos.csv", COLUMNS, rows)
    stats = {"mean": [0.5] * 3, "std": [0.25] * 3}
    (folder / "stats.json").write_text(json.dumps(stats), encoding="utf-8")


def write_params(file: Path, image_size: int) -> None:
    """Write the real recipe with a tiny network and one epoch."""
    values = yaml.safe_load(RECIPE.read_text(encoding="utf-8"))
    values["model"]["residual"]["width"] = 8
    sizes = dict.fromkeys(("start_image_size", "image_size", "eval_image_size"), image_size)
    values["train"] |= {"epochs": 1, **sizes}
    file.write_text(yaml.safe_dump(values), encoding="utf-8")


def train(folder: Path) -> float:
    """Run `catdog train` in `folder`; return the seconds of the epoch."""
    environment = {**os.environ, "CATDOG_LOCKS": str(folder / "locks")}
    command = [sys.executable, "-m", "catdog", "train"]
    subprocess.run(command, cwd=folder, env=environment, check=True, stdout=subprocess.DEVNULL)
    with (folder / TIMING).open(newline="", encoding="utf-8") as stream:
        return sum(float(row["seconds"]) for row in csv.DictReader(stream))


def main() -> None:
    """Parse the command line, measure and print."""
    parser = command_line.parser(__doc__)
    add = parser.add_argument
    add("--photos", type=int, default=20_000, help="training photos (default: 20000)")
    add("--image-size", type=int, default=64, help="image size in pixels (default: 64)")
    add("--trials", type=int, default=3, help="training runs (default: 3)")
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
    measure.show(title, ["seconds of the command", "of the epoch", "overhead"], rows)


if __name__ == "__main__":
    command_line.run(main)
