"""Optimizers and schedules by name, against numbers computed by hand."""

from collections.abc import Iterable

import pytest
import torch
from torch import Tensor, nn

from catdog.model import networks
from catdog.params import Optimizer, ResidualNetwork, SeedNetwork
from catdog.training import optimizers

SGD = Optimizer(
    name="sgd",
    lr=0.1,
    rest_lr=0.05,
    momentum=0.9,
    nesterov=True,
    weight_decay=0.01,
    decay_norm_and_bias=False,
)


def network() -> networks.Residual:
    return networks.Residual(ResidualNetwork(width=8, blocks=1, dropout=0.0), 2)


def build(net: nn.Module | None = None, **changes: object) -> torch.optim.Optimizer:
    """The single optimizer of the changed settings."""
    (optimizer,) = optimizers.build_optimizers(SGD.model_copy(update=changes), net or network())
    return optimizer


def by_memory(built: Iterable[torch.optim.Optimizer], key: str) -> dict[int, float]:
    """A setting of each weight's parameter group, by the memory address of the weight."""
    return {
        weight.data_ptr(): group[key]
        for optimizer in built
        for group in optimizer.param_groups
        for weight in group["params"]
    }


def test_sgd_has_its_settings() -> None:
    optimizer = build()
    assert type(optimizer) is torch.optim.SGD
    for group in optimizer.param_groups:
        assert (group["lr"], group["momentum"], group["nesterov"]) == (0.1, 0.9, True)


def test_sgd_without_momentum_is_plain_sgd() -> None:
    weights = nn.Linear(2, 2)
    optimizer = build(weights, momentum=0.0, nesterov=False, weight_decay=0.0)
    before = weights.weight.detach().clone()
    for _ in range(2):
        weights.weight.grad = torch.ones(2, 2)
        optimizer.step()
    torch.testing.assert_close(weights.weight.detach(), before - 2 * 0.1)


@pytest.mark.parametrize(
    ("name", "kind"), [("adam", torch.optim.Adam), ("adamw", torch.optim.AdamW)]
)
def test_adam_and_adamw_have_their_settings(name: str, kind: type) -> None:
    optimizer = build(name=name, lr=0.002, momentum=0.8)
    assert type(optimizer) is kind
    for group in optimizer.param_groups:
        assert (group["lr"], group["betas"]) == (0.002, (0.8, 0.999))


@pytest.mark.parametrize("name", ["sgd", "adam", "adamw"])
def test_norms_and_biases_have_no_weight_decay(name: str) -> None:
    net = network()
    decay = by_memory([build(net, name=name)], "weight_decay")
    norms = {
        f"{name}.{part}"
        for name, module in net.named_modules()
        if isinstance(module, nn.BatchNorm2d)
        for part in ("weight", "bias")
    }
    for full_name, weight in net.named_parameters():
        spared = full_name in norms or full_name.endswith("bias")
        assert decay[weight.data_ptr()] == (0 if spared else 0.01), full_name


def test_norms_and_biases_have_weight_decay_if_set() -> None:
    optimizer = build(decay_norm_and_bias=True)
    assert {group["weight_decay"] for group in optimizer.param_groups} == {0.01}


@pytest.mark.parametrize("decay_norm_and_bias", [True, False])
@pytest.mark.parametrize("name", ["sgd", "adam", "adamw", "muon"])
def test_every_weight_is_trained_once(name: str, decay_norm_and_bias: bool) -> None:
    net = network().to(memory_format=torch.channels_last)
    changes = {"name": name, "decay_norm_and_bias": decay_norm_and_bias}
    built = optimizers.build_optimizers(SGD.model_copy(update=changes), net, [net.classifier.bias])
    trained = [
        weight.data_ptr()
        for optimizer in built
        for group in optimizer.param_groups
        for weight in group["params"]
    ]
    assert sorted(trained) == sorted(weight.data_ptr() for weight in net.parameters())


@pytest.mark.parametrize("name", ["sgd", "muon"])
def test_the_backbone_has_a_scaled_learning_rate(name: str) -> None:
    net = network()
    slow = [weight for part, weight in net.named_parameters() if not part.startswith("classifier")]
    settings = SGD.model_copy(update={"name": name})
    whole, slower = (
        by_memory(optimizers.build_optimizers(settings, net, slow, factor), "lr")
        for factor in (1, 0.2)
    )
    slow_ones = {weight.data_ptr() for weight in slow}
    for weight, rate in whole.items():
        assert slower[weight] == pytest.approx(rate * (0.2 if weight in slow_ones else 1))


