"""Optimizers and learning-rate schedules, by the names in params.yaml."""

import math

import torch
from torch import nn

from catdog.params import Optimizer, Schedule


def build_optimizer(settings: Optimizer, network: nn.Module) -> torch.optim.Optimizer:
    """Return the optimizer of a network's weights, norm layers and biases decayed only if asked."""
    groups = parameter_groups(network, settings.weight_decay, settings.decay_norm_and_bias)
    if settings.name == "sgd":
        return torch.optim.SGD(
            groups,
            lr=settings.lr,
            momentum=settings.momentum,
            nesterov=settings.nesterov and settings.momentum > 0,
            fused=True,
        )
    kind = torch.optim.AdamW if settings.name == "adamw" else torch.optim.Adam
    return kind(groups, lr=settings.lr, betas=(settings.momentum, 0.999), fused=True)


def parameter_groups(
    network: nn.Module, weight_decay: float, decay_norm_and_bias: bool
) -> list[dict[str, object]]:
    """Return weights in two groups: those with weight decay, and those without.

    Norm scales and biases are the weights of one dimension. Decaying them costs accuracy in short
    trainings (He et al. 2018, arXiv:1812.01187, section 3.1).
    """
    weights = [weight for weight in network.parameters() if weight.requires_grad]
    if decay_norm_and_bias:
        return [{"params": weights, "weight_decay": weight_decay}]
    return [
        {"params": [w for w in weights if w.ndim > 1], "weight_decay": weight_decay},
        {"params": [w for w in weights if w.ndim <= 1], "weight_decay": 0.0},
    ]


def lr_factor(settings: Schedule, progress: float) -> float:
    """Return the factor on optimizer.lr at `progress`, in [0, 1), through the training.

    It depends on nothing but its arguments, so a resumed training needs no state of it. one_cycle:
    Smith & Topin 2017, arXiv:1708.07120, with one straight line down; cosine: Loshchilov & Hutter
    2016, arXiv:1608.03983, after a straight line up.
    """
    if settings.name == "constant":
        return 1.0
    if settings.name == "step":
        return 0.1 ** int(progress / settings.step_every)
    if progress < settings.warmup:
        return progress / settings.warmup
    down = (progress - settings.warmup) / (1 - settings.warmup)
    remaining = 1 - down if settings.name == "one_cycle" else (1 + math.cos(math.pi * down)) / 2
    return settings.final + (1 - settings.final) * remaining


def set_lr(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Set the learning rate of all weights."""
    for group in optimizer.param_groups:
        group["lr"] = lr
