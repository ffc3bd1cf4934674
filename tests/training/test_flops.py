"""Operations of a step: those that torch counts around a real one, and nothing but counting."""

from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from catdog import params
from catdog.model.devices import pick_device
from catdog.training import train as stage
from catdog.training.flops import StepCost
from tests.helpers.prepared_data import SIDE, settings, write_prepared

CPU = pick_device("float32", "cpu")


def of(name: str, optimizer: str = "muon", **changes: object) -> params.Params:
    """Small params of a network, with one size from the first epoch to judging."""
    values = settings(optimizer__name=optimizer, train__start_image_size=SIDE).model_dump()
    values["model"]["name"] = name
    values["model"]["torchvision"] |= changes
    return params.parse(values)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_prepared(tmp_path_factory.mktemp("cost") / "prepared", ["cat", "dog"])


def counted(settings: params.Params, prepared: Path) -> int:
    """What torch counts around one real step of a training, on 16 photos."""
    trainer = stage.Trainer(settings, prepared, CPU)
    trainer._get_ready(0)
    batch = next(trainer._batches(0, SIDE, 0))
    with FlopCounterMode(display=False) as counter:
        trainer._step(batch)
    assert batch.photos == 16
    flops: int = counter.get_total_flops()
    return flops


@pytest.mark.parametrize("optimizer", ["sgd", "muon"])
@pytest.mark.parametrize("name", ["residual", "seed", "shufflenet_v2_x0_5"])
def test_the_operations_are_those_of_a_real_step(name: str, optimizer: str, prepared: Path) -> None:
    chosen = of(name, optimizer, freeze_epochs=0)
    assert StepCost(chosen, 2).of(16, SIDE) == counted(chosen, prepared) > 0


def test_a_step_of_the_head_alone_is_counted_as_it_is_and_costs_less(prepared: Path) -> None:
    chosen = of("shufflenet_v2_x0_5", freeze_epochs=1)
    cost = StepCost(chosen, 2)
    frozen = cost.of(16, SIDE, frozen=True)
    assert frozen == counted(chosen, prepared)
    assert 0 < frozen < cost.of(16, SIDE) / 2


def test_muon_costs_what_sgd_does_not() -> None:
    sgd, muon = (StepCost(of("residual", name), 2).of(16, SIDE) for name in ("sgd", "muon"))
    assert muon > sgd


def test_without_muon_a_step_costs_by_its_photos_and_their_pixels() -> None:
    cost = StepCost(of("residual", "sgd"), 2)
    assert cost.of(32, SIDE) == 2 * cost.of(16, SIDE)
    assert cost.of(16, SIDE) > 3 * cost.of(16, SIDE // 2)


def test_what_was_counted_once_is_not_counted_again_in_another_order(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    chosen, kinds = of("shufflenet_v2_x0_5"), (True, False)
    alone = [StepCost(chosen, 2).of(16, SIDE, frozen) for frozen in kinds]
    cost = StepCost(chosen, 2)
    assert [cost.of(16, SIDE, frozen) for frozen in kinds] == alone
    monkeypatch.delattr(StepCost, "_step")  # with which it would count again
    assert [cost.of(16, SIDE, frozen) for frozen in kinds[::-1]] == alone[::-1]


def test_counting_draws_no_random_number_and_takes_no_memory() -> None:
    before = torch.get_rng_state()
    cost = StepCost(of("residual"), 2)
    cost.of(16, SIDE)
    assert torch.equal(torch.get_rng_state(), before)
    assert all(weight.is_meta for weight in cost._network.parameters())
