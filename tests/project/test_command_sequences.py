"""The commands of README.md and docs/, one after the other, as a new user runs them.

In any order, with and without commits, a command either works or its error contains a command that
works; and each model and photo can be restored by a command that the program prints or a page
contains. HEAD of the clone has results of another machine, as in a clone on another processor.
"""

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest
import yaml

from tools import tiny_project
from tools.tiny_project import git

ROOT = Path(__file__).resolve().parents[2]
SMALL = {
    "prepare": {"image_size": 32},
    "train": {
        "epochs": 1,
        "start_image_size": 16,
        "image_size": 16,
        "eval_image_size": 16,
        "precision": "float32",
    },
}
MODEL = "models/model.safetensors"
COMMIT = 'git commit -m "Results of this machine" dvc.lock metrics.json'
BACK = "git checkout params.yaml dvc.lock metrics.json && make repro"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not (ROOT / ".git").exists(), reason="needs the git repository"),
]


class Done(NamedTuple):
    """A finished command: exit code and output."""

    code: int
    output: str


class Clone:
    """A clone in which commands run in a shell, with .venv as `make install` leaves it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / ".venv").mkdir()
        for entry in Path(sys.prefix).iterdir():
            if entry.name != ".ready":
                (folder / ".venv" / entry.name).symlink_to(entry)
        (folder / ".venv/.ready").touch()
        tiny = f"[core]\n    site_cache_dir = {folder / '.dvc/tmp/site'}\n"
        (folder / ".dvc/config.local").write_text(tiny)
        git(folder, "config", "user.name", "A Tester")
        git(folder, "config", "user.email", "tester@example.com")

    def run(self, command: str) -> Done:
        """Run a command; its output must not contain a traceback or `git stash`."""
        path = f"{self.folder / '.venv/bin'}{os.pathsep}{os.environ['PATH']}"
        added = {
            "PATH": path,
            "PYTHONPATH": str(self.folder),
            "DVC_NO_ANALYTICS": "1",
            "OMP_NUM_THREADS": "1",
            "PREFECT_HOME": str(self.folder.parent / "prefect"),
            "COLUMNS": "300",
        }
        hidden = ("CATDOG_REPOSITORY", "CATDOG_HOME", "PREFECT_API_URL", "MAKEFLAGS", "MAKELEVEL")
        kept = {name: value for name, value in os.environ.items() if name not in hidden}
        done = subprocess.run(
            command,
            shell=True,
            cwd=self.folder,
            env={**kept, **added},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        assert "Traceback" not in done.stdout, done.stdout
        assert "git stash" not in done.stdout, done.stdout
        return Done(done.returncode, done.stdout)

    def works(self, command: str) -> str:
        """Run a command that must succeed; return its output."""
        done = self.run(command)
        assert done.code == 0, f"{command}\n{done.output}"
        return done.output

    def fails(self, command: str) -> str:
        """Run a command of catdog that must fail in one line; return the line."""
        done = self.run(command)
        assert done.code == 1, f"{command}\n{done.output}"
        (line,) = done.output.splitlines()
        return line

    def trained(self, output: str) -> bool:
        return "Running stage 'train'" in output

    def model(self) -> str:
        """Return the hash of the model in the workspace."""
        return hashlib.sha256((self.folder / MODEL).read_bytes()).hexdigest()

    def photos(self) -> dict[str, str]:
        """Return the hashes of the photos in data/raw, by path."""
        files = sorted(path for path in (self.folder / "data/raw").rglob("*") if path.is_file())
        return {
            str(path.relative_to(self.folder)): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in files
        }

    def changed(self) -> list[str]:
        """Return the tracked files that differ from HEAD."""
        return git(self.folder, "diff", "--name-only", "HEAD").split()


def advised(output: str) -> str:
    """Return the last command in backquotes of an error message."""
    commands: list[str] = re.findall("`([^`]+)`", output)
    return commands[-1]


def make_photos(folder: Path, seed: int) -> Path:
    """Write 20 photos of each of two classes."""
    program = f"""
