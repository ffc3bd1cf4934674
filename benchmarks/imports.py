"""How many photos a second an import takes in, and what all cores gain over one worker.

python -m benchmarks.imports [--archive FILE] [--trials 3]

The process that reads the archive comes on top of the workers: one worker means two processes.
"""

import tempfile
import zipfile
from functools import partial
from pathlib import Path

from benchmarks import measure
from catdog.ingest.photo_import import import_photos
from catdog.preparation.photos import list_classes
from catdog.support.process_pool import usable_cores

SAMPLE = Path("data/raw")


def zip_sample(target: Path) -> Path:
    """Return a new zip archive of the photos in data/raw, stored as Microsoft's is."""
    with zipfile.ZipFile(target, "w") as archive:
        for files in list_classes(SAMPLE).values():
            for file in files:
                archive.write(file, file.relative_to(SAMPLE))
    return target


def import_once(archive: Path, workers: int) -> int:
    """Return how many photos one import took in."""
    with tempfile.TemporaryDirectory() as folder:
        raw, quarantine = Path(folder) / "raw", Path(folder) / "quarantine.csv"
        report = import_photos(archive, raw, replace=False, quarantine=quarantine, workers=workers)
        return sum(report.imported.values())


def compare(archive: Path, trials: int) -> None:
    """Print what all cores take and what one worker takes."""
    cores = usable_cores()
    photos = import_once(archive, cores)
    runs = {workers: partial(import_once, archive, workers) for workers in (1, cores)}
    costs = measure.interleaved(runs, trials)
    seconds = {workers: measure.median_of(values).seconds for workers, values in costs.items()}
    measure.show(
        f"{photos:,} photos of {archive.name}, {trials} trials",
        ("workers", "seconds min/median/max", "photos/s", "as fast as 1"),
        [
            (
                str(workers),
                measure.spread(costs[workers]),
                f"{photos / seconds[workers]:,.0f}",
                f"{seconds[1] / seconds[workers]:.2f} ×",
            )
            for workers in runs
        ],
    )


def main() -> None:
    """Measure with the archive given, else with the photos in data/raw."""
    parser = measure.parser(__doc__)
    parser.add_argument("--archive", type=Path, help="a zip or tar archive of photos, or a folder")
    parser.add_argument("--trials", type=int, default=3, help="imports by each number of workers")
    arguments = parser.parse_args()
    if arguments.archive is None and not SAMPLE.is_dir():
        print(f"no photos in {SAMPLE}: run `dvc pull data/raw.dvc`, or give --archive FILE")
        return
    print(measure.hardware())
    with tempfile.TemporaryDirectory() as folder:
        compare(arguments.archive or zip_sample(Path(folder) / "sample.zip"), arguments.trials)


if __name__ == "__main__":
    measure.start(main)
