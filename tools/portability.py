"""Check that `train.precision: portable` gives the same bytes on other processors.

python -m tools.portability [--emulator qemu-x86_64] [--cpus NAME ...] [--keep FOLDER]

Runs prepare, train and evaluate for two small projects: the settings of recipes/sample.yaml, and a
network and optimizer with more kinds of operations, on two threads. Each runs natively, natively
with environment variables that select other code, and on processors that QEMU emulates (user mode,
without a guest system). Compares the SHA-256 hash of every output with that of the native run.

QEMU 7.2 crashes in training. The package qemu-user of Debian 13 contains static programs, which can
be unpacked anywhere: dpkg -x qemu-user_*.deb FOLDER.
"""

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from argparse import Namespace
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path

import yaml
from rich.console import Console
from rich.table import Table

from catdog.errors import CatdogError
from catdog.paths import HISTORY, METRICS, MODELS, PARAMS, PREPARED, RAW, REPORTS
from catdog.support.process_pool import usable_cores
from tools import command_line
from tools.draw_sample import draw_sample
from tools.measure import cpu_model

ROOT = Path(__file__).parents[1]
PHOTOS = 48

# Emulated without AVX-512, which QEMU does not have; a native run on a processor that has it
# covers that case.
CPUS = ("Haswell-v4", "Skylake-Client-v4", "EPYC-Rome", "EPYC-Milan")

ENVIRONMENTS: Sequence[Mapping[str, str]] = (
    {"OMP_NUM_THREADS": "1", "OMP_THREAD_LIMIT": "1"},
    {"OMP_NUM_THREADS": "2", "MKL_NUM_THREADS": "1", "MKL_DYNAMIC": "TRUE"},
    {"OMP_NUM_THREADS": "4", "OMP_DYNAMIC": "TRUE", "CATDOG_WORKERS": "3"},
    {"ATEN_CPU_CAPABILITY": "default", "ONEDNN_MAX_CPU_ISA": "SSE41", "MKL_CBWR": "SSE4_2"},
    {"PYTHONHASHSEED": "7", "LC_ALL": "C", "TZ": "Asia/Tokyo", "MPLBACKEND": "svg"},
    {"ONEDNN_DEFAULT_FPMATH_MODE": "BF16", "NPY_DISABLE_CPU_FEATURES": "X86_V3 X86_V4"},
)

# Few steps and photos, because emulation is about 50 times slower.
SAMPLE: Mapping[str, Mapping[str, object]] = {"train": {"epochs": 2, "batch_size": 16}}
OTHERS: Mapping[str, Mapping[str, object]] = {
    "augmentation": {"fill": "black"},
    "model": {"residual": {"blocks": 2, "dropout": 0.1}},
    "optimizer": {"name": "muon", "lr": 0.06, "rest_lr": 0.15, "weight_decay": 0.0005},
    "schedule": {"name": "cosine"},
    "train": {"epochs": 2, "batch_size": 16, "threads": 2, "ema": 0.9, "start_image_size": 32},
}
PROJECTS = {"sample": SAMPLE, "muon, 2 threads": OTHERS}


@dataclass(frozen=True)
class Place:
    """Where the stages run: a name for the table, a command prefix, and environment variables."""

    name: str
    prefix: tuple[str, ...] = ()
    variables: Mapping[str, str] = field(default_factory=dict)


def places(options: Namespace) -> list[Place]:
    """Return all places, the native run without variables first.

    Raises CatdogError if the emulator is not installed.
    """
    emulator = shutil.which(options.emulator)
    if emulator is None:
        raise CatdogError(
            f"{options.emulator}: not found; install QEMU's user-mode emulation, version 10 or "
            "newer (Debian 13: apt-get install qemu-user), or pass --emulator PATH"
        )
    native = [Place(" ".join(f"{n}={v}" for n, v in one.items()), (), one) for one in ENVIRONMENTS]
    emulated = [Place(cpu, (emulator, "-cpu", cpu)) for cpu in options.cpus]
    return [Place(f"native: {cpu_model()}"), *native, *emulated]


def create_project(folder: Path, changes: Mapping[str, Mapping[str, object]]) -> None:
    """Create a project with drawn photos and the sample's params, changed by `changes`."""
    draw_sample(folder / RAW, PHOTOS)
    params = yaml.safe_load((ROOT / "recipes/sample.yaml").read_text(encoding="utf-8"))
    (folder / PARAMS).write_text(yaml.safe_dump(merge(params, changes)), encoding="utf-8")


