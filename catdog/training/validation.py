"""Loss and accuracy on the validation set, after each epoch."""

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from catdog.dataset.prepared import ChannelStats, Split
from catdog.model.devices import Device
from catdog.model.inference import predict_logits
from catdog.params import Train
from catdog.training.distributed import Group
from catdog.training.loss import balanced_weights


class Validation:
    """The validation set; each process of a group evaluates one shard of it."""

    def __init__(
        self,
        settings: Train,
        split: Split,
        normalization: ChannelStats,
        device: Device,
        group: Group,
    ) -> None:
        self._settings, self._normalization = settings, normalization
        self._device, self._group = device, group
        self._photos = split.photos[group.shard(len(split.labels))]
        self._classes = len(split.classes)
        self._labels = torch.from_numpy(split.labels)
        self._weights: Tensor | None = None
        if settings.class_weights == "balanced":
            self._weights = balanced_weights(self._labels, self._classes)

    def __len__(self) -> int:
        """Return the number of photos."""
        return len(self._labels)

    def evaluate(
        self, network: nn.Module, image_size: int, final_image_size: int
    ) -> tuple[float, float]:
        """Return mean loss and accuracy of a network that is trained at `image_size` pixels.

        There is no augmentation. While the training photos are smaller than their final size, the
        validation photos are scaled down in proportion. There is no averaging over horizontal
        flips, which would take twice as long. With balanced class weights, the loss is the mean
        over the classes of their mean losses; otherwise the large classes would decide which epoch
        is the best.
        """
        settings = self._settings
        scaled = round(settings.eval_image_size * image_size / final_image_size)
        shard = predict_logits(
            network,
            self._photos,
            image_size=min(settings.eval_image_size, max(settings.start_image_size, scaled)),
            normalization=self._normalization,
            flip=False,
            classes=self._classes,
            device=self._device,
        )
        logits = torch.from_numpy(np.concatenate(self._group.all_gather(shard)))
        loss = F.cross_entropy(logits, self._labels, weight=self._weights)
        return loss.item(), (logits.argmax(1) == self._labels).float().mean().item()
