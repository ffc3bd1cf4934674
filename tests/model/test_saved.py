"""A trained model on disk: what is written, what comes back, and how photos are judged."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from catdog import params
from catdog.errors import CatdogError
from catdog.model import inference, inputs, networks, saved
from catdog.model.card import ModelCard, versions
from catdog.model.devices import pick_device
from catdog.model.inference import TrainedModel

ROOT = Path(__file__).resolve().parents[2]
CPU = pick_device("float32", "cpu")
Photos = npt.NDArray[np.uint8]


def card(**changes: object) -> ModelCard:
    """A card of a small residual network that judges 24 px photos at 16 px."""
    model = params.load(ROOT / "recipes/seed.yaml").model.model_dump()
    model["name"] = "residual"
    model["residual"] |= {"width": 8, "blocks": 1}
    model["seed"] |= {"width": 4, "hidden_width": 8}
    values: dict[str, object] = {
        "model": model,
        "classes": ["cat", "dog"],
        "stored_image_size": 24,
        "image_size": 16,
        "flip": False,
        "mean": [0.4, 0.5, 0.6],
        "std": [0.2, 0.25, 0.3],
        "precision": "float32",
        "epoch": 3,
        "weights": 7,
        "pflop": 0.5,
        "versions": versions(),
    }
    return ModelCard.model_validate({**values, **changes})


def network(of: ModelCard) -> nn.Module:
    """A network as after some training: norms have learnt scales and statistics."""
    torch.manual_seed(0)
    net = networks.build(of.model, len(of.classes), of.image_size)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor in module.state_dict().values():
                if tensor.is_floating_point():
                    tensor.uniform_(0.5, 1.5)
    return net.to(memory_format=torch.channels_last)


def model(**changes: object) -> TrainedModel:
    return TrainedModel(card(**changes), network(card(**changes)).eval(), CPU)


def noise(photos: int, side: int = 24) -> Photos:
    return np.random.default_rng(0).integers(0, 256, (photos, side, side, 3), dtype=np.uint8)


def seed_model_values() -> dict[str, object]:
    return {**card().model.model_dump(), "name": "seed"}


@pytest.mark.parametrize("name", ["residual", "seed"])
def test_what_is_saved_gives_the_same_logits_when_loaded(name: str, tmp_path: Path) -> None:
    before = model(model={**card().model.model_dump(), "name": name})
    saved.save(tmp_path, before.network, before.card)
    after = saved.load(tmp_path, "cpu")
    assert after.card == before.card
    assert np.array_equal(after.logits(noise(5)), before.logits(noise(5)))


def test_the_files_are_two_and_none_is_a_pickle(tmp_path: Path) -> None:
    saved.save(tmp_path, network(card()), card())
    assert {file.name for file in tmp_path.iterdir()} == {"model.safetensors", "model.json"}
    json.loads((tmp_path / "model.json").read_text())
    raw = (tmp_path / "model.safetensors").read_bytes()
    header = json.loads(raw[8 : 8 + int.from_bytes(raw[:8], "little")])
    assert header.keys() - {"__metadata__"} == network(card()).state_dict().keys()


def test_saving_the_same_network_twice_gives_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        saved.save(tmp_path / name, network(card()), card())
    for file in ("model.safetensors", "model.json"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


def remove_weights(folder: Path) -> None:
    (folder / "model.safetensors").unlink()


def remove_card(folder: Path) -> None:
    (folder / "model.json").unlink()


@pytest.mark.parametrize("remove", [remove_weights, remove_card])
def test_a_missing_model_is_one_sentence(remove: Callable[[Path], None], tmp_path: Path) -> None:
    saved.save(tmp_path, network(card()), card())
    remove(tmp_path)
    with pytest.raises(CatdogError, match=r"no trained model here; run `dvc repro`"):
        saved.load(tmp_path)


def cut_weights(folder: Path) -> None:
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])


def empty_weights(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(b"")


def pickled_weights(folder: Path) -> None:
    torch.save(network(card()).state_dict(), folder / "model.safetensors")


def cut_card(folder: Path) -> None:
    file = folder / "model.json"
    file.write_text(file.read_text()[:50])


def unknown_key(folder: Path) -> None:
    change_card(folder, temperature=1.0)


def missing_key(folder: Path) -> None:
    change_card(folder, flip=...)


def card_of_another_network(folder: Path) -> None:
    change_card(folder, model=seed_model_values())


def card_of_more_classes(folder: Path) -> None:
    change_card(folder, classes=["a", "b", "c"])


def change_card(folder: Path, **changes: object) -> None:
    file = folder / "model.json"
    values = {**json.loads(file.read_text()), **changes}
    file.write_text(json.dumps({key: value for key, value in values.items() if value is not ...}))


@pytest.mark.parametrize(
    "damage",
    [
        cut_weights,
        empty_weights,
        pickled_weights,
        cut_card,
        unknown_key,
        missing_key,
        card_of_another_network,
        card_of_more_classes,
    ],
)
def test_files_that_are_no_model_are_one_sentence(
    damage: Callable[[Path], None], tmp_path: Path
) -> None:
    saved.save(tmp_path, network(card()), card())
    damage(tmp_path)
    with pytest.raises(CatdogError, match=r"not a model of this version of catdog") as refused:
        saved.load(tmp_path)
    assert "\n" not in str(refused.value)
    assert str(tmp_path) in str(refused.value)


def test_logits_are_those_of_the_normalized_photos_at_the_cards_size() -> None:
    judged, photos = model(), noise(4)
    small = F.interpolate(
        torch.from_numpy(photos).permute(0, 3, 1, 2).float(),
        (16, 16),
        mode="bilinear",
        antialias=True,
    )
    mean, std = torch.tensor(judged.card.mean), torch.tensor(judged.card.std)
    inputs = (small.round() / 255 - mean.view(3, 1, 1)) / std.view(3, 1, 1)
    with torch.inference_mode():
        expected = judged.network(inputs).numpy()
    # A pixel may be rounded to the other side, by 1 of 255.
    np.testing.assert_allclose(judged.logits(photos), expected, rtol=5e-3)


def test_flip_averages_the_photo_and_its_mirror_image() -> None:
    photos = noise(6, 16)
    alone, both = model(stored_image_size=16), model(stored_image_size=16, flip=True)
    mirrored = np.ascontiguousarray(photos[:, :, ::-1])
    expected = (alone.logits(photos) + alone.logits(mirrored)) / 2
    assert not np.allclose(alone.logits(photos), alone.logits(mirrored), rtol=1e-5)
    np.testing.assert_allclose(both.logits(photos), expected, rtol=1e-6)


@pytest.mark.parametrize("photos", [1, 4, 10, 12])
def test_batches_change_no_judgement(photos: int, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = model().logits(noise(photos))
    monkeypatch.setattr(inference, "BATCH_SIZE", 4)
    batched = model().logits(noise(photos))
    assert batched.shape == (photos, 2)
    np.testing.assert_allclose(batched, whole, rtol=1e-5)


def test_no_photos_have_no_logits() -> None:
    assert model().logits(noise(0)).shape == (0, 2)


def test_probabilities_are_positive_and_sum_to_one() -> None:
    probabilities = model().probabilities(noise(5))
    assert (probabilities > 0).all()
    np.testing.assert_allclose(probabilities.sum(1), 1, rtol=1e-6)


def test_judging_leaves_the_network_as_it_was() -> None:
    judged = model()
    judged.network.train()
    before = {name: tensor.clone() for name, tensor in judged.network.state_dict().items()}
    judged.logits(noise(5))
    after = judged.network.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)


@pytest.mark.parametrize("image_size", [16, 17, 32, 50, 60])
def test_uint8_photos_are_resized_as_float_ones(image_size: int) -> None:
    photos = torch.from_numpy(noise(3, 50)).permute(0, 3, 1, 2)
    resized = inputs.resize(photos, image_size)
    size = (image_size, image_size)
    expected = F.interpolate(photos.float(), size, mode="bilinear", antialias=True).round()
    assert (resized.dtype, resized.shape) == (torch.uint8, (3, 3, *size))
    assert (resized.float() - expected).abs().max() <= 1


def test_photos_of_the_right_size_are_not_touched() -> None:
    photos = torch.from_numpy(noise(2)).permute(0, 3, 1, 2)
    assert torch.equal(inputs.resize(photos, 24), photos)


def test_normalization_is_invertible() -> None:
    photos = torch.rand(2, 3, 5, 5)
    mean, std = [0.1, 0.5, 0.9], [0.2, 0.3, 0.4]
    normalized = inputs.normalize(photos, mean, std)
    undone = normalized * torch.tensor(std).view(3, 1, 1) + torch.tensor(mean).view(3, 1, 1)
    torch.testing.assert_close(undone, photos)
