"""Import throughput in photos per second, with one worker process and with one per core.

python -m benchmarks.photo_import [--archive FILE] [--trials 3]

The main process reads the archive, so one worker means two processes.
"""

import tempfile
import zipfile
from functools import partial
from pathlib import Path

from catdog.ingest.photo_import import import_photos
from catdog.preparation.class_folders import list_classes
from catdog.support.process_pool import usable_cores
from tools import command_line, measure

SAMPLE = Path("data/raw")


def zip_sample(target: Path) -> Path:
    """Write the photos in data/raw to a zip archive without compression; return its path."""
    with zipfile.ZipFile(target, "w") as archive:
        for files in list_classes(SAMPLE).values():
            for file in files:
                archive.write(file, file.relative_to(SAMPLE))
    return target


def import_once(archive: Path, workers: int) -> int:
    """Import an archive into a temporary folder; return the number of imported photos."""
    with tempfile.TemporaryDirectory() as folder:
        raw, quarantine = Path(folder) / "raw", Path(folder) / "quarantine.csv"
        report = import_photos(archive, raw, replace=False, quarantine=quarantine, workers=workers)
        return sum(report.imported.values())


def compare(archive: Path, trials: int) -> None:
    """Print the time of an import with one worker and with one per core."""
    cores = usable_cores()
    photos = import_once(archive, cores)
    runs = {workers: partial(import_once, archive, workers) for workers in (1, cores)}
    costs = measure.interleaved(runs, trials)
    seconds = {workers: measure.median_of(values).seconds for workers, values in costs.items()}
    measure.show(
        f"{photos:,} photos of {archive.name}, {trials} trials",
        ("workers", "seconds min/median/max", "photos/s", "speed-up"),
        [
            (
                str(workers),
                measure.min_median_max(costs[workers]),
                f"{photos / seconds[workers]:,.0f}",
                f"{seconds[1] / seconds[workers]:.2f} ×",
            )
            for workers in runs
        ],
    )


def main() -> None:
    """Measure with the given archive, or else with the photos in data/raw."""
    parser = command_line.parser(__doc__)
    add = parser.add_argument
    add("--archive", type=Path, help="archive or folder of photos (default: data/raw)")
    add("--trials", type=int, default=3, help="imports per number of workers (default: 3)")
    arguments = parser.parse_args()
    if arguments.archive is None and not SAMPLE.is_dir():
        print(f"{SAMPLE}: no photos; run `dvc pull data/raw.dvc` or pass --archive FILE")
        return
    print(measure.hardware())
    with tempfile.TemporaryDirectory() as folder:
        compare(arguments.archive or zip_sample(Path(folder) / "sample.zip"), arguments.trials)


if __name__ == "__main__":
    command_line.run(main)
