"""What train promises: the same bytes again, exact resume, the kept epoch, clear failures."""

import csv
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from catdog import params
from catdog.dataset import splits
from catdog.errors import CatdogError
from catdog.model import saved
from catdog.model.card import ModelCard
from catdog.model.devices import pick_device
from catdog.model.inference import TrainedModel
from catdog.model.inputs import Normalization, pick_normalization
from catdog.paths import CHECKPOINTS
from catdog.training import train as stage
from catdog.training.distributed import ALONE
from catdog.training.flops import StepCost
from tests.helpers.prepared_data import SIDE, settings, write_prepared

Change = dict[str, object]
MakeParams = Callable[..., params.Params]


@pytest.fixture
def prepared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A prepared folder; the working folder, where checkpoints go, is a fresh one."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CATDOG_LOCKS", "")  # a training on this machine may take long
    return write_prepared(tmp_path / "prepared", ["cat", "dog"])


def run(prepared: Path, name: str, **changes: object) -> Path:
    """Train into the folder `name`, and return it."""
    folder = Path(name)
    stage.train(settings(**changes), prepared, folder / "models", folder / "history.csv")
    return folder


def outs(folder: Path) -> dict[str, bytes]:
    """Return the bytes of everything that DVC keeps of a training."""
    files = ("models/model.safetensors", "models/model.json", "history.csv")
    return {name: (folder / name).read_bytes() for name in files}


def history(folder: Path) -> list[dict[str, str]]:
    with (folder / "history.csv").open() as stream:
        return list(csv.DictReader(stream))


