"""Exact resume: training that was stopped or killed continues from its last checkpoint.

The results are byte-identical to those of uninterrupted training, because a checkpoint contains the
complete state (state.py), random numbers do not depend on earlier ones (seeds.py), and a checkpoint
is used only if params, photos, code, device, precision and numbers of processes and threads are the
same.
"""

import hashlib
import time
from pathlib import Path

import torch

from catdog.model import weights_files
from catdog.model.devices import Device
from catdog.params import Params
from catdog.paths import CHECKPOINTS, PREPARE_CODE, TRAIN_CODE
from catdog.training import checkpoint
from catdog.training.distributed import Group
from catdog.training.state import TrainingState

PACKAGE = Path(__file__).parents[1]
SAVE_EVERY = 60.0  # seconds between checkpoints within an epoch


class CheckpointFile:
    """Saves the training state to one file, and restores it from there."""

    def __init__(self, path: Path, state: TrainingState, group: Group) -> None:
        self.path, self._state, self._group = path, state, group
        self._saved = time.monotonic()

    def restore(self) -> bool:
        """Restore the state from the checkpoint; return whether there was one."""
        saved = self._group.broadcast(checkpoint.load(self.path) if self._group.is_main else None)
        if saved is None:
            return False
        self._state.restore(saved)
        return True

    @property
    def due(self) -> bool:
        """Whether the last checkpoint is more than SAVE_EVERY seconds old."""
        return time.monotonic() > self._saved + SAVE_EVERY

    def save(self) -> None:
        """Write a checkpoint; only rank 0 does, because the state is the same in all processes."""
        if self._group.is_main:
            checkpoint.save(self.path, self._state.snapshot())
        self._saved = time.monotonic()

    def remove(self) -> None:
        """Delete the checkpoint of a finished training run."""
        if self._group.is_main:
            checkpoint.remove(self.path)


def checkpoint_path(params: Params, prepared: Path, device: Device, group: Group) -> Path:
    """Return the path of the checkpoint of this training run, relative to the project.

    Its name is a hash of params, photos, initial weights, code, device, precision and numbers of
    processes and threads. Raises CatdogError if the weights file does not exist.
    """
    settings = params.model_dump_json(exclude={"evaluate"})
    photos = (prepared / "photos.csv").read_bytes() + (prepared / "stats.json").read_bytes()
    model = params.model
    weights = weights_files.fingerprint(model.torchvision.weights) if model.from_torchvision else ""
    kind = device.torch_device.type
    machine = f"{kind} {device.dtype} {torch.__version__} {group.size}"
    if kind == "cpu":  # the number of threads decides in which order sums are added
        machine += f" {torch.get_num_threads()}"
    key = checkpoint_key(settings, photos, weights, machine)
    return CHECKPOINTS / f"{key}.safetensors"


def checkpoint_key(*parts: str | bytes) -> str:
    """Return a hash (24 hexadecimal digits) of `parts` and of the code of prepare and train.

    After a change of the code, training does not find the checkpoints of the old code.
    """
    digest = hashlib.sha256()
    folders = {*PREPARE_CODE, *TRAIN_CODE}
    modules = sorted(path for name in folders for path in (PACKAGE / name).rglob("*.py"))
    code = [path.relative_to(PACKAGE).as_posix().encode() + path.read_bytes() for path in modules]
    for part in (*parts, *code):
        raw = part.encode() if isinstance(part, str) else part
        digest.update(len(raw).to_bytes(8, "big") + raw)
    return digest.hexdigest()[:24]
