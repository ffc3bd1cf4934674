"""The seed's recipe as its notebook ran it, beside the same recipe here: time and loss curve.

python -m benchmarks.seed [--photos FOLDER] [--number 200] [--epochs 4] [--seeds 2]
                          [--hidden-width 64] [--timed 30] [--trials 3]

The notebook's way: ImageFolder, torchvision's transforms photo by photo, a DataLoader without
workers, batches of 10, float32, log-softmax and NLL loss, plain SGD, tensors as torch lays them
out; run by today's torch. Here: `batches.epoch`, `networks.build`, `optim.build_optimizers`,
channels-last. Both start from the same weights and see the same photos, each in its own order.

Time is measured with the whole network, epochs of both in turns. The curves (mean training loss an
epoch) may be compared with a smaller first linear layer, which takes nearly all the time of a step
and computes the same in both; --hidden-width 8192 is the whole network. Yardstick is the spread
between seeds: means over n seeds with a spread s each differ by s · √(2/n) from chance alone.
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

from benchmarks import measure
from benchmarks.loader import pack, torchvision_transforms
from benchmarks.step import CLASSES, Learner
from catdog import params
from catdog.model import networks
from catdog.model.devices import Device, pick_device
from catdog.model.inputs import IMAGENET
from catdog.params import Params
from catdog.training import batches

RECIPE = Path("recipes/seed.yaml")
Curve = list[float]


class Training(Protocol):
    """Either way to train."""

    def run_epoch(self) -> float:
        """Train one epoch; return the mean training loss."""
        ...


class Notebook:
    """The training as the notebook wrote it."""

    def __init__(self, folder: Path, recipe: Params, seed: int) -> None:
        size = recipe.train.image_size
        # The photos were squished to this size first.
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
class Here:
    """The same recipe with this project's parts."""

    photos: batches.Photos
    recipe: Params
    device: Device
    seed: int
    epoch: int = 0
    learner: Learner = field(init=False)

    def __post_init__(self) -> None:
        """Start from the same weights as the notebook's training with this seed."""
        torch.manual_seed(self.seed)
        self.learner = Learner(self.recipe, self.recipe.train.image_size, self.device)

    def run_epoch(self) -> float:
        """Train one epoch; return the mean training loss."""
        total, count = torch.zeros((), device=self.device.torch_device), 0
        for batch in batches.epoch(
            self.photos,
            self.recipe.augmentation,
            IMAGENET,
            image_size=self.recipe.train.image_size,
            batch_size=self.recipe.train.batch_size,
            seed=self.seed,
            number=self.epoch,
        ):
            loss = self.learner.step(batch.inputs, batch.labels)
            total, count = total + loss * len(batch.labels), count + len(batch.labels)
        self.epoch += 1
        return total.item() / count


def with_hidden_width(recipe: Params, hidden_width: int) -> Params:
    """Return the recipe with a first linear layer of this width."""
    seed = recipe.model.seed.model_copy(update={"hidden_width": hidden_width})
    model = recipe.model.model_copy(update={"seed": seed})
    return recipe.model_copy(update={"model": model})


def with_image_size(recipe: Params, size: int) -> Params:
    """Return the recipe at this image size."""
    sides = ("start_image_size", "image_size", "eval_image_size")
    train = recipe.train.model_copy(update=dict.fromkeys(sides, size))
    return recipe.model_copy(update={"train": train})


def both(folder: Path, recipe: Params, device: Device, seed: int) -> dict[str, Training]:
    """Return a training of each kind on the photos of a folder."""
    photos = batches.Photos(*pack(folder, recipe.train.image_size), device.torch_device)
    return {
        "notebook": Notebook(folder, recipe, seed),
        "here": Here(photos, recipe, device, seed),
    }


