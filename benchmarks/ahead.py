"""The training step with the next batch made beside it, and with batches made between steps.

python -m benchmarks.ahead [--recipe recipes/real.yaml] [--sizes 48 64] [--steps 12] [--trials 8]

By the recipe, on noise in place of photos, which are at their size before the trials that count. A
CPU's cores do both jobs, so that making batches ahead cannot save what they cost there: it can only
fill the pauses between the parts of a step.
"""

import tempfile
import time
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from unittest.mock import patch

from benchmarks import measure
from benchmarks.overhead import write_prepared
from catdog import params
from catdog.model.devices import compute_deterministically, pick_device
from catdog.training import batches
from catdog.training.train import Trainer

WAYS = {"between the steps": False, "beside the steps": True}


def run_steps(trainer: Trainer, image_size: int, ahead: bool) -> float:
    """Take the steps of an epoch; return the share of the time in which they waited for data."""
    way = nullcontext() if ahead else patch.object(batches, "_one_ahead", iter)
    with way:
        start, waited = time.perf_counter(), 0.0
        for batch in trainer._batches(0, image_size, 0):
            trainer._step(batch)
            waited += batch.seconds
        return waited / (time.perf_counter() - start)


def compare(trainer: Trainer, image_size: int, steps: int, trials: int) -> None:
    """Print the time of a step and the share of waiting, in both ways."""
    shares: dict[str, list[float]] = {way: [] for way in WAYS}

    def run(way: str) -> None:
        shares[way].append(run_steps(trainer, image_size, WAYS[way]))

    ways = {way: partial(run, way) for way in WAYS}
    costs = measure.interleaved(ways, trials, trainer.device)
    rows = []
    for way, values in costs.items():
        middle = measure.median_of(values)
        cpu = f"{middle.cpu_seconds / steps:.3f}"
        waiting = f"{sum(shares[way][1:]) / trials:.1%}"
        rows.append([way, measure.spread(values), f"{middle.seconds / steps:.3f}", cpu, waiting])
    columns = ("batches are made", "seconds min/median/max", "a step", "CPU a step", "waiting")
    measure.show(f"{steps} steps at {image_size} px, {trials} trials", columns, rows)


def main() -> None:
    """Parse the command line, measure and print."""
    parser = measure.parser(__doc__)
    parser.add_argument("--recipe", type=Path, default=Path("recipes/real.yaml"))
    parser.add_argument("--sizes", type=int, nargs="+", default=[48, 64], help="in pixels")
    parser.add_argument("--steps", type=int, default=12, help="in a trial")
    parser.add_argument("--trials", type=int, default=8)
    options = parser.parse_args()
    recipe = params.load(options.recipe)
    device = pick_device(recipe.train.precision)
    print(measure.hardware(device))
    compute_deterministically()
    with tempfile.TemporaryDirectory() as name:
        prepared = Path(name) / "prepared"
        write_prepared(prepared, options.steps * recipe.train.batch_size)
        trainer = Trainer(recipe, prepared, device)
        trainer._get_ready(recipe.train.epochs)
        for image_size in options.sizes:
            compare(trainer, image_size, options.steps, options.trials)


if __name__ == "__main__":
    measure.start(main)
