"""Training state on disk: written atomically, found again only by the training that wrote it.

Checkpoints lie outside every DVC out, since DVC deletes outs before a stage runs. They are
safetensors files, with the numbers that are no tensors as JSON in the header: no pickle is loaded.
"""

import hashlib
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

from catdog.paths import PREPARE_CODE, TRAIN_CODE

PACKAGE = Path(__file__).parents[1]


@dataclass(frozen=True)
class State:
    """All that a training needs to go on after a step."""

    tensors: dict[str, Tensor]
    numbers: dict[str, Any]


def key_of(*parts: str | bytes) -> str:
    """Return a key (24 hexadecimal digits) of these params, data and machine, and of this code.

    The code is that of prepare and train in dvc.yaml: another version of it finds no checkpoint of
    this one.
    """
    digest = hashlib.sha256()
    folders = {*PREPARE_CODE, *TRAIN_CODE}
    modules = sorted(path for name in folders for path in (PACKAGE / name).rglob("*.py"))
    code = [path.relative_to(PACKAGE).as_posix().encode() + path.read_bytes() for path in modules]
    for part in (*parts, *code):
        raw = part.encode() if isinstance(part, str) else part
        digest.update(len(raw).to_bytes(8, "big") + raw)
    return digest.hexdigest()[:24]


def save(path: Path, state: State) -> None:
    """Write a checkpoint, whole or not at all; OSError if it cannot, as on a full disk.

    A kill can leave a half-written one in a hidden folder beside it, which `remove` finds by its
    name: safetensors writes to a name of its own first.
    """
    tensors = {name: value.detach().cpu().contiguous() for name, value in state.tensors.items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent) as folder:
        whole = Path(folder) / path.name
        try:
            save_file(tensors, whole, metadata={"numbers": json.dumps(state.numbers)})
        except safetensors.SafetensorError as error:  # a full disk is no OSError there
            raise OSError(f"{path}: cannot be saved: {error}") from None
        whole.replace(path)


def remove(path: Path) -> None:
    """Delete a checkpoint, if there is one, and what kills have left of others of its name."""
    path.unlink(missing_ok=True)
    for leftover in path.parent.glob(f".{path.name}.*"):
        shutil.rmtree(leftover)


def load(path: Path) -> State | None:
    """Return the checkpoint at `path`, on the CPU; None if there is none, or none that is whole."""
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            return State(tensors, json.loads(file.metadata()["numbers"]))
    except (OSError, safetensors.SafetensorError, KeyError, TypeError, ValueError):
        return None


def flatten_optimizer(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Return the tensors of an optimizer's state by name `weight/entry` (momentum and the like)."""
    state = optimizer.state_dict()["state"]
    return {
        f"{weight}/{entry}": value
        for weight, entries in state.items()
        for entry, value in entries.items()
        if isinstance(value, Tensor)
    }


def restore_optimizer(optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    """Put back what `flatten_optimizer` took out.

    Each tensor gets the memory layout of its weight back, which the file does not keep: the fused
    optimizers walk weight and momentum in memory order and would pair the wrong numbers.
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


def prefixed(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors under names that begin with `prefix:`."""
    return {f"{prefix}:{name}": value for name, value in tensors.items()}


def with_prefix(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors whose names begin with `prefix:`, under the rest of their names."""
    start = f"{prefix}:"
    return {
        name.removeprefix(start): value for name, value in tensors.items() if name.startswith(start)
    }
