"""torchvision's classifiers: heads, weights that are loaded or refused, what freezing keeps."""

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
from catdog.dataset import splits
from catdog.errors import CatdogError
from catdog.model import networks, pretrained, saved
from catdog.model.card import ModelCard, versions
from catdog.model.inference import TrainedModel
from catdog.model.inputs import pick_normalization
from catdog.training import train as stage
from tests.helpers.prepared_data import write_prepared

ROOT = Path(__file__).resolve().parents[2]
SMALL = "shufflenet_v2_x0_5"  # the one of fewest weights that has norms

State = dict[str, Tensor]


def complete(values: dict[str, Any]) -> params.Params:
    """The settings as a stage gets them."""
    return pretrained.complete(params.parse(values, "params.yaml"))


def recipe(**changes: object) -> dict[str, Any]:
    """The values of recipes/transfer.yaml, with changes by `section__key`."""
    found: dict[str, Any] = params.read_yaml(ROOT / "recipes/transfer.yaml")
    for name, value in changes.items():
        *sections, key = name.split("__")
        place = found
        for section in sections:
            place = place[section]
        place[key] = value
    return found


def refusal(**changes: object) -> str:
    """The one line that refuses the recipe with changes."""
    with pytest.raises(CatdogError) as refused:
        complete(recipe(**changes))
    assert "\n" not in str(refused.value)
    return str(refused.value)


