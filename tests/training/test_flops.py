"""FLOP counting: equals torch's count for a real step, and has no side effects."""

from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from catdog import params
from catdog.model.devices import pick_device
from catdog.training import train as stage
from catdog.training.flops import StepFlops
from tests.helpers.prepared_data import SIDE, settings, write_prepared

CPU = pick_device("float32", "cpu")


def params_of(name: str, optimizer: str = "muon", **changes: object) -> params.Params:
    """Params of a small training run, with one image size for all epochs and the evaluation."""
    values = settings(optimizer__name=optimizer, train__start_image_size=SIDE).model_dump()
    values["model"]["name"] = name
    values["model"]["torchvision"] |= changes
    return params.parse(values)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_prepared(tmp_path_factory.mktemp("flops") / "prepared", ["cat", "dog"])


def counted(settings: params.Params, prepared: Path) -> int:
    """What FlopCounterMode counts in one real training step on 16 photos."""
    trainer = stage.Trainer(settings, prepared, CPU)
    trainer.prepare_network(0)
    batch = next(trainer.epoch_batches(0, SIDE, 0))
    with FlopCounterMode(display=False) as counter:
        trainer.train_step(batch)
    assert batch.photos == 16
    flops: int = counter.get_total_flops()
    return flops


@pytest.mark.parametrize("optimizer", ["sgd", "muon"])
@pytest.mark.parametrize("name", ["residual", "seed", "shufflenet_v2_x0_5"])
def test_counted_operations_match_a_real_step(name: str, optimizer: str, prepared: Path) -> None:
    chosen = params_of(name, optimizer, freeze_epochs=0)
    assert StepFlops(chosen, 2).count(16, SIDE) == counted(chosen, prepared) > 0


def test_a_step_with_a_frozen_backbone_costs_less(prepared: Path) -> None:
    chosen = params_of("shufflenet_v2_x0_5", freeze_epochs=1)
    flops = StepFlops(chosen, 2)
    frozen = flops.count(16, SIDE, frozen=True)
    assert frozen == counted(chosen, prepared)
    assert 0 < frozen < flops.count(16, SIDE) / 2


def test_muon_adds_its_matrix_products() -> None:
    sgd, muon = (
        StepFlops(params_of("residual", name), 2).count(16, SIDE) for name in ("sgd", "muon")
    )
    assert muon > sgd


def test_without_muon_operations_scale_with_photos_and_pixels() -> None:
    flops = StepFlops(params_of("residual", "sgd"), 2)
    assert flops.count(32, SIDE) == 2 * flops.count(16, SIDE)
    assert flops.count(16, SIDE) > 3 * flops.count(16, SIDE // 2)


def test_counts_are_cached(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    chosen, kinds = params_of("shufflenet_v2_x0_5"), (True, False)
    alone = [StepFlops(chosen, 2).count(16, SIDE, frozen) for frozen in kinds]
    flops = StepFlops(chosen, 2)
    assert [flops.count(16, SIDE, frozen) for frozen in kinds] == alone
    monkeypatch.delattr(StepFlops, "_step")  # with which it would count again
    assert [flops.count(16, SIDE, frozen) for frozen in kinds[::-1]] == alone[::-1]


def test_counting_uses_no_random_numbers_and_no_memory() -> None:
    before = torch.get_rng_state()
    flops = StepFlops(params_of("residual"), 2)
    flops.count(16, SIDE)
    assert torch.equal(torch.get_rng_state(), before)
    assert all(weight.is_meta for weight in flops._network.parameters())
