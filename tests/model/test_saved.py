"""A trained model on disk: saving, loading and inference."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.nn import functional as F

from catdog.dataset.prepared import ChannelStats
from catdog.errors import CatdogError
from catdog.model import inference, inputs, saved
from tests.helpers.small_model import card, model, network, noise

ROOT = Path(__file__).resolve().parents[2]


def seed_model_values() -> dict[str, object]:
    return {**card().model.model_dump(), "name": "seed"}


@pytest.mark.parametrize("name", ["residual", "seed"])
def test_a_loaded_model_gives_the_same_logits(name: str, tmp_path: Path) -> None:
    before = model(model={**card().model.model_dump(), "name": name})
    saved.save(tmp_path, before.network, before.card)
    after = saved.load(tmp_path, "cpu")
    assert after.card == before.card
    assert np.array_equal(after.logits(noise(5)), before.logits(noise(5)))


def test_a_model_is_two_files_without_pickle(tmp_path: Path) -> None:
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
def test_a_missing_file_is_an_error(remove: Callable[[Path], None], tmp_path: Path) -> None:
    saved.save(tmp_path, network(card()), card())
    remove(tmp_path)
    with pytest.raises(CatdogError, match="no such file; run `dvc repro`"):
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


def change_weights(folder: Path, **changes: torch.Tensor | None) -> None:
    """Write other tensors into the weights file; None removes one."""
    file = folder / "model.safetensors"
    state = {**load_file(file), **{name.replace("__", "."): t for name, t in changes.items()}}
    save_file({name: tensor for name, tensor in state.items() if tensor is not None}, file)


def weights_of_another_shape(folder: Path) -> None:
    change_weights(folder, classifier__bias=torch.zeros(3))


def weights_of_another_dtype(folder: Path) -> None:
    change_weights(folder, classifier__bias=torch.zeros(2, dtype=torch.float64))


def missing_tensor(folder: Path) -> None:
    change_weights(folder, classifier__bias=None)


def additional_tensor(folder: Path) -> None:
    change_weights(folder, classifier__extra=torch.zeros(2))


def nan_in_the_weights(folder: Path) -> None:
    change_weights(folder, classifier__bias=torch.tensor([0.0, torch.nan]))


def infinity_in_the_statistics(folder: Path) -> None:
    change_weights(folder, features__0__1__running_var=torch.full((8,), torch.inf))


def header_with_a_huge_length(folder: Path) -> None:
    file = folder / "model.safetensors"
    file.write_bytes((2**62).to_bytes(8, "little") + file.read_bytes()[8:])


def header_with_other_offsets(folder: Path) -> None:
    raw = (folder / "model.safetensors").read_bytes()
    length = int.from_bytes(raw[:8], "little")
    header = json.loads(raw[8 : 8 + length])
    header["classifier.bias"]["data_offsets"] = [0, 2**40]
    changed = json.dumps(header).encode()
    parts = len(changed).to_bytes(8, "little"), changed, raw[8 + length :]
    (folder / "model.safetensors").write_bytes(b"".join(parts))


def card_of_a_huge_network(folder: Path) -> None:
    """Its weights would take 77 GB."""
    values = seed_model_values()
    seed: dict[str, object] = {**values["seed"], "width": 512, "conv_layers": 8}  # type: ignore[dict-item]
    change_card(folder, model={**values, "seed": seed}, image_size=256, stored_image_size=256)


def card_of_a_network_that_reduces_photos_to_nothing(folder: Path) -> None:
    values = seed_model_values()
    seed: dict[str, object] = {**values["seed"], "conv_layers": 8}  # type: ignore[dict-item]
    change_card(folder, model={**values, "seed": seed})


def card_of_a_network_that_does_not_support_its_size(folder: Path) -> None:
    change_card(folder, model={**card().model.model_dump(), "name": "squeezenet1_1"})


def card_of_an_unknown_network(folder: Path) -> None:
    change_card(folder, model={**card().model.model_dump(), "name": "resnet17"})


def nested_card(folder: Path) -> None:
    (folder / "model.json").write_text("[" * 100_000)


def card_in_another_encoding(folder: Path) -> None:
    (folder / "model.json").write_bytes((folder / "model.json").read_text().encode("utf-16"))


WEIGHTS = (
    cut_weights,
    empty_weights,
    pickled_weights,
    weights_of_another_shape,
    weights_of_another_dtype,
    missing_tensor,
    additional_tensor,
    nan_in_the_weights,
    infinity_in_the_statistics,
    header_with_a_huge_length,
    header_with_other_offsets,
    card_of_another_network,
    card_of_more_classes,
    card_of_a_huge_network,
)
CARDS = (
    cut_card,
    unknown_key,
    missing_key,
    nested_card,
    card_in_another_encoding,
    card_of_an_unknown_network,
    card_of_a_network_that_reduces_photos_to_nothing,
    card_of_a_network_that_does_not_support_its_size,
)


@pytest.mark.parametrize("damage", [*WEIGHTS, *CARDS])
def test_the_error_of_invalid_files_is_one_line_that_names_the_file(
    damage: Callable[[Path], None], tmp_path: Path
) -> None:
    saved.save(tmp_path, network(card()), card())
    damage(tmp_path)
    with pytest.raises(CatdogError, match="cannot be loaded by this version of catdog") as refused:
        saved.load(tmp_path)
    assert "\n" not in str(refused.value)
    file = "model.safetensors" if damage in WEIGHTS else "model.json"
    assert str(refused.value).startswith(str(tmp_path / file))


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"classes": ["cat"]}, "classes"),
        ({"classes": ["cat", "cat"]}, "classes: a name occurs twice"),
        ({"classes": ["cat", ""]}, "classes.1"),
        ({"stored_image_size": 15}, "stored_image_size"),
        ({"image_size": 1025}, "image_size"),
        ({"mean": [0.5, 0.5]}, "mean"),
        ({"std": [0.5, 0.0, 0.5]}, "std: must be above 0"),
        ({"threads": -1}, "threads"),
        ({"precision": "portable", "threads": 0}, "threads: must be at least 1"),
        ({"epoch": 0}, "epoch"),
        ({"weights": 0}, "weights"),
        ({"pflop": -0.1}, "pflop"),
        ({"pflop": float("nan")}, "pflop"),
        ({"mean": [float("inf"), 0.5, 0.5]}, "mean"),
    ],
)
def test_values_of_the_card_have_ranges(
    changes: dict[str, object], named: str, tmp_path: Path
) -> None:
    saved.save(tmp_path, network(card()), card())
    change_card(tmp_path, **changes)
    with pytest.raises(CatdogError) as refused:
        saved.load(tmp_path)
    start = f"{tmp_path / 'model.json'}: cannot be loaded by this version of catdog ("
    assert str(refused.value).startswith(start)
    assert named in str(refused.value)


def test_outputs_that_are_not_finite_are_an_error(tmp_path: Path) -> None:
    """The weights are finite, but their products overflow."""
    saved.save(tmp_path, network(card()), card())
    change_weights(tmp_path, classifier__weight=torch.full((2, 128), 3e38))
    with pytest.raises(CatdogError, match=r"model\.safetensors: the outputs .* are not finite"):
        saved.load(tmp_path).probabilities(noise(3))


def test_photos_are_resized_and_normalized_as_the_card_says() -> None:
    loaded, photos = model(), noise(4)
    small = F.interpolate(
        torch.from_numpy(photos).permute(0, 3, 1, 2).float(),
        (16, 16),
        mode="bilinear",
        antialias=True,
    )
    mean, std = torch.tensor(loaded.card.mean), torch.tensor(loaded.card.std)
    inputs = (small.round() / 255 - mean.view(3, 1, 1)) / std.view(3, 1, 1)
    with torch.inference_mode():
        expected = loaded.network(inputs).numpy()
    # Rounding of the resized pixels may differ by 1 of 255.
    np.testing.assert_allclose(loaded.logits(photos), expected, rtol=5e-3)


def test_flip_averages_the_photo_and_its_horizontal_flip() -> None:
    photos = noise(6, 16)
    alone, both = model(stored_image_size=16), model(stored_image_size=16, flip=True)
    mirrored = np.ascontiguousarray(photos[:, :, ::-1])
    expected = (alone.logits(photos) + alone.logits(mirrored)) / 2
    assert not np.allclose(alone.logits(photos), alone.logits(mirrored), rtol=1e-5)
    np.testing.assert_allclose(both.logits(photos), expected, rtol=1e-6)


@pytest.mark.parametrize("photos", [1, 4, 10, 12])
def test_logits_do_not_depend_on_the_batch_size(
    photos: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = model().logits(noise(photos))
    monkeypatch.setattr(inference, "BATCH_SIZE", 4)
    batched = model().logits(noise(photos))
    assert batched.shape == (photos, 2)
    np.testing.assert_allclose(batched, whole, rtol=1e-5)


def test_no_photos_give_no_logits() -> None:
    assert model().logits(noise(0)).shape == (0, 2)


def test_probabilities_are_positive_and_sum_to_one() -> None:
    probabilities = model().probabilities(noise(5))
    assert (probabilities > 0).all()
    np.testing.assert_allclose(probabilities.sum(1), 1, rtol=1e-6)


def test_inference_does_not_change_the_network() -> None:
    loaded = model()
    loaded.network.train()
    before = {name: tensor.clone() for name, tensor in loaded.network.state_dict().items()}
    loaded.logits(noise(5))
    after = loaded.network.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)


@pytest.mark.parametrize("image_size", [16, 17, 32, 50, 60])
def test_uint8_and_float_photos_are_resized_alike(image_size: int) -> None:
    photos = torch.from_numpy(noise(3, 50)).permute(0, 3, 1, 2)
    resized = inputs.resize(photos, image_size)
    size = (image_size, image_size)
    expected = F.interpolate(photos.float(), size, mode="bilinear", antialias=True).round()
    assert (resized.dtype, resized.shape) == (torch.uint8, (3, 3, *size))
    assert (resized.float() - expected).abs().max() <= 1


def test_photos_of_the_right_size_are_not_changed() -> None:
    photos = torch.from_numpy(noise(2)).permute(0, 3, 1, 2)
    assert torch.equal(inputs.resize(photos, 24), photos)


def test_normalization_is_invertible() -> None:
    photos = torch.rand(2, 3, 5, 5)
    mean, std = [0.1, 0.5, 0.9], [0.2, 0.3, 0.4]
    normalized = inputs.normalize(photos, ChannelStats(mean, std))
    undone = normalized * torch.tensor(std).view(3, 1, 1) + torch.tensor(mean).view(3, 1, 1)
    torch.testing.assert_close(undone, photos)
