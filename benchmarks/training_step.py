"""FLOP/s of the training step, relative to the peak of plain matrix products.

python -m benchmarks.training_step [--widths 32 64] [--sizes 64 96 128] [--batch-size 64]
                                   [--seed-network]

A step is forward, loss, backward and optimizer of the recipe, in the precision that train chooses.
Its FLOPs are counted as train does: only convolutions and matrix products, including those of Muon.
The peak is the fastest of a few square matrix products of the same dtype, interleaved with the
steps.
"""

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from catdog import params
from catdog.model import networks
from catdog.model.devices import Device, pick_device
from catdog.params import Params
from catdog.training import optimizers
from catdog.training.flops import StepFlops
from tools import command_line, measure

CLASSES = 2
SEED_RECIPE = Path("recipes/seed.yaml")


class StepRunner:
    """A network and its optimizers, with the same step as train."""

    def __init__(self, recipe: Params, image_size: int, device: Device) -> None:
        self.device, self.settings = device, recipe.train
        network = networks.build(recipe.model, CLASSES, image_size).to(device.torch_device)
        self.network = network.to(memory_format=torch.channels_last).train()
        self.optimizers = optimizers.build_optimizers(recipe.optimizer, self.network)
        compiles = device.torch_device.type == "cuda"  # as train does
        self.forward = cast(nn.Module, torch.compile(network)) if compiles else network

    def step(self, inputs: Tensor, labels: Tensor) -> Tensor:
        """Train on one batch (N, 3, S, S) with labels (N,); return its mean loss."""
        self.network.zero_grad(set_to_none=True)
        with self.device.autocast():
            logits: Tensor = self.forward(inputs)
        smoothing = self.settings.label_smoothing
        loss = F.cross_entropy(logits.float(), labels, label_smoothing=smoothing)
        loss.backward()  # type: ignore[no-untyped-call]
        for optimizer in self.optimizers:
            optimizer.step()
        return loss.detach()


def with_width(recipe: Params, width: int) -> Params:
    """Return the recipe with a residual network of this width."""
    residual = recipe.model.residual.model_copy(update={"width": width})
    model = recipe.model.model_copy(update={"name": "residual", "residual": residual})
    return recipe.model_copy(update={"model": model})


def prepare_step(
    recipe: Params, image_size: int, batch_size: int, device: Device
) -> tuple[int, Callable[[], object]]:
    """Return the FLOPs of a step, and a function that runs it on a batch of random pixels."""
    inputs = torch.randn(batch_size, 3, image_size, image_size, device=device.torch_device)
    inputs = inputs.contiguous(memory_format=torch.channels_last)
    labels = torch.arange(batch_size, device=device.torch_device) % CLASSES
    flops = StepFlops(recipe, CLASSES).count(batch_size, image_size)
    return flops, partial(StepRunner(recipe, image_size, device).step, inputs, labels)


def prepare_matmul(side: int, device: Device) -> tuple[int, Callable[[], object]]:
    """Return the FLOPs of a product of two square matrices, and a function that computes it."""
    a, b = (torch.randn(side, side, device=device.torch_device, dtype=device.dtype) for _ in "ab")
    return 2 * side**3, partial(torch.matmul, a, b)


def compare(
    steps: dict[str, tuple[int, Callable[[], object]]],
    matmuls: dict[str, tuple[int, Callable[[], object]]],
    trials: int,
    device: Device,
) -> None:
    """Print FLOPs, seconds, FLOP/s and fraction of the peak of each step and matrix product."""
    work = {**matmuls, **steps}
    costs = measure.interleaved({name: run for name, (_, run) in work.items()}, trials, device)
    rate = {n: work[n][0] / measure.median_of(values).seconds for n, values in costs.items()}
    peak = max(rate[name] for name in matmuls)
    measure.show(
        f"peak: {peak / 1e9:,.0f} GFLOP/s; medians of {trials} trials",
        ("work", "GFLOP", "seconds min/median/max", "GFLOP/s", "of the peak"),
        [
            (
                name,
                f"{work[name][0] / 1e9:,.2f}",
                measure.min_median_max(costs[name], digits=3),
                f"{rate[name] / 1e9:,.1f}",
                f"{rate[name] / peak:.1%}",
            )
            for name in work
        ],
    )


def residual_steps(
    recipe: Params, widths: Iterable[int], sizes: Sequence[int], batch_size: int, device: Device
) -> dict[str, tuple[int, Callable[[], object]]]:
    """Return the FLOPs and the step for each width and size, by name."""
    return {
        f"residual, width {width}, {size} px, batch {batch_size}": prepare_step(
            with_width(recipe, width), size, batch_size, device
        )
        for width in widths
        for size in sizes
    }


def seed_step(device: Device) -> dict[str, tuple[int, Callable[[], object]]]:
    """Return the FLOPs and the step of the seed network with its own recipe, by name."""
    recipe = params.load(SEED_RECIPE)
    size, batch_size = recipe.train.image_size, recipe.train.batch_size
    name = f"seed, {size} px, batch {batch_size}"
    return {name: prepare_step(recipe, size, batch_size, device)}


def main() -> None:
    """Parse the command line, measure and print."""
    parser = command_line.parser(__doc__)
    add = parser.add_argument
    add("--recipe", type=Path, default=Path("recipes/real.yaml"))
    add("--widths", type=int, nargs="+", default=[32, 64], help="widths of the residual network")
    add("--sizes", type=int, nargs="+", default=[64, 96, 128], help="image sizes in pixels")
    add("--batch-size", type=int, default=64, help="photos per step (default: 64)")
    add(
        "--seed-network",
        action="store_true",
        help="also measure the notebook's network (268 million parameters)",
    )
    add("--matmuls", type=int, nargs="+", default=[1024, 2048, 4096], help="sides of the matrices")
    add("--trials", type=int, default=3, help="trials of each step and product (default: 3)")
    add("--precision", choices=["auto", "float32", "bfloat16"], default="auto")
    arguments = parser.parse_args()
    device = pick_device(arguments.precision)
    print(f"{measure.hardware(device)}, {torch.get_num_threads()} threads")
    recipe = params.load(arguments.recipe)
    matmuls = {f"matrices of {n} × {n}": prepare_matmul(n, device) for n in arguments.matmuls}
    steps = residual_steps(
        recipe, arguments.widths, arguments.sizes, arguments.batch_size, device
    ) | (seed_step(device) if arguments.seed_network else {})
    compare(steps, matmuls, arguments.trials, device)


if __name__ == "__main__":
    command_line.run(main)
