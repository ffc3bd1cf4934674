"""A stage whose params, code or photos change while it runs: DVC must not take its result."""

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from catdog.errors import CatdogError
from catdog.support import stage_inputs
from catdog.support.stage_inputs import StageInputs
from tests.helpers.small_training import (
    LONG,
    checkpoints,
    create_project,
    finish,
    outs,
    read_until,
    start,
    train,
)


def change_params(folder: Path, section: str, key: str, value: object) -> None:
    values = yaml.safe_load((folder / "params.yaml").read_text())
    values[section][key] = value
    (folder / "params.yaml").write_text(yaml.safe_dump(values, sort_keys=False))


def start_and_change(folder: Path, section: str, key: str, value: object) -> tuple[int, str]:
    """Change a param at the start of a training; return its exit code and error."""
    process: subprocess.Popen[str] = start(folder)
    read_until(process, "residual network")
    change_params(folder, section, key, value)
    code, _, err = finish(process)
    return code, err


def test_training_whose_params_change_is_refused_and_continues_with_the_old_ones(
    tmp_path: Path,
) -> None:
    expected = create_project(tmp_path / "expected", train__epochs=60)
    train(expected)
    folder = create_project(tmp_path / "changed", train__epochs=60)
    original = (folder / "params.yaml").read_text()

    code, err = start_and_change(folder, "optimizer", "lr", 0.01)

    assert code == 1
    assert err == (
        "catdog: train: params.yaml changed while the stage ran, so its result is not used; run "
        "`dvc repro` again\n"
    )
    assert not (folder / "models").exists()
    assert len(checkpoints(folder)) == 1
    (folder / "params.yaml").write_text(original)
    assert "resuming after epoch 60" in train(folder)
    assert outs(folder) == outs(expected)


def test_training_whose_inputs_change_while_it_waits_for_its_device_does_not_start(
    tmp_path: Path,
) -> None:
    """A checkpoint is named by the code when it is saved, so it would be one of the new code."""
    shared = {"CATDOG_LOCKS": str(tmp_path / "locks"), "CATDOG_CORES": "1"}
    first = start(create_project(tmp_path / "first", train__epochs=LONG), **shared)
    read_until(first, "residual network")
    folder = create_project(tmp_path / "second")
    second = start(folder, **shared)
    read_until(second, "waiting")
    change_params(folder, "optimizer", "lr", 0.01)
    first.kill()
    finish(first)
    code, out, err = finish(second)
    assert (code, "epoch 1/" in out) == (1, False)
    assert "params.yaml changed" in err
    assert checkpoints(folder) == []


@pytest.mark.slow
def test_a_precision_that_changes_while_a_training_waits_for_another_one_is_used(
    tmp_path: Path,
) -> None:
    """No variable of precision portable is left over from before the wait."""
    expected = create_project(tmp_path / "expected", train__precision="auto", train__threads=1)
    train(expected)
    folder = create_project(
        tmp_path / "project", train__precision="portable", train__threads=1, train__epochs=LONG
    )
    first = start(folder)
    read_until(first, "residual network")
    second = start(folder)
    read_until(second, "already running")
    (folder / "params.yaml").write_text((expected / "params.yaml").read_text())
    first.kill()
    finish(first)
    assert finish(second)[0] == 0
    assert outs(folder) == outs(expected)


def test_params_of_other_stages_may_change(tmp_path: Path) -> None:
    folder = create_project(tmp_path / "project", train__epochs=60)
    assert start_and_change(folder, "evaluate", "worst_mistakes", 3) == (0, "")


@pytest.mark.parametrize("change", ["add", "replace", "remove"])
def test_photos_that_change_are_named(
    change: str, tmp_path: Path, make_photos: Callable[[Path, int], Path]
) -> None:
    photos = make_photos(tmp_path, 2)
    inputs = StageInputs("prepare", lambda: 1, [], photos)
    inputs.check()
    if change == "add":
        (photos / "new.jpg").write_bytes(b"new")
    elif change == "replace":
        (photos / "photo_0.jpg").write_bytes(b"new")
    else:
        (photos / "photo_0.jpg").unlink()
    with pytest.raises(CatdogError, match=f"prepare: {photos} changed while the stage ran"):
        inputs.check()


def test_code_that_changes_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stage_inputs, "PACKAGE", tmp_path)
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "a.py").write_text("1")
    inputs = StageInputs("train", lambda: 1, ["model"])
    (tmp_path / "model" / "__pycache__").mkdir()
    (tmp_path / "model" / "__pycache__" / "a.pyc").write_text("bytecode")
    inputs.check()
    (tmp_path / "model" / "a.py").write_text("2")
    with pytest.raises(CatdogError, match="train: code changed while the stage ran"):
        inputs.check()
