"""Mutated model files through saved.load and a prediction."""

import json
import random
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save
from torch import Tensor

from catdog import params
from catdog.model import networks, saved
from catdog.model.card import ModelCard, versions
from tools.fuzz.mutations import mutate_bytes, mutate_value
from tools.fuzz.runner import GIGABYTE, InvariantError

SAMPLE = Path(__file__).resolve().parents[2] / "recipes/sample.yaml"
STORED = 24  # pixels
DTYPES = (torch.float16, torch.bfloat16, torch.float64, torch.int8, torch.bool)
VALUES = (0.0, -1.0, 1e20, 3e38, -3e38, float("nan"), float("inf"))


class Models:
    """The target; each input is a folder with model.json and model.safetensors."""

    max_bytes = 2 * GIGABYTE  # torch alone takes half of one

    def make(self, rng: random.Random, folder: Path) -> None:
        """Write a model of which one file is mutated."""
        card, state = model(rng.choice(("residual", "seed")))
        values, weights = card.model_dump(mode="json"), save(state)
        text = json.dumps(values)
        match rng.randrange(5):
            case 0:
                text = json.dumps(mutate_value(rng, values))
            case 1:
                text = mutate_bytes(rng, text.encode()).decode("utf-8", "surrogateescape")
            case 2:
                weights = mutate_bytes(rng, weights)
            case 3:
                weights = _mutate_header(rng, weights)
            case 4:
                weights = save(_mutate_tensors(rng, state))
        (folder / "model.json").write_bytes(text.encode("utf-8", "surrogateescape"))
        (folder / "model.safetensors").write_bytes(weights)

    def check(self, folder: Path) -> None:
        """Load the model and predict; probabilities must be finite and sum to 1."""
        loaded = saved.load(folder, "cpu")
        side = loaded.card.stored_image_size
        photos = np.random.default_rng(0).integers(0, 256, (2, side, side, 3), dtype=np.uint8)
        probabilities = loaded.probabilities(photos)
        if not np.isfinite(probabilities).all() or abs(probabilities.sum(1) - 1).max() > 1e-4:
            raise InvariantError("not finite", f"probabilities: {probabilities}")
        json.loads(loaded.card.model_dump_json())


@cache
def model(name: str) -> tuple[ModelCard, dict[str, Tensor]]:
    """Return card and weights of a small network."""
    values = params.load(SAMPLE).model.model_dump() | {"name": name}
    values["residual"] |= {"width": 8, "blocks": 0}
    values["seed"] |= {"width": 2, "hidden_width": 8}
    settings = params.Model.model_validate(values)
    torch.manual_seed(0)
    network = networks.build(settings, 2, 16)
    card = ModelCard(
        model=settings,
        classes=["cat", "dog"],
        stored_image_size=STORED,
        image_size=16,
        flip=True,
        mean=[0.5] * 3,
        std=[0.25] * 3,
        precision="float32",
        threads=1,
        epoch=1,
        weights=networks.count_parameters(network),
        pflop=0.1,
        versions=versions(),
    )
    return card, dict(network.state_dict())


def _mutate_header(rng: random.Random, weights: bytes) -> bytes:
    """Return a safetensors file with another header; its length is that of the new one."""
    length = int.from_bytes(weights[:8], "little")
    header: dict[str, Any] = json.loads(weights[8 : 8 + length])
    name = rng.choice(list(header))
    entry = header[name]
    match rng.randrange(5):
        case 0:
            entry["shape"] = rng.choice(([2**40], [0], [-1], [1, 2, 3], [2**63, 2]))
        case 1:
            entry["dtype"] = rng.choice(("F64", "F16", "I8", "X", "BF16", "F8_E4M3"))
        case 2:
            start = rng.choice((0, -1, 2**40, entry["data_offsets"][0] + 4))
            entry["data_offsets"] = [start, entry["data_offsets"][1]]
        case 3:
            header[rng.choice(("x", "", "é"))] = header.pop(name)
        case 4:
            header = mutate_value(rng, header)
    text = json.dumps(header).encode("utf-8", "surrogatepass")
    said = rng.choice((len(text), len(text), len(text) - 1, 2**62))
    return said.to_bytes(8, "little") + text + weights[8 + length :]


def _mutate_tensors(rng: random.Random, state: dict[str, Tensor]) -> dict[str, Tensor]:
    changed = {name: tensor.clone() for name, tensor in state.items()}
    name = rng.choice(list(changed))
    tensor = changed[name]
    match rng.randrange(6):
        case 0:
            del changed[name]
        case 1:
            changed[f"{name}x"] = tensor.clone()
        case 2:
            changed[name] = tensor.to(rng.choice(DTYPES))
        case 3:
            changed[name] = tensor.flatten()[:-1].clone()
        case 4 if tensor.is_floating_point():
            tensor.view(-1)[rng.randrange(tensor.numel())] = rng.choice(VALUES)
        case _ if tensor.is_floating_point():
            tensor.fill_(rng.choice(VALUES))
    return changed
