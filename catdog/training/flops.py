"""Count the floating-point operations of a training step."""

import torch
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from catdog.model import networks, pretrained
from catdog.params import Params
from catdog.training import optimizers


class StepFlops:
    """Counts the operations of a step, on a copy of the network on the meta device.

    Nothing is computed there, so counting takes milliseconds and changes neither weights nor random
    numbers.
    """

    def __init__(self, params: Params, classes: int) -> None:
        with torch.device("meta"):
            network = networks.build(params.model, classes, params.train.eval_image_size)
        self._network = network.to(memory_format=torch.channels_last)
        self._muon = params.optimizer.name == "muon"
        self._known: dict[tuple[int, int, bool], int] = {}

    def count(self, photos: int, image_size: int, frozen: bool = False) -> int:
        """Return the operations of one step on a batch of `photos`, `image_size` pixels square.

        `frozen`: whether only the head of a torchvision network is trained.
        """
        key = (photos, image_size, frozen)
        if key not in self._known:
            pretrained.freeze(self._network, frozen)
            with FlopCounterMode(display=False) as counter:
                self._step(photos, image_size)
            self._known[key] = counter.get_total_flops()
        return self._known[key]

    def _step(self, photos: int, image_size: int) -> None:
        """Run what FlopCounterMode counts: matrix products and convolutions, 2 per multiply-add."""
        logits = self._network(torch.empty(photos, 3, image_size, image_size, device="meta"))
        labels = torch.empty(photos, dtype=torch.int64, device="meta")
        F.cross_entropy(logits, labels).backward()  # type: ignore[no-untyped-call]
        if self._muon:
            hidden = [w for w in optimizers.hidden_matrices(self._network) if w.requires_grad]
            optimizers.ConvMuon([{"params": hidden, "weight_decay": 0.0}], 0.9).step()
        self._network.zero_grad()
