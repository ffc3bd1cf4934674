"""Photos per second and core: catdog compared with ImageFolder + DataLoader(num_workers=2).

python -m benchmarks.data_loading [--photos FOLDER] [--number 400] [--sizes 64 96 128] [--trials 5]

Three pipelines make the same kind of batches from the same photos, with the recipe's augmentation:

1. torchvision: ImageFolder decodes and its transforms augment each photo, in two worker processes;
2. pre-decoded: the same workers and transforms, on photos that are already decoded and resized;
3. catdog: `batches.epoch_batches` on the same decoded photos, which augments whole batches.

The gain from 1 to 2 is that of pre-decoding, from 2 to 3 that of augmenting in batches. The two
factors multiply, so their fractions are fractions of the logarithm. Each rate is divided by the
number of cores: the workers of 1 and 2, the one thread that makes batches in 3 (the consumer of the
batches is not counted). The rate per CPU second of all processes is printed too; prefer it on a
machine under load. Pre-decoding is done once, in the prepare stage; its rate is printed as well.
"""

import math
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms
from torchvision.datasets import ImageFolder

from catdog import params
from catdog.model.devices import pick_device
from catdog.model.normalization import IMAGENET
from catdog.params import Augmentation
from catdog.preparation.class_folders import list_classes
from catdog.preparation.photos import open_photo, resize_to_square
from catdog.support.process_pool import usable_cores
from catdog.training import batches
from catdog.training.photo_store import PhotoStore
from tools import command_line, measure
from tools.photo_folder import photo_folder

WORKERS = 2
TORCHVISION, PREDECODED = "ImageFolder, 2 workers", "pre-decoded, 2 workers"
CATDOG = "catdog, 1 thread"


def torchvision_transforms(settings: Augmentation, image_size: int) -> list[Callable[[Any], Any]]:
    """Return torchvision transforms for PIL photos that are equivalent to `settings`.

    They are in the order of the 2020 notebook (rotation, crop, flip, colours) and end with a tensor
    normalized by ImageNet's mean and std. The corners of a rotated photo are black, whatever
    `settings.fill` is: torchvision can only fill with a colour (pytorch/vision#400).
    """
    colours = (settings.brightness, settings.contrast, settings.saturation)
    return [
        transforms.RandomRotation(
            settings.rotation, interpolation=transforms.InterpolationMode.BILINEAR
        ),
        transforms.RandomResizedCrop(
            image_size,
            scale=(settings.crop_scale_min, settings.crop_scale_max),
            ratio=(1 / settings.crop_aspect, settings.crop_aspect),
        ),
        transforms.RandomHorizontalFlip(settings.flip),
        *([transforms.ColorJitter(*colours)] if any(colours) else []),
        transforms.ToTensor(),
        transforms.Normalize(IMAGENET.mean, IMAGENET.std),
    ]


def pack(folder: Path, image_size: int) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    """Return the photos (N, S, S, 3) of a folder with a folder per class, and their labels (N,)."""
    classes = list_classes(folder).values()
    photos = [resize_to_square(open_photo(file), image_size) for files in classes for file in files]
    labels = [label for label, files in enumerate(classes) for _ in files]
    return np.stack(photos), np.array(labels)


def resident(photos: PhotoStore, image_size: int) -> npt.NDArray[np.uint8]:
    """Return all photos (N, S, S, 3), S being the size that `photos` keeps for this image size."""
    photos.set_size(image_size)
    (pixels,) = photos.batches(torch.arange(len(photos)), [slice(None)])
    return np.ascontiguousarray(pixels.permute(0, 2, 3, 1).numpy())


class PredecodedDataset(Dataset[tuple[Any, int]]):
    """Decoded photos, transformed one at a time, and their labels."""

    def __init__(
        self,
        photos: npt.NDArray[np.uint8],
        labels: npt.NDArray[np.int64],
        transform: Callable[[Any], Any],
    ) -> None:
        self.photos, self.labels, self.transform = photos, labels, transform

    def __len__(self) -> int:
        """Return the number of photos."""
        return len(self.photos)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        """Return the transformed photo at `index`, and its label."""
        return self.transform(Image.fromarray(self.photos[index])), int(self.labels[index])


@dataclass(frozen=True)
class Workload:
    """What all pipelines share: the recipe's augmentation with black fill, and the sizes."""

    augmentation: Augmentation
    image_size: int
    batch_size: int


def pipelines(
    folder: Path, photos: PhotoStore, workload: Workload
) -> dict[str, Callable[[], Iterable[Any]]]:
    """Return, by the name of the pipeline, a function that starts an epoch of batches.

    All of them augment photos of the size that `photos` keeps for this image size.
    """
    shrunk = resident(photos, workload.image_size)
    steps = torchvision_transforms(workload.augmentation, workload.image_size)
    shrink = transforms.Resize(shrunk.shape[1:3])
    files = ImageFolder(str(folder), transforms.Compose([shrink, *steps]))
    predecoded = PredecodedDataset(shrunk, photos.labels.numpy(), transforms.Compose(steps))

    def catdog() -> Iterable[batches.Batch]:
        return batches.epoch_batches(
            photos,
            workload.augmentation,
            IMAGENET,
            image_size=workload.image_size,
            batch_size=workload.batch_size,
            seed=1,
            epoch=0,
        )

    return {
        TORCHVISION: _loader(files, workload.batch_size).__iter__,
        PREDECODED: _loader(predecoded, workload.batch_size).__iter__,
        CATDOG: catdog,
    }


