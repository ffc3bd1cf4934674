"""The network before the first step, and its backbone, which has a lower learning rate."""

import torch
from torch import nn

from catdog.model import networks, pretrained
from catdog.model.devices import Device
from catdog.params import Params
from catdog.training.distributed import Group
from catdog.training.seeds import INITIAL, derive_seed
from catdog.training.sync_batch_norm import with_sync_batch_norm


def initial_network(params: Params, classes: int, device: Device, group: Group) -> nn.Module:
    """Return the network before the first step, on the device, in channels-last memory format.

    Raises CatdogError for weights that are missing or of another network.
    """
    settings, model = params.train, params.model
    torch.manual_seed(derive_seed(settings.seed, 0, INITIAL))
    network = networks.build(model, classes, settings.eval_image_size)
    if model.from_torchvision:
        pretrained.initialize(network, model.name, model.torchvision.weights)
    network = with_sync_batch_norm(network, group, device.torch_device)
    return network.to(device.torch_device).to(memory_format=torch.channels_last)


def backbone_parameters(params: Params, network: nn.Module) -> list[nn.Parameter]:
    """Return all parameters but the head's of a torchvision network; none of our own networks."""
    if not params.model.from_torchvision:
        return []
    head = {id(parameter) for parameter in pretrained.head_parameters(network)}
    return [parameter for parameter in network.parameters() if id(parameter) not in head]
