"""The networks: the seed's, a small residual one, and (from pretrained.py) torchvision's."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from catdog.model import pretrained
from catdog.params import Model, ResidualNetwork, SeedNetwork


def build(settings: Model, classes: int, image_size: int) -> nn.Module:
    """Return the network that `settings` names, with fresh weights from torch's global generator.

    It takes float photos (N, 3, H, W) and returns logits (N, classes). The seed's network takes
    H = W = image_size only, the residual one any size from 16; torchvision's differ. Nothing is
    downloaded. Raises CatdogError for a size that the network cannot be built for.
    """
    if settings.name == "seed":
        return build_seed(settings.seed, classes, image_size)
    if settings.from_torchvision:
        return pretrained.build(settings.name, classes, image_size)
    return Residual(settings.residual, classes)


def build_seed(settings: SeedNetwork, classes: int, image_size: int) -> nn.Sequential:
    """Return the seed's network: conv layers of doubling width, each with ReLU and 2×2 max-pool.

    Then dropout, linear, ReLU, dropout, linear. The notebook ends in a log-softmax, which belongs
    to the loss here (cross entropy of the logits is the same number). With the seed's own settings
    at 128 px: 268.6 million weights, nearly all in the first linear layer (32,768 × 8,192).
    """
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


# The maxima of 8 × width channels make large logits from the first step on. Scaled down, as in
# Page's network, a learning rate of 0.15 trains where it would otherwise stall.
LOGIT_SCALE = 0.125


class Residual(nn.Module):
    """A ResNet-9 after David Page's (https://myrtle.ai/learn/how-to-train-your-resnet/).

    A strided stem makes every later layer four times cheaper. Four stages of doubling width follow,
    each halving the side with a max-pool; the last two hold residual blocks, whose last norm starts
    at zero so that each block starts as the identity (Goyal et al. 2017, arXiv:1706.02677, 5.1).
    The classifier sees the mean and the maximum of each channel over the photo, so any size fits.
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
    """Two 3×3 conv layers beside an identity."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = conv_norm_gelu(channels, channels)
        self.second = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(channels)
        nn.init.zeros_(self.norm.weight)

    def forward(self, x: Tensor) -> Tensor:
        """Return features of the same shape."""
        return F.gelu(x + self.norm(self.second(self.first(x))))


def conv_norm_gelu(
    channels_in: int, channels_out: int, *, stride: int = 1, pool: bool = False
) -> nn.Sequential:
    """Return a 3×3 conv without bias (the norm has one), 2×2 max-pool if asked, norm and GELU.

    The pool comes before the norm, as in airbench (https://github.com/KellerJordan/cifar10-airbench):
    norm and GELU then run on a quarter of the pixels, and accuracy rose too.
    """
    return nn.Sequential(
        nn.Conv2d(channels_in, channels_out, 3, stride=stride, padding=1, bias=False),
        *([nn.MaxPool2d(2)] if pool else []),
        nn.BatchNorm2d(channels_out),
        nn.GELU(),
    )


def count_weights(network: nn.Module) -> int:
    """Return how many numbers training may change."""
    return sum(weight.numel() for weight in network.parameters() if weight.requires_grad)
