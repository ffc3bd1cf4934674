"""What the notebook's two mistakes of evaluation do to its figures.

python -m studies.mistakes [REVISION...] [--draws 10]

It augmented the test photos as it did the training photos, and it evaluated with gradients on. For
the model of each revision (a commit, branch, tag or experiment; HEAD if none is given): the
accuracy on its test photos as they are, and as the training's augmentation shows them, each time
drawn anew; then what autograd keeps and takes while it judges, for which nothing is ever asked.
"""

import argparse
import statistics
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from catdog import params
from catdog.dataset import splits
from catdog.dataset.splits import Split
from catdog.experiments import revisions
from catdog.model import inference, saved
from catdog.model.inference import BATCH_SIZE, TrainedModel
from catdog.model.inputs import to_inputs
from catdog.params import Augmentation
from catdog.training import augmentation, batches
from tools import command_line, measure

VIEWS = 7  # purpose of the seed, beside those of train.py: no training draws the same views


class Case(NamedTuple):
    """A trained model, the photos that judge it, and how its training photos were augmented."""

    model: TrainedModel
    split: Split
    augmentation: Augmentation


def case_of(revision: str) -> Case:
    """Return the case of a revision, fetched through DVC; CatdogError if it cannot be had."""
    commit = revisions.resolve(revision)
    with tempfile.TemporaryDirectory() as name:
        file = Path(name) / "params.yaml"
        file.write_text(revisions.read(commit, "params.yaml"), encoding="utf-8")
        settings = params.load(file)
    split = splits.read_split(revisions.fetch(commit, "data/prepared"), "test")
    return Case(saved.load(revisions.fetch(commit, "models")), split, settings.augmentation)


def accuracy(case: Case) -> float:
    """Return the share of the test photos that the model judges right, as they are."""
    return float((case.model.logits(case.split.photos).argmax(1) == case.split.labels).mean())


def accuracy_augmented(case: Case, draw: int) -> float:
    """Return the share that it judges right of random views of the same photos."""
    card, split = case.model.card, case.split
    photos = batches.PhotoStore(split.photos, split.labels, case.model.device.torch_device)
    photos.set_size(card.image_size)
    views = augmentation.draw_transforms(
        case.augmentation, len(photos), batches.make_generator(draw, VIEWS)
    )
    parts = [slice(at, at + BATCH_SIZE) for at in range(0, len(photos), BATCH_SIZE)]
    right = 0
    case.model.network.eval()
    with torch.inference_mode():
        every = torch.arange(len(photos))
        for part, pixels in zip(parts, photos.batches(every, parts), strict=True):
            seen = views[part].to(pixels.device)
            fill = case.augmentation.fill
            inputs = augmentation.apply_transforms(
                pixels, seen, card.image_size, fill, card.mean, card.std
            )
            logits = inference.forward(case.model.network, inputs, card.flip, case.model.device)
            right += int((logits.argmax(1) == photos.labels[part]).sum())
    return right / len(photos)


def forward(case: Case, gradients: bool, number: int) -> npt.NDArray[np.float32]:
    """Return the logits of the first photos, with what autograd needs recorded or not."""
    some = torch.from_numpy(np.array(case.split.photos[:number]))
    card = case.model.card
    with torch.set_grad_enabled(gradients):
        inputs = to_inputs(
            some.to(case.model.device.torch_device), card.image_size, card.mean, card.std
        )
        case.model.network.eval()
        logits = inference.forward(case.model.network, inputs, False, case.model.device)
    return logits.detach().cpu().numpy()


def kept_bytes(work: Callable[[], object], model: TrainedModel) -> int:
    """Return the bytes that autograd keeps for a backward pass while `work` runs.

    Without the weights, which are there in any case.
    """
    kept: dict[int, int] = {}

    def keep(value: Tensor) -> Tensor:
        kept[value.untyped_storage().data_ptr()] = value.untyped_storage().nbytes()
        return value

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda value: value):
        work()
    weights = {weight.untyped_storage().data_ptr() for weight in model.network.parameters()}
    return sum(size for place, size in kept.items() if place not in weights)


def show_augmented(revision: str, case: Case, draws: int) -> None:
    """Print the accuracy as the photos are, and over a number of draws of views of them."""
    plain = accuracy(case)
    seen = [accuracy_augmented(case, draw) for draw in range(1, draws + 1)]
    mean, spread = statistics.fmean(seen), statistics.stdev(seen) if draws > 1 else 0.0
    rows = [
        ["as they are", f"{plain:.2%}", ""],
        ["augmented", f"{mean:.2%} ± {spread:.2%}", f"{100 * (mean - plain):+.2f} points"],
    ]
    title = f"{revision}: {len(case.split.labels):,} test photos, {draws} draws (mean ± std)"
    measure.show(title, ["test photos", "accuracy", "difference"], rows)


def show_gradients(case: Case, number: int, trials: int) -> None:
    """Print what recording for a backward pass costs, and whether the logits are the same."""
    number = min(number, len(case.split.photos))
    ways = {on: partial(forward, case, on, number) for on in (True, False)}
    costs = measure.interleaved(ways, trials, case.model.device)
    kept = {on: kept_bytes(work, case.model) for on, work in ways.items()}
    same = np.array_equal(ways[True](), ways[False]())
    rows = [
        [
            name,
            f"{1e3 * measure.median_of(costs[on]).seconds:.1f} ms",
            f"{kept[on] / 2**20:.1f} MiB",
        ]
        for name, on in (("gradients on", True), ("gradients off", False))
    ]
    title = f"{number} photos judged, {trials} trials; logits {'the same' if same else 'differ'}"
    measure.show(title, ["evaluated with", "median", "kept beside the weights"], rows)


def main() -> None:
    """Parse the command line, measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("revisions", metavar="REVISION", nargs="*", default=["HEAD"])
    parser.add_argument("--draws", type=int, default=10)
    parser.add_argument("--number", type=int, default=BATCH_SIZE, help="photos of a forward pass")
    parser.add_argument("--trials", type=int, default=11)
    options = parser.parse_args()
    print(measure.hardware())
    for revision in options.revisions:
        case = case_of(revision)
        show_augmented(revision, case, options.draws)
    show_gradients(case, options.number, options.trials)


if __name__ == "__main__":
    command_line.run(main)
