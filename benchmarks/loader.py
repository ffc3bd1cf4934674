"""Photos a second and core: this project's batches beside ImageFolder + DataLoader(num_workers=2).

python -m benchmarks.loader [--photos FOLDER] [--number 400] [--sizes 64 96 128] [--trials 5]

Three ways from the same photos to the same kind of batches, with the recipe's augmentation:

1. torchvision: ImageFolder decodes, its transforms augment photo by photo, in two worker processes;
2. packed: the same workers and transforms, but over photos decoded and shrunk ahead of time;
3. catdog: `batches.epoch` over the same packed photos, which augments in batches.

From 1 to 2 is the gain of decoding ahead of time, from 2 to 3 that of augmenting in batches. The
two multiply, so their shares are shares of the logarithm. Each way is divided by the cores it uses:
1 and 2 by their workers, 3 by the one helper thread that makes batches (who collects from them is
not counted). The CPU time of all processes is the second yardstick, and the one to go by where
something else keeps the machine busy. Decoding ahead of time is paid once, by the prepare stage;
its price is printed too.
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

from benchmarks import measure
from catdog import params
from catdog.model.devices import pick_device
from catdog.model.inputs import IMAGENET
from catdog.params import Augmentation
from catdog.preparation.photos import list_classes, open_photo, resize_to_square
from catdog.support.process_pool import usable_cores
from catdog.training import batches

WORKERS = 2
TORCHVISION, PACKED = "ImageFolder, 2 workers", "packed, 2 workers"
CATDOG = "catdog, 1 thread"


def torchvision_transforms(settings: Augmentation, image_size: int) -> list[Callable[[Any], Any]]:
    """Return torchvision's transforms that do to a PIL photo what `settings` asks for.

    They come in the seed's order (rotation, crop, mirror, colours) and end in a tensor normalized
    by ImageNet's mean and std. Beyond the edges of a rotated photo is black, whatever
    `settings.fill` says: torchvision can do no other.
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
    """Return the photos (N, S, S, 3) of a folder of class folders, and their labels (N,)."""
    classes = list_classes(folder).values()
    photos = [resize_to_square(open_photo(file), image_size) for files in classes for file in files]
    labels = [label for label, files in enumerate(classes) for _ in files]
    return np.stack(photos), np.array(labels)


def resident(photos: batches.Photos, image_size: int) -> npt.NDArray[np.uint8]:
    """Return all photos (N, S, S, 3) at the side that `photos` keeps for views of this size."""
    photos.set_size(image_size)
    (pixels,) = photos.batches(torch.arange(len(photos)), [slice(None)])
    return np.ascontiguousarray(pixels.permute(0, 2, 3, 1).numpy())


class PackedDataset(Dataset[tuple[Any, int]]):
    """Packed photos, each taken out, transformed by itself and given its label."""

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
class Setting:
    """What all ways have in common: the recipe's augmentation, its fill black, and the sizes."""

    augmentation: Augmentation
    image_size: int
    batch_size: int


def contenders(
    folder: Path, photos: batches.Photos, setting: Setting
) -> dict[str, Callable[[], Iterable[Any]]]:
    """Return by name what starts an epoch of batches of the photos, in each way.

    All ways shrink a photo to the side that `photos` keeps for this size, and draw views from that.
    """
    shrunk = resident(photos, setting.image_size)
    steps = torchvision_transforms(setting.augmentation, setting.image_size)
    shrink = transforms.Resize(shrunk.shape[1:3])
    files = ImageFolder(str(folder), transforms.Compose([shrink, *steps]))
    packed = PackedDataset(shrunk, photos.labels.numpy(), transforms.Compose(steps))

    def catdog() -> Iterable[batches.Batch]:
        return batches.epoch(
            photos,
            setting.augmentation,
            IMAGENET,
            image_size=setting.image_size,
            batch_size=setting.batch_size,
            seed=1,
            number=0,
        )

    return {
        TORCHVISION: _loader(files, setting.batch_size).__iter__,
        PACKED: _loader(packed, setting.batch_size).__iter__,
        CATDOG: catdog,
    }


