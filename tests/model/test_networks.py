"""The networks: the layers of the seed network, and the properties of the residual network."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from catdog import params
from catdog.model import networks
from catdog.params import ResidualNetwork, SeedNetwork

ROOT = Path(__file__).resolve().parents[2]
SEED = SeedNetwork(kernel_size=3, conv_layers=3, width=32, hidden_width=8192, dropout=0.5)
SMALL = ResidualNetwork(width=8, blocks=1, dropout=0.0)


def seed_recipe() -> nn.Sequential:
    """Return the network of recipes/seed.yaml on the meta device: its weights take no memory."""
    settings = params.load(ROOT / "recipes/seed.yaml")
    with torch.device("meta"):
        network = networks.build(settings.model, 2, settings.train.image_size)
    assert isinstance(network, nn.Sequential)
    return network


def test_the_seed_network_has_the_layers_of_the_notebook() -> None:
    layers = list(seed_recipe())
    assert [type(layer) for layer in layers] == [
        *[nn.Conv2d, nn.ReLU, nn.MaxPool2d] * 3,
        *[nn.Flatten, nn.Dropout, nn.Linear, nn.ReLU, nn.Dropout, nn.Linear],
    ]
    convs = [layer for layer in layers if isinstance(layer, nn.Conv2d)]
    assert [(conv.in_channels, conv.out_channels) for conv in convs] == [
        (3, 32),
        (32, 64),
        (64, 128),
    ]
    assert all(conv.kernel_size == (3, 3) and conv.padding == (1, 1) for conv in convs)
    assert all(conv.stride == (1, 1) and conv.bias is not None for conv in convs)
    assert {layer.kernel_size for layer in layers if isinstance(layer, nn.MaxPool2d)} == {2}
    assert {layer.p for layer in layers if isinstance(layer, nn.Dropout)} == {0.5}
    linears = [layer for layer in layers if isinstance(layer, nn.Linear)]
    assert [(linear.in_features, linear.out_features) for linear in linears] == [
        (32_768, 8_192),
        (8_192, 2),
    ]


def test_the_seed_network_has_as_many_parameters_as_the_notebook() -> None:
    assert networks.count_parameters(seed_recipe()) == 268_553_282


def sides(network: nn.Sequential, image_size: int) -> list[tuple[str, int, int]]:
    """Return type, output channels and output side of each layer before the flattening."""
    x = torch.empty(1, 3, image_size, image_size, device="meta")
    shapes = []
    for layer in network:
        x = layer(x)
        if x.ndim == 4:
            shapes.append((type(layer).__name__, x.shape[1], x.shape[2]))
    return shapes


@pytest.mark.parametrize("kernel_size", [1, 3, 5, 7, 9])
def test_conv_layers_of_every_kernel_size_keep_the_side(kernel_size: int) -> None:
    settings = SEED.model_copy(update={"kernel_size": kernel_size, "hidden_width": 8})
    with torch.device("meta"):
        network = networks.build_seed(settings, 2, 128)
    shapes = sides(network, 128)
    assert [side for name, _, side in shapes if name == "Conv2d"] == [128, 64, 32]
    assert network[0].kernel_size == (kernel_size, kernel_size)


def test_each_conv_layer_doubles_the_channels_and_halves_the_side() -> None:
    settings = SEED.model_copy(update={"conv_layers": 5, "hidden_width": 8})
    with torch.device("meta"):
        network = networks.build_seed(settings, 2, 128)
    pooled = [shape[1:] for shape in sides(network, 128) if shape[0] == "MaxPool2d"]
    assert pooled == [(32, 64), (64, 32), (128, 16), (256, 8), (512, 4)]
    assert network(torch.empty(1, 3, 128, 128, device="meta")).shape == (1, 2)


@pytest.mark.parametrize("image_size", [16, 17, 31, 33, 64, 100])
@pytest.mark.parametrize("blocks", [0, 2])
def test_the_residual_network_supports_any_size_from_16(image_size: int, blocks: int) -> None:
    network = networks.Residual(SMALL.model_copy(update={"blocks": blocks}), 2)
    logits = network(torch.rand(2, 3, image_size, image_size))
    assert logits.shape == (2, 2)
    assert logits.isfinite().all()


def test_residual_blocks_start_as_the_identity_before_gelu() -> None:
    network = networks.Residual(SMALL.model_copy(update={"blocks": 2}), 2)
    blocks = [module for module in network.modules() if isinstance(module, networks.Block)]
    assert len(blocks) == 4
    for block in blocks:
        channels = block.norm.num_features
        features = torch.randn(2, channels, 4, 4)
        assert torch.equal(block(features), F.gelu(features))


@pytest.mark.parametrize("pool", [False, True])
def test_a_layer_is_conv_pool_norm_gelu(pool: bool) -> None:
    torch.manual_seed(0)
    layer, photos = networks.conv_norm_gelu(3, 8, stride=2, pool=pool), torch.rand(2, 3, 16, 16)
    conv = layer[0]
    assert isinstance(conv, nn.Conv2d)
    expected = F.conv2d(photos, conv.weight, stride=2, padding=1)
    assert expected.shape == (2, 8, 8, 8)
    if pool:
        expected = F.max_pool2d(expected, 2)
    mean = expected.mean((0, 2, 3), keepdim=True)
    spread = expected.var((0, 2, 3), keepdim=True, unbiased=False).add(1e-5).sqrt()
    torch.testing.assert_close(layer(photos), F.gelu((expected - mean) / spread))


def test_the_stem_and_each_stage_halve_the_side() -> None:
    network = networks.Residual(SMALL, 2)
    x, shapes = torch.rand(2, 3, 64, 64), []
    for layer in network.features:
        x = layer(x)
        shapes.append((type(layer).__name__, *x.shape[1:3]))
    assert shapes == [
        ("Sequential", 8, 32),
        ("Sequential", 16, 16),
        ("Sequential", 32, 8),
        ("Block", 32, 8),
        ("Sequential", 64, 4),
        ("Block", 64, 4),
    ]


def test_a_residual_block_gets_gradients_at_the_start() -> None:
    block = networks.Block(8)
    block(torch.rand(2, 8, 4, 4)).pow(2).sum().backward()
    scale = block.norm.weight.grad
    assert scale is not None
    assert scale.abs().min() > 0


@pytest.mark.parametrize("name", ["seed", "residual"])
@pytest.mark.parametrize("classes", [2, 3, 7])
def test_there_is_one_logit_per_class(name: str, classes: int) -> None:
    settings = params.load(ROOT / "recipes/seed.yaml").model
    small = settings.model_copy(
        update={
            "name": name,
            "seed": SEED.model_copy(update={"width": 2, "hidden_width": 8}),
            "residual": SMALL,
        }
    )
    network = networks.build(small, classes, 16)
    logits: Tensor = network(torch.rand(4, 3, 16, 16))
    assert logits.shape == (4, classes)


def test_the_same_seed_gives_the_same_weights() -> None:
    def weights() -> list[Tensor]:
        torch.manual_seed(3)
        return list(networks.Residual(SMALL, 2).parameters())

    assert all(torch.equal(a, b) for a, b in zip(weights(), weights(), strict=True))
