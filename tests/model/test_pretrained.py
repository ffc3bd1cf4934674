"""torchvision's classifiers: heads, sizes, loading of weights, freezing."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torchvision import models

from catdog import params
from catdog.dataset.prepared import read_split
from catdog.errors import CatdogError
from catdog.model import networks, pretrained, saved, weights_files
from catdog.model.card import ModelCard, versions
from catdog.model.inference import TrainedModel
from catdog.model.normalization import pick_normalization
from catdog.training import train as stage
from tests.helpers.errors import error_line
from tests.helpers.prepared_data import write_prepared

ROOT = Path(__file__).resolve().parents[2]
SMALL = "shufflenet_v2_x0_5"  # the network with the fewest weights that has norms

State = dict[str, Tensor]


def complete(values: dict[str, Any]) -> params.Params:
    """Return the params as a stage gets them."""
    return pretrained.resolve_weights_references(params.parse(values, "params.yaml"))


def recipe(**changes: object) -> dict[str, Any]:
    """Return the values of recipes/transfer.yaml with changes; keys: `section__key`."""
    found: dict[str, Any] = params.read_yaml(ROOT / "recipes/transfer.yaml")
    for name, value in changes.items():
        *sections, key = name.split("__")
        mapping = found
        for section in sections:
            mapping = mapping[section]
        mapping[key] = value
    return found


def error_of(**changes: object) -> str:
    """Return the error of the recipe with changes, which must be one line."""
    return error_line(complete, recipe(**changes))


def small(classes: int = 2, seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return pretrained.build(SMALL, classes, 32)


def imagenet_state(seed: int = 1) -> State:
    """Return weights as in a download: 1000 classes, and non-trivial norm statistics."""
    state = small(1000, seed).state_dict()
    for name, value in state.items():
        if name.endswith(("running_mean", "running_var")):
            value.uniform_(0.5, 1.5)
    return state


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The (missing) download folder of a machine without network access."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    for name in ("http_proxy", "https_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    return tmp_path / "torch/hub/checkpoints"


# One network of each family, at the smallest size that its layers support.
@pytest.mark.parametrize(
    ("name", "image_size"),
    [
        ("alexnet", 64),
        ("convnext_tiny", 32),
        ("densenet121", 32),
        ("efficientnet_b0", 32),
        ("googlenet", 32),
        ("inception_v3", 75),
        ("maxvit_t", 224),
        ("mnasnet0_5", 32),
        ("mobilenet_v3_small", 32),
        ("regnet_y_400mf", 32),
        ("resnet18", 32),
        ("shufflenet_v2_x0_5", 32),
        ("squeezenet1_1", 32),
        ("swin_v2_t", 64),
        ("vgg11_bn", 32),
        ("vit_b_16", 48),
    ],
)
@pytest.mark.parametrize("training", [True, False])
def test_a_network_of_each_family_has_one_output_per_class(
    name: str, image_size: int, training: bool
) -> None:
    with torch.device("meta"):  # shapes only, no values
        network = pretrained.build(name, 3, image_size).train(training)
        logits = network(torch.empty(2, 3, image_size, image_size))
    assert logits.shape == (2, 3)
    assert {weight.shape[0] for weight in pretrained.head_parameters(network)} == {3}


def test_the_names_are_those_of_torchvisions_classifiers_only() -> None:
    names = pretrained.network_names()
    assert {"resnet18", "vit_b_16", "mobilenet_v3_small"} <= set(names)
    assert not {"fcn_resnet50", "fasterrcnn_resnet50_fpn", "quantized_resnet18"} & set(names)


def test_our_networks_do_not_import_torchvision() -> None:
    """Importing it takes seconds, in every command."""
    code = (
        "import sys; from pathlib import Path; from catdog import params;"
        "from catdog.model import networks; from catdog.training import train;"
        "networks.build(params.load(Path('recipes/sample.yaml')).model, 2, 32);"
        "print('torchvision' in sys.modules)"
    )
    command = [sys.executable, "-c", code]
    assert subprocess.check_output(command, cwd=ROOT, text=True) == "False\n"


def test_the_error_of_an_unknown_network_has_the_closest_names() -> None:
    line = error_of(model__name="resnet81")
    assert line.startswith("params.yaml: model.name: unknown network 'resnet81'")
    assert "residual, seed" in line
    assert "similar: resnet18" in line
    assert "such as resnet18" in error_of(model__name="@")


def test_weights_must_be_none_default_or_a_file() -> None:
    line = error_of(model__torchvision__weights="defualt")
    assert "model.torchvision.weights: must be none, default, or a file" in line
    assert "'defualt'" in line


# Sizes and normalization


@pytest.mark.parametrize(
    ("name", "image_size", "mean", "std"),
    [
        ("resnet18", 224, [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
        ("inception_v3", 299, [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
        ("efficientnet_v2_l", 480, [0.5, 0.5, 0.5], [0.5, 0.5, 0.5]),
    ],
)
def test_size_and_normalization_default_to_those_of_the_weights(
    name: str, image_size: int, mean: list[float], std: list[float], tmp_path: Path
) -> None:
    settings = complete(recipe(model__name=name, prepare__image_size=512))
    train = settings.train
    assert {train.start_image_size, train.image_size, train.eval_image_size} == {image_size}
    normalization = pick_normalization(settings, tmp_path)
    assert (normalization.mean, normalization.std) == (mean, std)


def test_given_sizes_and_normalization_are_kept() -> None:
    given = recipe(
        train__start_image_size=64,
        train__eval_image_size=200,
        normalization={"mean": None, "std": None, "source": "half"},
    )
    settings = complete(given)
    train = settings.train
    assert (train.start_image_size, train.image_size, train.eval_image_size) == (64, 224, 200)
    assert settings.normalization.source == "half"


def test_complete_params_do_not_change() -> None:
    settings = complete(recipe())
    assert complete(settings.model_dump()) == settings


def test_prepared_photos_must_have_the_size_of_the_weights() -> None:
    line = error_of(prepare__image_size=128)
    assert "prepare.image_size (128)" in line
    assert "224" in line


@pytest.mark.parametrize(
    "changes",
    [{}, {"train__start_image_size": 32, "train__image_size": 32, "train__eval_image_size": 32}],
)
def test_our_networks_have_no_pretrained_weights(changes: dict[str, object]) -> None:
    line = error_of(model__name="residual", **changes)
    assert "requires a torchvision network, but model.name is residual" in line
    assert ("normalization.source: weights" if changes else "train.start_image_size: 0") in line


@pytest.mark.parametrize("name", ["vit_b_16", "maxvit_t"])
def test_a_network_with_a_fixed_size_cannot_train_on_growing_photos(name: str) -> None:
    line = error_of(model__name=name, train__start_image_size=96)
    assert (
        f"model.name: {name} accepts only one image size; set train.start_image_size (96)" in line
    )
    assert "to the same value" in line


def test_a_batch_size_of_1_is_refused() -> None:
    assert "train.batch_size is 1, but model.name: resnet18" in error_of(train__batch_size=1)


@pytest.mark.parametrize(
    ("name", "image_size"), [("vit_b_16", 50), ("maxvit_t", 100), ("vit_b_32", 16)]
)
def test_the_error_of_an_unsupported_size_is_one_line(name: str, image_size: int) -> None:
    with torch.device("meta"), pytest.raises(CatdogError) as refused:
        pretrained.build(name, 2, image_size)
    assert f"{name} does not support an image size of {image_size} pixels (" in str(refused.value)
    assert "to 224, the size of its weights" in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("key", ["start_image_size", "image_size", "eval_image_size"])
def test_all_sizes_are_checked_before_training(key: str) -> None:
    sizes = {f"train__{name}": 64 for name in ("start_image_size", "image_size", "eval_image_size")}
    fits = complete(recipe(model__name="squeezenet1_1", **sizes))
    pretrained.check_image_sizes(fits)
    train = fits.train.model_copy(update={key: 16})
    with pytest.raises(
        CatdogError, match=r"squeezenet1_1 does not support an image size of 16 pixels"
    ) as line:
        pretrained.check_image_sizes(fits.model_copy(update={"train": train}))
    assert "\n" not in str(line.value)


# Weights


def write_safetensors(state: State, folder: Path) -> Path:
    save_file(state, folder / "weights.safetensors")
    return folder / "weights.safetensors"


def write_pth(state: State, folder: Path) -> Path:
    torch.save(state, folder / "weights.pth")
    return folder / "weights.pth"


def old_pth(state: State, folder: Path) -> Path:
    """Write the format of torchvision's oldest files: not a zip, and no num_batches_tracked."""
    kept = {name: value for name, value in state.items() if "num_batches" not in name}
    torch.save(kept, folder / "weights.pth", _use_new_zipfile_serialization=False)
    return folder / "weights.pth"