def _loader(dataset: Dataset[Any], batch_size: int) -> DataLoader[Any]:
    # Persistent workers: starting them is not part of the measurement.
    return DataLoader(
        dataset, batch_size, shuffle=True, num_workers=WORKERS, persistent_workers=True
    )


def iterate_epoch(epoch: Callable[[], Iterable[Any]]) -> None:
    """Iterate over the batches of an epoch."""
    for _ in epoch():
        pass


def fractions_of_gain(slow: float, middle: float, fast: float) -> tuple[float, float]:
    """Return the fractions of the gain from `slow` to `fast` before and after `middle`.

    They are fractions of the logarithm, since gains multiply, and sum to 1.
    """
    first = math.log(middle / slow) / math.log(fast / slow)
    return first, 1 - first


def compare(folder: Path, photos: PhotoStore, workload: Workload, trials: int) -> None:
    """Print the table of one image size, and the two factors of its gain."""
    workers = min(WORKERS, usable_cores())
    used = {TORCHVISION: workers, PREDECODED: workers, CATDOG: 1}
    epochs = pipelines(folder, photos, workload)
    runs = {name: partial(iterate_epoch, epoch) for name, epoch in epochs.items()}
    costs = measure.interleaved(runs, trials)
    middle = {name: measure.median_of(values) for name, values in costs.items()}
    rate = {name: len(photos) / cost.seconds for name, cost in middle.items()}
    per_core = {name: rate[name] / used[name] for name in rate}
    per_cpu = {name: len(photos) / cost.cpu_seconds for name, cost in middle.items()}
    measure.show(
        f"{workload.image_size} px, batches of {workload.batch_size}",
        (
            "pipeline",
            "seconds min/median/max",
            "photos/s",
            "cores",
            "per core",
            "ratio",
            "per CPU second",
            "ratio",
        ),
        [
            (
                name,
                measure.min_median_max(costs[name]),
                f"{rate[name]:,.0f}",
                str(used[name]),
                f"{per_core[name]:,.0f}",
                f"{per_core[name] / per_core[TORCHVISION]:.1f} ×",
                f"{per_cpu[name]:,.0f}",
                f"{per_cpu[name] / per_cpu[TORCHVISION]:.1f} ×",
            )
            for name in runs
        ],
    )
    print(gain_line("core", *(per_core[name] for name in (TORCHVISION, PREDECODED, CATDOG))))
    print(gain_line("CPU second", *(per_cpu[name] for name in (TORCHVISION, PREDECODED, CATDOG))))


def gain_line(unit: str, slow: float, middle: float, fast: float) -> str:
    """Return a line with the two factors of a gain; the rates are photos per `unit`."""
    decoded, batched = fractions_of_gain(slow, middle, fast)
    return (
        f"{fast / slow:.1f} × per {unit} = {middle / slow:.1f} × by pre-decoding "
        f"({decoded:.0%} of the gain) times {fast / middle:.1f} × by augmenting in batches "
        f"({batched:.0%})"
    )


def main() -> None:
    """Measure with the given photos, or else with drawn ones."""
    parser = command_line.parser(__doc__)
    add = parser.add_argument
    add("--photos", type=Path, help="folder with a folder per class (default: drawn photos)")
    add("--number", type=int, default=400, help="number of photos (default: 400)")
    add("--sizes", type=int, nargs="+", default=[64, 96, 128], help="image sizes in pixels")
    add("--batch-size", type=int, default=64, help="photos per batch (default: 64)")
    add("--trials", type=int, default=5, help="epochs per pipeline (default: 5)")
    add("--recipe", type=Path, default=Path("recipes/real.yaml"))
    arguments = parser.parse_args()
    recipe = params.load(arguments.recipe)
    augmentation = recipe.augmentation.model_copy(update={"fill": "black"})
    cpu = pick_device("float32", "cpu")  # the precision of augmentation
    print(measure.hardware(cpu))
    with photo_folder(arguments.photos, arguments.number) as folder:
        start = time.perf_counter()
        side = max(recipe.prepare.image_size, *arguments.sizes)
        photos = PhotoStore(*pack(folder, side), cpu.torch_device)
        took = time.perf_counter() - start
        print(f"decoding and resizing to {side} px on one core: {len(photos) / took:,.0f} photos/s")
        for size in arguments.sizes:
            workload = Workload(augmentation, size, arguments.batch_size)
            compare(folder, photos, workload, arguments.trials)


if __name__ == "__main__":
    command_line.run(main)
