"""How many photos a second an import takes in, and what all cores gain over one worker.

python benchmarks/imports.py [--archive FILE] [--trials 3]

The process that reads the archive comes on top of the workers: one worker means two processes.
"""

import argparse
import tempfile
import time
import zipfile
from pathlib import Path
from statistics import median

from catdog.imports import import_photos
from catdog.photos import list_classes
from catdog.workers import usable_cores

SAMPLE = Path("data/raw")


def zip_sample(target: Path) -> Path:
    """Return a new zip archive of the photos in data/raw, stored as Microsoft's is."""
    with zipfile.ZipFile(target, "w") as archive:
        for files in list_classes(SAMPLE).values():
            for file in files:
                archive.write(file, file.relative_to(SAMPLE))
    return target


def measure(archive: Path, workers: int) -> tuple[int, float]:
    """Return how many photos one import took in, and the seconds it took."""
    with tempfile.TemporaryDirectory() as folder:
        raw, quarantine = Path(folder) / "raw", Path(folder) / "quarantine.csv"
        start = time.perf_counter()
        report = import_photos(archive, raw, replace=False, quarantine=quarantine, workers=workers)
        return sum(report.taken.values()), time.perf_counter() - start


def compare(archive: Path, trials: int) -> None:
    """Print the times of both, measured in turns so that a busy machine slows both alike."""
    cores = usable_cores()
    seconds: dict[int, list[float]] = {workers: [] for workers in (cores, 1)}
    for _ in range(trials):
        for workers, times in seconds.items():
            photos, took = measure(archive, workers)
            times.append(took)
    print(f"{photos:,} photos of {archive.name}, {trials} trials; seconds are min/median/max")
    for workers, times in seconds.items():
        spread = "/".join(f"{value:.2f}" for value in (min(times), median(times), max(times)))
        print(f"{workers} worker(s): {spread} s, {photos / median(times):,.0f} photos/s")
    ratio = median(seconds[1]) / median(seconds[cores])
    print(f"{cores} worker(s) are {ratio:.2f} × as fast as 1")


def main() -> None:
    """Measure with the archive given, else with the photos in data/raw."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--archive", type=Path, help="a zip or tar archive of photos, or a folder")
    parser.add_argument("--trials", type=int, default=3, help="imports by each number of workers")
    arguments = parser.parse_args()
    if arguments.archive is None and not SAMPLE.is_dir():
        print(f"no photos in {SAMPLE}: run `dvc pull data/raw.dvc`, or give --archive FILE")
        return
    with tempfile.TemporaryDirectory() as folder:
        compare(arguments.archive or zip_sample(Path(folder) / "sample.zip"), arguments.trials)


if __name__ == "__main__":
    main()