import numpy as np
from pathlib import Path
from PIL import Image
random = np.random.default_rng({seed})
for name in ("ant", "bee"):
    (Path({str(folder)!r}) / name).mkdir(parents=True)
    for index in range(20):
        pixels = random.integers(0, 256, (40, 40, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(Path({str(folder)!r}) / name / f"{{index}}.png")
"""
    subprocess.run([sys.executable, "-c", program], check=True)
    return folder


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """This repository, with a short training, and results of another machine."""
    folder = tmp_path_factory.mktemp("origin") / "catdog"
    for name in filter(None, git(ROOT, "ls-files", "-z").split("\0")):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    values = yaml.safe_load((folder / "params.yaml").read_text())
    for section, changes in SMALL.items():
        values[section].update(changes)
    (folder / "params.yaml").write_text(yaml.safe_dump(values, sort_keys=False))
    (folder / "dvc.lock").unlink(missing_ok=True)
    tiny_project.start_git(folder)
    git(folder, "add", "--all", "--force")
    git(folder, "commit", "-q", "-m", "The sample")
    clone = Clone(folder)
    clone.works("make repro")
    as_another_machine(folder)
    tiny_project.commit(folder, "Results of another machine")
    return folder


def as_another_machine(folder: Path) -> None:
    """Change the results in dvc.lock and metrics.json as if another processor had rounded them."""
    lock = (folder / "dvc.lock").read_text()
    stages = yaml.safe_load(lock)["stages"]
    outs = [*stages["train"]["outs"], *stages["evaluate"]["outs"]]
    for md5 in (out["md5"].removesuffix(".dir") for out in outs if out["path"] != "metrics.json"):
        lock = lock.replace(md5, md5[::-1])
    old = hashlib.md5((folder / "metrics.json").read_bytes()).hexdigest()
    metrics = json.loads((folder / "metrics.json").read_text())
    (folder / "metrics.json").write_text(json.dumps({**metrics, "loss": metrics["loss"] + 1e-6}))
    new = hashlib.md5((folder / "metrics.json").read_bytes()).hexdigest()
    assert old in lock
    (folder / "dvc.lock").write_text(lock.replace(old, new))


@pytest.fixture
def fresh(template: Path, tmp_path: Path) -> Clone:
    """A fresh clone on this machine, without data and cache."""
    git(tmp_path, "clone", "-q", str(template), str(tmp_path / "clone"))
    return Clone(tmp_path / "clone")


@pytest.fixture(scope="module")
def run_once(template: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clone after its first `make repro`, not committed."""
    folder = tmp_path_factory.mktemp("run") / "clone"
    git(folder.parent, "clone", "-q", str(template), str(folder))
    output = Clone(folder).works("make repro")
    assert "Changed in git: dvc.lock, metrics.json" in output
    assert COMMIT in output
    return folder


@pytest.fixture(params=["committed", "not committed"])
def clone(run_once: Path, tmp_path: Path, request: pytest.FixtureRequest) -> Clone:
    """The clone after its first `make repro`, with and without a commit of its results."""
    folder = tmp_path / "clone"
    shutil.copytree(run_once, folder, symlinks=True, ignore=shutil.ignore_patterns(".venv"))
    clone = Clone(folder)
    if request.param == "committed":
        clone.works(COMMIT)
        assert clone.changed() == []
    return clone


@pytest.mark.parametrize("command", ["compare", "predict --model HEAD data/raw", "champion HEAD"])
def test_the_commands_that_are_named_lead_a_fresh_clone_to_a_baseline(
    fresh: Clone, command: str
) -> None:
    first = advised(fresh.fails(f"catdog {command}"))
    assert first == "make repro"
    output = fresh.works(first)
    assert COMMIT in output
    second = advised(fresh.fails(f"catdog {command}"))
    assert second == COMMIT
    fresh.works(second)
    assert fresh.changed() == []
    fresh.works(f"catdog {command}")
    assert "Changed in git" not in fresh.works("make repro")


def test_make_repro_trains_once_and_then_finds_its_results(clone: Clone) -> None:
    model = clone.model()
    for command in ("git checkout params.yaml dvc.lock metrics.json", "make clean"):
        clone.works(command)
        assert not clone.trained(clone.works("make repro"))
        assert clone.model() == model


def test_other_params_are_compared_without_touching_the_workspace(clone: Clone) -> None:
    clone.works("dvc exp run -n faster -S optimizer.lr=0.2")
    model, changed = clone.model(), clone.changed()
    done = clone.run("catdog compare HEAD faster")
    if done.code:  # not committed: HEAD has results of another machine
        command, name = re.findall("`([^`]+)`", done.output)
        assert command.startswith("make flow ARGS=")
        clone.works(command)
        clone.works(f"catdog compare {name} faster")
        clone.works(f"catdog predict --model {name} data/raw/cat")
        for again in ("compare HEAD faster", "predict --model HEAD data/raw/cat", "champion HEAD"):
            assert advised(clone.fails(f"catdog {again}")) == name
    assert (clone.model(), clone.changed()) == (model, changed)
    clone.works(BACK)
    assert clone.model() != model
    clone.works("dvc exp apply faster")
    assert clone.model() == model


@pytest.mark.parametrize("override", ["optimizer.name=nosuch", "evaluate.calibration_bins=-1"])
@pytest.mark.parametrize("bare", [True, False], ids=["dvc repro", "dvc exp run"])
def test_a_failing_run_loses_no_model(clone: Clone, override: str, bare: bool) -> None:
    model = clone.model()
    key, _, value = override.partition("=")
    if bare:
        file = clone.folder / "params.yaml"
        values = yaml.safe_load(file.read_text())
        section, name = key.split(".")
        values[section][name] = yaml.safe_load(value)
        file.write_text(yaml.safe_dump(values, sort_keys=False))
    assert clone.run("dvc repro" if bare else f"dvc exp run -S {override}").code
    if not (clone.folder / MODEL).exists():
        clone.works(advised(clone.fails("catdog predict data/raw/cat")))
    assert clone.model() == model
    clone.works("catdog predict data/raw/cat")
    refused = clone.run("make repro")
    assert refused.code and key in refused.output
    done = clone.run("catdog results")
    command = advised(done.output) if done.code else "git checkout params.yaml && make repro"
    assert not clone.trained(clone.works(command))
    assert clone.model() == model
    clone.works("catdog results")


def test_a_valid_run_after_a_failing_one_restores_the_earlier_experiment(clone: Clone) -> None:
    clone.works("dvc exp run -n slower -S optimizer.lr=0.01")
    model = clone.model()
    assert clone.run("dvc exp run -S train.epochs=-1").code
    clone.works(advised(clone.fails("catdog predict data/raw/cat")))
    assert clone.model() == model
    clone.works(BACK)
    assert clone.model() != model
    clone.works("dvc exp apply slower")
    assert clone.model() == model


def go_back() -> str:
    """Return the commands of docs/photos.md that return to the last commit."""
    page = (ROOT / "docs/photos.md").read_text(encoding="utf-8")
    start = page.index("$ git checkout data/raw.dvc")
    lines = page[start : page.index("```", start)].strip().splitlines()
    return " && ".join(line.removeprefix("$ ") for line in lines)


def test_the_page_about_photos_leads_back_to_the_last_commit(clone: Clone, tmp_path: Path) -> None:
    model, photos = clone.model(), clone.photos()
    clone.works(f"make photos ARCHIVE={make_photos(tmp_path / 'own', 1)}")
    clone.works("make repro")
    assert set(clone.photos().values()).isdisjoint(photos.values())
    assert not clone.trained(clone.works(go_back()))
    assert (clone.model(), clone.photos()) == (model, photos)


def test_replaced_photos_are_restored_by_the_command_that_is_printed(
    clone: Clone, tmp_path: Path
) -> None:
    first, second = (make_photos(tmp_path / name, len(name)) for name in ("one", "second"))
    by_hand = clone.folder / "data/raw/cat/by_hand.png"
    shutil.copy(first / "ant/3.png", by_hand)
    photos = clone.photos()
    restore_by_hand = advised(clone.works(f"make photos ARCHIVE={first}").partition("Next")[0])
    imported = clone.photos()
    restore_first = advised(clone.works(f"make photos ARCHIVE={second}").partition("Next")[0])
    clone.works(restore_first)
    assert clone.photos() == imported
    clone.works(restore_by_hand)
    assert clone.photos() == photos


def test_photos_added_by_hand_are_not_deleted_by_going_back(clone: Clone) -> None:
    by_hand = clone.folder / "data/raw/cat/by_hand.jpg"
    by_hand.write_bytes(b"a photo that no cache has")
    done = clone.run(go_back())
    assert done.code and "unsaved" in done.output and "by_hand" in done.output
    assert by_hand.exists()
