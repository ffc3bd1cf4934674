"""The effect of the two evaluation errors of the 2020 notebook.

python -m studies.mistakes [REVISION...] [--draws 10]

It augmented the test photos like the training photos, and it evaluated with gradients enabled. For
the model of each revision (a commit, branch, tag or experiment; default: HEAD) this prints the
accuracy on the unchanged test photos and on augmented ones, over several random draws; then, for
the last revision, the time and memory that autograd takes during inference.
"""

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
from catdog.dataset.prepared import Split, read_split
from catdog.experiments import outputs, revisions
from catdog.model import inference, saved
from catdog.model.inference import BATCH_SIZE, TrainedModel
from catdog.model.inputs import to_inputs
from catdog.params import Augmentation
from catdog.training import augmentation
from catdog.training.photo_store import PhotoStore
from catdog.training.seeds import make_generator
from tools import command_line, measure

AUGMENTED_TEST = 7  # a stream of random numbers that training does not use


class Case(NamedTuple):
    """A trained model, its test photos, and the augmentation of its training photos."""

    model: TrainedModel
    split: Split
    augmentation: Augmentation


def case_of(revision: str) -> Case:
    """Return the case of a revision, fetched through DVC; CatdogError if that fails."""
    commit = revisions.resolve(revision)
    with tempfile.TemporaryDirectory() as name:
        file = Path(name) / "params.yaml"
        file.write_text(revisions.read_text(commit, "params.yaml"), encoding="utf-8")
        settings = params.load(file)
    split = read_split(outputs.fetch(revision, commit, "data/prepared"), "test")
    return Case(saved.load(outputs.fetch(revision, commit, "models")), split, settings.augmentation)


def accuracy(case: Case) -> float:
    """Return the accuracy on the unchanged test photos."""
    return float((case.model.logits(case.split.photos).argmax(1) == case.split.labels).mean())


def accuracy_augmented(case: Case, draw: int) -> float:
    """Return the accuracy on the test photos with the random augmentation number `draw`."""
    card, split = case.model.card, case.split
    photos = PhotoStore(split.photos, split.labels, case.model.device.torch_device)
    photos.set_size(card.image_size)
    transforms = augmentation.draw_transforms(
        case.augmentation, len(photos), make_generator(draw, AUGMENTED_TEST)
    )
    parts = [slice(at, at + BATCH_SIZE) for at in range(0, len(photos), BATCH_SIZE)]
    correct = 0
    case.model.network.eval()
    with torch.inference_mode():
        order = torch.arange(len(photos))
        for part, pixels in zip(parts, photos.batches(order, parts), strict=True):
            chosen = transforms[part].to(pixels.device)
            fill = case.augmentation.fill
            inputs = augmentation.apply_transforms(
                pixels, chosen, card.image_size, fill, card.mean, card.std
            )
            logits = inference.forward(case.model.network, inputs, card.flip, case.model.device)
            correct += int((logits.argmax(1) == photos.labels[part]).sum())
    return correct / len(photos)


def forward(case: Case, gradients: bool, number: int) -> npt.NDArray[np.float32]:
    """Return the logits of the first `number` test photos, with or without gradients enabled."""
    photos = torch.from_numpy(np.array(case.split.photos[:number]))
    card = case.model.card
    with torch.set_grad_enabled(gradients):
        inputs = to_inputs(
            photos.to(case.model.device.torch_device), card.image_size, card.normalization
        )
        case.model.network.eval()
        logits = inference.forward(case.model.network, inputs, False, case.model.device)
    return logits.detach().cpu().numpy()


def saved_bytes(work: Callable[[], object], model: TrainedModel) -> int:
    """Return the bytes that autograd saves for the backward pass during `work`, without weights."""
    sizes: dict[int, int] = {}

    def save(value: Tensor) -> Tensor:
        sizes[value.untyped_storage().data_ptr()] = value.untyped_storage().nbytes()
        return value

    with torch.autograd.graph.saved_tensors_hooks(save, lambda value: value):
        work()
    weights = {weight.untyped_storage().data_ptr() for weight in model.network.parameters()}
    return sum(size for address, size in sizes.items() if address not in weights)


def show_augmented(revision: str, case: Case, draws: int) -> None:
    """Print the accuracy on unchanged photos, and its mean and std on augmented ones."""
    plain = accuracy(case)
    augmented = [accuracy_augmented(case, draw) for draw in range(1, draws + 1)]
    mean, spread = statistics.fmean(augmented), statistics.stdev(augmented) if draws > 1 else 0.0
    rows = [
        ["unchanged", f"{plain:.2%}", ""],
        ["augmented", f"{mean:.2%} ± {spread:.2%}", f"{100 * (mean - plain):+.2f} points"],
    ]
    title = f"{revision}: {len(case.split.labels):,} test photos, {draws} draws (mean ± std)"
    measure.show(title, ["test photos", "accuracy", "difference"], rows)


def show_gradients(case: Case, number: int, trials: int) -> None:
    """Print time and saved memory with and without gradients, and whether the logits differ."""
    number = min(number, len(case.split.photos))
    runs = {on: partial(forward, case, on, number) for on in (True, False)}
    costs = measure.interleaved(runs, trials, case.model.device)
    memory = {on: saved_bytes(run, case.model) for on, run in runs.items()}
    same = np.array_equal(runs[True](), runs[False]())
    rows = [
        [
            name,
            f"{1e3 * measure.median_of(costs[on]).seconds:.1f} ms",
            f"{memory[on] / 2**20:.1f} MiB",
        ]
        for name, on in (("enabled", True), ("disabled", False))
    ]
    title = f"{number} photos, {trials} trials; logits {'are equal' if same else 'differ'}"
    measure.show(title, ["gradients", "median", "saved by autograd"], rows)


def main() -> None:
    """Parse the command line, measure and print."""
    parser = command_line.parser(__doc__)
    add = parser.add_argument
    add("revisions", metavar="REVISION", nargs="*", default=["HEAD"], help="default: HEAD")
    add("--draws", type=int, default=10, help="random augmentations (default: 10)")
    add("--number", type=int, default=BATCH_SIZE, help="photos per timed forward pass")
    add("--trials", type=int, default=11, help="timed forward passes (default: 11)")
    options = parser.parse_args()
    print(measure.hardware())
    for revision in options.revisions:
        case = case_of(revision)
        show_augmented(revision, case, options.draws)
    show_gradients(case, options.number, options.trials)


if __name__ == "__main__":
    command_line.run(main)
