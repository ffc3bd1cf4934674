"""The training state: everything that changes during training, and that a checkpoint contains."""

from dataclasses import astuple, dataclass

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from catdog.training import checkpoint
from catdog.training.history import Epoch, Timing


@dataclass
class EpochTotals:
    """Totals over the steps of the current epoch so far."""

    sums: Tensor
    """(2,) float32: the sum of the losses, and the number of correct predictions"""
    step: int = 0
    flops: int = 0
    seconds: float = 0.0
    waited: float = 0.0
    """seconds in which a step waited for its batch"""


class TrainingState:
    """Network, moving average, optimizers, selected weights and history.

    With an `ema_decay` above 0 a moving average of the weights is updated after each step. The
    averaged weights are then used for validation and saved as the model.
    """

    def __init__(
        self, network: nn.Module, optimizers: list[torch.optim.Optimizer], ema_decay: float
    ) -> None:
        self.network, self.optimizers = network, optimizers
        self.average = _moving_average(network, ema_decay)
        self.device = next(network.parameters()).device
        self.history: list[Epoch] = []
        self.timings: list[Timing] = []
        self.selected_weights: dict[str, Tensor] = {}
        self.totals = self._no_totals()

    @property
    def evaluated_network(self) -> nn.Module:
        """The network to evaluate and save: the moving average, if there is one."""
        return self.network if self.average is None else self.average.module

    def step(self) -> None:
        """Step the optimizers, then the moving average."""
        for optimizer in self.optimizers:
            optimizer.step()
        if self.average is not None:
            self.average.update_parameters(self.network)

    def select_weights(self) -> None:
        """Select the current weights: keep a copy of them."""
        weights = self.evaluated_network.state_dict()
        self.selected_weights = {name: value.detach().clone() for name, value in weights.items()}

    def load_selected_weights(self) -> nn.Module:
        """Load the selected weights into the evaluated network, and return it."""
        self.evaluated_network.load_state_dict(self.selected_weights)
        return self.evaluated_network

    def end_epoch(self, epoch: Epoch, timing: Timing) -> None:
        """Add a finished epoch to the history."""
        self.history.append(epoch)
        self.timings.append(timing)
        self.totals = self._no_totals()

    def position(self, steps_per_epoch: int) -> str:
        """Return the progress: the last finished epoch or step, as in `step 5 of 15 in epoch 4`."""
        step, epochs = self.totals.step, len(self.history)
        if step:
            return f"step {step} of {steps_per_epoch} in epoch {epochs + 1}"
        return f"epoch {epochs}"

    def snapshot(self) -> checkpoint.Snapshot:
        """Return a copy of the state, as tensors and plain numbers."""
        tensors = {
            **checkpoint.add_prefix("network", self.network.state_dict()),
            **checkpoint.add_prefix("selected", self.selected_weights),
            "sums": self.totals.sums,
        }
        for index, optimizer in enumerate(self.optimizers):
            flat = checkpoint.flatten_optimizer(optimizer)
            tensors |= checkpoint.add_prefix(f"optimizer{index}", flat)
        if self.average is not None:
            tensors |= checkpoint.add_prefix("average", self.average.state_dict())
        totals = self.totals
        numbers = {
            "history": [astuple(row) for row in self.history],
            "timings": [astuple(row) for row in self.timings],
            "totals": [totals.step, totals.flops, totals.seconds, totals.waited],
        }
        # Tensors of a file must not share memory, as current and selected weights may.
        return checkpoint.Snapshot(
            {name: value.clone() for name, value in tensors.items()}, numbers
        )

    def restore(self, saved: checkpoint.Snapshot) -> None:
        """Continue from a snapshot."""
        self.network.load_state_dict(checkpoint.strip_prefix("network", saved.tensors))
        if self.average is not None:
            self.average.load_state_dict(checkpoint.strip_prefix("average", saved.tensors))
        for index, optimizer in enumerate(self.optimizers):
            flat = checkpoint.strip_prefix(f"optimizer{index}", saved.tensors)
            checkpoint.restore_optimizer(optimizer, flat)
        self.selected_weights = checkpoint.strip_prefix("selected", saved.tensors)
        self.history = [Epoch(*row) for row in saved.numbers["history"]]
        self.timings = [Timing(*row) for row in saved.numbers["timings"]]
        sums = saved.tensors["sums"].to(self.device)
        self.totals = EpochTotals(sums, *saved.numbers["totals"])

    def _no_totals(self) -> EpochTotals:
        return EpochTotals(torch.zeros(2, device=self.device))


def _moving_average(network: nn.Module, decay: float) -> AveragedModel | None:
    """Return an exponential moving average of weights and norm statistics; None for decay 0."""
    if decay == 0:
        return None
    ema = get_ema_multi_avg_fn(decay)  # type: ignore[no-untyped-call]
    return AveragedModel(network, multi_avg_fn=ema, use_buffers=True)
