"""The minimum memory of a training run, compared with the free memory before it is allocated.

Linux overcommits memory by default, and kills the process that uses more than there is.
"""

from pathlib import Path
from typing import NamedTuple

import psutil
import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from catdog.errors import CatdogError
from catdog.model import networks
from catdog.model.inference import BATCH_SIZE
from catdog.params import Params

OPTIMIZER_COPIES = {"sgd": 1, "muon": 1, "adam": 2, "adamw": 2}  # tensors of each weight's size
CGROUP_LIMIT = Path("/sys/fs/cgroup/memory.max")  # of a container, in bytes or "max"
ADVICE = (
    "lower train.batch_size, train.image_size, train.eval_image_size or the width of the network "
    "in params.yaml"
)


class Required(NamedTuple):
    """Bytes of memory that training needs at least."""

    weights: int
    """weights, gradients, state of the optimizer, moving average, selected weights"""
    batch: int
    """activations saved for backward in a training step, or the largest output in validation"""


def required(params: Params, classes: int, photos: int, validation_photos: int) -> Required:
    """Return the minimum memory of a training run with batches of `photos`, in float32.

    The network is run on the meta device, where tensors have shapes but no memory.
    """
    train, optimizer = params.train, params.optimizer
    with torch.device("meta"):
        network = networks.build(params.model, classes, train.eval_image_size)
    weights = sum(map(_bytes, network.state_dict().values()))
    copies = 2  # the current and the selected weights
    model = params.model
    if not (model.from_torchvision and model.torchvision.freeze_epochs >= train.epochs):
        has_state = optimizer.momentum > 0 or optimizer.name in ("adam", "adamw")
        copies += 1 + has_state * OPTIMIZER_COPIES[optimizer.name]
    copies += train.ema > 0
    step = _saved_for_backward(network, photos, train.image_size)
    validated = min(BATCH_SIZE, validation_photos)
    largest = _largest_output(network, validated, train.eval_image_size)
    return Required(copies * weights, max(step, largest))


def _saved_for_backward(network: nn.Module, photos: int, image_size: int) -> int:
    kept: dict[int, Tensor] = {}  # by storage; the tensor keeps the storage alive
    weights = {weight.untyped_storage()._cdata for weight in network.parameters()}

    def keep(tensor: Tensor) -> Tensor:
        kept.setdefault(tensor.untyped_storage()._cdata, tensor)
        return tensor

    network.train()
    with saved_tensors_hooks(keep, lambda tensor: tensor):
        network(torch.empty(photos, 3, image_size, image_size, device="meta"))
    return sum(_bytes(tensor) for storage, tensor in kept.items() if storage not in weights)


@torch.inference_mode()
def _largest_output(network: nn.Module, photos: int, image_size: int) -> int:
    sizes = [0]

    def record(module: nn.Module, inputs: object, output: object) -> None:
        if isinstance(output, Tensor):
            sizes.append(_bytes(output))

    hooks = [module.register_forward_hook(record) for module in network.modules()]
    network.eval()(torch.empty(photos, 3, image_size, image_size, device="meta"))
    for hook in hooks:
        hook.remove()
    return max(sizes)


def _bytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()


def free() -> int:
    """Return the free memory of this machine or container, with swap, in bytes."""
    total = int(psutil.virtual_memory().available + psutil.swap_memory().free)
    limit = CGROUP_LIMIT.read_text(encoding="ascii").strip() if CGROUP_LIMIT.is_file() else "max"
    return total if limit == "max" else min(total, int(limit))


def check(params: Params, needed: Required, available: int, half: bool = False) -> None:
    """Raise CatdogError if training needs more than the `available` bytes.

    `half`: whether activations have 16 bits instead of 32.
    """
    batch = needed.batch // (2 if half else 1)
    if needed.weights + batch <= available:
        return
    keys = "train.batch_size, train.image_size or train.eval_image_size"
    if needed.weights > batch:
        keys = {
            "residual": "model.residual.width or model.residual.blocks",
            "seed": "model.seed.hidden_width, model.seed.width or model.seed.conv_layers",
        }.get(params.model.name, "model.name to a smaller network")
    action = "set" if keys.startswith("model.name") else "lower"
    raise CatdogError(
        f"params.yaml: training needs at least {needed.weights + batch:,} bytes of memory "
        f"({needed.weights:,} for weights and optimizer, {batch:,} for a batch), but "
        f"{available:,} are free; {action} {keys}"
    )
