"""torchvision's image classifiers: built for our classes, and begun from weights if wanted.

torchvision is imported inside the functions: it takes seconds, and the other networks do without.
"""

import difflib
import hashlib
import pickle
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from catdog.errors import CatdogError
from catdog.params import Params, parse
from catdog.params.networks import OWN_NETWORKS
from catdog.params.schema import SIZE_KEYS

# Second classifiers of googlenet and inception_v3, which only their own training recipe uses.
AUXILIARY = ("aux1.", "aux2.", "AuxLogits.")
# densenet's files are from a time when names could hold a dot: `denselayer1.norm.1.weight`.
OLD_DENSENET = re.compile(r"(denselayer\d+\.(?:norm|relu|conv))\.([12]\.)")


@dataclass(frozen=True)
class View:
    """What a network's weights were trained to see."""

    image_size: int
    mean: list[float]
    std: list[float]


def names() -> list[str]:
    """Return the names of all image classifiers in torchvision.models, sorted."""
    from torchvision import models  # noqa: PLC0415

    return list(models.list_models(module=models))


def own_view(name: str) -> View:
    """Return crop size and normalization of the default weights' own transforms; no download.

    A photo is squished to the crop size, not cropped: what lies at its edges is seen too.
    """
    transforms = _default_weights(name).transforms()
    return View(transforms.crop_size[0], list(transforms.mean), list(transforms.std))


def complete(params: Params) -> Params:
    """Return params in which nothing is left to torchvision's weights.

    A `train.*image_size` of 0 becomes the weights' own crop size, and `normalization.source:
    weights` the mean and std they were trained with. Raises CatdogError, in one line, if
    torchvision has no classifier called `model.name`, or if the sizes do not fit the rest.
    """
    if not params.model.from_torchvision:
        return params
    _check_name(params.model.name)
    sides = [key for key in SIZE_KEYS if getattr(params.train, key) == 0]
    from_weights = params.normalization.source == "weights"
    if not sides and not from_weights:
        return params
    own, values = own_view(params.model.name), params.model_dump()
    values["train"] |= dict.fromkeys(sides, own.image_size)
    if from_weights:
        values["normalization"] = {"mean": own.mean, "std": own.std, "source": "given"}
    return parse(values, "params.yaml")


def _check_name(name: str) -> None:
    known = [*OWN_NETWORKS, *names()]
    if name in known:
        return
    near = difflib.get_close_matches(name, known, n=3)
    hint = f"nearest: {', '.join(near)}" if near else "such as resnet18 or vit_b_16"
    raise CatdogError(
        f"params.yaml: model.name: unknown network {name!r}; choose residual, seed or a classifier "
        f"in torchvision.models ({hint})"
    )


def build(name: str, classes: int, image_size: int) -> nn.Module:
    """Return the classifier `name` with random weights and a head for `classes`.

    It takes float photos (N, 3, image_size, image_size) and returns logits (N, classes). Nothing is
    downloaded. Raises CatdogError for a size that the network cannot be built for.
    """
    from torchvision import models  # noqa: PLC0415

    options, device = _options(name, image_size), torch.get_default_device()
    # A regnet works out its widths with tensors, and needs their numbers on the meta device too.
    try:
        with torch.device("cpu" if name.startswith("regnet") else device):
            made = models.get_model(name, weights=None, num_classes=classes, **options)
            network: nn.Module = made.to(device)
    except (AssertionError, ValueError) as error:
        raise _wrong_size(name, image_size, error) from None
    if isinstance(network, models.MNASNet):
        network.__class__ = _mnasnet_without_versions(models.MNASNet)
    return network


def _options(name: str, image_size: int) -> dict[str, Any]:
    if name.startswith("vit"):
        return {"image_size": image_size}
    if name.startswith("maxvit"):
        return {"input_size": (image_size, image_size)}
    if name in ("googlenet", "inception_v3"):
        # Their weights want ImageNet's normalization turned into that of Google's networks.
        return {"aux_logits": False, "init_weights": True, "transform_input": True}
    return {}


def _mnasnet_without_versions(base: Any) -> Any:
    """Return the class without its check of a version, which no safetensors file holds."""
    return type("MNASNet", (base,), {"_load_from_state_dict": nn.Module._load_from_state_dict})


def start(network: nn.Module, name: str, weights: str, image_sizes: Iterable[int]) -> None:
    """Make a fresh network from `build` ready to be trained at `image_sizes`.

    `weights` are loaded: none, default (torchvision's, downloaded once), or a state dict's file.
    Raises CatdogError for a size that the network cannot take, and for weights that are not there
    or not this network's.
    """
    for image_size in sorted(set(image_sizes)):
        _try_size(network, name, image_size)
    if weights == "default":
        _load_backbone(network, name, *_default_state(name))
    elif weights != "none":
        _load_backbone(network, name, read_state(Path(weights)), weights)