def _loader(dataset: Dataset[Any], batch_size: int) -> DataLoader[Any]:
    # Workers that stay: their start is no part of what is measured.
    return DataLoader(
        dataset, batch_size, shuffle=True, num_workers=WORKERS, persistent_workers=True
    )


def exhaust(epoch: Callable[[], Iterable[Any]]) -> None:
    """Run through the batches of an epoch."""
    for _ in epoch():
        pass


def shares_of_gain(slow: float, middle: float, fast: float) -> tuple[float, float]:
    """Return which share of the way from `slow` to `fast` lies before and after `middle`.

    Measured in logarithms, since gains multiply: the shares sum to 1.
    """
    first = math.log(middle / slow) / math.log(fast / slow)
    return first, 1 - first


def compare(folder: Path, photos: batches.Photos, setting: Setting, trials: int) -> None:
    """Print the table of one size, and the two ratios that its gain consists of."""
    workers = min(WORKERS, usable_cores())
    used = {TORCHVISION: workers, PACKED: workers, CATDOG: 1}
    epochs = contenders(folder, photos, setting)
    runs = {name: partial(exhaust, epoch) for name, epoch in epochs.items()}
    costs = measure.interleaved(runs, trials)
    middle = {name: measure.median_of(values) for name, values in costs.items()}
    rate = {name: len(photos) / cost.seconds for name, cost in middle.items()}
    per_core = {name: rate[name] / used[name] for name in rate}
    per_cpu = {name: len(photos) / cost.cpu_seconds for name, cost in middle.items()}
    measure.show(
        f"{setting.image_size} px, batches of {setting.batch_size}",
        (
            "way",
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
                measure.spread(costs[name]),
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
    print(gain_in_words("core", *(per_core[name] for name in (TORCHVISION, PACKED, CATDOG))))
    print(gain_in_words("CPU second", *(per_cpu[name] for name in (TORCHVISION, PACKED, CATDOG))))


def gain_in_words(unit: str, slow: float, middle: float, fast: float) -> str:
    """Return one line on the two parts of a gain, from the photos per `unit` of each way."""
    ahead, batched = shares_of_gain(slow, middle, fast)
    return (
        f"{fast / slow:.1f} × per {unit} = {middle / slow:.1f} × by decoding ahead of time "
        f"({ahead:.0%} of the gain) times {fast / middle:.1f} × by augmenting in batches "
        f"({batched:.0%})"
    )


def main() -> None:
    """Measure on the photos given, else on drawn ones."""
    parser = measure.parser(__doc__)
    parser.add_argument("--photos", type=Path, help="a folder of class folders (default: drawn)")
    parser.add_argument("--number", type=int, default=400, help="photos")
    parser.add_argument("--sizes", type=int, nargs="+", default=[64, 96, 128], help="in pixels")
    parser.add_argument("--batch-size", type=int, default=64, help="photos a batch")
    parser.add_argument("--trials", type=int, default=5, help="epochs in each way")
    parser.add_argument("--recipe", type=Path, default=Path("recipes/real.yaml"))
    arguments = parser.parse_args()
    recipe = params.load(arguments.recipe)
    augmentation = recipe.augmentation.model_copy(update={"fill": "black"})
    cpu = pick_device("float32", "cpu")  # augmentation runs in float32
    print(measure.hardware(cpu))
    with measure.photo_folder(arguments.photos, arguments.number) as folder:
        start = time.perf_counter()
        side = max(recipe.prepare.image_size, *arguments.sizes)
        photos = batches.Photos(*pack(folder, side), cpu.torch_device)
        took = time.perf_counter() - start
        print(f"decoded and shrunk to {side} px on one core: {len(photos) / took:,.0f} photos/s")
        for size in arguments.sizes:
            setting = Setting(augmentation, size, arguments.batch_size)
            compare(folder, photos, setting, arguments.trials)


if __name__ == "__main__":
    measure.start(main)
