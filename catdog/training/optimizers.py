"""Optimizers, by their names in params.yaml."""

from collections.abc import Callable, Iterable
from typing import Any, cast

import torch
from torch import Tensor, nn

from catdog.params import Optimizer


def build_optimizers(
    settings: Optimizer, network: nn.Module, slow: Iterable[Tensor] = (), factor: float = 1.0
) -> list[torch.optim.Optimizer]:
    """Return the optimizers of a network: one, or two with `muon`.

    Weight decay applies to norm layers and biases only with `decay_norm_and_bias`. The learning
    rate of the weights in `slow` is multiplied by `factor`. Each parameter group stores its maximum
    learning rate as `initial_lr`.
    """
    slower = {id(weight) for weight in slow}
    weights = list(network.parameters())
    hidden = hidden_matrices(network) if settings.name == "muon" else []
    taken = {id(weight) for weight in hidden}
    rest = [weight for weight in weights if id(weight) not in taken]

    def groups(weights: list[nn.Parameter], lr: float, decay: float) -> list[dict[str, Any]]:
        made = []
        for is_slow in (False, True):
            some = [weight for weight in weights if (id(weight) in slower) == is_slow]
            rate = lr * factor if is_slow else lr
            for group in parameter_groups(some, decay, settings.decay_norm_and_bias):
                made.append({**group, "lr": rate, "initial_lr": rate})
        return made

    if settings.name == "muon":
        return [
            ConvMuon(groups(hidden, settings.lr, settings.weight_decay), settings.momentum),
            _sgd(groups(rest, settings.rest_lr, 0.0), settings.momentum, nesterov=True),
        ]
    every = groups(rest, settings.lr, settings.weight_decay)
    if settings.name == "sgd":
        return [_sgd(every, settings.momentum, settings.nesterov)]
    kind = torch.optim.AdamW if settings.name == "adamw" else torch.optim.Adam
    return [kind(every, betas=(settings.momentum, 0.999), fused=True)]


def _sgd(groups: list[dict[str, Any]], momentum: float, nesterov: bool) -> torch.optim.Optimizer:
    nesterov = nesterov and momentum > 0
    # torch requires a learning rate here, although each group has its own.
    return torch.optim.SGD(groups, lr=1.0, momentum=momentum, nesterov=nesterov, fused=True)


def parameter_groups(
    weights: Iterable[nn.Parameter], weight_decay: float, decay_norm_and_bias: bool
) -> list[dict[str, Any]]:
    """Return up to two parameter groups: with weight decay, and without.

    Norm scales and biases are the parameters of one dimension. Decaying them costs accuracy in
    short training runs (He et al. 2018, arXiv:1812.01187, section 3.1).
    """
    decayed: list[nn.Parameter] = []
    kept: list[nn.Parameter] = []
    for weight in weights:
        (decayed if decay_norm_and_bias or weight.ndim > 1 else kept).append(weight)
    groups = [(decayed, weight_decay), (kept, 0.0)]
    return [{"params": some, "weight_decay": decay} for some, decay in groups if some]


def hidden_matrices(network: nn.Module) -> list[nn.Parameter]:
    """Return the weights for Muon: of all conv and linear layers except the first and the last.

    Muon is designed for the weight matrices of hidden layers; another optimizer works better for
    the first and the last layer (https://kellerjordan.github.io/posts/muon/).
    """
    layers = [m for m in network.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    return [cast(nn.Parameter, layer.weight) for layer in layers[1:-1]]


class ConvMuon(torch.optim.Muon):
    """torch's Muon, extended from matrices to conv weights: one row per output channel.

    It updates matrix views of the weights, so the weights must not be reallocated, as when they are
    moved to another device. Unnecessary once torch's Muon supports conv weights:
    pytorch/pytorch#166209.
    """

    def __init__(self, groups: list[dict[str, Any]], momentum: float) -> None:
        self._weights = [weight for group in groups for weight in group["params"]]
        views = [
            {**group, "params": [nn.Parameter(as_matrix(w.detach())) for w in group["params"]]}
            for group in groups
        ]
        super().__init__(views, lr=1.0, momentum=momentum, nesterov=momentum > 0)

    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Take one step along the orthogonalized momentum."""
        views = [view for group in self.param_groups for view in group["params"]]
        for weight, view in zip(self._weights, views, strict=True):
            view.grad = None if weight.grad is None else as_matrix(weight.grad, like=weight)
        return super().step(closure)  # type: ignore[no-untyped-call,no-any-return]


def as_matrix(weight: Tensor, like: Tensor | None = None) -> Tensor:
    """Return a weight (O, …) as a matrix (O, product of the rest), sharing memory if possible.

    The columns are in the memory order of `like` (default: of the weight itself).
    """
    layout = weight if like is None else like
    if weight.ndim == 4 and layout.is_contiguous(memory_format=torch.channels_last):
        weight = weight.permute(0, 2, 3, 1)
    return weight.flatten(1)


def set_lr(optimizers: Iterable[torch.optim.Optimizer], factor: float) -> None:
    """Set the learning rate of each parameter group to `factor` times its maximum."""
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = group["initial_lr"] * factor
