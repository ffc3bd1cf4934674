"""A checkpoint file: tensors and numbers of a training state, written atomically.

Checkpoints are stored outside the DVC outputs, because DVC deletes those before it runs a stage.
They are safetensors files with the plain numbers as JSON in the header: nothing is unpickled.
"""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import safetensors
import torch
from safetensors.torch import save_file
from torch import Tensor


@dataclass(frozen=True)
class Snapshot:
    """Everything that is needed to continue training after a step."""

    tensors: dict[str, Tensor]
    numbers: dict[str, Any]


def save(path: Path, state: Snapshot) -> None:
    """Write a checkpoint atomically; raises OSError, as on a full disk.

    If the process is killed, a partial file may remain in a hidden folder next to it, which
    `remove` deletes.
    """
    tensors = {name: value.detach().cpu().contiguous() for name, value in state.tensors.items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent) as folder:
        temporary = Path(folder) / path.name
        try:
            save_file(tensors, temporary, metadata={"numbers": json.dumps(state.numbers)})
        except safetensors.SafetensorError as error:  # what safetensors raises on a full disk
            raise OSError(f"{path}: cannot be saved: {error}") from None
        temporary.replace(path)


def remove(path: Path) -> None:
    """Delete a checkpoint, if it exists, and partial files left by killed processes."""
    path.unlink(missing_ok=True)
    for leftover in path.parent.glob(f".{path.name}.*"):
        shutil.rmtree(leftover)


def load(path: Path) -> Snapshot | None:
    """Return the checkpoint at `path`, on the CPU; None if it is missing or damaged."""
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            return Snapshot(tensors, json.loads(file.metadata()["numbers"]))
    except (OSError, safetensors.SafetensorError, KeyError, TypeError, ValueError):
        return None


def flatten_optimizer(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Return the tensors of an optimizer's state (momentum etc.) by name `parameter/entry`."""
    state = optimizer.state_dict()["state"]
    return {
        f"{weight}/{entry}": value
        for weight, entries in state.items()
        for entry, value in entries.items()
        if isinstance(value, Tensor)
    }


def restore_optimizer(optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    """Restore the state that `flatten_optimizer` returned.

    Each tensor gets the memory layout of its parameter, which the file does not keep: the fused
    optimizers iterate over both in memory order and would otherwise combine the wrong elements.
    """
    weights = [weight for group in optimizer.param_groups for weight in group["params"]]
    state: dict[int, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        index, entry = name.split("/")
        weight = weights[int(index)]
        same = value.shape == weight.shape
        laid_out = torch.empty_like(weight, dtype=value.dtype).copy_(value) if same else value
        state.setdefault(int(index), {})[entry] = laid_out.detach()
    optimizer.load_state_dict({**optimizer.state_dict(), "state": state})


def add_prefix(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors with `prefix:` before their names."""
    return {f"{prefix}:{name}": value for name, value in tensors.items()}


def strip_prefix(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors whose names begin with `prefix:`, without the prefix."""
    start = f"{prefix}:"
    return {
        name.removeprefix(start): value for name, value in tensors.items() if name.startswith(start)
    }
