"""A training of seconds, as a command in a folder of its own, for tests of whole processes."""

import csv
import os
import subprocess
import sys
import time
from pathlib import Path

import psutil
import yaml

from tests.helpers.prepared_data import settings, write_prepared

LONG = 600  # epochs: more than any test waits for
OUTS = ("models/model.safetensors", "models/model.json", "reports/train/history.csv")


def place(folder: Path, name: str = "residual", photos: int = 49, **changes: object) -> Path:
    """Write params.yaml and data/prepared into a new folder; return it."""
    write_prepared(folder / "data" / "prepared", ["cat", "dog"], photos)
    small = {"train__precision": "float32", "train__image_size": 16, "train__eval_image_size": 16}
    values = settings(**{**small, **changes}).model_dump(mode="json")
    values["model"]["name"] = name
    values["model"]["seed"]["dropout"] = 0.0  # each process draws its own
    (folder / "params.yaml").write_text(yaml.safe_dump(values, sort_keys=False))
    return folder


def start(folder: Path, *arguments: str, **environment: str | None) -> "subprocess.Popen[str]":
    """Start `catdog train` there, as the leader of a process group."""
    return run_in(folder, "-m", "catdog", "train", *arguments, **environment)


def run_in(folder: Path, *arguments: str, **environment: str | None) -> "subprocess.Popen[str]":
    """Start Python there, with the environment of the tests and what is given; None is unset."""
    ours = {"CATDOG_DEVICE": "cpu", "OMP_NUM_THREADS": "1", "TMPDIR": str(folder.parent)}
    variables = {**os.environ, **ours, **environment}
    return subprocess.Popen(
        [sys.executable, "-u", *arguments],
        cwd=folder,
        env={name: value for name, value in variables.items() if value is not None},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def end(process: "subprocess.Popen[str]") -> tuple[int, str, str]:
    """Return exit code, standard output (what was not read yet) and standard error."""
    out, err = process.communicate(timeout=600)
    return process.returncode, out, err


def train(folder: Path, *arguments: str) -> str:
    """Train there; return what was printed. It must end well, with nothing on standard error."""
    code, out, err = end(start(folder, *arguments))
    assert (code, err) == (0, ""), err
    return out


def read_until(process: "subprocess.Popen[str]", words: str) -> str:
    """Return what a process prints until a line with these words."""
    assert process.stdout is not None
    lines = []
    for line in process.stdout:
        lines.append(line)
        if words in line:
            return "".join(lines)
    raise AssertionError(f"{words!r} never came:\n{''.join(lines)}{end(process)[2]}")


def ranks(launcher: "subprocess.Popen[str]") -> list[psutil.Process]:
    """Return the processes that a launcher has started, the first one first."""
    children = psutil.Process(launcher.pid).children()
    return sorted(children, key=lambda child: int(child.environ()["RANK"]))


def wait_until_gone(processes: list[psutil.Process]) -> None:
    """Return when none of the processes is left."""
    _, alive = psutil.wait_procs(processes, timeout=60)
    assert not alive


def checkpoints(folder: Path) -> list[Path]:
    """Return the checkpoints that lie there."""
    return list((folder / ".catdog" / "checkpoints").glob("*"))


def wait_for_checkpoint(folder: Path) -> None:
    """Return when a training there has saved."""
    deadline = time.monotonic() + 300
    while not checkpoints(folder):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def outs(folder: Path) -> dict[str, bytes]:
    """Return the bytes of everything that DVC keeps of the training there."""
    return {name: (folder / name).read_bytes() for name in OUTS}


def losses(folder: Path) -> list[float]:
    """Return the train and validation losses of all epochs there."""
    with (folder / "reports/train/history.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    return [float(row[name]) for row in rows for name in ("train_loss", "val_loss")]
