"""A trained model on disk: model.safetensors, and model.json with all that is needed to use it."""

import platform
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import safetensors
import torch
from pydantic import ValidationError
from safetensors.torch import load_file
from safetensors.torch import save as serialize
from torch import Tensor, nn
from torch.nn import functional as F

from catdog import __version__, networks
from catdog.devices import Device, Precision, pick_device
from catdog.errors import CatdogError
from catdog.files import replacing, write_text
from catdog.params import Model, PerChannel, Section

BATCH_SIZE = 256  # photos judged at a time: enough to keep a device busy


class ModelCard(Section):
    """model.json: everything beside the weights."""

    model: Model
    classes: list[str]
    stored_image_size: int
    image_size: int
    flip: bool
    mean: PerChannel
    std: PerChannel
    precision: Precision
    epoch: int
    weights: int
    pflop: float
    versions: dict[str, str]


def versions() -> dict[str, str]:
    """Return the versions of what computed the weights."""
    return {
        "catdog": __version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
        "torch": str(torch.__version__),
    }


@dataclass(frozen=True)
class TrainedModel:
    """A network with the card that says how to feed it."""

    card: ModelCard
    network: nn.Module
    device: Device

    def logits(self, photos: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """Return logits (N, classes) of photos (N, H, W, 3), in batches, without gradients.

        H and W are the card's stored_image_size. With the card's `flip` a photo's logits are the
        mean over itself and its mirror image.
        """
        results = [batch.cpu().numpy() for batch in self._batches(photos)]
        return np.concatenate(results) if results else np.empty((0, len(self.card.classes)), "f4")

    def probabilities(self, photos: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """Return probabilities (N, classes) of photos (N, H, W, 3); each row sums to 1."""
        return torch.softmax(torch.from_numpy(self.logits(photos)), dim=1).numpy()

    def _batches(self, photos: npt.NDArray[np.uint8]) -> Iterator[Tensor]:
        self.network.eval()
        for start in range(0, len(photos), BATCH_SIZE):
            batch = torch.from_numpy(photos[start : start + BATCH_SIZE].copy())
            with torch.inference_mode():
                inputs = to_inputs(batch.to(self.device.torch_device), self.card)
                yield judge(self.network, inputs, self.card.flip, self.device)


def to_inputs(photos: Tensor, card: ModelCard) -> Tensor:
    """Return normalized float photos (N, 3, S, S) of uint8 ones (N, H, W, 3), S the card's size."""
    channels_first = resize(photos.permute(0, 3, 1, 2), card.image_size)
    return normalize(channels_first.float() / 255, card.mean, card.std)


def resize(photos: Tensor, image_size: int) -> Tensor:
    """Return uint8 photos (N, 3, S, S) of photos (N, 3, H, W), antialiased."""
    if photos.shape[-2:] == (image_size, image_size):
        return photos
    # On a CPU torch resizes uint8 directly, many times faster than float, and rounds the same.
    whole = photos if photos.device.type == "cpu" else photos.float()
    resized = F.interpolate(whole, (image_size, image_size), mode="bilinear", antialias=True)
    return resized if whole is photos else resized.round().clamp(0, 255).to(torch.uint8)


def normalize(photos: Tensor, mean: list[float], std: list[float]) -> Tensor:
    """Return (photos - mean) / std per channel, for photos (N, 3, H, W) in [0, 1]."""
    center = torch.tensor(mean, device=photos.device).view(3, 1, 1)
    spread = torch.tensor(std, device=photos.device).view(3, 1, 1)
    return (photos - center) / spread


def judge(network: nn.Module, inputs: Tensor, flip: bool, device: Device) -> Tensor:
    """Return float32 logits (N, classes) of normalized photos (N, 3, S, S), averaged if `flip`."""
    inputs = inputs.contiguous(memory_format=torch.channels_last)
    with device.autocast():
        logits: Tensor = network(inputs).float()
        if flip:
            logits = (logits + network(inputs.flip(3)).float()) / 2
    return logits


def save(folder: Path, network: nn.Module, card: ModelCard) -> None:
    """Write model.safetensors and model.json into `folder`, each whole or not at all."""
    state = {name: value.cpu().contiguous() for name, value in network.state_dict().items()}
    with replacing(folder / "model.safetensors") as temporary:
        # Not save_file: safetensors 0.8 makes files that only their owner can read.
        temporary.write_bytes(serialize(state))
    write_text(folder / "model.json", card.model_dump_json(indent=2) + "\n")


def load(folder: Path, device_name: str | None = None) -> TrainedModel:
    """Return the trained model in `folder`, ready to judge photos.

    Raises CatdogError when there is none, or when its two files do not belong together.
    """
    card_file, weights_file = folder / "model.json", folder / "model.safetensors"
    for file in (card_file, weights_file):
        if not file.is_file():
            raise CatdogError(f"{file}: no trained model here; run `dvc repro`, or name its folder")
    try:
        card = ModelCard.model_validate_json(card_file.read_text(encoding="utf-8"))
        network = networks.build(card.model, len(card.classes), card.image_size)
        network.load_state_dict(load_file(weights_file))
    except (ValidationError, ValueError, RuntimeError, safetensors.SafetensorError) as error:
        reason = str(error).splitlines()[0]
        raise CatdogError(f"{folder}: not a model of this version of catdog ({reason})") from None
    device = pick_device(card.precision, device_name)
    network.to(device.torch_device).to(memory_format=torch.channels_last)
    return TrainedModel(card, network.eval(), device)