MUON = SGD.model_copy(update={"name": "muon", "lr": 0.02})


def test_sgd_at_rest_lr_updates_first_and_last_layer_norms_and_biases_beside_muon() -> None:
    net = network()
    muon, sgd = optimizers.build_optimizers(MUON, net)
    assert (type(muon), type(sgd)) == (optimizers.ConvMuon, torch.optim.SGD)
    hidden = {
        f"{name}.weight"
        for name, module in net.named_modules()
        if isinstance(module, nn.Conv2d) and module.in_channels > 3
    }
    assert len(hidden) == 7
    rates, decays = by_memory([muon, sgd], "lr"), by_memory([muon, sgd], "weight_decay")
    taken = by_memory([muon], "lr")
    for name, weight in net.named_parameters():
        place = weight.data_ptr()
        assert (place in taken) == (name in hidden), name
        assert (rates[place], decays[place]) == ((0.02, 0.01) if name in hidden else (0.05, 0))
    for group in sgd.param_groups:
        assert (group["momentum"], group["nesterov"]) == (0.9, True)


def test_muon_updates_hidden_linear_layers_too() -> None:
    settings = SeedNetwork(kernel_size=3, conv_layers=2, width=4, hidden_width=8, dropout=0.0)
    net = networks.build_seed(settings, 2, 16)
    layers = [layer for layer in net if isinstance(layer, nn.Conv2d | nn.Linear)]
    expected = [layer.weight for layer in layers[1:-1]]
    assert [type(layer) for layer in layers[1:-1]] == [nn.Conv2d, nn.Linear]
    assert list(map(id, optimizers.hidden_matrices(net))) == list(map(id, expected))


SHAPES = [(8, 4, 3, 3), (4, 8, 3, 3), (8, 4, 1, 1), (8, 1, 3, 3), (6, 10)]
LAYOUTS = [torch.contiguous_format, torch.channels_last]


def laid_out(shape: tuple[int, ...], layout: torch.memory_format, seed: int) -> Tensor:
    values = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    return values.contiguous(memory_format=layout) if values.ndim == 4 else values


def matrix(weight: Tensor, layout: torch.memory_format) -> Tensor:
    """A copy of a weight as the matrix that Muon updates, columns in the order of memory."""
    if weight.ndim == 4 and layout == torch.channels_last:
        weight = weight.permute(0, 2, 3, 1)
    return weight.detach().reshape(len(weight), -1).clone()


@pytest.mark.parametrize("of_gradients", LAYOUTS, ids=["gradients", "gradients channels-last"])
@pytest.mark.parametrize("layout", LAYOUTS, ids=["contiguous", "channels-last"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_conv_muon_matches_torchs_muon_on_flattened_copies(
    shape: tuple[int, ...], layout: torch.memory_format, of_gradients: torch.memory_format
) -> None:
    weight = nn.Parameter(laid_out(shape, layout, 0))
    copy = nn.Parameter(matrix(weight, layout))
    ours = optimizers.ConvMuon([{"params": [weight], "lr": 0.1, "weight_decay": 0.01}], 0.9)
    torchs = torch.optim.Muon([copy], lr=0.1, weight_decay=0.01, momentum=0.9, nesterov=True)
    before = weight.detach().clone()
    for step in range(3):
        weight.grad = laid_out(shape, of_gradients, step + 1)
        copy.grad = matrix(weight.grad, layout)
        ours.step()
        torchs.step()  # type: ignore[no-untyped-call]
    assert torch.equal(matrix(weight, layout), copy.detach())
    assert not torch.equal(weight, before)


def test_muon_skips_weights_without_a_gradient() -> None:
    frozen, learning = (nn.Parameter(laid_out(SHAPES[0], LAYOUTS[1], 0)) for _ in range(2))
    learning.grad = torch.ones_like(learning)
    before = frozen.detach().clone()
    optimizers.ConvMuon([{"params": [frozen, learning], "weight_decay": 0.1}], 0.9).step()
    assert torch.equal(frozen, before)
    assert not torch.equal(learning, before)


@pytest.mark.parametrize("name", ["adamw", "muon"])
def test_set_lr_scales_each_highest_rate(name: str) -> None:
    net = network()
    settings = SGD.model_copy(update={"name": name})
    built = optimizers.build_optimizers(settings, net, [net.classifier.bias], 0.1)
    highest = by_memory(built, "lr")
    for factor in (0.5, 0.2):
        optimizers.set_lr(built, factor)
        rates = by_memory(built, "lr")
        assert rates == pytest.approx({place: rate * factor for place, rate in highest.items()})
