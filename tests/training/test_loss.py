"""The loss: class weights, label smoothing, and their combination."""

from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.utils.class_weight import compute_class_weight
from torch.nn import functional as F

from catdog.dataset.prepared import read_split
from catdog.model.devices import pick_device
from catdog.model.inference import predict_logits
from catdog.training import train as stage
from catdog.training.loss import balanced_weights, cross_entropy
from tests.helpers.prepared_data import SIDE, settings, write_prepared

LABELS = torch.tensor([0] * 2 + [1] * 40 + [2] * 10)


def logits() -> torch.Tensor:
    return torch.randn(len(LABELS), 3, generator=torch.Generator().manual_seed(1))


def test_balanced_weights_are_those_of_scikit_learn() -> None:
    expected = compute_class_weight("balanced", classes=np.arange(3), y=LABELS.numpy())
    assert balanced_weights(LABELS, 3).numpy() == pytest.approx(expected)


def test_balanced_weights_have_a_mean_of_1_over_the_photos() -> None:
    assert balanced_weights(LABELS, 3)[LABELS].mean().item() == pytest.approx(1)


def test_without_weights_the_loss_is_that_of_torch_to_the_last_bit() -> None:
    expected = F.cross_entropy(logits(), LABELS, label_smoothing=0.1, reduction="sum")
    assert torch.equal(cross_entropy(logits(), LABELS, None, 0.1), expected)


def test_the_classes_have_equal_shares_of_a_balanced_loss() -> None:
    """The weighted sum is N times the mean over the classes of their mean losses."""
    means = torch.stack(
        [
            F.cross_entropy(logits()[index == LABELS], LABELS[index == LABELS], label_smoothing=0.1)
            for index in range(3)
        ]
    )
    loss = cross_entropy(logits(), LABELS, balanced_weights(LABELS, 3), 0.1)
    assert loss.item() / len(LABELS) == pytest.approx(means.mean().item())


def test_label_smoothing_with_weights_keeps_the_class_of_a_photo_the_most_probable() -> None:
    """Unlike torch's `weight` argument; see the comment in loss.py."""
    weights = balanced_weights(torch.tensor([0] + [1] * 20), 2)
    score = torch.zeros(1, 2, requires_grad=True)
    optimizer = torch.optim.SGD([score], lr=1.0)
    for _ in range(500):
        optimizer.zero_grad()
        cross_entropy(score, torch.tensor([1]), weights, 0.1).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    assert score.softmax(1)[0, 1].item() == pytest.approx(0.95, abs=0.01)


@pytest.fixture
def unequal(tmp_path: Path) -> Path:
    """A prepared folder with 20 dogs for each cat."""
    return write_prepared(tmp_path / "prepared", ["cat", "dog"], 63, large=20)


@pytest.mark.parametrize("weights", ["none", "balanced"])
def test_a_training_step_minimizes_the_loss_with_the_weights_of_the_training_set(
    unequal: Path, weights: str
) -> None:
    chosen = settings(train__class_weights=weights, train__batch_size=63)
    trainer = stage.Trainer(chosen, unequal, pick_device("float32"))
    trainer.prepare_network(0)
    (batch,) = trainer.epoch_batches(0, SIDE, 0)
    with torch.no_grad():
        logits = trainer.state.network(batch.inputs)
    losses = F.cross_entropy(logits, batch.labels, label_smoothing=0.1, reduction="none")
    cats, dogs = (losses[batch.labels == label].sum().item() for label in (0, 1))
    expected = {"none": cats + dogs, "balanced": 63 / 2 * (cats / 3 + dogs / 60)}
    assert trainer.train_step(batch)[0].item() == pytest.approx(expected[weights], rel=1e-4)


def test_the_validation_loss_with_balanced_weights_is_the_mean_of_those_of_the_classes(
    unequal: Path,
) -> None:
    """The classes of the validation set count the same, whatever those of the training set."""
    chosen = settings(train__class_weights="balanced")
    trainer = stage.Trainer(chosen, unequal, pick_device("float32"))
    network, split = trainer.state.network, read_split(unequal, "val")
    expected = predict_logits(
        network,
        split.photos,
        image_size=SIDE,
        normalization=trainer.normalization,
        flip=False,
        classes=2,
        device=trainer.device,
    )
    logits, labels = torch.from_numpy(expected), torch.from_numpy(split.labels)
    of_classes = [
        F.cross_entropy(logits[labels == label], labels[labels == label]) for label in (0, 1)
    ]
    loss, _ = trainer.validation.evaluate(network, SIDE, SIDE)
    assert loss == pytest.approx(torch.stack(of_classes).mean().item(), rel=1e-4)


def test_the_log_shows_the_smallest_and_the_largest_weight(unequal: Path) -> None:
    plain, balanced = (
        stage.Trainer(settings(train__class_weights=weights), unequal, pick_device("float32"))
        for weights in ("none", "balanced")
    )
    assert "class weights" not in plain.describe()
    assert balanced.describe().endswith("; class weights from 0.525 to 10.5")