def kill_after(monkeypatch: pytest.MonkeyPatch, epochs: int) -> None:
    """Let a training die at the start of the epoch after `epochs`."""
    go_on = stage.Trainer.run_epoch

    def run_epoch(self: stage.Trainer, *arguments: object) -> None:
        if len(self.history) == epochs:
            raise KeyboardInterrupt
        go_on(self, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(stage.Trainer, "run_epoch", run_epoch)


def test_it_learns_what_can_be_learnt(prepared: Path) -> None:
    last = history(run(prepared, "a", train__epochs=8))[-1]
    assert float(last["val_accuracy"]) == 1.0


def test_the_same_params_give_the_same_bytes(prepared: Path) -> None:
    assert outs(run(prepared, "a")) == outs(run(prepared, "b"))


def test_another_seed_gives_another_model(prepared: Path) -> None:
    assert outs(run(prepared, "a")) != outs(run(prepared, "b", train__seed=2))


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"train__ema": 0.9},
        {"optimizer__name": "adamw", "optimizer__lr": 0.01},
        {"optimizer__name": "muon", "optimizer__lr": 0.01},
        {"train__select": "last"},
    ],
    ids=["sgd", "ema", "adamw", "muon", "last"],
)
def test_a_killed_training_ends_with_the_bytes_of_one_that_was_not(
    prepared: Path, changes: Change, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = outs(run(prepared, "whole", **changes))
    with monkeypatch.context() as context:
        kill_after(context, 2)
        with pytest.raises(KeyboardInterrupt):
            run(prepared, "killed", **changes)
    assert outs(run(prepared, "killed", **changes)) == whole


def test_a_rerun_goes_on_after_the_last_whole_epoch(
    prepared: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with monkeypatch.context() as context:
        kill_after(context, 2)
        with pytest.raises(KeyboardInterrupt):
            run(prepared, "a")
    capsys.readouterr()
    run(prepared, "a")
    lines = capsys.readouterr().out.splitlines()
    assert any(line.startswith("going on after epoch 2") for line in lines)
    assert [line.split()[1] for line in lines if line.startswith("epoch")] == ["3/3"]


def test_changed_params_do_not_go_on_from_an_old_checkpoint(
    prepared: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fresh = outs(run(prepared, "fresh", optimizer__lr=0.02))
    with monkeypatch.context() as context:
        kill_after(context, 2)
        with pytest.raises(KeyboardInterrupt):
            run(prepared, "a")
    assert outs(run(prepared, "a", optimizer__lr=0.02)) == fresh


def test_another_number_of_threads_does_not_go_on_from_an_old_checkpoint(
    prepared: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with monkeypatch.context() as context:
        kill_after(context, 2)
        with pytest.raises(KeyboardInterrupt):
            run(prepared, "a")
    monkeypatch.setattr(torch, "get_num_threads", lambda: 99)  # the last bits depend on it
    capsys.readouterr()
    run(prepared, "a")
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[1] for line in lines if line.startswith("epoch")] == ["1/3", "2/3", "3/3"]


def test_the_checkpoint_is_gone_after_success(prepared: Path) -> None:
    run(prepared, "a")
    assert not list(CHECKPOINTS.glob("*"))


def test_the_best_epoch_is_the_one_of_lowest_validation_loss_on_full_grown_photos(
    prepared: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Epochs 6 to 8 are full-grown: the best is neither the first nor the last of them."""
    losses = iter([0.1] * 5 + [0.7, 0.5, 0.6])
    monkeypatch.setattr(stage.Trainer, "_validate", lambda self, size: (next(losses), 0.5))
    folder = run(prepared, "a", train__epochs=8)
    rows = history(folder)
    assert [row["epoch"] for row in rows if row["image_size"] == str(SIDE)] == ["6", "7", "8"]
    assert json.loads((folder / "models/model.json").read_text())["epoch"] == 7
    assert [row["epoch"] for row in rows if row["best"] == "1"] == ["6", "7"]


def test_the_kept_weights_are_those_of_the_best_epoch(
    prepared: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Validation is made to prefer the first epoch, whatever it measures."""
    weights: list[dict[str, torch.Tensor]] = []

    def validate(self: stage.Trainer, image_size: int) -> tuple[float, float]:
        weights.append({k: v.clone() for k, v in self.network.state_dict().items()})
        return float(len(weights)), 0.5

    monkeypatch.setattr(stage.Trainer, "_validate", validate)
    model = saved.load(run(prepared, "a", train__start_image_size=SIDE) / "models")
    assert len(weights) == 3
    kept = model.network.state_dict()
    assert all(torch.equal(kept[name], value) for name, value in weights[0].items())
    assert not torch.equal(kept["classifier.weight"], weights[2]["classifier.weight"])


def test_no_epoch_of_small_photos_is_kept_however_well_it_does_on_small_ones(
    prepared: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    losses = iter(range(1, 9))
    monkeypatch.setattr(stage.Trainer, "_validate", lambda self, size: (float(next(losses)), 0.5))
    folder = run(prepared, "a", train__epochs=8)
    rows = history(folder)
    grown = [row["epoch"] for row in rows if row["image_size"] == str(SIDE)]
    assert 0 < len(grown) < 8
    assert [row["epoch"] for row in rows if row["best"] == "1"] == grown[:1]
    assert str(json.loads((folder / "models/model.json").read_text())["epoch"]) == grown[0]


def test_last_keeps_the_last_epoch(prepared: Path) -> None:
    folder = run(prepared, "a", train__select="last")
    assert json.loads((folder / "models/model.json").read_text())["epoch"] == 3


def val_loss(prepared: Path, card: ModelCard, network: nn.Module, **changes: object) -> float:
    """The loss of a network on the validation photos, by its card with changes."""
    device = pick_device(card.precision)
    model = TrainedModel(card.model_copy(update=changes), network, device)
    split = splits.read_split(prepared, "val")
    logits = torch.from_numpy(model.logits(split.photos))
    return torch.nn.functional.cross_entropy(logits, torch.from_numpy(split.labels)).item()


@pytest.mark.parametrize("flip", [True, False])
def test_the_kept_model_has_the_validation_loss_that_the_history_says(
    prepared: Path, flip: bool
) -> None:
    """Validation sees the photos as they are: what the files give is what training measured."""
    folder = run(prepared, "a", train__eval_flip=flip, train__ema=0.5)
    model = saved.load(folder / "models")
    assert model.card.flip == flip
    loss = val_loss(prepared, model.card, model.network, flip=False)
    rows = history(folder)
    assert float(rows[model.card.epoch - 1]["val_loss"]) == pytest.approx(loss, abs=2e-6)


@pytest.mark.parametrize(
    ("last", "judged", "image_size", "side"),
    [(24, 32, 16, 21), (24, 32, 24, 32), (32, 24, 16, 16), (32, 24, 32, 24)],
)
def test_photos_of_validation_grow_with_those_of_training_but_are_never_smaller_than_at_first(
    prepared: Path, last: int, judged: int, image_size: int, side: int
) -> None:
    """Where they would be smaller, a network might not take them: the residual one needs 16."""
    sizes = {"train__image_size": last, "train__eval_image_size": judged}
    grown = {"train__grow_from": 0.4, "train__grow_until": 0.5}
    chosen = settings(train__precision="float32", **sizes, **grown)
    trainer = stage.Trainer(chosen, prepared, pick_device("float32"))
    loss = val_loss(prepared, trainer.card(), trainer.network, flip=False, image_size=side)
    assert trainer._validate(image_size)[0] == loss


def test_validation_changes_no_weight_and_keeps_no_gradient(prepared: Path) -> None:
    trainer = stage.Trainer(settings(), prepared, pick_device("float32"))
    before = {name: value.clone() for name, value in trainer.network.state_dict().items()}
    first, second = trainer._validate(SIDE), trainer._validate(SIDE)
    assert first == second
    assert all(weight.grad is None for weight in trainer.network.parameters())
    after = trainer.network.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_history_has_a_row_an_epoch_and_times_stand_beside_it(prepared: Path) -> None:
    folder = run(prepared, "a")
    rows = history(folder)
    assert list(rows[0]) == [
        "epoch",
        "image_size",
        "lr",
        "train_loss",
        "train_accuracy",
        "val_loss",
        "val_accuracy",
        "best",
        "pflop",
    ]
    assert [row["epoch"] for row in rows] == ["1", "2", "3"]
    assert [row["image_size"] for row in rows] == ["16", "16", "32"]
    with (folder / "timing.csv").open() as stream:
        timings = list(csv.DictReader(stream))
    assert len(timings) == 3
    assert all(float(row["images_per_second"]) > 0 for row in timings)
    assert all(0 <= float(row["waiting_share"]) <= 1 for row in timings)


def test_the_operations_of_all_steps_are_counted_and_told(
    prepared: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = run(prepared, "a", train__batch_size=20)
    cost = StepCost(settings(), 2)
    expected = [3 * cost.of(16, side) for side in (16, 16, SIDE)]  # 48 photos in threes of 16
    pflops = [float(row["pflop"]) for row in history(folder)]
    assert pflops == pytest.approx([flops / 1e15 for flops in expected], rel=1e-5)
    total = json.loads((folder / "models/model.json").read_text())["pflop"]
    assert total == pytest.approx(sum(pflops), rel=1e-5)
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.startswith(f"cost: {total:.4g} PFLOP of training, ")


def test_other_weights_in_the_same_file_are_another_training(prepared: Path) -> None:
    file, device = Path("start.safetensors"), pick_device("float32")
    values = settings().model_dump()
    values["model"] |= {"name": "resnet18"}
    values["model"]["torchvision"]["weights"] = str(file)
    transfer = params.parse(values)
    keys = []
    for content in (b"one", b"other", b"one"):
        file.write_bytes(content)
        keys.append(stage._key(transfer, prepared, device, ALONE))
    assert keys[0] == keys[2] != keys[1]


def test_divergence_is_one_sentence_and_leaves_no_model(prepared: Path) -> None:
    with pytest.raises(CatdogError, match=r"diverged in epoch 1: .* lower optimizer\.lr \(100\)"):
        run(prepared, "a", optimizer__lr=100.0, schedule__name="constant", train__batch_size=2)
    assert not Path("a/models").exists()


def test_the_seeds_network_trains_on_three_classes(tmp_path: Path) -> None:
    three = write_prepared(tmp_path / "three", ["ant", "bee", "cow"])
    values = settings(train__start_image_size=SIDE).model_dump()
    values["model"]["name"] = "seed"
    folder = tmp_path / "a"
    stage.train(params.parse(values), three, folder / "models", folder / "history.csv")
    model = saved.load(folder / "models")
    assert model.card.classes == ["ant", "bee", "cow"]
    assert model.probabilities(splits.read_split(three, "test").photos).shape == (16, 3)


@pytest.mark.parametrize(
    ("source", "mean"),
    [("data", [0.4] * 3), ("half", [0.5] * 3), ("imagenet", [0.485, 0.456, 0.406])],
)
def test_normalization_by_name(prepared: Path, source: str, mean: list[float]) -> None:
    changed = settings(normalization__source=source)
    assert pick_normalization(changed, prepared).mean == mean


def test_normalization_by_numbers(prepared: Path) -> None:
    numbers = {"source": "given", "mean": [0.1, 0.2, 0.3], "std": [0.4, 0.5, 0.6]}
    changed = settings(**{f"normalization__{key}": value for key, value in numbers.items()})
    expected = Normalization([0.1, 0.2, 0.3], [0.4, 0.5, 0.6])
    assert pick_normalization(changed, prepared) == expected


def test_missing_arrays_are_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(CatdogError, match="run `dvc repro prepare`"):
        stage.train(settings(), tmp_path / "nothing", tmp_path / "m", tmp_path / "h.csv")
