"""Exact resume: a training that was stopped or killed continues from its last checkpoint.

It ends with the same bytes as if it had never stopped, since a checkpoint holds all that changes
(state.py), random draws depend on (seed, epoch, step) alone, and a checkpoint is found only by a
training with the same params, photos, code and arithmetic.
"""

import time
from pathlib import Path

import torch

from catdog.model import weights_files
from catdog.model.devices import Device
from catdog.params import Params
from catdog.paths import CHECKPOINTS
from catdog.training import checkpoint
from catdog.training.distributed import Group
from catdog.training.state import TrainingState

SAVE_EVERY = 60.0  # seconds of work that a kill may cost, at most, in epochs that take longer


class Checkpoints:
    """Saves and restores the state of a training at one path."""

    def __init__(self, path: Path, state: TrainingState, group: Group) -> None:
        self.path, self._state, self._group = path, state, group
        self._saved = time.monotonic()

    def restore(self) -> bool:
        """Restore the state from the checkpoint; return whether there was one."""
        saved = self._group.broadcast(checkpoint.load(self.path) if self._group.first else None)
        if saved is None:
            return False
        self._state.restore(saved)
        return True

    @property
    def due(self) -> bool:
        """Whether the last one is more than SAVE_EVERY seconds old."""
        return time.monotonic() > self._saved + SAVE_EVERY

    def save(self) -> None:
        """Write a checkpoint; the state is the same in all processes, so the first one does."""
        if self._group.first:
            checkpoint.save(self.path, self._state.snapshot())
        self._saved = time.monotonic()

    def remove(self) -> None:
        """Delete the checkpoint of a finished training."""
        if self._group.first:
            checkpoint.remove(self.path)


def checkpoint_path(params: Params, prepared: Path, device: Device, group: Group) -> Path:
    """Return the path of the checkpoint of this training, relative to the project.

    Its name is a hash of params, photos, initial weights, code and arithmetic: nothing else finds
    it. Raises CatdogError if there is no such weights file.
    """
    settings = params.model_dump_json(exclude={"evaluate"})
    photos = (prepared / "photos.csv").read_bytes() + (prepared / "stats.json").read_bytes()
    model = params.model
    weights = weights_files.fingerprint(model.torchvision.weights) if model.from_torchvision else ""
    kind = device.torch_device.type
    machine = f"{kind} {device.dtype} {torch.__version__} {group.size}"
    if kind == "cpu":  # the number of threads decides in which order sums are added
        machine += f" {torch.get_num_threads()}"
    key = checkpoint.key_of(settings, photos, weights, machine)
    return CHECKPOINTS / f"{key}.safetensors"
