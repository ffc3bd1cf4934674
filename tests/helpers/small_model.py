"""A small residual network with a model card, and photos of noise for it."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from catdog import params
from catdog.model import networks
from catdog.model.card import ModelCard, versions
from catdog.model.devices import pick_device
from catdog.model.inference import TrainedModel

ROOT = Path(__file__).resolve().parents[2]
CPU = pick_device("float32", "cpu")
Photos = npt.NDArray[np.uint8]


def card(**changes: object) -> ModelCard:
    """Return the card of a small residual network: photos stored at 24 px, inputs of 16 px."""
    model = params.load(ROOT / "recipes/seed.yaml").model.model_dump()
    model["name"] = "residual"
    model["residual"] |= {"width": 8, "blocks": 1}
    model["seed"] |= {"width": 4, "hidden_width": 8}
    values: dict[str, object] = {
        "model": model,
        "classes": ["cat", "dog"],
        "stored_image_size": 24,
        "image_size": 16,
        "flip": False,
        "mean": [0.4, 0.5, 0.6],
        "std": [0.2, 0.25, 0.3],
        "precision": "float32",
        "epoch": 3,
        "weights": 7,
        "pflop": 0.5,
        "versions": versions(),
    }
    return ModelCard.model_validate({**values, **changes})


def network(of: ModelCard) -> nn.Module:
    """Return the network of a card, with non-trivial norm scales and statistics."""
    torch.manual_seed(0)
    net = networks.build(of.model, len(of.classes), of.image_size)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor in module.state_dict().values():
                if tensor.is_floating_point():
                    tensor.uniform_(0.5, 1.5)
    return net.to(memory_format=torch.channels_last)


def model(**changes: object) -> TrainedModel:
    """Return a model whose card has these changes."""
    return TrainedModel(card(**changes), network(card(**changes)).eval(), CPU)


def noise(photos: int, side: int = 24) -> Photos:
    """Return random uint8 photos (N, side, side, 3), the same ones each time."""
    return np.random.default_rng(0).integers(0, 256, (photos, side, side, 3), dtype=np.uint8)
