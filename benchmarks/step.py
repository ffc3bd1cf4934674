"""The training step's share of the peak: what plain matrix products reach on the same machine.

python -m benchmarks.step [--widths 32 64] [--sizes 64 96 128] [--batch-size 64] [--seed-network]

A step is forward, loss, backward and optimizer by the recipe, in the arithmetic that train picks.
Its FLOPs are those that train counts: convolutions and matrix products, Muon's too, nothing else.
The peak is the best of square matrix products of a few sizes in the same type, measured in turns
with the steps.
"""

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks import measure
from catdog import params
from catdog.model import networks
from catdog.model.devices import Device, pick_device
from catdog.params import Params
from catdog.training import optimizers
from catdog.training.flops import StepCost

CLASSES = 2
SEED_RECIPE = Path("recipes/seed.yaml")


class Learner:
    """A network, its optimizers, and the step that train takes with them."""

    def __init__(self, recipe: Params, image_size: int, device: Device) -> None:
        self.device, self.settings = device, recipe.train
        network = networks.build(recipe.model, CLASSES, image_size).to(device.torch_device)
        self.network = network.to(memory_format=torch.channels_last).train()
        self.optimizers = optimizers.build_optimizers(recipe.optimizer, self.network)
        compiles = device.torch_device.type == "cuda"  # as train does
        self.forward = cast(nn.Module, torch.compile(network)) if compiles else network

    def step(self, inputs: Tensor, labels: Tensor) -> Tensor:
        """Train on one batch (N, 3, S, S) of labels (N,); return its mean loss."""
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
    """Return a step's FLOPs, and the step itself on a batch of random pixels."""
    inputs = torch.randn(batch_size, 3, image_size, image_size, device=device.torch_device)
    inputs = inputs.contiguous(memory_format=torch.channels_last)
    labels = torch.arange(batch_size, device=device.torch_device) % CLASSES
    flops = StepCost(recipe, CLASSES).of(batch_size, image_size)
    return flops, partial(Learner(recipe, image_size, device).step, inputs, labels)


def prepare_matmul(side: int, device: Device) -> tuple[int, Callable[[], object]]:
    """Return the FLOPs of a product of two square matrices, and what computes it."""
    a, b = (torch.randn(side, side, device=device.torch_device, dtype=device.dtype) for _ in "ab")
    return 2 * side**3, partial(torch.matmul, a, b)


def compare(
    steps: dict[str, tuple[int, Callable[[], object]]],
    matmuls: dict[str, tuple[int, Callable[[], object]]],
    trials: int,
    device: Device,
) -> None:
    """Print FLOPs, seconds, rate and share of the peak of each step and each matrix product."""
    work = {**matmuls, **steps}
    costs = measure.interleaved({name: run for name, (_, run) in work.items()}, trials, device)
    rate = {n: work[n][0] / measure.median_of(values).seconds for n, values in costs.items()}
    peak = max(rate[name] for name in matmuls)
    measure.show(
        f"of the peak, {peak / 1e9:,.0f} GFLOP/s; median of {trials} trials",
        ("what", "GFLOP", "seconds min/median/max", "GFLOP/s", "share of the peak"),
        [
            (
                name,
                f"{work[name][0] / 1e9:,.2f}",
                measure.spread(costs[name], digits=3),
                f"{rate[name] / 1e9:,.1f}",
                f"{rate[name] / peak:.1%}",
            )
            for name in work
        ],
    )


def residual_steps(
    recipe: Params, widths: Iterable[int], sizes: Sequence[int], batch_size: int, device: Device
) -> dict[str, tuple[int, Callable[[], object]]]:
    """Return FLOPs and step by name, for each width and size."""
    return {
        f"residual, width {width}, {size} px, batch {batch_size}": prepare_step(
            with_width(recipe, width), size, batch_size, device
        )
        for width in widths
        for size in sizes
    }


def seed_step(device: Device) -> dict[str, tuple[int, Callable[[], object]]]:
    """Return FLOPs and step of the seed's network, as its recipe has them."""
    recipe = params.load(SEED_RECIPE)
    size, batch_size = recipe.train.image_size, recipe.train.batch_size
    name = f"seed, {size} px, batch {batch_size}"
    return {name: prepare_step(recipe, size, batch_size, device)}


def main() -> None:
    """Measure the networks and sizes that are asked for."""
    parser = measure.parser(__doc__)
    parser.add_argument("--recipe", type=Path, default=Path("recipes/real.yaml"))
    parser.add_argument("--widths", type=int, nargs="+", default=[32, 64], help="of the residual")
    parser.add_argument("--sizes", type=int, nargs="+", default=[64, 96, 128], help="in pixels")
    parser.add_argument("--batch-size", type=int, default=64, help="photos a step")
    parser.add_argument("--seed-network", action="store_true", help="268 million weights more")
    parser.add_argument("--matmuls", type=int, nargs="+", default=[1024, 2048, 4096], help="sides")
    parser.add_argument("--trials", type=int, default=3, help="steps of each kind")
    parser.add_argument("--precision", choices=["auto", "float32", "bfloat16"], default="auto")
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
    measure.start(main)
