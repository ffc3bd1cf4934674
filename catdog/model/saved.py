"""A trained model on disk: its weights in model.safetensors, its model card in model.json."""

from pathlib import Path

import safetensors
import torch
from pydantic import ValidationError
from safetensors.torch import save as serialize
from torch import Tensor, nn

from catdog.errors import CatdogError, first_line
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

    Raises CatdogError, which names the file, if one is missing or invalid, if the two do not match,
    or if a weight is not finite.
    """
    card_file, weights_file = folder / "model.json", folder / "model.safetensors"
    for file in (card_file, weights_file):
        if not file.is_file():
            raise CatdogError(
                f"{file}: no such file; run `dvc repro`, or pass the folder of a model"
            )
    card = _read_card(card_file)
    state = _read_weights(weights_file, _expected_state(card, card_file))
    network = networks.build(card.model, len(card.classes), card.image_size)
    network.load_state_dict(state)
    device = pick_device(card.precision, device_name, threads=card.threads)
    network.to(device.torch_device).to(memory_format=torch.channels_last)
    return TrainedModel(card, network.eval(), device, folder)


def _read_card(file: Path) -> ModelCard:
    try:
        return ModelCard.model_validate_json(file.read_text(encoding="utf-8"))
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        key = ".".join(map(str, problem["loc"]))
        raise _invalid(file, f"{key}: {problem['msg']}" if key else problem["msg"]) from None
    except UnicodeDecodeError as error:
        raise _invalid(file, error) from None


def _expected_state(card: ModelCard, file: Path) -> dict[str, Tensor]:
    """Return the state dict of the network of a card, on the meta device: without memory.

    A card that describes a huge network is thus refused before memory is allocated. Raises
    CatdogError if the network cannot be built, or does not accept photos of the card's size.
    """
    side = card.image_size
    try:
        with torch.device("meta"), torch.inference_mode():
            network = networks.build(card.model, len(card.classes), side).eval()
            network(torch.empty(1, 3, side, side))
    except (CatdogError, ValueError, RuntimeError) as error:
        raise _invalid(file, error) from None
    return network.state_dict()


def _read_weights(file: Path, expected: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors of a file; CatdogError unless they match `expected` and are finite."""
    try:
        with safetensors.safe_open(file, framework="pt") as tensors:
            _compare(file, "missing", expected.keys() - tensors.keys())
            _compare(file, "unexpected", tensors.keys() - expected.keys())
            for name, wanted in expected.items():
                found = tuple(tensors.get_slice(name).get_shape())
                if found != wanted.shape:
                    reason = f"tensor {name} has shape {found}; the network in model.json requires"
                    raise _invalid(file, f"{reason} {tuple(wanted.shape)}")
            state = {name: tensors.get_tensor(name) for name in expected}
    except (safetensors.SafetensorError, ValueError, RuntimeError) as error:
        raise _invalid(file, error) from None
    for name, tensor in state.items():
        if tensor.dtype != expected[name].dtype:
            raise _invalid(file, f"tensor {name} has dtype {tensor.dtype}")
        if not tensor.isfinite().all():
            raise _invalid(file, f"tensor {name} has values that are not finite")
    return state


def _compare(file: Path, problem: str, names: set[str]) -> None:
    if names:
        more = f" and {len(names) - 1} more" if len(names) > 1 else ""
        raise _invalid(file, f"{problem} tensor {min(names)!r}{more}")


def _invalid(file: Path, reason: object) -> CatdogError:
    return CatdogError(
        f"{file}: cannot be loaded by this version of catdog ({first_line(reason)}); run `dvc "
        "repro` to train the model again"
    )
