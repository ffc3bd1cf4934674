"""The wheel: what it contains, and that its command works outside the repository."""

import importlib.util
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from catdog import __version__, params
from catdog.model import networks, saved
from catdog.model.card import ModelCard

ROOT = Path(__file__).resolve().parents[2]
BUILD_INPUTS = ("catdog", "LICENSE", "pyproject.toml")

Command = Callable[..., subprocess.CompletedProcess[str]]


def save_untrained_model(folder: Path) -> None:
    """Save a network with two classes, ant and bee, as stage 2 does."""
    settings = params.load(ROOT / "params.yaml").model
    network = networks.build(settings, 2, 32)
    card = ModelCard(
        model=settings,
        classes=["ant", "bee"],
        stored_image_size=32,
        image_size=32,
        flip=False,
        mean=[0.5, 0.5, 0.5],
        std=[0.5, 0.5, 0.5],
        precision="float32",
        epoch=1,
        weights=sum(parameter.numel() for parameter in network.parameters()),
        pflop=0.0,
        versions={},
    )
    saved.save(folder, network, card)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built without network access from a copy of its sources."""
    if importlib.util.find_spec("setuptools") is None:
        pytest.skip("the build backend setuptools is not installed")
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    source.mkdir()
    for name in BUILD_INPUTS:  # a copy, as setuptools writes build/ and *.egg-info next to them
        if (ROOT / name).is_dir():
            ignore = shutil.ignore_patterns("__pycache__")
            shutil.copytree(ROOT / name, source / name, ignore=ignore)
        else:
            shutil.copy(ROOT / name, source)
    options = ("--no-build-isolation", "--no-deps", "--no-index", "--quiet")
    command = [sys.executable, "-m", "pip", "wheel", *options, "--wheel-dir", str(folder), "."]
    subprocess.run(command, cwd=source, check=True)
    (path,) = folder.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def installed(wheel: Path) -> Path:
    """A folder with the unpacked wheel."""
    folder = wheel.parent / "installed"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    return folder


@pytest.fixture
def catdog(installed: Path, tmp_path: Path) -> Command:
    """Run `catdog` of the wheel in an empty folder, with the dependencies of this environment.

    Python's -S leaves out *.pth files, and with them the editable install of the repository.
    """
    path = os.pathsep.join([str(installed), sysconfig.get_path("purelib")])
    environment = {
        **os.environ,
        "PYTHONPATH": path,
        "GIT_CEILING_DIRECTORIES": str(tmp_path.parent),
    }
    folder = tmp_path / "empty"
    folder.mkdir()

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-S", "-m", "catdog", *arguments]
        return subprocess.run(
            command, cwd=folder, env=environment, capture_output=True, text=True, check=False
        )

    return run


@pytest.fixture(scope="module")
def names(wheel: Path) -> set[str]:
    """The names of the files in the wheel."""
    with zipfile.ZipFile(wheel) as archive:
        return {name for name in archive.namelist() if not name.endswith("/")}


def test_the_wheel_contains_every_file_of_the_package_and_nothing_else(names: set[str]) -> None:
    sources = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "catdog").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    metadata = f"catdog-{__version__}.dist-info/"
    assert {name for name in names if not name.startswith(metadata)} == sources


def test_every_folder_of_the_wheel_is_a_package(names: set[str]) -> None:
    folders = {Path(name).parent for name in names if name.startswith("catdog/")}
    assert len(folders) > 5
    assert {f"{folder.as_posix()}/__init__.py" for folder in folders} <= names


def test_the_wheel_contains_the_template_and_the_licence(names: set[str]) -> None:
    assert "catdog/evaluation/report.html.j2" in names
    assert f"catdog-{__version__}.dist-info/licenses/LICENSE" in names


def test_the_metadata_have_the_version_and_say_what_is_not_included(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        metadata = archive.read(f"catdog-{__version__}.dist-info/METADATA").decode()
    assert f"\nVersion: {__version__}\n" in metadata
    assert "\nLicense-Expression: Apache-2.0\n" in metadata
    assert "clone the repository" in metadata


def test_the_command_runs_from_the_wheel(catdog: Command) -> None:
    shown = catdog("--version")
    assert shown.stdout == f"catdog {__version__}\n", shown.stderr
    shown = catdog("--help")
    assert shown.returncode == 0, shown.stderr
    assert "predict" in shown.stdout


def test_predict_needs_only_a_model_folder(
    catdog: Command, tmp_path: Path, make_photos: Callable[[Path, int], Path]
) -> None:
    make_photos(tmp_path / "photos", 2)
    save_untrained_model(tmp_path / "model")
    arguments = ("predict", str(tmp_path / "photos"), "--model", str(tmp_path / "model"))
    shown = catdog(*arguments, "--format", "csv")
    assert shown.returncode == 0, shown.stderr
    header, *rows = shown.stdout.splitlines()
    assert header == "path,prediction,probability_ant,probability_bee,error"
    assert len(rows) == 2


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ("params", "recipes"),
        ("params --markdown", "recipes"),
        ("train", "recipes"),
        ("results", "metrics.json"),
        ("compare", "clone"),
        ("champion", "git"),
        ("predict ../photos", "model.json"),
    ],
)
def test_a_command_that_needs_more_fails_in_one_line(
    arguments: str,
    reason: str,
    catdog: Command,
    tmp_path: Path,
    make_photos: Callable[[Path, int], Path],
) -> None:
    make_photos(tmp_path / "photos", 1)
    done = catdog(*arguments.split())
    assert done.returncode == 1, done.stdout
    (line,) = done.stderr.splitlines()
    assert line.startswith("catdog: ")
    assert reason in line


def test_the_changelog_and_the_citation_have_the_current_version() -> None:
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    (version, date) = re.findall(r"^## (\d\S+) - (\S+)$", changelog, re.MULTILINE)[0]
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert (version, date) == (citation["version"], str(citation["date-released"]))
    assert version == __version__
