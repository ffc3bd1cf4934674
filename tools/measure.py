"""Benchmark utilities: a description of the hardware, interleaved trials, tables of their costs."""

import os
import platform
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import TypeVar

import psutil
import torch
import torchvision
from rich.console import Console
from rich.table import Table

from catdog.model.devices import Device
from catdog.support.process_pool import usable_cores

Name = TypeVar("Name")


def hardware(device: Device | None = None) -> str:
    """Return one line with the CPU, its cores, GPU, versions, dtype and the load of the machine.

    The load is the average number of runnable processes in the last minute. It is below 1 on an
    idle machine; on a machine under load only ratios are meaningful, and only roughly.
    """
    parts = [f"{cpu_model()}, {usable_cores()} cores"]
    if device is not None and device.torch_device.type == "cuda":
        parts.append(torch.cuda.get_device_name(device.torch_device))
    parts.append(f"torch {torch.__version__}, torchvision {torchvision.__version__}")
    if device is not None:
        parts.append(f"{device.torch_device} in {str(device.dtype).removeprefix('torch.')}")
    if hasattr(os, "getloadavg"):
        parts.append(f"load {os.getloadavg()[0]:.1f} at the start")
    return "; ".join(parts)


def cpu_model() -> str:
    """Return the name of the CPU: from /proc/cpuinfo on Linux, else from `platform`."""
    try:
        found = re.search(r"model name\s*:\s*(.+)", Path("/proc/cpuinfo").read_text())
    except OSError:
        found = None
    return found[1] if found else platform.processor() or platform.machine()


@dataclass(frozen=True)
class Cost:
    """The cost of one run."""

    seconds: float
    """wall-clock time"""
    cpu_seconds: float
    """CPU time of this process and its children, summed over cores"""


def interleaved(
    runs: Mapping[Name, Callable[[], object]], trials: int, device: Device | None = None
) -> dict[Name, list[Cost]]:
    """Return the costs of `trials` calls of each function, after one warmup call.

    They are interleaved, so that temporary load on the machine affects all of them equally. With a
    CUDA device a call ends when the device has finished its work.
    """
    costs: dict[Name, list[Cost]] = {name: [] for name in runs}
    for trial in range(1 + trials):
        for name, run in runs.items():
            cost = cost_of(run, device)
            if trial > 0:
                costs[name].append(cost)
    return costs


def cost_of(run: Callable[[], object], device: Device | None = None) -> Cost:
    """Return the cost of one run."""
    cpu, start = cpu_seconds(), time.perf_counter()
    run()
    if device is not None and device.torch_device.type == "cuda":
        torch.cuda.synchronize()
    return Cost(time.perf_counter() - start, cpu_seconds() - cpu)


def cpu_seconds() -> float:
    """Return the CPU time so far of this process and its children, including finished ones.

    The resolution for children is 0.01 s.
    """
    process = psutil.Process()
    ended = process.cpu_times()
    running = [child.cpu_times() for child in process.children()]
    children = ended.children_user + ended.children_system + sum(t.user + t.system for t in running)
    return time.process_time() + float(children)


def median_of(costs: Sequence[Cost]) -> Cost:
    """Return the median of the seconds and the median of the CPU seconds."""
    return Cost(median(cost.seconds for cost in costs), median(cost.cpu_seconds for cost in costs))


def min_median_max(costs: Sequence[Cost], digits: int = 2) -> str:
    """Return min/median/max of the seconds as text."""
    values = [cost.seconds for cost in costs]
    return "/".join(f"{value:.{digits}f}" for value in (min(values), median(values), max(values)))


def show(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table, with the first column left-aligned and the others right-aligned."""
    table = Table(title=title, title_justify="left")
    for index, column in enumerate(columns):
        table.add_column(column, justify="left" if index == 0 else "right")
    for row in rows:
        table.add_row(*row)
    console = Console()
    # When stdout is not a terminal, rich assumes 80 columns and wraps wide tables.
    (console if console.is_terminal else Console(width=130)).print(table)