def compare_time(folder: Path, recipe: Params, device: Device, trials: int) -> None:
    """Print the seconds an epoch of each, and their ratio."""
    trainings = both(folder, recipe, device, seed=1)
    number = len(ImageFolder(str(folder)))
    runs = {name: training.run_epoch for name, training in trainings.items()}
    costs = measure.interleaved(runs, trials, device)
    seconds = {name: measure.median_of(values).seconds for name, values in costs.items()}
    rows = [
        (
            name,
            measure.spread(costs[name]),
            f"{number / seconds[name]:,.1f}",
            f"{seconds['notebook'] / seconds[name]:.2f} ×",
        )
        for name in runs
    ]
    hidden = recipe.model.seed.hidden_width
    title = f"an epoch of {number:,} photos, {trials} trials, first linear layer of {hidden:,}"
    measure.show(title, ("way", "seconds min/median/max", "photos/s", "as fast as it was"), rows)


def curves(
    folder: Path, recipe: Params, device: Device, epochs: int, seeds: int
) -> dict[str, list[Curve]]:
    """Return by way the mean training loss of each epoch, for each seed."""
    found: dict[str, list[Curve]] = {}
    for seed in range(1, seeds + 1):
        for name, training in both(folder, recipe, device, seed).items():
            found.setdefault(name, []).append([training.run_epoch() for _ in range(epochs)])
    return found


def noise_of(groups: Sequence[Sequence[Curve]]) -> float:
    """Return by how much two means over the seeds differ from chance alone, one standard deviation.

    That is s · √(2/n) of n seeds, s² being the variance between them, averaged over groups and
    epochs: each alone has too few seeds to tell.
    """
    seeds = len(groups[0])
    spread = fmean(variance(values) for curves in groups for values in zip(*curves, strict=True))
    return math.sqrt(spread * 2 / seeds)


def compare_curves(found: dict[str, list[Curve]]) -> None:
    """Print both curves, their difference, and the difference in units of the noise."""
    notebook, here = (
        [fmean(losses) for losses in zip(*found[name], strict=True)]
        for name in ("notebook", "here")
    )
    noise = noise_of(list(found.values()))
    differences = [ours - theirs for ours, theirs in zip(here, notebook, strict=True)]
    measure.show(
        f"training loss, mean of {len(found['here'])} seeds",
        ("epoch", "notebook", "here", "difference", "in units of the noise"),
        [
            (str(epoch), f"{old:.4f}", f"{new:.4f}", f"{gap:+.4f}", f"{gap / noise:+.1f}")
            for epoch, (old, new, gap) in enumerate(
                zip(notebook, here, differences, strict=True), start=1
            )
        ],
    )
    root_mean_square = math.sqrt(fmean(gap**2 for gap in differences))
    print(
        f"the curves differ by {root_mean_square:.4f} (root mean square), "
        f"{root_mean_square / noise:.1f} times the noise of {noise:.4f}; "
        f"{'within' if root_mean_square <= 2 * noise else 'BEYOND'} twice the noise"
    )


def main() -> None:
    """Measure time, then curves, on the photos given, else on drawn ones."""
    parser = measure.parser(__doc__)
    parser.add_argument("--photos", type=Path, help="a folder of class folders (default: drawn)")
    parser.add_argument("--number", type=int, default=200, help="photos of the curves")
    parser.add_argument("--epochs", type=int, default=4, help="of each curve")
    parser.add_argument("--seeds", type=int, default=2, help="curves of each way, at least 2")
    parser.add_argument("--hidden-width", type=int, default=64, help="of the curves' network")
    parser.add_argument("--timed", type=int, default=30, help="photos of an epoch that is timed")
    parser.add_argument("--trials", type=int, default=3, help="timed epochs of each way")
    parser.add_argument("--image-size", type=int, default=128, help="in pixels")
    parser.add_argument("--recipe", type=Path, default=RECIPE)
    arguments = parser.parse_args()
    if arguments.seeds < 2:
        parser.error("--seeds must be at least 2: their spread is the yardstick")
    recipe = with_image_size(params.load(arguments.recipe), arguments.image_size)
    device = pick_device(recipe.train.precision, "cpu")
    print(f"{measure.hardware(device)}, {torch.get_num_threads()} threads")
    with measure.photo_folder(arguments.photos, arguments.timed) as folder:
        compare_time(folder, recipe, device, arguments.trials)
    with measure.photo_folder(arguments.photos, arguments.number) as folder:
        small = with_hidden_width(recipe, arguments.hidden_width)
        compare_curves(curves(folder, small, device, arguments.epochs, arguments.seeds))


if __name__ == "__main__":
    measure.start(main)
