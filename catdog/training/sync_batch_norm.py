"""Synchronized batch norm: statistics over the whole batch, not over each process's shard."""

import torch
import torch.distributed as dist
from torch import Tensor, nn

from catdog.training.distributed import Group


def with_sync_batch_norm(network: nn.Module, group: Group, device: torch.device) -> nn.Module:
    """Return the network with batch norms that use the statistics of the whole batch.

    Otherwise the result would depend on the number of processes. torch's own SyncBatchNorm does
    not support CPUs (pytorch/pytorch#78078). Names and shapes of the parameters do not change.
    """
    if group.size == 1:
        return network
    if device.type == "cuda":
        synced: nn.Module = nn.SyncBatchNorm.convert_sync_batchnorm(network)  # type: ignore[no-untyped-call]
        return synced
    for parent in list(network.modules()):
        for name, child in list(parent.named_children()):
            if type(child) is nn.BatchNorm2d:
                synced_norm = SyncBatchNorm2d(child.num_features, child.eps, child.momentum)
                synced_norm.weight, synced_norm.bias = child.weight, child.bias
                synced_norm.load_state_dict(child.state_dict())
                setattr(parent, name, synced_norm)
    return network


class _AllReduce(torch.autograd.Function):
    """Sum over the processes. Each has its own loss, so the gradients are summed as well."""

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


class SyncBatchNorm2d(nn.BatchNorm2d):
    """Batch norm over the shards of all processes, for CPUs.

    Sums and sums of squares are added up by an all-reduce that is differentiable.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Return normalized features of the same shape (N, C, H, W) and dtype."""
        if not self.training:
            return super().forward(x)
        wide = x.float()
        count = wide.new_tensor([x.numel() / x.shape[1]])
        sums = torch.cat([wide.sum((0, 2, 3)), wide.square().sum((0, 2, 3)), count])
        sums = _AllReduce.apply(sums)
        total, squares, count = sums.split([x.shape[1], x.shape[1], 1])
        mean, n = total / count, count.detach()
        var = (squares / n - mean.square()).clamp(min=0)  # rounding can make it negative
        self._update_running_statistics(mean.detach(), var.detach() * n / (n - 1))
        shape = (1, -1, 1, 1)
        scale = self.weight * torch.rsqrt(var + self.eps)
        shifted: Tensor = wide * scale.view(shape) + (self.bias - mean * scale).view(shape)
        return shifted.to(x.dtype)

    def _update_running_statistics(self, mean: Tensor, var: Tensor) -> None:
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        momentum = 0.1 if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean, momentum)
        self.running_var.lerp_(var, momentum)
        self.num_batches_tracked.add_(1)