def small(classes: int = 2, seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return pretrained.build(SMALL, classes, 32)


def imagenet_state(seed: int = 1) -> State:
    """What a download would hold: 1000 classes, and statistics of norms that are not fresh."""
    state = small(1000, seed).state_dict()
    for name, value in state.items():
        if name.endswith(("running_mean", "running_var")):
            value.uniform_(0.5, 1.5)
    return state


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The empty folder of downloads of a machine that reaches no server."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    for name in ("http_proxy", "https_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    return tmp_path / "torch/hub/checkpoints"


# One of each family, at the smallest size that its layers take; two for those with quirks.
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
def test_a_network_of_each_family_has_a_head_for_our_classes(
    name: str, image_size: int, training: bool
) -> None:
    with torch.device("meta"):  # shapes without numbers
        network = pretrained.build(name, 3, image_size).train(training)
        logits = network(torch.empty(2, 3, image_size, image_size))
    assert logits.shape == (2, 3)
    assert {weight.shape[0] for weight in pretrained.head_of(network)} == {3}


def test_all_of_torchvisions_classifiers_are_known_and_nothing_else_is() -> None:
    names = pretrained.names()
    assert {"resnet18", "vit_b_16", "mobilenet_v3_small"} <= set(names)
    assert not {"fcn_resnet50", "fasterrcnn_resnet50_fpn", "quantized_resnet18"} & set(names)


def test_the_own_networks_do_without_torchvision() -> None:
    """It takes seconds to import, which every command would wait for."""
    code = (
        "import sys; from pathlib import Path; from catdog import params;"
        "from catdog.model import networks; from catdog.training import train;"
        "networks.build(params.load(Path('recipes/sample.yaml')).model, 2, 32);"
        "print('torchvision' in sys.modules)"
    )
    command = [sys.executable, "-c", code]
    assert subprocess.check_output(command, cwd=ROOT, text=True) == "False\n"


def test_an_unknown_network_is_one_line_with_the_nearest_names() -> None:
    line = refusal(model__name="resnet81")
    assert line.startswith("params.yaml: model.name: unknown network 'resnet81'")
    assert "residual, seed" in line
    assert "nearest: resnet18" in line
    assert "such as resnet18" in refusal(model__name="@")


def test_weights_are_none_default_or_a_file() -> None:
    line = refusal(model__torchvision__weights="defualt")
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
def test_size_and_normalization_are_those_of_the_weights_unless_given(
    name: str, image_size: int, mean: list[float], std: list[float], tmp_path: Path
) -> None:
    settings = complete(recipe(model__name=name, prepare__image_size=512))
    train = settings.train
    assert {train.start_image_size, train.image_size, train.eval_image_size} == {image_size}
    normalization = pick_normalization(settings, tmp_path)
    assert (normalization.mean, normalization.std) == (mean, std)


def test_sizes_and_normalization_that_are_given_win() -> None:
    given = recipe(
        train__start_image_size=64,
        train__eval_image_size=200,
        normalization={"mean": None, "std": None, "source": "half"},
    )
    settings = complete(given)
    train = settings.train
    assert (train.start_image_size, train.image_size, train.eval_image_size) == (64, 224, 200)
    assert settings.normalization.source == "half"


def test_params_with_all_filled_in_stay_as_they_are() -> None:
    settings = complete(recipe())
    assert complete(settings.model_dump()) == settings


def test_stored_photos_must_be_as_large_as_the_weights_want() -> None:
    line = refusal(prepare__image_size=128)
    assert "prepare.image_size (128)" in line
    assert "224" in line


@pytest.mark.parametrize(
    "changes",
    [{}, {"train__start_image_size": 32, "train__image_size": 32, "train__eval_image_size": 32}],
)
def test_the_own_networks_have_no_weights_to_ask(changes: dict[str, object]) -> None:
    line = refusal(model__name="residual", **changes)
    assert "requires a network of torchvision, but model.name is residual" in line
    assert ("normalization.source: weights" if changes else "train.start_image_size: 0") in line


@pytest.mark.parametrize("name", ["vit_b_16", "maxvit_t"])
def test_a_network_of_one_size_cannot_grow(name: str) -> None:
    line = refusal(model__name=name, train__start_image_size=96)
    assert f"model.name: {name} requires train.start_image_size (96)" in line
    assert "to be equal" in line


def test_a_batch_of_one_is_refused() -> None:
    assert "train.batch_size is 1, but model.name: resnet18" in refusal(train__batch_size=1)


@pytest.mark.parametrize(
    ("name", "image_size"), [("vit_b_16", 50), ("maxvit_t", 100), ("vit_b_32", 16)]
)
def test_a_size_that_a_network_cannot_be_built_for_is_one_line(name: str, image_size: int) -> None:
    with torch.device("meta"), pytest.raises(CatdogError) as refused:
        pretrained.build(name, 2, image_size)
    assert f"{name} cannot take photos of {image_size} pixels (" in str(refused.value)
    assert "own 224" in str(refused.value)
    assert "\n" not in str(refused.value)


def test_each_size_of_a_training_is_tried_before_it_begins() -> None:
    network = pretrained.build("squeezenet1_1", 2, 64)
    pretrained.start(network, "squeezenet1_1", "none", [32, 64])
    with pytest.raises(CatdogError, match=r"squeezenet1_1 cannot take photos of 16 pixels") as line:
        pretrained.start(network, "squeezenet1_1", "none", [64, 16])
    assert "\n" not in str(line.value)
    assert network.training


# Weights


def write_safetensors(state: State, folder: Path) -> Path:
    save_file(state, folder / "weights.safetensors")
    return folder / "weights.safetensors"


def write_pth(state: State, folder: Path) -> Path:
    torch.save(state, folder / "weights.pth")
    return folder / "weights.pth"


def old_pth(state: State, folder: Path) -> Path:
    """As the oldest of torchvision's files are: not a zip, and no counters of batches."""
    kept = {name: value for name, value in state.items() if "num_batches" not in name}
    torch.save(kept, folder / "weights.pth", _use_new_zipfile_serialization=False)
    return folder / "weights.pth"


@pytest.mark.parametrize("write", [write_safetensors, write_pth, old_pth])
def test_a_file_gives_the_backbone_and_the_head_stays_fresh(
    write: Callable[[State, Path], Path], tmp_path: Path
) -> None:
    state, network = imagenet_state(), small()
    head = {name: v.clone() for name, v in network.state_dict().items() if name.startswith("fc.")}
    pretrained.start(network, SMALL, str(write(state, tmp_path)), [32])
    loaded = network.state_dict()
    for name, value in loaded.items():
        expected = head[name] if name in head else state[name]
        assert torch.equal(value, expected), name
    assert loaded["fc.weight"].shape == (2, 1024)


def test_a_head_that_would_fit_is_not_taken_over(tmp_path: Path) -> None:
    network, other = small(seed=0), small(seed=1)
    before = network.state_dict()["fc.weight"].clone()
    pretrained.start(network, SMALL, str(write_pth(other.state_dict(), tmp_path)), [32])
    assert torch.equal(network.state_dict()["fc.weight"], before)


def test_none_leaves_the_random_weights(hub: Path) -> None:
    network = small()
    pretrained.start(network, SMALL, "none", [32])
    expected = small().state_dict()
    assert all(torch.equal(value, expected[k]) for k, value in network.state_dict().items())


def test_without_a_network_one_line_says_which_file_to_put_where(hub: Path) -> None:
    with pytest.raises(CatdogError) as refused:
        pretrained.start(small(), SMALL, "default", [32])
    line = str(refused.value)
    assert "\n" not in line
    assert f"weights of {SMALL}: cannot be downloaded (" in line
    assert "https://download.pytorch.org/models/shufflenetv2_x0.5-f707e7126e.pth" in line
    assert f"put it at {hub}/shufflenetv2_x0.5-f707e7126e.pth" in line
    assert "model.torchvision.weights" in line
    assert not list(hub.rglob("*.pth"))


def test_the_file_put_there_is_what_default_loads(hub: Path) -> None:
    hub.mkdir(parents=True)
    state, network = imagenet_state(), small()
    torch.save(state, hub / "shufflenetv2_x0.5-f707e7126e.pth")
    pretrained.start(network, SMALL, "default", [32])
    loaded = network.state_dict()
    assert all(torch.equal(value, state[k]) for k, value in loaded.items() if "fc." not in k)


class Bomb:
    """What a pickle of it runs when it is loaded: it makes a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
        return os.mkdir, (str(self.folder),)


@pytest.mark.parametrize("weights", ["default", "file"])
def test_no_pickle_is_run(weights: str, hub: Path, tmp_path: Path) -> None:
    hub.mkdir(parents=True)
    file = hub / "shufflenetv2_x0.5-f707e7126e.pth"
    torch.save({"bomb": Bomb(tmp_path / "burst")}, file)
    with pytest.raises(CatdogError, match="not a file of plain weights") as refused:
        pretrained.start(small(), SMALL, weights if weights == "default" else str(file), [32])
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
        (without_a_layer, r"lacks stage2\.0\.\S+ and \d+ more"),
        (with_more_layers, r"has also stage5\.bias and 1 more"),
        (with_wrong_shapes, r"size mismatch for conv1\.0\.weight"),
    ],
)
def test_weights_of_another_network_are_one_line(
    damage: Callable[[State], State], reason: str, tmp_path: Path
) -> None:
    file = write_safetensors(damage(imagenet_state()), tmp_path)
    with pytest.raises(CatdogError) as refused:
        pretrained.start(small(), SMALL, str(file), [32])
    line = str(refused.value)
    assert "\n" not in line
    assert line.startswith(f"{file}: not weights of {SMALL} (")
    assert re.search(reason, line)


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("content", [None, b"", b"<html>not found</html>", b"PK\x03\x04 cut off"])
def test_a_file_that_cannot_be_read_is_one_line(
    suffix: str, content: bytes | None, tmp_path: Path
) -> None:
    file = tmp_path / f"weights{suffix}"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(CatdogError) as refused:
        pretrained.read_state(file)
    assert "\n" not in str(refused.value)
    assert str(refused.value).startswith(f"{file}: ")


def test_a_checkpoint_that_is_no_state_dict_is_one_line(tmp_path: Path) -> None:
    torch.save({"epoch": 3, "model": imagenet_state()}, tmp_path / "w.pth")
    with pytest.raises(CatdogError, match="holds no state dict"):
        pretrained.read_state(tmp_path / "w.pth")


def test_the_second_heads_of_googlenet_are_left_behind(tmp_path: Path) -> None:
    whole = models.get_model("googlenet", init_weights=False)
    file = write_safetensors(whole.state_dict(), tmp_path)
    network = pretrained.build("googlenet", 2, 32)
    pretrained.start(network, "googlenet", str(file), [32])
    assert torch.equal(network.get_parameter("conv1.conv.weight"), whole.conv1.conv.weight)


def test_the_old_names_in_torchvisions_densenet_files_are_understood(tmp_path: Path) -> None:
    whole, fresh = (models.DenseNet(8, (1, 1), 8, 2, num_classes=classes) for classes in (9, 2))
    old = {
        re.sub(r"(denselayer1\.(?:norm|relu|conv))([12])", r"\1.\2", name): value
        for name, value in whole.state_dict().items()
    }
    assert "features.denseblock1.denselayer1.norm.1.weight" in old
    pretrained.start(fresh, "densenet121", str(write_pth(old, tmp_path)), [32])
    weight = "features.denseblock1.denselayer1.conv1.weight"
    assert torch.equal(fresh.get_parameter(weight), whole.get_parameter(weight))


def test_a_vision_transformers_positions_are_resampled_to_the_size_in_use(tmp_path: Path) -> None:
    whole, fresh = (models.VisionTransformer(side, 16, 1, 2, 8, 8) for side in (64, 48))
    nn.init.constant_(whole.encoder.pos_embedding, 0.25)
    pretrained.start(fresh, "vit_b_16", str(write_pth(whole.state_dict(), tmp_path)), [48])
    positions = fresh.encoder.pos_embedding
    assert positions.shape == (1, 10, 8)
    torch.testing.assert_close(positions, torch.full_like(positions, 0.25))


def test_the_fingerprint_is_that_of_what_is_in_the_file(tmp_path: Path) -> None:
    file = tmp_path / "w.pth"
    file.write_bytes(b"a")
    before = pretrained.fingerprint(str(file))
    file.write_bytes(b"b")
    assert pretrained.fingerprint(str(file)) != before
    assert pretrained.fingerprint("none") != pretrained.fingerprint("default")
    with pytest.raises(CatdogError, match="cannot be read"):
        pretrained.fingerprint(str(tmp_path / "nothing.pth"))


# Freezing


def step(network: nn.Module) -> tuple[State, State]:
    """Take a step of SGD with weight decay; return the state before and after it."""
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


def test_a_thawed_backbone_learns_again() -> None:
    network = small()
    pretrained.freeze(network, True)
    network.eval()  # as validation leaves it
    pretrained.freeze(network, False)
    before, after = step(network)
    same = {name for name, value in after.items() if torch.equal(value, before[name])}
    assert same == set()


# In the pipeline


def test_a_trained_model_comes_back_without_a_download(hub: Path, tmp_path: Path) -> None:
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
        weights=networks.count_weights(network),
        pflop=0.0,
        versions=versions(),
    )
    saved.save(tmp_path / "models", network, card)
    photos = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), dtype=np.uint8)
    back = saved.load(tmp_path / "models", "cpu")
    expected = TrainedModel(card, network, back.device).logits(photos)
    assert np.array_equal(back.logits(photos), expected)


def test_mnasnet_can_be_loaded_from_a_file_without_versions(tmp_path: Path) -> None:
    whole, network = (pretrained.build("mnasnet0_5", 2, 32) for _ in range(2))
    file = write_safetensors(whole.state_dict(), tmp_path)
    network.load_state_dict(pretrained.read_state(file))
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
    assert model.card.weights == networks.count_weights(model.network)
    assert model.logits(splits.read_split(prepared, "test").photos).shape == (16, 2)


def test_in_frozen_epochs_only_the_head_learns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    prepared = write_prepared(tmp_path / "prepared", ["cat", "dog"])
    file = write_safetensors(imagenet_state(), tmp_path)

    def kept(freeze_epochs: int) -> State:
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
        return pretrained.read_state(Path("models/model.safetensors"))

    state, frozen, thawed = imagenet_state(), kept(1), kept(0)
    backbone = [name for name in state if not name.startswith("fc.")]
    assert all(torch.equal(frozen[name], state[name]) for name in backbone)
    assert not torch.equal(thawed["conv1.0.weight"], state["conv1.0.weight"])
