"""The command line: help, version, shell completion, and errors of one line."""

import io
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console

from catdog import __version__, cli
from tools import tiny_project

ROOT = Path(__file__).resolve().parents[2]
COMMANDS = (
    *("prepare", "train", "evaluate", "results", "predict", "fetch", "champion", "compare"),
    "params",
)


def catdog(*arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run the command line in a child process."""
    command = [sys.executable, "-m", "catdog.cli", *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


def refusal(*arguments: str, folder: Path) -> str:
    """Run a command that must fail; return its error of one line."""
    done = catdog(*arguments, folder=folder)
    assert done.returncode != 0, done.stdout
    assert "Traceback" not in done.stderr
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 1, done.stderr
    return lines[0]


@pytest.mark.parametrize("command", [(), *((name,) for name in COMMANDS)])
def test_every_command_has_help(command: tuple[str, ...], tmp_path: Path) -> None:
    done = catdog(*command, "--help", folder=tmp_path)
    assert done.returncode == 0
    assert "Usage" in done.stdout


def test_version_is_that_of_the_package(tmp_path: Path) -> None:
    done = catdog("--version", folder=tmp_path)
    assert (done.returncode, done.stdout) == (0, f"catdog {__version__}\n")


def complete(**environment: str) -> str:
    """Return what the installed `catdog` prints for Bash's completion."""
    command = Path(sys.executable).with_name("catdog")
    variables = {**os.environ, **environment}
    done = subprocess.run([command], env=variables, capture_output=True, text=True, check=True)
    return done.stdout


def test_shell_completion() -> None:
    assert "complete -o default -F _catdog_completion catdog" in complete(
        _CATDOG_COMPLETE="source_bash"
    )
    proposed = complete(_CATDOG_COMPLETE="complete_bash", COMP_WORDS="catdog pre", COMP_CWORD="1")
    assert proposed.split() == ["prepare", "predict"]


def test_the_help_offers_shell_completion_and_imports_no_torch(tmp_path: Path) -> None:
    code = "import sys; from catdog.cli import app; app(['--help'], standalone_mode=False); "
    code += "sys.exit('torch' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert "--install-completion" in done.stdout
    assert "--show-completion" in done.stdout


def test_the_help_lists_every_command(tmp_path: Path) -> None:
    shown = catdog("--help", folder=tmp_path).stdout
    assert all(name in shown for name in COMMANDS)


@pytest.mark.parametrize("stage", ["prepare", "train", "evaluate"])
def test_a_stage_without_params_reports_the_missing_file(stage: str, tmp_path: Path) -> None:
    assert "params.yaml: no such file" in refusal(stage, folder=tmp_path)


def test_an_invalid_backend_of_matplotlib_does_not_matter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MPLBACKEND", "unknown")
    shutil.copy(ROOT / "params.yaml", tmp_path)
    assert "history.csv: no such file" in refusal("evaluate", folder=tmp_path)


def test_an_invalid_value_is_reported_with_key_value_and_range(tmp_path: Path) -> None:
    text = (ROOT / "params.yaml").read_text().replace("flip: 0.5", "flip: 1.5")
    (tmp_path / "params.yaml").write_text(text)
    line = refusal("train", folder=tmp_path)
    assert "params.yaml: augmentation.flip: invalid value 1.5" in line
    assert "must be less than or equal to 1" in line


def test_control_characters_in_an_error_are_escaped(tmp_path: Path) -> None:
    text = (ROOT / "params.yaml").read_text()
    (tmp_path / "params.yaml").write_text(text + r'"\e[31m\nseed": 1')
    assert r"params.yaml: \x1b[31m\nseed: unknown key" in refusal("params", folder=tmp_path)


def test_prepare_without_photos_names_the_commands_that_get_them(tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_text((ROOT / "params.yaml").read_text())
    assert "dvc pull data/raw.dvc" in refusal("prepare", folder=tmp_path)
    assert not (tmp_path / "data" / "prepared").exists()


def test_results_without_an_evaluation(tmp_path: Path) -> None:
    assert "metrics.json: no evaluation yet" in refusal("results", folder=tmp_path)


def test_results_of_an_older_version_are_an_error_of_one_line(tmp_path: Path) -> None:
    (tmp_path / "metrics.json").write_text('{"accuracy": 0.5}')
    line = refusal("results", folder=tmp_path)
    assert "metrics.json: not written by this version of catdog; run `dvc repro`" in line


@pytest.mark.parametrize("classes", [2, 20, 100])
def test_the_counts_of_prepare_have_a_line_for_each_class_in_80_columns(classes: int) -> None:
    names = [f"[breed]_{index:03}" for index in range(classes)]
    splits = ("train", "val", "test", "refused")
    counts = {
        split: {name: 1000 * place + index for index, name in enumerate(names)}
        for place, split in enumerate(splits)
    }
    stream = io.StringIO()
    Console(file=stream, width=80).print(cli._counts_table(counts))
    cells = [line.replace("┃", "│").split("│") for line in stream.getvalue().splitlines()]
    rows = [[cell.strip() for cell in row[1:-1]] for row in cells if len(row) > 2]
    assert rows[0] == ["class", *splits, "total"]
    for index, (name, row) in enumerate(zip(names, rows[1:-1], strict=True)):
        numbers = [1000 * place + index for place in range(4)]
        assert row == [name, *(f"{number:,}" for number in (*numbers, sum(numbers)))]
    totals = [sum(row.values()) for row in counts.values()]
    assert rows[-1] == ["total", *(f"{number:,}" for number in (*totals, sum(totals)))]


def test_predict_without_a_model(tmp_path: Path, make_photos: Callable[[Path, int], Path]) -> None:
    make_photos(tmp_path / "photos", 1)
    assert "no such file; run `dvc repro`" in refusal("predict", "photos", folder=tmp_path)


def test_fetch_of_a_missing_archive(tmp_path: Path) -> None:
    assert "missing.zip" in refusal("fetch", "--archive", "missing.zip", folder=tmp_path)


def test_fetch_accepts_either_an_archive_or_a_url(tmp_path: Path) -> None:
    line = refusal("fetch", "--archive", "a.zip", "--url", "https://localhost/", folder=tmp_path)
    assert "--archive" in line


def test_fetch_writes_the_photos_to_data_raw(
    tmp_path: Path, make_photos: Callable[[Path, int], Path]
) -> None:
    for name in ("ant", "bee"):
        make_photos(tmp_path / "own" / name, 3)
    done = catdog("fetch", "--archive", "own", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert len(list((tmp_path / "data/raw").glob("*/*.jpg"))) == 6
    assert "data/raw: not tracked with DVC, since this folder is not a DVC project." in done.stdout


def test_params_prints_every_key(tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_text((ROOT / "params.yaml").read_text())
    shown = catdog("params", folder=tmp_path).stdout
    assert all(key in shown for key in ("optimizer.lr", "augmentation.crop_scale_min"))


def test_a_model_card_that_is_no_object_is_an_error_of_one_line(tmp_path: Path) -> None:
    (tmp_path / "model.json").write_text("[]")
    for name in ("model.safetensors", "photo.jpg"):
        (tmp_path / name).touch()
    line = refusal("predict", "photo.jpg", "--model", str(tmp_path), folder=tmp_path)
    assert "cannot be loaded by this version of catdog" in line


def test_a_model_of_a_repository_without_a_dvc_project_is_an_error_of_one_line(
    tmp_path: Path,
) -> None:
    lock = "stages:\n  train:\n    outs:\n    - path: models\n      md5: abc.dir\n"
    (tmp_path / "dvc.lock").write_text(lock)
    tiny_project.start_git(tmp_path)
    tiny_project.commit(tmp_path, "No DVC project")
    line = refusal("predict", "photo.jpg", "--model", "HEAD", folder=tmp_path)
    assert "not in a DVC repository" in line
