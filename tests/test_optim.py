"""Optimizers and schedules by name, against numbers computed by hand."""

import itertools

import pytest
import torch

from catdog import networks, optim
from catdog.params import Optimizer, ResidualNetwork, Schedule

SGD = Optimizer(
    name="sgd",
    lr=0.1,
    momentum=0.9,
    nesterov=True,
    weight_decay=0.01,
    decay_norm_and_bias=False,
)


def network() -> networks.Residual:
    return networks.Residual(ResidualNetwork(width=8, blocks=1, dropout=0.0), 2)


def build(**changes: object) -> torch.optim.Optimizer:
    return optim.build_optimizer(SGD.model_copy(update=changes), network())


def test_sgd_is_sgd_with_its_settings() -> None:
    optimizer = build()
    assert type(optimizer) is torch.optim.SGD
    for group in optimizer.param_groups:
        assert (group["lr"], group["momentum"], group["nesterov"]) == (0.1, 0.9, True)


def test_sgd_without_momentum_is_the_plain_rule() -> None:
    plain = SGD.model_copy(update={"momentum": 0.0, "nesterov": False, "weight_decay": 0.0})
    weights = torch.nn.Linear(2, 2)
    optimizer = optim.build_optimizer(plain, weights)
    before = weights.weight.detach().clone()
    for _ in range(2):
        weights.weight.grad = torch.ones(2, 2)
        optimizer.step()
    torch.testing.assert_close(weights.weight.detach(), before - 2 * 0.1)


@pytest.mark.parametrize(
    ("name", "kind"), [("adam", torch.optim.Adam), ("adamw", torch.optim.AdamW)]
)
def test_adams_are_adams_with_their_settings(name: str, kind: type) -> None:
    optimizer = build(name=name, lr=0.002, momentum=0.8)
    assert type(optimizer) is kind
    for group in optimizer.param_groups:
        assert (group["lr"], group["betas"]) == (0.002, (0.8, 0.999))


@pytest.mark.parametrize("name", ["sgd", "adam", "adamw"])
def test_norms_and_biases_are_not_decayed(name: str) -> None:
    net = network()
    optimizer = optim.build_optimizer(SGD.model_copy(update={"name": name}), net)
    decay = {
        id(weight): group["weight_decay"]
        for group in optimizer.param_groups
        for weight in group["params"]
    }
    norms = {
        f"{name}.{part}"
        for name, module in net.named_modules()
        if isinstance(module, torch.nn.BatchNorm2d)
        for part in ("weight", "bias")
    }
    for full_name, weight in net.named_parameters():
        spared = full_name in norms or full_name.endswith("bias")
        assert decay[id(weight)] == (0 if spared else 0.01), full_name


def test_norms_and_biases_are_decayed_if_asked() -> None:
    optimizer = build(decay_norm_and_bias=True)
    assert {group["weight_decay"] for group in optimizer.param_groups} == {0.01}


@pytest.mark.parametrize("decay_norm_and_bias", [True, False])
def test_every_weight_is_trained_once(decay_norm_and_bias: bool) -> None:
    net = network()
    groups = optim.parameter_groups(net, 0.01, decay_norm_and_bias)
    trained = [id(weight) for group in groups for weight in group["params"]]  # type: ignore[attr-defined]
    assert sorted(trained) == sorted(id(weight) for weight in net.parameters())


def schedule(name: str, **changes: object) -> Schedule:
    values = {"name": name, "warmup": 0.2, "final": 0.1, "step_every": 0.3}
    return Schedule.model_validate({**values, **changes})


@pytest.mark.parametrize(
    ("name", "factors"),
    [
        # at the start, half the warmup, its end, the middle of what is left, the end
        ("constant", (1, 1, 1, 1, 1)),
        ("one_cycle", (0, 0.5, 1, 0.55, 0.1)),
        ("cosine", (0, 0.5, 1, 0.55, 0.1)),
    ],
)
def test_schedules_at_their_corners(name: str, factors: tuple[float, ...]) -> None:
    settings = schedule(name)
    corners = (0, 0.1, 0.2, 0.6, 1)
    assert [optim.lr_factor(settings, at) for at in corners] == pytest.approx(factors)


def test_one_cycle_falls_in_a_line_and_cosine_in_half_a_cosine() -> None:
    # A quarter of the way down: 1 - 0.9/4, and 0.1 + 0.9 · (1 + cos 45°)/2.
    assert optim.lr_factor(schedule("one_cycle"), 0.4) == pytest.approx(0.775)
    assert optim.lr_factor(schedule("cosine"), 0.4) == pytest.approx(0.868198)


def test_steps_divide_by_ten_at_their_shares() -> None:
    settings = schedule("step", step_every=0.25)
    progress = (0, 0.24, 0.25, 0.49, 0.5, 0.75, 0.99)
    factors = [optim.lr_factor(settings, at) for at in progress]
    assert factors == pytest.approx([1, 1, 0.1, 0.1, 0.01, 0.001, 0.001])


def test_a_step_of_one_never_steps() -> None:
    assert optim.lr_factor(schedule("step", step_every=1.0), 0.999) == 1


@pytest.mark.parametrize("name", ["one_cycle", "cosine"])
@pytest.mark.parametrize("warmup", [0.0, 0.2, 0.9])
def test_schedules_have_no_jumps(name: str, warmup: float) -> None:
    settings = schedule(name, warmup=warmup)
    factors = [optim.lr_factor(settings, at / 1000) for at in range(1001)]
    assert max(abs(a - b) for a, b in itertools.pairwise(factors)) < 0.02
    assert max(factors) == pytest.approx(1, abs=1e-2)
    assert min(factors) >= 0


def test_set_lr_sets_the_rate_of_all_weights() -> None:
    optimizer = build()
    optim.set_lr(optimizer, 0.03)
    assert [group["lr"] for group in optimizer.param_groups] == [0.03, 0.03]
