"""Inference on prepared photos: logits and probabilities, in batches, without gradients."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from catdog.dataset.prepared import ChannelStats
from catdog.errors import CatdogError
from catdog.model.card import ModelCard
from catdog.model.devices import Device, allocation_errors
from catdog.model.inputs import to_inputs

BATCH_SIZE = 256  # photos per forward pass: enough to keep a device busy


@dataclass(frozen=True)
class TrainedModel:
    """A network on its device, and the model card with the settings of its inputs."""

    card: ModelCard
    network: nn.Module
    device: Device
    folder: Path = Path("models")
    """where it was loaded from"""

    def logits(self, photos: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """Return float32 logits (N, classes) of uint8 photos (N, H, W, 3).

        H and W are the card's stored_image_size. If the card has `flip`, the logits are the mean
        over a photo and its horizontal flip. Raises CatdogError if a logit is not finite, or if
        there is not enough memory.
        """
        card = self.card
        advice = "use a smaller network, or a machine with more memory"
        with allocation_errors(str(self.folder), advice):
            logits = predict_logits(
                self.network,
                photos,
                image_size=card.image_size,
                normalization=card.normalization,
                flip=card.flip,
                classes=len(card.classes),
                device=self.device,
            )
        if not np.isfinite(logits).all():
            raise CatdogError(
                f"{self.folder / 'model.safetensors'}: the outputs of the network are not finite, "
                "because its weights are too large; run `dvc repro` to train the model again"
            )
        return logits

    def probabilities(self, photos: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """Return probabilities (N, classes) of uint8 photos (N, H, W, 3); each row sums to 1."""
        return torch.softmax(torch.from_numpy(self.logits(photos)), dim=1).numpy()


@torch.inference_mode()
def predict_logits(
    network: nn.Module,
    photos: npt.NDArray[np.uint8],
    *,
    image_size: int,
    normalization: ChannelStats,
    flip: bool,
    classes: int,
    device: Device,
) -> npt.NDArray[np.float32]:
    """Return float32 logits (N, classes) of uint8 photos (N, H, W, 3), in batches.

    The network is put into evaluation mode.
    """
    network.eval()
    results = [np.empty((0, classes), np.float32)]
    for start in range(0, len(photos), BATCH_SIZE):
        batch = torch.from_numpy(photos[start : start + BATCH_SIZE].copy())
        inputs = to_inputs(batch.to(device.torch_device), image_size, normalization)
        results.append(forward(network, inputs, flip, device).cpu().numpy())
    return np.concatenate(results)


def forward(network: nn.Module, inputs: Tensor, flip: bool, device: Device) -> Tensor:
    """Return float32 logits (N, classes) of normalized photos (N, 3, S, S).

    With `flip` they are the mean over each photo and its horizontal flip (test-time augmentation).
    """
    inputs = inputs.contiguous(memory_format=torch.channels_last)
    with device.autocast():
        logits: Tensor = network(inputs).float()
        if flip:
            logits = (logits + network(inputs.flip(3)).float()) / 2
    return logits