@pytest.mark.parametrize("write", [write_safetensors, write_pth, old_pth])
def test_a_file_sets_the_backbone_and_the_head_stays_random(
    write: Callable[[State, Path], Path], tmp_path: Path
) -> None:
    state, network = imagenet_state(), small()
    head = {name: v.clone() for name, v in network.state_dict().items() if name.startswith("fc.")}
    pretrained.initialize(network, SMALL, str(write(state, tmp_path)))
    loaded = network.state_dict()
    for name, value in loaded.items():
        expected = head[name] if name in head else state[name]
        assert torch.equal(value, expected), name
    assert loaded["fc.weight"].shape == (2, 1024)


def test_a_head_of_the_same_shape_is_not_loaded(tmp_path: Path) -> None:
    network, other = small(seed=0), small(seed=1)
    before = network.state_dict()["fc.weight"].clone()
    pretrained.initialize(network, SMALL, str(write_pth(other.state_dict(), tmp_path)))
    assert torch.equal(network.state_dict()["fc.weight"], before)


def test_none_keeps_the_random_weights(hub: Path) -> None:
    network = small()
    pretrained.initialize(network, SMALL, "none")
    expected = small().state_dict()
    assert all(torch.equal(value, expected[k]) for k, value in network.state_dict().items())


def test_the_error_of_a_failed_download_says_which_file_to_put_where(hub: Path) -> None:
    with pytest.raises(CatdogError) as refused:
        pretrained.initialize(small(), SMALL, "default")
    line = str(refused.value)
    assert "\n" not in line
    assert f"weights of {SMALL}: download failed (" in line
    assert "https://download.pytorch.org/models/shufflenetv2_x0.5-f707e7126e.pth" in line
    assert f"put it at {hub}/shufflenetv2_x0.5-f707e7126e.pth" in line
    assert "model.torchvision.weights" in line
    assert not list(hub.rglob("*.pth"))


