"""A trained model on disk: its weights in model.safetensors, its model card in model.json."""

from pathlib import Path

import safetensors
import torch
from pydantic import ValidationError
from safetensors.torch import load_file
from safetensors.torch import save as serialize
from torch import nn

from catdog.errors import CatdogError
from catdog.model import networks
from catdog.model.card import ModelCard
from catdog.model.devices import pick_device
from catdog.model.inference import TrainedModel
from catdog.support.atomic_files import replacing, write_text


def save(folder: Path, network: nn.Module, card: ModelCard) -> None:
    """Write model.safetensors and model.json into `folder`, each atomically."""
    state = {name: value.cpu().contiguous() for name, value in network.state_dict().items()}
    with replacing(folder / "model.safetensors") as temporary:
        # Not save_file, whose files only their owner can read (safetensors/safetensors#782).
        temporary.write_bytes(serialize(state))
    write_text(folder / "model.json", card.model_dump_json(indent=2) + "\n")


def load(folder: Path, device_name: str | None = None) -> TrainedModel:
    """Return the trained model in `folder`, on its device and in evaluation mode.

    Raises CatdogError if a file is missing or invalid, or if the two do not match.
    """
    card_file, weights_file = folder / "model.json", folder / "model.safetensors"
    for file in (card_file, weights_file):
        if not file.is_file():
            raise CatdogError(
                f"{file}: no such file; run `dvc repro`, or pass the folder of a model"
            )
    try:
        card = ModelCard.model_validate_json(card_file.read_text(encoding="utf-8"))
        network = networks.build(card.model, len(card.classes), card.image_size)
        network.load_state_dict(load_file(weights_file))
    except (ValidationError, ValueError, RuntimeError, safetensors.SafetensorError) as error:
        reason = str(error).splitlines()[0]
        raise CatdogError(
            f"{folder}: cannot be loaded by this version of catdog ({reason}); run `dvc repro` to "
            "train it again"
        ) from None
    device = pick_device(card.precision, device_name, threads=card.threads)
    network.to(device.torch_device).to(memory_format=torch.channels_last)
    return TrainedModel(card, network.eval(), device)
