"""The stage train: reproducible bytes, exact resume, the selected epoch, clear errors."""

import csv
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from torch import nn

from catdog import params
from catdog.dataset.prepared import ChannelStats, read_split
from catdog.errors import CatdogError
from catdog.model import saved
from catdog.model.card import ModelCard
from catdog.model.devices import pick_device
from catdog.model.inference import TrainedModel, predict_logits
from catdog.model.normalization import pick_normalization
from catdog.paths import CHECKPOINTS
from catdog.training import train as stage
from catdog.training.distributed import SINGLE
from catdog.training.flops import StepFlops
from catdog.training.resume import checkpoint_path
from catdog.training.validation import Validation
from tests.helpers.prepared_data import SIDE, settings, write_prepared

Change = dict[str, object]
MakeParams = Callable[..., params.Params]


@pytest.fixture
def prepared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A prepared folder; the working folder, where checkpoints go, is a fresh one."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CATDOG_LOCKS", "")  # do not wait for training runs on this machine
    return write_prepared(tmp_path / "prepared", ["cat", "dog"])


def run(prepared: Path, name: str, **changes: object) -> Path:
    """Train into the folder `name`, and return it."""
    folder = Path(name)
    stage.train(settings(**changes), prepared, folder / "models", folder / "history.csv")
    return folder


def outs(folder: Path) -> dict[str, bytes]:
    """Return the bytes of all DVC outputs of training."""
    files = ("models/model.safetensors", "models/model.json", "history.csv")
    return {name: (folder / name).read_bytes() for name in files}


def history(folder: Path) -> list[dict[str, str]]:
    with (folder / "history.csv").open() as stream:
        return list(csv.DictReader(stream))


def kill_after(monkeypatch: pytest.MonkeyPatch, epochs: int) -> None:
    """Interrupt training at the start of the epoch after `epochs`."""
    train_epoch = stage.Trainer.train_epoch

    def die(self: stage.Trainer) -> Iterator[float]:
        if len(self.state.history) == epochs:
            raise KeyboardInterrupt
        return train_epoch(self)

    monkeypatch.setattr(stage.Trainer, "train_epoch", die)


