"""Mutated files of data/prepared through read_split and read_stats."""

import csv
import json
import math
import random
from pathlib import Path

import numpy as np

from catdog.dataset.prepared import COLUMNS, SPLITS, read_split, read_stats
from tools.fuzz.mutations import mutate_bytes, mutate_value
from tools.fuzz.runner import GIGABYTE, InvariantError

SIDE = 16


class Prepared:
    """The target; each input is a folder like data/prepared."""

    max_bytes = GIGABYTE

    def make(self, rng: random.Random, folder: Path) -> None:
        """Write a prepared folder of which one file is mutated."""
        write_prepared(folder, SIDE, (6, 3, 2))
        stats = folder / "stats.json"
        if rng.random() < 0.2:
            stats.write_text(json.dumps(mutate_value(rng, json.loads(stats.read_text()))))
            return
        file = rng.choice(sorted(folder.iterdir()))
        data = file.read_bytes()
        if file.suffix == ".npy":  # mostly the header
            cut = rng.choice((128, 128, len(data)))
            file.write_bytes(mutate_bytes(rng, data[:cut]) + data[cut:])
        else:
            file.write_bytes(mutate_bytes(rng, data))

    def check(self, folder: Path) -> None:
        """Read everything; what is accepted must be consistent."""
        for name in SPLITS:
            split = read_split(folder, name)
            if not len(split.photos) == len(split.labels) == len(split.rows):
                raise InvariantError(
                    "data loss", f"{name}: photos, labels and rows differ in number"
                )
            int(np.asarray(split.photos).sum())  # every byte can be read
        stats = read_stats(folder)
        if not all(map(math.isfinite, stats.mean + stats.std)):
            raise InvariantError("not finite", str(stats))


def write_prepared(folder: Path, side: int, numbers: tuple[int, int, int]) -> None:
    """Write a prepared folder with noise: numbers of training, validation and test photos."""
    noise = np.random.default_rng(0)
    rows = []
    for split, number in zip(SPLITS, numbers, strict=True):
        photos = noise.integers(0, 256, (number, side, side, 3), dtype=np.uint8)
        np.save(folder / f"{split}.npy", photos)
        for index in range(number):
            name = ("cat", "dog")[index % 2]
            rows.append([f"{name}/{index}.png", name, split, f"{split}{index}", 50, 40, ""])
    with (folder / "photos.csv").open("w", newline="") as stream:
        csv.writer(stream).writerows([COLUMNS, *rows])
    stats = {"mean": [0.4, 0.5, 0.6], "std": [0.2, 0.2, 0.2]}
    (folder / "stats.json").write_text(json.dumps(stats))
