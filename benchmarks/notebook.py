"""The seed recipe as the 2020 notebook trained it, and as this project does: time and loss curve.

python -m benchmarks.notebook [--photos FOLDER] [--number 200] [--epochs 4] [--seeds 2]
                          [--hidden-width 64] [--timed 30] [--trials 3]

The notebook: ImageFolder, torchvision's transforms for each photo, a DataLoader without workers,
batches of 10, float32, log-softmax and NLL loss, plain SGD, contiguous memory format; run by the
installed torch. catdog: `batches.epoch_batches`, `networks.build`, `optimizers.build_optimizers`,
channels-last. Both start from the same weights and see the same photos, in different order.

Times are of the full network, with interleaved epochs of both. The curves (mean training loss per
epoch) are compared with a smaller first linear layer by default, since that layer takes nearly all
the time of a step and is the same in both; --hidden-width 8192 is the full network. The difference
of the curves is compared with the noise: two means over n seeds with standard deviation s differ by
s · √(2/n) by chance.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean, variance
from typing import Protocol

import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader
from torchvision import transforms
from torchvision.datasets import ImageFolder

from benchmarks.data_loading import pack, torchvision_transforms
from benchmarks.training_step import CLASSES, StepRunner
from catdog import params
from catdog.model import networks
from catdog.model.devices import Device, pick_device
from catdog.model.normalization import IMAGENET
from catdog.params import Params
from catdog.training import batches
from catdog.training.photo_store import PhotoStore
from tools import command_line, measure
from tools.photo_folder import photo_folder

RECIPE = Path("recipes/seed.yaml")
Curve = list[float]


class Training(Protocol):
    """A training run by the notebook or by catdog."""

    def run_epoch(self) -> float:
        """Train one epoch; return the mean training loss."""
        ...


class Notebook:
    """The training loop of the notebook."""

    def __init__(self, folder: Path, recipe: Params, seed: int) -> None:
        size = recipe.train.image_size
        # The notebook resized its photos to this size, without keeping the aspect ratio.
        steps = [
            transforms.Resize((size, size)),
            *torchvision_transforms(recipe.augmentation, size),
        ]
        photos = ImageFolder(str(folder), transforms.Compose(steps))
        self.loader = DataLoader(photos, recipe.train.batch_size, shuffle=True)
        torch.manual_seed(seed)
        logits = networks.build(recipe.model, CLASSES, size)
        self.network = nn.Sequential(logits, nn.LogSoftmax(dim=1)).train()
        self.optimizer = torch.optim.SGD(self.network.parameters(), lr=recipe.optimizer.lr)

    def run_epoch(self) -> float:
        """Train one epoch; return the mean training loss."""
        total, count = 0.0, 0
        for inputs, labels in self.loader:
            self.optimizer.zero_grad()
            loss = F.nll_loss(self.network(inputs), labels)
            loss.backward()  # type: ignore[no-untyped-call]
            self.optimizer.step()
            total, count = total + loss.item() * len(labels), count + len(labels)
        return total / count


@dataclass
class Catdog:
    """The same recipe, trained with this project's modules."""

    photos: PhotoStore
    recipe: Params
    device: Device
    seed: int
    epoch: int = 0
    runner: StepRunner = field(init=False)

    def __post_init__(self) -> None:
        """Build the network with the same initial weights as the notebook's with this seed."""
        torch.manual_seed(self.seed)
        self.runner = StepRunner(self.recipe, self.recipe.train.image_size, self.device)

    def run_epoch(self) -> float:
        """Train one epoch; return the mean training loss."""
        total, count = torch.zeros((), device=self.device.torch_device), 0
        for batch in batches.epoch_batches(
            self.photos,
            self.recipe.augmentation,
            IMAGENET,
            image_size=self.recipe.train.image_size,
            batch_size=self.recipe.train.batch_size,
            seed=self.seed,
            epoch=self.epoch,
        ):
            loss = self.runner.step(batch.inputs, batch.labels)
            total, count = total + loss * len(batch.labels), count + len(batch.labels)
        self.epoch += 1
        return total.item() / count


def with_hidden_width(recipe: Params, hidden_width: int) -> Params:
    """Return the recipe with this width of the first linear layer."""
    seed = recipe.model.seed.model_copy(update={"hidden_width": hidden_width})
    model = recipe.model.model_copy(update={"seed": seed})
    return recipe.model_copy(update={"model": model})


def with_image_size(recipe: Params, size: int) -> Params:
    """Return the recipe with this image size in all epochs."""
    sides = ("start_image_size", "image_size", "eval_image_size")
    train = recipe.train.model_copy(update=dict.fromkeys(sides, size))
    return recipe.model_copy(update={"train": train})