def merge(values: dict[str, object], changes: Mapping[str, object]) -> dict[str, object]:
    """Return nested `values`, updated by nested `changes`."""
    merged = dict(values)
    for key, change in changes.items():
        old = merged[key]
        merged[key] = merge(old, change) if isinstance(old, dict) else change  # type: ignore[arg-type]
    return merged


def run_stages(project: Path, place: Place) -> float:
    """Run the three stages in a copy of a project; return the seconds that they took.

    Raises CatdogError with the last lines of a stage that fails.
    """
    start = time.monotonic()
    # The interpreter itself, because an emulator does not follow venv's link to it.
    python = [*place.prefix, os.path.realpath(sys.executable), "-m", "catdog"]
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(ROOT), *filter(None, sys.path)]),
        "CATDOG_WORKERS": "1",
        "CATDOG_LOCKS": "",  # compares bytes, not times
        **place.variables,
    }
    for stage in ("prepare", "train", "evaluate"):
        done = subprocess.run(
            [*python, stage],
            cwd=project,
            env=environment,
            check=False,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        if done.returncode:
            last = "\n".join(done.stdout.splitlines()[-5:])
            raise CatdogError(f"{place.name}: {stage}: exit code {done.returncode}\n{last}")
        if stage == "train" and "results may differ" in done.stdout:
            raise CatdogError(f"{place.name}: not portable:\n{done.stdout.splitlines()[0]}")
    return time.monotonic() - start


def hash_outputs(project: Path) -> dict[str, str]:
    """Return the SHA-256 hash of each output of the stages by its path."""
    found = [file for out in (PREPARED, MODELS, REPORTS) for file in (project / out).rglob("*")]
    files = [file for file in found if file.is_file()] + [project / HISTORY, project / METRICS]
    return {
        file.relative_to(project).as_posix(): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in sorted(files)
    }


def main() -> None:
    """Run everything, print a table, and exit with code 1 if an output differs."""
    parser = command_line.parser(__doc__)
    parser.add_argument("--emulator", default="qemu-x86_64", help="default: qemu-x86_64")
    parser.add_argument("--cpus", nargs="*", default=CPUS, help=f"default: {' '.join(CPUS)}")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="new folder for the outputs")
    options = parser.parse_args()
    everywhere = places(options)
    print(f"{cpu_model()}; torch {version('torch')}; {emulator_version(options.emulator)}")
    with tempfile.TemporaryDirectory() as temporary:
        failed = compare(options.keep or Path(temporary), everywhere)
    if failed:
        raise CatdogError(f"{failed} of the runs failed or differ from the native run")


def emulator_version(emulator: str) -> str:
    """Return the first line of the emulator's `--version`."""
    done = subprocess.run([emulator, "--version"], capture_output=True, text=True, check=True)
    return done.stdout.splitlines()[0]


def compare(folder: Path, everywhere: Sequence[Place]) -> int:
    """Run all projects in all places; print a table; return how many runs failed or differ."""
    table = Table("project", "place", "seconds", "outputs", "different outputs")
    failed = 0
    with ThreadPoolExecutor(usable_cores()) as pool:
        for name, changes in PROJECTS.items():
            create_project(folder / name, changes)
            copies = [folder / f"{name} {index}" for index in range(len(everywhere))]
            for copy in copies:
                shutil.copytree(folder / name, copy)
            pairs = list(zip(copies, everywhere, strict=True))
            runs = [pool.submit(run_stages, copy, place) for copy, place in pairs]
            runs[0].result()  # the native run must succeed
            expected = hash_outputs(copies[0])
            for (copy, place), run in zip(pairs, runs, strict=True):
                if error := run.exception():
                    print(error, file=sys.stderr)
                    row, good = ("", "", "failed"), False
                else:
                    found = hash_outputs(copy)
                    differing = sorted(k for k, _ in expected.items() ^ found.items())
                    good = not differing
                    names = ", ".join(dict.fromkeys(differing)) or "none"
                    row = (f"{run.result():.0f}", str(len(found)), names)
                failed += not good
                table.add_row(name, place.name, *row)
    Console().print(table)
    return failed


if __name__ == "__main__":
    command_line.run(main)
