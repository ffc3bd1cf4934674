"""torchvision's image classifiers, with a head for our classes and optional pretrained weights.

torchvision is imported inside the functions: importing it takes seconds, and the other networks do
not need it.
"""

import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from catdog.errors import CatdogError, first_line
from catdog.model.weights_files import download, read_state
from catdog.params import Params, parse
from catdog.params.networks import OWN_NETWORKS
from catdog.params.schema import SIZE_KEYS

# Auxiliary classifiers of googlenet and inception_v3, which only their original training uses.
AUXILIARY = ("aux1.", "aux2.", "AuxLogits.")
# torchvision's checkpoints of densenet have module names with dots, `denselayer1.norm.1.weight`,
# which torch no longer allows (pytorch/vision#474).
OLD_DENSENET = re.compile(r"(denselayer\d+\.(?:norm|relu|conv))\.([12]\.)")


@dataclass(frozen=True)
class WeightsInputs:
    """The inputs that pretrained weights expect."""

    image_size: int
    mean: list[float]
    std: list[float]


def network_names() -> list[str]:
    """Return the names of all image classifiers in torchvision.models, sorted."""
    from torchvision import models  # noqa: PLC0415

    return list(models.list_models(module=models))


def weights_inputs(name: str) -> WeightsInputs:
    """Return crop size and normalization of the transforms of the default weights; no download.

    catdog resizes a photo to the crop size instead of cropping it, so that its edges are kept.
    """
    transforms = _default_weights(name).transforms()
    return WeightsInputs(transforms.crop_size[0], list(transforms.mean), list(transforms.std))


def resolve_weights_references(params: Params) -> Params:
    """Return params, with values that refer to torchvision's weights resolved.

    A `train.*image_size` of 0 becomes the crop size of the weights, and `normalization.source:
    weights` becomes their mean and std. Raises CatdogError if torchvision has no classifier
    `model.name`, or if the sizes are invalid in combination with other params.
    """
    if not params.model.from_torchvision:
        return params
    _check_name(params.model.name)
    size_keys = [key for key in SIZE_KEYS if getattr(params.train, key) == 0]
    from_weights = params.normalization.source == "weights"
    if not size_keys and not from_weights:
        return params
    inputs, values = weights_inputs(params.model.name), params.model_dump()
    values["train"] |= dict.fromkeys(size_keys, inputs.image_size)
    if from_weights:
        values["normalization"] = {"mean": inputs.mean, "std": inputs.std, "source": "given"}
    return parse(values, "params.yaml")


def _check_name(name: str) -> None:
    known = [*OWN_NETWORKS, *network_names()]
    if name in known:
        return
    near = difflib.get_close_matches(name, known, n=3)
    hint = f"similar: {', '.join(near)}" if near else "such as resnet18 or vit_b_16"
    raise CatdogError(
        f"params.yaml: model.name: unknown network {name!r}; choose residual, seed or a classifier "
        f"in torchvision.models ({hint})"
    )


def build(name: str, classes: int, image_size: int) -> nn.Module:
    """Return the classifier `name` with random weights and a head for `classes`.

    It maps float photos (N, 3, image_size, image_size) to logits (N, classes). Nothing is
    downloaded. Raises CatdogError if the network cannot be built for `image_size`.
    """
    from torchvision import models  # noqa: PLC0415

    options, device = _options(name, image_size), torch.get_default_device()
    # The constructor of regnet reads values from tensors, which fails on the meta device.
    try:
        with torch.device("cpu" if name.startswith("regnet") else device):
            built = models.get_model(name, weights=None, num_classes=classes, **options)
            network: nn.Module = built.to(device)
    except (AssertionError, ValueError) as error:
        raise _size_error(name, image_size, error) from None
    if isinstance(network, models.MNASNet):
        network.__class__ = _without_version_check(models.MNASNet)
    return network


def _options(name: str, image_size: int) -> dict[str, Any]:
    if name.startswith("vit"):
        return {"image_size": image_size}
    if name.startswith("maxvit"):
        return {"input_size": (image_size, image_size)}
    if name in ("googlenet", "inception_v3"):
        # Their weights expect another normalization; transform_input converts from ImageNet's.
        return {"aux_logits": False, "init_weights": True, "transform_input": True}
    return {}


def _without_version_check(mnasnet: Any) -> Any:
    """Return the class without its check of the state dict's version.

    MNASNet only loads a state dict whose metadata has version 1 or 2 (pytorch/vision#1224), but
    safetensors files have no such metadata.
    """
    return type("MNASNet", (mnasnet,), {"_load_from_state_dict": nn.Module._load_from_state_dict})


