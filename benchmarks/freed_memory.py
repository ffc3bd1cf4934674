"""The training step with freed memory kept in the process, and with memory returned to the kernel.

python -m benchmarks.freed_memory [--sizes 48 96] [--batch-size 128] [--steps 5] [--trials 3]

The effect of `devices.keep_freed_memory` lasts until the process ends, so each trial is a new
process, and the trials alternate between the two modes. The step is that of
`benchmarks/training_step.py`: the real recipe's, without data loading.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path
from statistics import median

import psutil
import torch

from benchmarks.training_step import prepare_step
from catdog import params
from catdog.model import devices
from tools import command_line, measure

MODES = {"returned": False, "kept": True}


def step_in_this_process(options: argparse.Namespace) -> dict[str, float]:
    """Return the median seconds of a step, and the resident memory in MiB after the steps."""
    if not options.keep:
        # Patched here because catdog has no option to turn it off.
        devices.keep_freed_memory = lambda: None
    device = devices.pick_device("auto", "cpu")
    recipe = params.load(options.recipe)
    _, step = prepare_step(recipe, options.child, options.batch_size, device)
    costs = measure.interleaved({"step": step}, options.steps)["step"]
    memory = psutil.Process().memory_info()
    return {"seconds": measure.median_of(costs).seconds, "mebibytes": memory.rss / 2**20}


def step_in_a_process(size: int, keep: bool, options: argparse.Namespace) -> dict[str, float]:
    """Return the result of `step_in_this_process` in a new process."""
    command = [sys.executable, "-m", "benchmarks.freed_memory", "--child", str(size)]
    command += ["--keep"] if keep else []
    for name in ("recipe", "batch_size", "steps"):
        command += [f"--{name.replace('_', '-')}", str(getattr(options, name))]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found: dict[str, float] = json.loads(done.stdout)
    return found


def compare(size: int, options: argparse.Namespace) -> None:
    """Print the table of one image size."""
    found: dict[str, list[dict[str, float]]] = {name: [] for name in MODES}
    for _ in range(options.trials):
        for name, keep in MODES.items():
            found[name].append(step_in_a_process(size, keep, options))
    seconds = {name: sorted(run["seconds"] for run in runs) for name, runs in found.items()}
    slow = median(seconds["returned"])
    measure.show(
        f"steps of {options.batch_size} photos at {size} px, {options.trials} processes each",
        ("freed memory", "seconds min/median/max", "speed-up", "resident, MiB"),
        [
            (
                name,
                f"{times[0]:.3f}/{median(times):.3f}/{times[-1]:.3f}",
                f"{slow / median(times):.2f} ×",
                f"{max(run['mebibytes'] for run in found[name]):,.0f}",
            )
            for name, times in seconds.items()
        ],
    )


def main() -> None:
    """Parse the command line, measure and print."""
    parser = command_line.parser(__doc__)
    add = parser.add_argument
    add("--recipe", type=Path, default=Path("recipes/real.yaml"))
    add("--sizes", type=int, nargs="+", default=[48, 96], help="image sizes in pixels")
    add("--batch-size", type=int, default=128, help="photos per step (default: 128)")
    add("--steps", type=int, default=5, help="steps per process (default: 5)")
    add("--trials", type=int, default=3, help="processes per mode (default: 3)")
    add("--child", type=int, metavar="SIZE", help=argparse.SUPPRESS)
    add("--keep", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        print(json.dumps(step_in_this_process(options)))
        return
    print(f"{measure.hardware()}, {torch.get_num_threads()} threads")
    for size in options.sizes:
        compare(size, options)


if __name__ == "__main__":
    command_line.run(main)
