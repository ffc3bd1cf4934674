"""Files of pretrained weights: reading without running pickled code, downloading, fingerprints."""

import hashlib
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from catdog.errors import CatdogError, first_line


def read_state(file: Path) -> dict[str, Tensor]:
    """Return the state dict in a .safetensors or .pth file, on the CPU; no pickled code is run.

    Raises CatdogError if the file cannot be read or has other contents.
    """
    try:
        if file.suffix == ".safetensors":
            return load_file(file)
        state = torch.load(file, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise CatdogError(
            f"{file}: no such file; set model.torchvision.weights to none, default or an existing "
            "file"
        ) from None
    # A damaged file can raise nearly any exception (pytorch/pytorch#127525).
    except Exception as error:
        raise CatdogError(
            f"{file}: not a valid weights file ({first_line(error)}); download it again"
        ) from None
    if not isinstance(state, dict) or not all(isinstance(v, Tensor) for v in state.values()):
        raise CatdogError(f"{file}: not a state dict; it must map names to tensors")
    return state


def download(name: str, weights: Any) -> Path:
    """Return the file of torchvision's `weights` of the network `name`, downloaded if missing.

    Raises CatdogError if it cannot be downloaded.
    """
    file = Path(torch.hub.get_dir()) / "checkpoints" / Path(weights.url).name
    if not file.is_file():
        try:
            torch.hub.load_state_dict_from_url(
                weights.url, check_hash=True, progress=False, map_location="cpu", weights_only=True
            )
        except (OSError, RuntimeError) as error:
            raise CatdogError(
                f"weights of {name}: download failed ({first_line(error)}); get {weights.url} on "
                f"another machine and put it at {file}, or set model.torchvision.weights to its "
                f"path"
            ) from None
    return file


def fingerprint(weights: str) -> str:
    """Return an identifier of model.torchvision.weights: `none`, `default`, or the file's SHA-256.

    Raises CatdogError if the file cannot be read.
    """
    if weights in ("none", "default"):
        return weights
    try:
        with Path(weights).open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise CatdogError(f"{weights}: cannot be read ({error.strerror})") from None