def test_training_reaches_high_accuracy_on_an_easy_task(prepared: Path) -> None:
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
def test_killed_training_resumes_with_byte_identical_results(
    prepared: Path, changes: Change, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = outs(run(prepared, "whole", **changes))
    with monkeypatch.context() as context:
        kill_after(context, 2)
        with pytest.raises(KeyboardInterrupt):
            run(prepared, "killed", **changes)
    assert outs(run(prepared, "killed", **changes)) == whole


def test_a_rerun_resumes_after_the_last_finished_epoch(
    prepared: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with monkeypatch.context() as context:
        kill_after(context, 2)
        with pytest.raises(KeyboardInterrupt):
            run(prepared, "a")
    capsys.readouterr()
    run(prepared, "a")
    lines = capsys.readouterr().out.splitlines()
    assert any(line.startswith("resuming after epoch 2") for line in lines)
    assert [line.split()[1] for line in lines if line.startswith("epoch")] == ["3/3"]


def test_changed_params_do_not_resume_from_an_old_checkpoint(
    prepared: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fresh = outs(run(prepared, "fresh", optimizer__lr=0.02))
    with monkeypatch.context() as context:
        kill_after(context, 2)
        with pytest.raises(KeyboardInterrupt):
            run(prepared, "a")
    assert outs(run(prepared, "a", optimizer__lr=0.02)) == fresh


def test_another_number_of_threads_does_not_resume_from_an_old_checkpoint(
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


def test_the_checkpoint_is_deleted_after_success(prepared: Path) -> None:
    run(prepared, "a")
    assert not list(CHECKPOINTS.glob("*"))


def test_the_best_epoch_has_the_lowest_validation_loss_at_the_final_image_size(
    prepared: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Epochs 6 to 8 are at the final size: the best is neither the first nor the last of them."""
    losses = iter([0.1] * 5 + [0.7, 0.5, 0.6])
    monkeypatch.setattr(Validation, "evaluate", lambda *_: (next(losses), 0.5))
    folder = run(prepared, "a", train__epochs=8)
    rows = history(folder)
    assert [row["epoch"] for row in rows if row["image_size"] == str(SIDE)] == ["6", "7", "8"]
    assert json.loads((folder / "models/model.json").read_text())["epoch"] == 7
    assert [row["epoch"] for row in rows if row["best"] == "1"] == ["6", "7"]


def test_the_saved_weights_are_those_of_the_best_epoch(
    prepared: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The patched validation prefers the first epoch."""
    weights: list[dict[str, torch.Tensor]] = []

    def validate(self: Validation, network: nn.Module, *sizes: int) -> tuple[float, float]:
        weights.append({k: v.clone() for k, v in network.state_dict().items()})
        return float(len(weights)), 0.5

    monkeypatch.setattr(Validation, "evaluate", validate)
    model = saved.load(run(prepared, "a", train__start_image_size=SIDE) / "models")
    assert len(weights) == 3
    kept = model.network.state_dict()
    assert all(torch.equal(kept[name], value) for name, value in weights[0].items())
    assert not torch.equal(kept["classifier.weight"], weights[2]["classifier.weight"])


@pytest.mark.parametrize(("epochs", "line"), [(1, True), (8, False)])
def test_the_log_says_if_there_are_too_few_epochs_to_reach_the_image_size(
    prepared: Path, epochs: int, line: bool
) -> None:
    growing = settings(train__epochs=epochs, train__grow_from=0.2, train__grow_until=0.7)
    text = stage.Trainer(growing, prepared, pick_device("float32")).describe()
    assert (f"; the photos grow to 16 of {SIDE} pixels only" in text) == line


def test_an_epoch_at_a_smaller_image_size_is_never_the_best(
    prepared: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    losses = iter(range(1, 9))
    monkeypatch.setattr(Validation, "evaluate", lambda *_: (float(next(losses)), 0.5))
    folder = run(prepared, "a", train__epochs=8)
    rows = history(folder)
    final = [row["epoch"] for row in rows if row["image_size"] == str(SIDE)]
    assert 0 < len(final) < 8
    assert [row["epoch"] for row in rows if row["best"] == "1"] == final[:1]
    assert str(json.loads((folder / "models/model.json").read_text())["epoch"]) == final[0]


def test_select_last_saves_the_last_epoch(prepared: Path) -> None:
    folder = run(prepared, "a", train__select="last")
    assert json.loads((folder / "models/model.json").read_text())["epoch"] == 3


def val_loss(prepared: Path, card: ModelCard, network: nn.Module, **changes: object) -> float:
    """The loss of a network on the validation photos, with a changed card."""
    device = pick_device(card.precision)
    model = TrainedModel(card.model_copy(update=changes), network, device)
    split = read_split(prepared, "val")
    logits = torch.from_numpy(model.logits(split.photos))
    return torch.nn.functional.cross_entropy(logits, torch.from_numpy(split.labels)).item()


@pytest.mark.parametrize("flip", [True, False])
def test_the_saved_model_has_the_validation_loss_of_the_history(prepared: Path, flip: bool) -> None:
    """Validation uses no augmentation: the saved model gives the loss that training measured."""
    folder = run(prepared, "a", train__eval_flip=flip, train__ema=0.5)
    model = saved.load(folder / "models")
    assert model.card.flip == flip
    loss = val_loss(prepared, model.card, model.network, flip=False)
    rows = history(folder)
    assert float(rows[model.card.epoch - 1]["val_loss"]) == pytest.approx(loss, abs=2e-6)


@pytest.mark.parametrize(
    ("last", "eval_size", "image_size", "side"),
    [(24, 32, 16, 21), (24, 32, 24, 32), (32, 24, 16, 16), (32, 24, 32, 24)],
)
def test_validation_photos_grow_with_the_training_photos_but_start_no_smaller(
    prepared: Path, last: int, eval_size: int, image_size: int, side: int
) -> None:
    """A network may not support smaller ones: the residual one requires 16 pixels."""
    sizes = {"train__image_size": last, "train__eval_image_size": eval_size}
    grown = {"train__grow_from": 0.4, "train__grow_until": 0.5}
    chosen = settings(train__precision="float32", **sizes, **grown)
    trainer = stage.Trainer(chosen, prepared, pick_device("float32"))
    network = trainer.state.network
    split = read_split(prepared, "val")
    expected = predict_logits(
        network,
        split.photos,
        image_size=side,
        normalization=trainer.normalization,
        flip=False,
        classes=2,
        device=trainer.device,
    )
    logits, labels = torch.from_numpy(expected), torch.from_numpy(split.labels)
    loss = torch.nn.functional.cross_entropy(logits, labels).item()
    assert trainer.validation.evaluate(network, image_size, last)[0] == loss


def test_validation_changes_no_weights_and_computes_no_gradients(prepared: Path) -> None:
    trainer = stage.Trainer(settings(), prepared, pick_device("float32"))
    network = trainer.state.network
    before = {name: value.clone() for name, value in network.state_dict().items()}
    first, second = (trainer.validation.evaluate(network, SIDE, SIDE) for _ in range(2))
    assert first == second
    assert all(weight.grad is None for weight in network.parameters())
    after = network.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_history_and_timing_have_one_row_per_epoch(prepared: Path) -> None:
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


def test_the_operations_of_all_steps_are_counted_and_logged(
    prepared: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = run(prepared, "a", train__batch_size=20)
    flops = StepFlops(settings(), 2)
    expected = [3 * flops.count(16, side) for side in (16, 16, SIDE)]  # 48 photos in threes of 16
    pflops = [float(row["pflop"]) for row in history(folder)]
    assert pflops == pytest.approx([count / 1e15 for count in expected], rel=1e-5)
    total = json.loads((folder / "models/model.json").read_text())["pflop"]
    assert total == pytest.approx(sum(pflops), rel=1e-5)
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.endswith(f" and {total:.4g} PFLOP")


def test_other_initial_weights_in_the_same_file_find_no_checkpoint(prepared: Path) -> None:
    file, device = Path("start.safetensors"), pick_device("float32")
    values = settings().model_dump()
    values["model"] |= {"name": "resnet18"}
    values["model"]["torchvision"]["weights"] = str(file)
    transfer = params.parse(values)
    keys = []
    for content in (b"one", b"other", b"one"):
        file.write_bytes(content)
        keys.append(checkpoint_path(transfer, prepared, device, SINGLE).name)
    assert keys[0] == keys[2] != keys[1]


def test_the_error_of_divergence_is_one_line_and_no_model_is_written(prepared: Path) -> None:
    with pytest.raises(CatdogError, match=r"diverged in epoch 1: .* lower optimizer\.lr \(100\)"):
        run(prepared, "a", optimizer__lr=100.0, schedule__name="constant", train__batch_size=2)
    assert not Path("a/models").exists()


def test_norm_statistics_that_overflow_are_divergence(prepared: Path) -> None:
    """The loss stays at that of guessing, but the model could not be loaded."""
    trainer = stage.Trainer(settings(), prepared, pick_device("float32"))
    with torch.no_grad():
        next(trainer.state.network.parameters()).mul_(1e25)
    list(trainer.train_epoch())
    assert trainer.state.totals.sums.isfinite().all()
    with pytest.raises(CatdogError, match="diverged in epoch 1: the loss is nan"):
        trainer.end_epoch()


def test_the_seed_network_trains_on_three_classes(tmp_path: Path) -> None:
    three = write_prepared(tmp_path / "three", ["ant", "bee", "cow"])
    values = settings(train__start_image_size=SIDE).model_dump()
    values["model"]["name"] = "seed"
    folder = tmp_path / "a"
    stage.train(params.parse(values), three, folder / "models", folder / "history.csv")
    model = saved.load(folder / "models")
    assert model.card.classes == ["ant", "bee", "cow"]
    assert model.probabilities(read_split(three, "test").photos).shape == (16, 3)


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
    expected = ChannelStats([0.1, 0.2, 0.3], [0.4, 0.5, 0.6])
    assert pick_normalization(changed, prepared) == expected


def test_a_single_training_photo_is_refused(tmp_path: Path) -> None:
    one = write_prepared(tmp_path / "one", ["cat"], photos=1)
    with pytest.raises(CatdogError, match="1 training photos and 16 validation photos; training"):
        run(one, "a")


def test_two_training_photos_are_enough(prepared: Path, tmp_path: Path) -> None:
    two = write_prepared(tmp_path / "two", ["cat", "dog"], photos=2)
    folder = run(two, "a", train__batch_size=2, train__image_size=16, train__epochs=1)
    assert len(history(folder)) == 1


def test_the_error_of_missing_arrays_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(CatdogError, match="run `dvc repro prepare`"):
        stage.train(settings(), tmp_path / "nothing", tmp_path / "m", tmp_path / "h.csv")
