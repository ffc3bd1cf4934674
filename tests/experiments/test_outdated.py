"""`catdog results` and `catdog predict` say if they are of other params or photos."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from catdog.experiments.outdated import describe_outdated

ROOT = Path(__file__).resolve().parents[2]
PHOTOS = "outs:\n- {md5: %s, path: raw}\n- {md5: %s, path: .sample}\n"
LOCK = """\
schema: '2.0'
stages:
  prepare:
    deps: [{path: data/raw, md5: one.dir}]
    params: {params.yaml: {prepare: {image_size: 64}}}
  train:
    params: {params.yaml: {train: {seed: 1, lr: 1.0e-3}, prepare: {image_size: 64}}}
"""
PARAMS = "train:\n  seed: {seed}\n  lr: 0.001\nprepare:\n  image_size: 64\nother:\n  key: 1\n"


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    (tmp_path / "dvc.lock").write_text(LOCK)
    (tmp_path / "params.yaml").write_text(PARAMS.format(seed=1))
    (tmp_path / "data/raw.dvc").write_text(PHOTOS % ("one.dir", "two.dir"))
    return tmp_path


def test_results_of_the_current_params_and_photos_are_not_outdated(project: Path) -> None:
    assert describe_outdated("train") == ""


def test_changed_params_are_named_with_the_value_that_was_used(project: Path) -> None:
    (project / "params.yaml").write_text(PARAMS.format(seed=2))
    assert describe_outdated("train") == "other params (train.seed: 1)"


def test_imported_photos_are_named(project: Path) -> None:
    (project / "data/raw.dvc").write_text(PHOTOS % ("two.dir", "two.dir"))
    assert describe_outdated("train") == "other photos than data/raw has now"


@pytest.mark.parametrize("missing", ["dvc.lock", "params.yaml", "data/raw.dvc"])
def test_nothing_is_said_where_a_file_is_missing(project: Path, missing: str) -> None:
    (project / missing).unlink()
    assert describe_outdated("train") == ""
    assert describe_outdated("evaluate") == ""


@pytest.mark.parametrize(
    ("command", "line"),
    [
        (["results"], "metrics.json: of other params (train.seed: 1); run `make repro`"),
        (["predict", "."], "models: trained with other params (train.seed: 1); run `make repro`"),
    ],
)
def test_the_commands_warn(project: Path, command: list[str], line: str) -> None:
    shutil.copy(ROOT / "metrics.json", project)
    text = (ROOT / "params.yaml").read_text()
    (project / "params.yaml").write_text(text.replace("  seed: 1\n", "  seed: 2\n"))
    lock = LOCK.replace("train:\n", "evaluate:\n") if command == ["results"] else LOCK
    (project / "dvc.lock").write_text(lock.replace(", lr: 1.0e-3", ""))
    done = subprocess.run(
        [sys.executable, "-m", "catdog", *command], capture_output=True, text=True, check=False
    )
    assert f"catdog: warning: {line}" in done.stderr
