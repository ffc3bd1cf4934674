"""The networks: the seed network, a small residual network, and torchvision's (pretrained.py)."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from catdog.errors import CatdogError
from catdog.model import pretrained
from catdog.params import Model, ResidualNetwork, SeedNetwork


def build(settings: Model, classes: int, image_size: int) -> nn.Module:
    """Return the network selected by `settings`, with random weights from torch's global generator.

    It maps float photos (N, 3, H, W) to logits (N, classes). The seed network requires H = W =
    image_size, the residual network accepts any size of at least 16 pixels; for torchvision's it
    depends on the network. Nothing is downloaded. Raises CatdogError if the network cannot be built
    for `image_size`.
    """
    if settings.name == "seed":
        return build_seed(settings.seed, classes, image_size)
    if settings.from_torchvision:
        return pretrained.build(settings.name, classes, image_size)
    return Residual(settings.residual, classes)


def build_seed(settings: SeedNetwork, classes: int, image_size: int) -> nn.Sequential:
    """Return the network of the 2020 notebook.

    Conv layers of doubling width, each with ReLU and 2×2 max-pool, then dropout, linear, ReLU,
    dropout, linear. The notebook ends in a log-softmax, which is part of the loss here (cross
    entropy of the logits has the same value). With the notebook's settings at 128 px it has 268.6
    million parameters, nearly all in the first linear layer (32,768 × 8,192). Raises CatdogError if
    the max-pools leave no pixel.
    """
    if image_size >> settings.conv_layers == 0:
        raise CatdogError(
            f"model.seed.conv_layers: {settings.conv_layers} max-pooling layers reduce "
            f"{image_size} pixels to 0; use fewer layers or larger photos"
        )
    layers: list[nn.Module] = []
    channels = 3
    for index in range(settings.conv_layers):
        wider = settings.width << index
        layers += [
            nn.Conv2d(channels, wider, settings.kernel_size, padding=settings.kernel_size // 2),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(2),
        ]
        channels = wider
    features = channels * (image_size >> settings.conv_layers) ** 2
    return nn.Sequential(
        *layers,
        nn.Flatten(),
        nn.Dropout(settings.dropout),
        nn.Linear(features, settings.hidden_width),
        nn.ReLU(inplace=True),
        nn.Dropout(settings.dropout),
        nn.Linear(settings.hidden_width, classes),
    )


# The maxima of 8 × width channels give large logits from the first step on. With this factor, as in
# Page's network, training works at a learning rate of 0.15; without it, the network does not learn.
LOGIT_SCALE = 0.125


class Residual(nn.Module):
    """A variant of David Page's ResNet-9 (https://myrtle.ai/learn/how-to-train-your-resnet/).

    A stem of stride 2 makes every later layer four times cheaper. Three stages follow, each
    doubling the width and halving the side with a max-pool; the last two have residual blocks. The
    last norm of a block is initialized to zero, so that the block starts as the identity (Goyal et
    al. 2017, arXiv:1706.02677, section 5.1). The classifier gets the mean and the maximum of each
    channel over the photo, so the network takes photos of any size.
    """

    def __init__(self, settings: ResidualNetwork, classes: int) -> None:
        super().__init__()
        width = settings.width
        stages: list[nn.Module] = [conv_norm_gelu(3, width, stride=2)]
        channels = width
        for index, wider in enumerate((2 * width, 4 * width, 8 * width)):
            stages += [conv_norm_gelu(channels, wider, pool=True)]
            if index > 0:
                stages += [Block(wider) for _ in range(settings.blocks)]
            channels = wider
        self.features = nn.Sequential(*stages)
        self.dropout = nn.Dropout(settings.dropout)
        self.classifier = nn.Linear(2 * channels, classes)

    def forward(self, photos: Tensor) -> Tensor:
        """Return logits (N, classes) of photos (N, 3, H, W)."""
        features: Tensor = self.features(photos)
        pooled = torch.cat([features.mean((2, 3)), features.amax((2, 3))], dim=1)
        logits: Tensor = self.classifier(self.dropout(pooled))
        return logits * LOGIT_SCALE


class Block(nn.Module):
    """A residual block: two 3×3 conv layers and a skip connection, then GELU."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = conv_norm_gelu(channels, channels)
        self.second = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(channels)
        nn.init.zeros_(self.norm.weight)

    def forward(self, x: Tensor) -> Tensor:
        """Return features of the shape of `x`, (N, channels, H, W)."""
        return F.gelu(x + self.norm(self.second(self.first(x))))


def conv_norm_gelu(
    channels_in: int, channels_out: int, *, stride: int = 1, pool: bool = False
) -> nn.Sequential:
    """Return a 3×3 conv without bias (the norm has one), a 2×2 max-pool (`pool`), norm and GELU.

    The pool precedes the norm, as in airbench (https://github.com/KellerJordan/cifar10-airbench):
    norm and GELU then process a quarter of the pixels, and accuracy is higher too.
    """
    return nn.Sequential(
        nn.Conv2d(channels_in, channels_out, 3, stride=stride, padding=1, bias=False),
        *([nn.MaxPool2d(2)] if pool else []),
        nn.BatchNorm2d(channels_out),
        nn.GELU(),
    )


def count_parameters(network: nn.Module) -> int:
    """Return the number of parameters, including those that are frozen at the moment."""
    return sum(weight.numel() for weight in network.parameters())