def initialize(network: nn.Module, name: str, weights: str) -> None:
    """Load pretrained weights into a network from `build`.

    `weights` is none, default (torchvision's, downloaded once) or the path of a state dict. The
    head keeps its random weights. Raises CatdogError for weights that are missing, invalid or of
    another network.
    """
    if weights == "default":
        file = download(name, _default_weights(name))
        _load_backbone(network, name, read_state(file), str(file))
    elif weights != "none":
        _load_backbone(network, name, read_state(Path(weights)), weights)


@torch.inference_mode()
def check_image_sizes(params: Params) -> None:
    """Raise CatdogError if a torchvision network does not support one of the image sizes.

    The network runs on the meta device, so nothing is computed. The params must have been resolved.
    """
    if not params.model.from_torchvision:
        return
    name, sizes = params.model.name, {key: getattr(params.train, key) for key in SIZE_KEYS}
    with torch.device("meta"):
        network = build(name, 2, sizes["eval_image_size"]).eval()
    for image_size in sorted(set(sizes.values())):
        try:
            network(torch.empty(1, 3, image_size, image_size, device="meta"))
        except (AssertionError, RuntimeError, ValueError) as error:
            raise _size_error(name, image_size, error) from None


def _size_error(name: str, image_size: int, error: Exception) -> CatdogError:
    size = weights_inputs(name).image_size
    return CatdogError(
        f"model.name: {name} does not support an image size of {image_size} pixels "
        f"({first_line(error)}); set train.start_image_size, train.image_size and "
        f"train.eval_image_size to {size}, the size of its weights"
    )


def _default_weights(name: str) -> Any:
    from torchvision import models  # noqa: PLC0415

    return models.get_model_weights(name).DEFAULT


def _load_backbone(network: nn.Module, name: str, state: Mapping[str, Tensor], source: str) -> None:
    """Load all weights except the head's; CatdogError unless `state` has exactly those."""
    head = f"{_head(network)[0]}."
    backbone = {
        OLD_DENSENET.sub(r"\1\2", key): value
        for key, value in state.items()
        if not key.startswith((head, *AUXILIARY))
    }
    _resample_positions(network, backbone)
    try:
        loaded = network.load_state_dict(backbone, strict=False)
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[-1].strip()
        raise _mismatch(source, name, reason) from None
    missing = [key for key in loaded.missing_keys if not key.startswith(head)]
    for problem, keys in (("missing", missing), ("unexpected", loaded.unexpected_keys)):
        if keys:
            more = f" and {len(keys) - 1} more" if len(keys) > 1 else ""
            raise _mismatch(source, name, f"{problem}: {keys[0]}{more}")


def _mismatch(source: str, name: str, reason: str) -> CatdogError:
    return CatdogError(
        f"{source}: weights do not match {name} ({reason}); use weights of this network"
    )


def _resample_positions(network: nn.Module, backbone: dict[str, Tensor]) -> None:
    """Resample the position embedding of a vision transformer to the size of the network."""
    from torchvision.models import VisionTransformer, vision_transformer  # noqa: PLC0415

    if isinstance(network, VisionTransformer) and "encoder.pos_embedding" in backbone:
        resample = vision_transformer.interpolate_embeddings
        backbone.update(resample(network.image_size, network.patch_size, backbone))


def _head(network: nn.Module) -> tuple[str, nn.Module]:
    """Return name and module of the head: the last linear layer, or the last conv (squeezenet)."""
    name, head = "", network
    for name_of_layer, layer in network.named_modules():
        if isinstance(layer, nn.Linear | nn.Conv2d):
            name, head = name_of_layer, layer
    return name, head


def head_parameters(network: nn.Module) -> list[nn.Parameter]:
    """Return the parameters of the layer that computes the logits; the rest is the backbone."""
    return list(_head(network)[1].parameters())


def freeze(network: nn.Module, frozen: bool) -> None:
    """Put a network into training mode, with a frozen or a trainable backbone.

    If frozen, only the head gets gradients, and all layers are in evaluation mode: neither weights
    nor norm statistics of the backbone change, and dropout is off. Call it before each epoch
    instead of `network.train()`.
    """
    head = {id(weight) for weight in head_parameters(network)}
    for weight in network.parameters():
        weight.requires_grad_(not frozen or id(weight) in head)
    network.train(not frozen)
