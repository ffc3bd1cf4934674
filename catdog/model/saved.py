"""A trained model on disk: model.safetensors, and model.json with all that is needed to use it."""

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
    """Write model.safetensors and model.json into `folder`, each whole or not at all."""
    state = {name: value.cpu().contiguous() for name, value in network.state_dict().items()}
    with replacing(folder / "model.safetensors") as temporary:
        # Not save_file: safetensors 0.8 makes files that only their owner can read.
        temporary.write_bytes(serialize(state))
    write_text(folder / "model.json", card.model_dump_json(indent=2) + "\n")


def load(folder: Path, device_name: str | None = None) -> TrainedModel:
    """Return the trained model in `folder`, ready to predict.

    Raises CatdogError if there is none, or if its two files do not belong together.
    """
    card_file, weights_file = folder / "model.json", folder / "model.safetensors"
    for file in (card_file, weights_file):
        if not file.is_file():
            raise CatdogError(f"{file}: no trained model here; run `dvc repro`, or name its folder")
    try:
        card = ModelCard.model_validate_json(card_file.read_text(encoding="utf-8"))
        network = networks.build(card.model, len(card.classes), card.image_size)
        network.load_state_dict(load_file(weights_file))
    except (ValidationError, ValueError, RuntimeError, safetensors.SafetensorError) as error:
        reason = str(error).splitlines()[0]
        raise CatdogError(f"{folder}: not a model of this version of catdog ({reason})") from None
    device = pick_device(card.precision, device_name)
    network.to(device.torch_device).to(memory_format=torch.channels_last)
    return TrainedModel(card, network.eval(), device)
