"""Batch norm over the photos of all processes of a training, not of each alone."""

import torch
import torch.distributed as dist
from torch import Tensor, nn

from catdog.training.distributed import Group


def with_shared_norms(network: nn.Module, group: Group, device: torch.device) -> nn.Module:
    """Return the network with batch norms that take the statistics of the whole batch.

    Without it a network would depend on the number of processes. torch's own SyncBatchNorm does
    this on CUDA only. Names and shapes of weights stay.
    """
    if group.size == 1:
        return network
    if device.type == "cuda":
        synced: nn.Module = nn.SyncBatchNorm.convert_sync_batchnorm(network)  # type: ignore[no-untyped-call]
        return synced
    for parent in list(network.modules()):
        for name, child in list(parent.named_children()):
            if type(child) is nn.BatchNorm2d:
                shared = SharedBatchNorm(child.num_features, child.eps, child.momentum)
                shared.weight, shared.bias = child.weight, child.bias
                shared.load_state_dict(child.state_dict())
                setattr(parent, name, shared)
    return network


class _Sum(torch.autograd.Function):
    """The sum over the processes. Each has a loss of its own, so gradients are summed as well."""

    @staticmethod
    def forward(context: object, values: Tensor) -> Tensor:
        values = values.clone()
        dist.all_reduce(values)
        return values

    @staticmethod
    def backward(context: object, *gradients: Tensor) -> Tensor:
        gradient = gradients[0].clone()
        dist.all_reduce(gradient)
        return gradient


class SharedBatchNorm(nn.BatchNorm2d):
    """Batch norm over the photos of all processes, for CPUs.

    Sums and sums of squares are added up by an all-reduce that autograd can go back through.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Return normalized features of the same shape (N, C, H, W) and type."""
        if not self.training:
            return super().forward(x)
        wide = x.float()
        count = wide.new_tensor([x.numel() / x.shape[1]])
        sums = torch.cat([wide.sum((0, 2, 3)), wide.square().sum((0, 2, 3)), count])
        sums = _Sum.apply(sums)
        total, squares, count = sums.split([x.shape[1], x.shape[1], 1])
        mean, n = total / count, count.detach()
        var = (squares / n - mean.square()).clamp(min=0)  # rounding may leave less than nothing
        self._remember(mean.detach(), var.detach() * n / (n - 1))
        shape = (1, -1, 1, 1)
        scale = self.weight * torch.rsqrt(var + self.eps)
        shifted: Tensor = wide * scale.view(shape) + (self.bias - mean * scale).view(shape)
        return shifted.to(x.dtype)

    def _remember(self, mean: Tensor, var: Tensor) -> None:
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        momentum = 0.1 if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean, momentum)
        self.running_var.lerp_(var, momentum)
        self.num_batches_tracked.add_(1)
