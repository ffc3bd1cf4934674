"""What the benchmarks share: the hardware line, trials taken in turns, a table, photos."""

import argparse
import os
import platform
import re
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import TypeVar

import psutil
import torch
import torchvision
from rich.console import Console
from rich.table import Table

from catdog.errors import CatdogError
from catdog.model.devices import Device
from catdog.preparation.photos import PhotoError, list_classes, open_photo
from catdog.support.process_pool import process_pool, usable_cores
from tools.draw_sample import KINDS, draw

DRAWN_SIDE = 180  # as the real photos that benchmarks/README.md speaks of
Name = TypeVar("Name")


def hardware(device: Device | None = None) -> str:
    """Return one line that says what computes: cores, versions, arithmetic, and other work.

    The load is the number of processes that wanted a core in the last minute. A quiet machine says
    less than 1 here; on a busy one only ratios mean something, and only roughly.
    """
    parts = [f"{cpu_model()}, {usable_cores()} cores"]
    if device is not None and device.torch_device.type == "cuda":
        parts.append(torch.cuda.get_device_name(device.torch_device))
    parts.append(f"torch {torch.__version__}, torchvision {torchvision.__version__}")
    if device is not None:
        parts.append(f"{device.torch_device} in {str(device.dtype).removeprefix('torch.')}")
    if hasattr(os, "getloadavg"):
        parts.append(f"load {os.getloadavg()[0]:.1f} before the start")
    return "; ".join(parts)


def cpu_model() -> str:
    """Return the processor's name: /proc/cpuinfo's on Linux, else what Python knows."""
    try:
        found = re.search(r"model name\s*:\s*(.+)", Path("/proc/cpuinfo").read_text())
    except OSError:
        found = None
    return found[1] if found else platform.processor() or platform.machine()


@dataclass(frozen=True)
class Cost:
    """What a run took."""

    seconds: float
    """by the clock on the wall"""
    cpu_seconds: float
    """of this process and its children, over all cores"""


def interleaved(
    contenders: Mapping[Name, Callable[[], object]], trials: int, device: Device | None = None
) -> dict[Name, list[Cost]]:
    """Return the costs of each contender's `trials` runs, after one that is not counted.

    They run in turns, so that a machine busy with something else for a while slows all alike. With
    a CUDA device a run ends when the device has done what was asked of it.
    """
    costs: dict[Name, list[Cost]] = {name: [] for name in contenders}
    for trial in range(1 + trials):
        for name, run in contenders.items():
            cost = cost_of(run, device)
            if trial > 0:
                costs[name].append(cost)
    return costs


def cost_of(run: Callable[[], object], device: Device | None = None) -> Cost:
    """Return what one run takes."""
    cpu, start = cpu_seconds(), time.perf_counter()
    run()
    if device is not None and device.torch_device.type == "cuda":
        torch.cuda.synchronize()
    return Cost(time.perf_counter() - start, cpu_seconds() - cpu)


def cpu_seconds() -> float:
    """Return the CPU time so far of this process and its children, those that ended included.

    Children's are known to a hundredth of a second only.
    """
    process = psutil.Process()
    ended = process.cpu_times()
    living = [child.cpu_times() for child in process.children()]
    children = ended.children_user + ended.children_system + sum(t.user + t.system for t in living)
    return time.process_time() + float(children)


def median_of(costs: Sequence[Cost]) -> Cost:
    """Return the median of seconds and that of CPU seconds."""
    return Cost(median(cost.seconds for cost in costs), median(cost.cpu_seconds for cost in costs))


def spread(costs: Sequence[Cost], digits: int = 2) -> str:
    """Return min/median/max of the seconds as text."""
    values = [cost.seconds for cost in costs]
    return "/".join(f"{value:.{digits}f}" for value in (min(values), median(values), max(values)))


def show(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table, its first column to the left and its figures to the right."""
    table = Table(title=title, title_justify="left")
    for index, column in enumerate(columns):
        table.add_column(column, justify="left" if index == 0 else "right")
    for row in rows:
        table.add_row(*row)
    console = Console()
    # Not on a terminal, rich takes 80 columns and would break the lines of wide tables.
    (console if console.is_terminal else Console(width=130)).print(table)


@contextmanager
def photo_folder(given: Path | None, number: int) -> Iterator[Path]:
    """Yield a temporary folder of `number` photos (class folders), and say where they are from.

    They are copies of the first readable ones of each class in `given`, or without it drawn. Each
    class gets the same share. Raises CatdogError when `given` holds fewer.
    """
    with TemporaryDirectory() as temporary:
        folder = Path(temporary)
        if given is None:
            _draw_photos(folder, number)
        else:
            _copy_photos(given, folder, number)
        source = f"drawn, {DRAWN_SIDE} px" if given is None else f"of {given}"
        print(f"{number:,} photos {source}")
        yield folder


def _draw_photos(folder: Path, number: int) -> None:
    jobs = [(folder, name, index) for name in KINDS for index in range(number // len(KINDS))]
    for name in KINDS:
        (folder / name).mkdir()
    with process_pool(usable_cores()) as pool:
        list(pool.map(_draw_photo, *zip(*jobs, strict=True), chunksize=8))


def _draw_photo(folder: Path, class_name: str, index: int) -> None:
    draw(class_name, index, DRAWN_SIDE).save(folder / class_name / f"{index}.jpg", quality=90)


def _copy_photos(given: Path, folder: Path, number: int) -> None:
    classes = list_classes(given)
    wanted = number // len(classes)
    for name, files in classes.items():
        (folder / name).mkdir()
        readable = (file for file in files if _is_readable(file))
        copied = [shutil.copy(f, folder / name) for f, _ in zip(readable, range(wanted))]  # noqa: B905
        if len(copied) < wanted:
            raise CatdogError(
                f"{given / name}: {len(copied)} photos can be read, but {wanted} are needed; give "
                f"a smaller --number"
            )


def _is_readable(file: Path) -> bool:
    try:
        open_photo(file)
    except PhotoError:
        return False
    return True


def parser(description: str) -> argparse.ArgumentParser:
    """Return a command line's parser that shows a module's docstring as it stands."""
    return argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )


def start(main: Callable[[], None]) -> None:
    """Run a script's main; what a user can mend becomes one line on stderr and exit code 1."""
    try:
        main()
    except CatdogError as error:
        raise SystemExit(f"catdog: {error}") from None
