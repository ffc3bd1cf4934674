"""A training run that needs more memory than is free is refused before the memory is taken."""

from collections.abc import Mapping
from pathlib import Path

import psutil
import pytest
import torch

from catdog import params
from catdog.errors import CatdogError
from catdog.model import networks
from catdog.model.devices import allocation_errors, pick_device
from catdog.training import memory
from catdog.training.memory import Required
from catdog.training.train import Trainer, train
from tests.helpers.prepared_data import settings, write_prepared

CPU = pick_device("float32", "cpu")
LARGEST_SEED = {"width": 512, "conv_layers": 1, "hidden_width": 65536}  # 137 GB at 32 pixels


def with_network(name: str, changes: Mapping[str, object], **others: object) -> params.Params:
    values = settings(train__start_image_size=32, **others).model_dump()
    values["model"]["name"] = name
    values["model"][name] |= dict(changes)
    return params.parse(values)


def test_a_network_that_does_not_fit_is_refused_with_the_bytes_before_it_is_built(
    tmp_path: Path,
) -> None:
    prepared = write_prepared(tmp_path / "prepared", ["cat", "dog"])
    before = psutil.Process().memory_info().rss
    with pytest.raises(CatdogError) as refused:
        Trainer(with_network("seed", LARGEST_SEED), prepared, CPU)
    line = str(refused.value)
    assert line.startswith("params.yaml: training needs at least 137,")
    assert " bytes of memory (137," in line
    assert " are free; lower model.seed.hidden_width, model.seed.width or " in line
    assert "\n" not in line
    assert psutil.Process().memory_info().rss - before < 500e6


@pytest.mark.parametrize(
    ("needed", "advice"),
    [
        (Required(weights=600, batch=500), "lower model.residual.width or model.residual.blocks"),
        (Required(weights=500, batch=600), "lower train.batch_size, train.image_size or "),
    ],
)
def test_the_advice_is_about_what_takes_most_memory(needed: Required, advice: str) -> None:
    chosen = with_network("residual", {})
    memory.check(chosen, needed, 1100)
    with pytest.raises(CatdogError, match=r"at least 1,100 bytes .* but 1,099 are free") as e:
        memory.check(chosen, needed, 1099)
    assert advice in str(e.value)


def test_activations_in_bfloat16_take_half_the_memory() -> None:
    memory.check(with_network("residual", {}), Required(100, 1000), 600, half=True)


@pytest.mark.parametrize(
    ("changes", "copies"),
    [
        ({"optimizer__momentum": 0.0, "optimizer__nesterov": False}, 3),
        ({}, 4),
        ({"optimizer__name": "adam"}, 5),
        ({"optimizer__name": "adam", "train__ema": 0.9}, 6),
    ],
)
def test_copies_of_the_weights_are_counted(changes: dict[str, object], copies: int) -> None:
    """Weights, gradients and selected weights; state of the optimizer; moving average."""
    chosen = with_network("seed", {}, **changes)
    network = networks.build(chosen.model, 2, 32)
    one = sum(4 * weight.numel() for weight in network.parameters())
    assert memory.required(chosen, 2, 2, 2).weights == copies * one


def test_what_a_step_saves_for_backward_is_counted_once_per_photo() -> None:
    one, two = (memory.required(with_network("residual", {}), 2, n, 1).batch for n in (20, 40))
    assert one > 20 * 3 * 32 * 32 * 4
    assert two == pytest.approx(2 * one, rel=0.01)


def test_a_failed_allocation_is_an_error_of_one_line() -> None:
    wanted = r"train: not enough memory .*; lower train"
    with (
        pytest.raises(CatdogError, match=wanted) as refused,
        allocation_errors("train", memory.ADVICE),
    ):
        torch.empty(2**60)
    assert "\n" not in str(refused.value)


def test_other_errors_of_training_stay_as_they_are() -> None:
    with pytest.raises(RuntimeError, match="mat1"), allocation_errors("train", memory.ADVICE):
        torch.ones(2, 3) @ torch.ones(2, 3)


def test_the_sample_recipe_needs_little_memory() -> None:
    sample = params.load(Path(__file__).resolve().parents[2] / "recipes/sample.yaml")
    assert sum(memory.required(sample, 2, 32, 100)) < 200e6


def test_train_reports_what_does_not_fit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CATDOG_LOCKS", "")
    prepared = write_prepared(tmp_path / "prepared", ["cat", "dog"])
    huge = with_network("seed", LARGEST_SEED)
    with pytest.raises(CatdogError, match="training needs at least 137,"):
        train(huge, prepared, tmp_path / "models", tmp_path / "history.csv")
    assert not (tmp_path / "models").exists()
