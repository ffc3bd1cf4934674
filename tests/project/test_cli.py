"""The command line: help for each command, one line for a mistake, nothing else on stdout."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
COMMANDS = (
    *("prepare", "train", "evaluate", "results", "predict", "fetch", "draw", "params"),
    *("champion", "compare"),
)


def catdog(*arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run the command as a user does, in a process of its own."""
    command = [sys.executable, "-m", "catdog.cli", *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


def refusal(*arguments: str, folder: Path) -> str:
    """Return the one line of a command that must fail, without a traceback."""
    done = catdog(*arguments, folder=folder)
    assert done.returncode != 0, done.stdout
    assert "Traceback" not in done.stderr
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 1, done.stderr
    return lines[0]


@pytest.mark.parametrize("command", [(), *((name,) for name in COMMANDS)])
def test_help_of_every_command(command: tuple[str, ...], tmp_path: Path) -> None:
    done = catdog(*command, "--help", folder=tmp_path)
    assert done.returncode == 0
    assert "Usage" in done.stdout


def test_the_help_lists_every_command(tmp_path: Path) -> None:
    shown = catdog("--help", folder=tmp_path).stdout
    assert all(name in shown for name in COMMANDS)


@pytest.mark.parametrize("stage", ["prepare", "train", "evaluate"])
def test_a_stage_without_params_says_so(stage: str, tmp_path: Path) -> None:
    assert "params.yaml: no such file" in refusal(stage, folder=tmp_path)


def test_a_wrong_value_names_key_value_and_what_is_allowed(tmp_path: Path) -> None:
    text = (ROOT / "params.yaml").read_text().replace("flip: 0.5", "flip: 1.5")
    (tmp_path / "params.yaml").write_text(text)
    line = refusal("train", folder=tmp_path)
    assert "params.yaml: augmentation.flip is 1.5" in line
    assert "less than or equal to 1" in line


def test_prepare_without_photos_says_how_to_get_them(tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_text((ROOT / "params.yaml").read_text())
    assert "dvc pull data/raw.dvc" in refusal("prepare", folder=tmp_path)
    assert not (tmp_path / "data" / "prepared").exists()


def test_results_before_any_evaluation(tmp_path: Path) -> None:
    assert "nothing evaluated yet" in refusal("results", folder=tmp_path)


def test_predict_without_a_model(tmp_path: Path, make_photos: Callable[[Path, int], Path]) -> None:
    make_photos(tmp_path / "photos", 1)
    assert "not found; run `dvc repro`" in refusal("predict", "photos", folder=tmp_path)


def test_fetch_of_a_file_that_is_not_there(tmp_path: Path) -> None:
    assert "missing.zip" in refusal("fetch", "--archive", "missing.zip", folder=tmp_path)


def test_fetch_takes_a_file_or_an_address(tmp_path: Path) -> None:
    line = refusal("fetch", "--archive", "a.zip", "--url", "https://localhost/", folder=tmp_path)
    assert "--archive" in line


def test_fetch_puts_photos_in_place(
    tmp_path: Path, make_photos: Callable[[Path, int], Path]
) -> None:
    for name in ("ant", "bee"):
        make_photos(tmp_path / "own" / name, 3)
    done = catdog("fetch", "--archive", "own", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert len(list((tmp_path / "data/raw").glob("*/*.jpg"))) == 6


def test_draw_refuses_a_folder_that_is_there(tmp_path: Path) -> None:
    (tmp_path / "here").mkdir()
    assert "here" in refusal("draw", "here", folder=tmp_path)


def test_params_explains_every_key(tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_text((ROOT / "params.yaml").read_text())
    shown = catdog("params", folder=tmp_path).stdout
    assert all(key in shown for key in ("optimizer.lr", "augmentation.crop_scale_min"))