@torch.no_grad()
def _try_size(network: nn.Module, name: str, image_size: int) -> None:
    """Judge one black photo: what a network cannot take shows here, not after an epoch."""
    device = next(network.parameters()).device
    network.eval()
    try:
        network(torch.zeros(1, 3, image_size, image_size, device=device))
    except (AssertionError, RuntimeError, ValueError) as error:
        raise _wrong_size(name, image_size, error) from None
    finally:
        network.train()


def _wrong_size(name: str, image_size: int, error: Exception) -> CatdogError:
    reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
    own = own_view(name).image_size
    return CatdogError(
        f"model.name: {name} cannot take photos of {image_size} pixels ({reason}); set "
        f"train.start_image_size, train.image_size and train.eval_image_size to its own {own}"
    )


def _default_weights(name: str) -> Any:
    from torchvision import models  # noqa: PLC0415

    return models.get_model_weights(name).DEFAULT


def _default_state(name: str) -> tuple[Mapping[str, Tensor], str]:
    """Return torchvision's weights and the name of their file, fetched if it is not there."""
    weights = _default_weights(name)
    file = Path(torch.hub.get_dir()) / "checkpoints" / Path(weights.url).name
    if not file.is_file():
        try:
            torch.hub.load_state_dict_from_url(
                weights.url, check_hash=True, progress=False, map_location="cpu", weights_only=True
            )
        except (OSError, RuntimeError) as error:
            raise CatdogError(
                f"weights of {name}: cannot be downloaded ({_one_line(error)}); get {weights.url} "
                f"elsewhere and put it at {file}, or name it in model.torchvision.weights"
            ) from None
    return read_state(file), str(file)


def read_state(file: Path) -> dict[str, Tensor]:
    """Return the state dict in a .safetensors or .pth file, on the CPU; no pickled code is run.

    Raises CatdogError if it cannot be read, or holds anything else.
    """
    try:
        if file.suffix == ".safetensors":
            return load_file(file)
        state = torch.load(file, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise CatdogError(f"{file}: no such file; see model.torchvision.weights") from None
    except (
        OSError,
        EOFError,
        RuntimeError,
        ValueError,
        pickle.UnpicklingError,
        safetensors.SafetensorError,
    ) as error:
        raise CatdogError(f"{file}: not a file of plain weights ({_one_line(error)})") from None
    if not isinstance(state, dict) or not all(isinstance(v, Tensor) for v in state.values()):
        raise CatdogError(f"{file}: holds no state dict, which is a name and a tensor each")
    return state


def _load_backbone(network: nn.Module, name: str, state: Mapping[str, Tensor], source: str) -> None:
    """Load all but the head, every tensor of it; CatdogError if `state` is of another network."""
    head = f"{_head(network)[0]}."
    backbone = {
        OLD_DENSENET.sub(r"\1\2", key): value
        for key, value in state.items()
        if not key.startswith((head, *AUXILIARY))
    }
    _fit_positions(network, backbone)
    try:
        loaded = network.load_state_dict(backbone, strict=False)
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[-1].strip()
        raise CatdogError(f"{source}: not weights of {name} ({reason})") from None
    missing = [key for key in loaded.missing_keys if not key.startswith(head)]
    for what, keys in (("lacks", missing), ("has also", loaded.unexpected_keys)):
        if keys:
            more = f" and {len(keys) - 1} more" if len(keys) > 1 else ""
            raise CatdogError(f"{source}: not weights of {name} (it {what} {keys[0]}{more})")


def _fit_positions(network: nn.Module, backbone: dict[str, Tensor]) -> None:
    """Resample a vision transformer's positions to the size that it was built for."""
    from torchvision.models import VisionTransformer, vision_transformer  # noqa: PLC0415

    if isinstance(network, VisionTransformer) and "encoder.pos_embedding" in backbone:
        resample = vision_transformer.interpolate_embeddings
        backbone.update(resample(network.image_size, network.patch_size, backbone))


def _head(network: nn.Module) -> tuple[str, nn.Module]:
    """Return the layer that makes the logits: the last linear or (squeezenet) conv one."""
    name, head = "", network
    for name_of_layer, layer in network.named_modules():
        if isinstance(layer, nn.Linear | nn.Conv2d):
            name, head = name_of_layer, layer
    return name, head


def head_of(network: nn.Module) -> list[nn.Parameter]:
    """Return the weights of the layer that makes the logits; all others are the backbone."""
    return list(_head(network)[1].parameters())


def freeze(network: nn.Module, frozen: bool) -> None:
    """Put a network into training mode, in which a frozen backbone stays as it is.

    Frozen, only the head gets gradients and all layers work as in judging, so that neither weights
    nor norm statistics change (and nothing is dropped out). To be called before each epoch, instead
    of `network.train()`.
    """
    head = {id(weight) for weight in head_of(network)}
    for weight in network.parameters():
        weight.requires_grad_(not frozen or id(weight) in head)
    network.train(not frozen)


def fingerprint(weights: str) -> str:
    """Return what tells one start from another: the sha256 of a weights file, or the word for none.

    Raises CatdogError if there is no such file.
    """
    if weights in ("none", "default"):
        return weights
    try:
        with Path(weights).open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise CatdogError(f"{weights}: cannot be read ({error.strerror})") from None


def _one_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