def test_default_loads_a_file_that_was_put_there(hub: Path) -> None:
    hub.mkdir(parents=True)
    state, network = imagenet_state(), small()
    torch.save(state, hub / "shufflenetv2_x0.5-f707e7126e.pth")
    pretrained.initialize(network, SMALL, "default")
    loaded = network.state_dict()
    assert all(torch.equal(value, state[k]) for k, value in loaded.items() if "fc." not in k)


class Bomb:
    """An object whose pickle creates a folder when it is loaded."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
        return os.mkdir, (str(self.folder),)


@pytest.mark.parametrize("weights", ["default", "file"])
def test_no_pickled_code_is_run(weights: str, hub: Path, tmp_path: Path) -> None:
    hub.mkdir(parents=True)
    file = hub / "shufflenetv2_x0.5-f707e7126e.pth"
    torch.save({"bomb": Bomb(tmp_path / "burst")}, file)
    with pytest.raises(CatdogError, match="not a valid weights file") as refused:
        pretrained.initialize(small(), SMALL, weights if weights == "default" else str(file))
    assert not (tmp_path / "burst").exists()
    assert "\n" not in str(refused.value)
    assert str(file) in str(refused.value)


def without_a_layer(state: State) -> State:
    return {name: value for name, value in state.items() if "stage2.0" not in name}


def with_more_layers(state: State) -> State:
    return {**state, "stage5.weight": torch.zeros(1), "stage5.bias": torch.zeros(1)}


def with_wrong_shapes(state: State) -> State:
    return {**state, "conv1.0.weight": torch.zeros(32, 3, 3, 3)}


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (without_a_layer, r"missing: stage2\.0\.\S+ and \d+ more"),
        (with_more_layers, r"unexpected: stage5\.bias and 1 more"),
        (with_wrong_shapes, r"size mismatch for conv1\.0\.weight"),
    ],
)
def test_the_error_of_weights_of_another_network_is_one_line(
    damage: Callable[[State], State], reason: str, tmp_path: Path
) -> None:
    file = write_safetensors(damage(imagenet_state()), tmp_path)
    with pytest.raises(CatdogError) as refused:
        pretrained.initialize(small(), SMALL, str(file))
    line = str(refused.value)
    assert "\n" not in line
    assert line.startswith(f"{file}: weights do not match {SMALL} (")
    assert re.search(reason, line)


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("content", [None, b"", b"<html>not found</html>", b"PK\x03\x04 cut off"])
def test_the_error_of_an_invalid_file_is_one_line(
    suffix: str, content: bytes | None, tmp_path: Path
) -> None:
    file = tmp_path / f"weights{suffix}"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(CatdogError) as refused:
        weights_files.read_state(file)
    assert "\n" not in str(refused.value)
    assert str(refused.value).startswith(f"{file}: ")


@pytest.mark.parametrize("write", [write_pth, old_pth])
def test_the_error_of_a_truncated_file_is_one_line(
    write: Callable[[State, Path], Path], tmp_path: Path
) -> None:
    """torch raises many types of exceptions for one, IndexError and struct.error among them."""
    file = write({"weight": torch.zeros(3)}, tmp_path)
    content = file.read_bytes()
    for length in range(0, len(content) - 1, 7):
        file.write_bytes(content[:length])
        with pytest.raises(CatdogError, match="not a valid weights file") as refused:
            weights_files.read_state(file)
        assert "\n" not in str(refused.value)


def test_a_checkpoint_with_other_contents_is_refused(tmp_path: Path) -> None:
    torch.save({"epoch": 3, "model": imagenet_state()}, tmp_path / "w.pth")
    with pytest.raises(CatdogError, match="not a state dict"):
        weights_files.read_state(tmp_path / "w.pth")


def test_the_auxiliary_classifiers_of_googlenet_are_ignored(tmp_path: Path) -> None:
    whole = models.get_model("googlenet", init_weights=False)
    file = write_safetensors(whole.state_dict(), tmp_path)
    network = pretrained.build("googlenet", 2, 32)
    pretrained.initialize(network, "googlenet", str(file))
    assert torch.equal(network.get_parameter("conv1.conv.weight"), whole.conv1.conv.weight)


def test_module_names_with_dots_in_densenet_files_are_renamed(tmp_path: Path) -> None:
    whole, fresh = (models.DenseNet(8, (1, 1), 8, 2, num_classes=classes) for classes in (9, 2))
    old = {
        re.sub(r"(denselayer1\.(?:norm|relu|conv))([12])", r"\1.\2", name): value
        for name, value in whole.state_dict().items()
    }
    assert "features.denseblock1.denselayer1.norm.1.weight" in old
    pretrained.initialize(fresh, "densenet121", str(write_pth(old, tmp_path)))
    weight = "features.denseblock1.denselayer1.conv1.weight"
    assert torch.equal(fresh.get_parameter(weight), whole.get_parameter(weight))


def test_the_position_embedding_is_resampled_to_the_image_size(tmp_path: Path) -> None:
    whole, fresh = (models.VisionTransformer(side, 16, 1, 2, 8, 8) for side in (64, 48))
    nn.init.constant_(whole.encoder.pos_embedding, 0.25)
    pretrained.initialize(fresh, "vit_b_16", str(write_pth(whole.state_dict(), tmp_path)))
    positions = fresh.encoder.pos_embedding
    assert positions.shape == (1, 10, 8)
    torch.testing.assert_close(positions, torch.full_like(positions, 0.25))


def test_the_fingerprint_depends_on_the_contents_of_the_file(tmp_path: Path) -> None:
    file = tmp_path / "w.pth"
    file.write_bytes(b"a")
    before = weights_files.fingerprint(str(file))
    file.write_bytes(b"b")
    assert weights_files.fingerprint(str(file)) != before
    assert weights_files.fingerprint("none") != weights_files.fingerprint("default")
    with pytest.raises(CatdogError, match="cannot be read"):
        weights_files.fingerprint(str(tmp_path / "nothing.pth"))


# Freezing


def step(network: nn.Module) -> tuple[State, State]:
    """Take one SGD step with weight decay; return the state before and after."""
    before = {name: value.clone() for name, value in network.state_dict().items()}
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1, weight_decay=0.1)
    torch.manual_seed(0)
    network(torch.rand(4, 3, 32, 32)).logsumexp(1).sum().backward()
    optimizer.step()
    return before, network.state_dict()


def test_a_frozen_backbone_keeps_its_weights_and_norm_statistics() -> None:
    network = small()
    pretrained.freeze(network, True)
    before, after = step(network)
    changed = {name for name, value in after.items() if not torch.equal(value, before[name])}
    assert changed == {"fc.weight", "fc.bias"}


def test_an_unfrozen_backbone_is_trained_again() -> None:
    network = small()
    pretrained.freeze(network, True)
    network.eval()  # as after validation
    pretrained.freeze(network, False)
    before, after = step(network)
    same = {name for name, value in after.items() if torch.equal(value, before[name])}
    assert same == set()


# Training and saved models


def test_a_saved_model_is_loaded_without_a_download(hub: Path, tmp_path: Path) -> None:
    settings = complete(recipe(model__name=SMALL)).model
    assert settings.torchvision.weights == "default"
    network = networks.build(settings, 2, 32)
    card = ModelCard(
        model=settings,
        classes=["cat", "dog"],
        stored_image_size=32,
        image_size=32,
        flip=True,
        mean=[0.5] * 3,
        std=[0.5] * 3,
        precision="float32",
        epoch=1,
        weights=networks.count_parameters(network),
        pflop=0.0,
        versions=versions(),
    )
    saved.save(tmp_path / "models", network, card)
    photos = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), dtype=np.uint8)
    loaded = saved.load(tmp_path / "models", "cpu")
    expected = TrainedModel(card, network, loaded.device).logits(photos)
    assert np.array_equal(loaded.logits(photos), expected)


def test_mnasnet_is_loaded_from_a_file_without_version(tmp_path: Path) -> None:
    whole, network = (pretrained.build("mnasnet0_5", 2, 32) for _ in range(2))
    file = write_safetensors(whole.state_dict(), tmp_path)
    network.load_state_dict(weights_files.read_state(file))
    assert torch.equal(network.get_parameter("layers.0.weight"), whole.layers[0].weight)  # type: ignore[index,union-attr]


def test_the_transfer_recipe_trains_with_random_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    prepared = write_prepared(tmp_path / "prepared", ["cat", "dog"])
    changed = complete(
        recipe(
            prepare__image_size=32,
            model__torchvision__weights="none",
            train__epochs=3,
            train__batch_size=16,
            train__start_image_size=32,
            train__image_size=32,
            train__eval_image_size=32,
        )
    )
    rows = stage.train(changed, prepared, tmp_path / "models", tmp_path / "history.csv")
    assert len(rows) == 3
    assert rows[-1].train_loss < rows[0].train_loss
    model = saved.load(tmp_path / "models")
    assert json.loads((tmp_path / "models/model.json").read_text())["model"]["name"] == "resnet18"
    assert model.card.weights == networks.count_parameters(model.network)
    assert model.logits(read_split(prepared, "test").photos).shape == (16, 2)


def test_in_frozen_epochs_only_the_head_is_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    prepared = write_prepared(tmp_path / "prepared", ["cat", "dog"])
    file = write_safetensors(imagenet_state(), tmp_path)

    def trained(freeze_epochs: int) -> State:
        changed = recipe(
            prepare__image_size=32,
            model__name=SMALL,
            model__torchvision={
                "weights": file.name,
                "backbone_lr": 0.1,
                "freeze_epochs": freeze_epochs,
            },
            train__epochs=1,
            train__batch_size=16,
            train__start_image_size=32,
            train__image_size=32,
            train__eval_image_size=32,
        )
        stage.train(complete(changed), prepared, Path("models"), Path("history.csv"))
        return weights_files.read_state(Path("models/model.safetensors"))

    state, frozen, unfrozen = imagenet_state(), trained(1), trained(0)
    backbone = [name for name in state if not name.startswith("fc.")]
    assert all(torch.equal(frozen[name], state[name]) for name in backbone)
    assert not torch.equal(unfrozen["conv1.0.weight"], state["conv1.0.weight"])
