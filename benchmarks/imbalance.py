"""Recall of a small class, trained with and without class weights, over several seeds.

python -m benchmarks.imbalance ARCHIVE [--small 450] [--large 9000] [--test 900] [--seeds 1 2 3]
                               [--recipe recipes/quick.yaml] [--folder .catdog/imbalance]

Of ARCHIVE (an archive or a folder of photos) SMALL photos of the first class and LARGE of each
other class are for training and validation. TEST other photos of each class are the test set, so
that recalls are equally exact. The accuracy is that of a test set with the proportions of the
training set, computed from the recalls. The benchmark can be stopped and started again: photos and
finished runs are kept in the folder, and training resumes.
"""

import argparse
import json
import os
import shutil
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import fmean
from tempfile import TemporaryDirectory
from typing import Any

from catdog import params
from catdog.errors import CatdogError
from catdog.evaluation import evaluate
from catdog.ingest.photo_import import import_photos
from catdog.params import Params
from catdog.preparation import prepare
from catdog.preparation.class_folders import list_photos
from catdog.support.atomic_files import replacing_folder, write_text
from catdog.training import train
from tools import command_line, measure

RAW, PREPARED, SETTINGS = Path("raw"), Path("prepared"), Path("settings.json")
WEIGHTS = ("none", "balanced")


def changed(recipe: Params, section: str, **values: object) -> Params:
    """Return the recipe with other values in a section."""
    settings = recipe.model_dump()
    settings[section] |= values
    return params.parse(settings)


def select_photos(archive: Path, target: Path, small: int, large: int, test: int) -> None:
    """Write the chosen photos of an archive to `target`, in train and test folders.

    Raises CatdogError if a class has too few photos.
    """
    with TemporaryDirectory(dir=target.parent) as folder:
        imported = Path(folder) / "raw"
        import_photos(archive, imported, replace=False, quarantine=Path(folder) / "quarantine.csv")
        classes: dict[str, list[Path]] = defaultdict(list)
        for photo in list_photos(imported):
            classes[photo.class_name].append(photo.path)
        for index, (name, files) in enumerate(classes.items()):
            training = large if index else small
            if len(files) < training + test:
                raise CatdogError(
                    f"{archive}: {name} has {len(files):,} photos, fewer than {training + test:,}; "
                    "lower --small, --large or --test"
                )
            for split, chosen in (("test", files[:test]), ("train", files[test:][:training])):
                (target / split / name).mkdir(parents=True)
                for file in chosen:
                    shutil.move(file, target / split / name)


def prepare_once(recipe: Params, archive: Path, options: argparse.Namespace) -> None:
    """Write raw photos and arrays into the current folder, unless they are there.

    Raises CatdogError if they are there and are those of another recipe.
    """
    settings = recipe.model_dump_json(indent=2)
    if SETTINGS.exists() and SETTINGS.read_text(encoding="utf-8") != settings:
        raise CatdogError(
            f"{Path.cwd()}: its runs have other settings; delete it, or pass --folder"
        )
    if not RAW.exists():
        with replacing_folder(RAW.absolute()) as folder:
            select_photos(archive, folder, options.small, options.large, options.test)
    if not PREPARED.exists():
        prepare.prepare(recipe.prepare, RAW, PREPARED)
    write_text(SETTINGS, settings)


def train_once(recipe: Params, seed: int, weights: str) -> dict[str, Any]:
    """Train and evaluate in the current folder, unless that was done; return the metrics."""
    run = Path("runs") / f"{weights}-{seed}"
    metrics = run / "metrics.json"
    if not metrics.exists():
        print(f"class_weights {weights}, seed {seed}")
        chosen = changed(recipe, "train", seed=seed, class_weights=weights)
        models, history = run / "models", run / "history.csv"
        train.train(chosen, PREPARED, models, history)
        evaluate.evaluate(chosen, PREPARED, models, metrics, run / "reports", history)
    found: dict[str, Any] = json.loads(metrics.read_text(encoding="utf-8"))
    return found


def columns(metrics: dict[str, Any], small: int, large: int) -> list[float]:
    """Return recall of the small class, mean recall of the others, balanced accuracy, accuracy."""
    first, *others = (row["accuracy"] for row in metrics["classes"].values())
    photos = small + large * len(others)
    accuracy = (small * first + large * sum(others)) / photos
    return [first, fmean(others), metrics["balanced_accuracy"], accuracy]


def mean_and_range(shares: Sequence[float]) -> str:
    """Return mean, minimum and maximum in percent."""
    mean, low, high = (100 * value for value in (fmean(shares), min(shares), max(shares)))
    return f"{mean:.1f} % ({low:.1f} to {high:.1f})"


def rows(found: dict[str, list[list[float]]]) -> Iterator[list[str]]:
    """Yield the row of the table for each kind of weights."""
    for weights, runs in found.items():
        yield [weights, *map(mean_and_range, zip(*runs, strict=True))]


def compare(archive: Path, recipe: Params, options: argparse.Namespace) -> None:
    """Train all runs in the current folder, and print the table."""
    prepare_once(recipe, archive, options)
    found: dict[str, list[list[float]]] = {weights: [] for weights in WEIGHTS}
    for seed in options.seeds:
        for weights in WEIGHTS:
            metrics = train_once(recipe, seed, weights)
            found[weights].append(columns(metrics, options.small, options.large))
    small, *_ = metrics["classes"]
    measure.show(
        f"{options.small:,} photos of {small}, {options.large:,} of each other class, "
        f"{options.test:,} of each for testing; {options.recipe.stem}, "
        f"mean and range of {len(options.seeds)} seeds",
        ("class_weights", f"recall of {small}", "of the others", "balanced accuracy", "accuracy"),
        list(rows(found)),
    )


def main() -> None:
    """Parse the command line, train and print."""
    parser = command_line.parser(__doc__)
    add = parser.add_argument
    add("archive", type=Path, metavar="ARCHIVE")
    add("--small", type=int, default=450, help="photos of the first class (default: 450)")
    add("--large", type=int, default=9000, help="photos of each other class (default: 9,000)")
    add("--test", type=int, default=900, help="test photos of each class (default: 900)")
    add("--seeds", type=int, nargs="+", default=[1, 2, 3])
    add("--recipe", type=Path, default=Path("recipes/quick.yaml"))
    add("--folder", type=Path, default=Path(".catdog/imbalance"))
    options = parser.parse_args()
    print(measure.hardware())
    archive, recipe = options.archive.resolve(), params.load(options.recipe)
    numbers = (options.small, options.large, options.test)
    folder = options.folder / "-".join(map(str, (options.recipe.stem, *numbers)))
    folder.mkdir(parents=True, exist_ok=True)
    os.chdir(folder)  # where training saves its checkpoints
    compare(archive, changed(recipe, "prepare", split="given"), options)


if __name__ == "__main__":
    command_line.run(main)