def build_trainings(folder: Path, recipe: Params, device: Device, seed: int) -> dict[str, Training]:
    """Return a training run by the notebook and one by catdog, on the photos of a folder."""
    photos = PhotoStore(*pack(folder, recipe.train.image_size), device.torch_device)
    return {
        "notebook": Notebook(folder, recipe, seed),
        "catdog": Catdog(photos, recipe, device, seed),
    }


def compare_time(folder: Path, recipe: Params, device: Device, trials: int) -> None:
    """Print the seconds per epoch of both, and their ratio."""
    trainings = build_trainings(folder, recipe, device, seed=1)
    number = len(ImageFolder(str(folder)))
    runs = {name: training.run_epoch for name, training in trainings.items()}
    costs = measure.interleaved(runs, trials, device)
    seconds = {name: measure.median_of(values).seconds for name, values in costs.items()}
    rows = [
        (
            name,
            measure.min_median_max(costs[name]),
            f"{number / seconds[name]:,.1f}",
            f"{seconds['notebook'] / seconds[name]:.2f} ×",
        )
        for name in runs
    ]
    hidden = recipe.model.seed.hidden_width
    title = f"epochs of {number:,} photos, {trials} trials, first linear layer of {hidden:,}"
    measure.show(title, ("training", "seconds min/median/max", "photos/s", "speed-up"), rows)


def curves(
    folder: Path, recipe: Params, device: Device, epochs: int, seeds: int
) -> dict[str, list[Curve]]:
    """Return the curves of each seed, by the name of the training loop."""
    found: dict[str, list[Curve]] = {}
    for seed in range(1, seeds + 1):
        for name, training in build_trainings(folder, recipe, device, seed).items():
            found.setdefault(name, []).append([training.run_epoch() for _ in range(epochs)])
    return found


def noise_of(groups: Sequence[Sequence[Curve]]) -> float:
    """Return the standard deviation of the difference of two means over the seeds.

    It is s · √(2/n) for n seeds, with s² the variance between seeds, averaged over groups and
    epochs, since each of them has too few seeds for an estimate.
    """
    seeds = len(groups[0])
    spread = fmean(variance(values) for curves in groups for values in zip(*curves, strict=True))
    return math.sqrt(spread * 2 / seeds)


def compare_curves(found: dict[str, list[Curve]]) -> None:
    """Print both curves and their difference, also in units of the noise."""
    notebook, catdog = (
        [fmean(losses) for losses in zip(*found[name], strict=True)]
        for name in ("notebook", "catdog")
    )
    noise = noise_of(list(found.values()))
    differences = [new - old for new, old in zip(catdog, notebook, strict=True)]
    measure.show(
        f"training loss, mean of {len(found['catdog'])} seeds",
        ("epoch", "notebook", "catdog", "difference", "in units of the noise"),
        [
            (str(epoch), f"{old:.4f}", f"{new:.4f}", f"{gap:+.4f}", f"{gap / noise:+.1f}")
            for epoch, (old, new, gap) in enumerate(
                zip(notebook, catdog, differences, strict=True), start=1
            )
        ],
    )
    root_mean_square = math.sqrt(fmean(gap**2 for gap in differences))
    print(
        f"the curves differ by {root_mean_square:.4f} (root mean square), "
        f"{root_mean_square / noise:.1f} times the noise of {noise:.4f}; "
        f"{'at most' if root_mean_square <= 2 * noise else 'MORE THAN'} twice the noise"
    )


def main() -> None:
    """Measure times, then curves, with the given photos or else with drawn ones."""
    parser = command_line.parser(__doc__)
    add = parser.add_argument
    add("--photos", type=Path, help="folder with a folder per class (default: drawn photos)")
    add("--number", type=int, default=200, help="photos per epoch of the curves")
    add("--epochs", type=int, default=4, help="epochs per curve")
    add("--seeds", type=int, default=2, help="curves per training, at least 2")
    add(
        "--hidden-width",
        type=int,
        default=64,
        help="width of the first linear layer for the curves",
    )
    add("--timed", type=int, default=30, help="photos per timed epoch")
    add("--trials", type=int, default=3, help="timed epochs per training")
    add("--image-size", type=int, default=128, help="image size in pixels")
    add("--recipe", type=Path, default=RECIPE)
    arguments = parser.parse_args()
    if arguments.seeds < 2:
        parser.error("--seeds: at least 2 are required to estimate the noise")
    recipe = with_image_size(params.load(arguments.recipe), arguments.image_size)
    device = pick_device(recipe.train.precision, "cpu")
    print(f"{measure.hardware(device)}, {torch.get_num_threads()} threads")
    with photo_folder(arguments.photos, arguments.timed) as folder:
        compare_time(folder, recipe, device, arguments.trials)
    with photo_folder(arguments.photos, arguments.number) as folder:
        small = with_hidden_width(recipe, arguments.hidden_width)
        compare_curves(curves(folder, small, device, arguments.epochs, arguments.seeds))


if __name__ == "__main__":
    command_line.run(main)
