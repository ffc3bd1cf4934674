"""Training steps with the next batch prefetched by a thread, and without prefetching.

python -m benchmarks.prefetch [--recipe recipes/real.yaml] [--sizes 48 64] [--steps 12] [--trials 8]

The recipe is trained on noise instead of photos, resized before the timed trials. On a CPU the same
cores compute batches and steps, so prefetching cannot hide the cost of the batches: it can only use
the time in which a core waits for the others within a step.
"""

import tempfile
import time
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from unittest.mock import patch

from benchmarks.training_overhead import write_prepared
from catdog import params
from catdog.model.devices import pick_device, use_deterministic_algorithms
from catdog.training import batches
from catdog.training.train import Trainer
from tools import command_line, measure

MODES = {"not prefetched": False, "prefetched": True}


def run_steps(trainer: Trainer, image_size: int, prefetch: bool) -> float:
    """Run the steps of an epoch; return the fraction of the time spent waiting for batches."""
    mode = nullcontext() if prefetch else patch.object(batches, "_prefetch", iter)
    with mode:
        start, waited = time.perf_counter(), 0.0
        for batch in trainer.epoch_batches(0, image_size, 0):
            trainer.train_step(batch)
            waited += batch.waited
        return waited / (time.perf_counter() - start)


def compare(trainer: Trainer, image_size: int, steps: int, trials: int) -> None:
    """Print the time per step and the fraction spent waiting, in both modes."""
    fractions: dict[str, list[float]] = {mode: [] for mode in MODES}

    def run(mode: str) -> None:
        fractions[mode].append(run_steps(trainer, image_size, MODES[mode]))

    runs = {mode: partial(run, mode) for mode in MODES}
    costs = measure.interleaved(runs, trials, trainer.device)
    rows = []
    for mode, values in costs.items():
        middle = measure.median_of(values)
        cpu = f"{middle.cpu_seconds / steps:.3f}"
        waiting = f"{sum(fractions[mode][1:]) / trials:.1%}"
        rows.append(
            [mode, measure.min_median_max(values), f"{middle.seconds / steps:.3f}", cpu, waiting]
        )
    columns = ("batches", "seconds min/median/max", "per step", "CPU per step", "waiting")
    measure.show(f"{steps} steps at {image_size} px, {trials} trials", columns, rows)


def main() -> None:
    """Parse the command line, measure and print."""
    parser = command_line.parser(__doc__)
    add = parser.add_argument
    add("--recipe", type=Path, default=Path("recipes/real.yaml"))
    add("--sizes", type=int, nargs="+", default=[48, 64], help="image sizes in pixels")
    add("--steps", type=int, default=12, help="steps per trial (default: 12)")
    add("--trials", type=int, default=8, help="trials per mode (default: 8)")
    options = parser.parse_args()
    recipe = params.load(options.recipe)
    device = pick_device(recipe.train.precision)
    print(measure.hardware(device))
    use_deterministic_algorithms()
    with tempfile.TemporaryDirectory() as name:
        prepared = Path(name) / "prepared"
        write_prepared(prepared, options.steps * recipe.train.batch_size)
        trainer = Trainer(recipe, prepared, device)
        trainer.prepare_network(recipe.train.epochs)
        for image_size in options.sizes:
            compare(trainer, image_size, options.steps, options.trials)


if __name__ == "__main__":
    command_line.run(main)
