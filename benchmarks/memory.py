"""The training step with memory that is kept, beside memory that goes back to the kernel.

python -m benchmarks.memory [--sizes 48 96] [--batch-size 128] [--steps 5] [--trials 3]

`devices.keep_freed_memory` lasts for the life of a process, so each trial is a process of its own,
of each kind in turns. A step is what `benchmarks/step.py` times: the real recipe's, without data.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path
from statistics import median

import psutil
import torch

from benchmarks import measure
from benchmarks.step import prepare_step
from catdog import params
from catdog.model import devices

KINDS = {"handed back": False, "kept": True}


def step_in_this_process(options: argparse.Namespace) -> dict[str, float]:
    """Return the median seconds of a step, and the most MiB of memory that were resident."""
    if not options.keep:
        # Only here: what is compared with is no setting of the product.
        devices.keep_freed_memory = lambda: None
    device = devices.pick_device("auto", "cpu")
    recipe = params.load(options.recipe)
    _, step = prepare_step(recipe, options.child, options.batch_size, device)
    costs = measure.interleaved({"step": step}, options.steps)["step"]
    memory = psutil.Process().memory_info()
    return {"seconds": measure.median_of(costs).seconds, "mebibytes": memory.rss / 2**20}


def step_in_a_process(size: int, keep: bool, options: argparse.Namespace) -> dict[str, float]:
    """Return what `step_in_this_process` finds in a new process."""
    command = [sys.executable, "-m", "benchmarks.memory", "--child", str(size)]
    command += ["--keep"] if keep else []
    for name in ("recipe", "batch_size", "steps"):
        command += [f"--{name.replace('_', '-')}", str(getattr(options, name))]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found: dict[str, float] = json.loads(done.stdout)
    return found


def compare(size: int, options: argparse.Namespace) -> None:
    """Print the table of one image size."""
    found: dict[str, list[dict[str, float]]] = {name: [] for name in KINDS}
    for _ in range(options.trials):
        for name, keep in KINDS.items():
            found[name].append(step_in_a_process(size, keep, options))
    seconds = {name: sorted(run["seconds"] for run in runs) for name, runs in found.items()}
    slow = median(seconds["handed back"])
    measure.show(
        f"a step of {options.batch_size} photos at {size} px; {options.trials} processes of each",
        ("memory", "seconds min/median/max", "as fast", "resident, MiB"),
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
    parser = measure.parser(__doc__)
    parser.add_argument("--recipe", type=Path, default=Path("recipes/real.yaml"))
    parser.add_argument("--sizes", type=int, nargs="+", default=[48, 96], help="in pixels")
    parser.add_argument("--batch-size", type=int, default=128, help="photos a step")
    parser.add_argument("--steps", type=int, default=5, help="of each process")
    parser.add_argument("--trials", type=int, default=3, help="processes of each kind")
    parser.add_argument("--child", type=int, metavar="SIZE", help=argparse.SUPPRESS)
    parser.add_argument("--keep", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        print(json.dumps(step_in_this_process(options)))
        return
    print(f"{measure.hardware()}, {torch.get_num_threads()} threads")
    for size in options.sizes:
        compare(size, options)


if __name__ == "__main__":
    measure.start(main)
