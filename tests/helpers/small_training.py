"""`catdog train` as a command, in a folder with small params and photos, for a few seconds."""

import csv
import os
import subprocess
import sys
import time
from pathlib import Path

import psutil
import yaml

from tests.helpers.prepared_data import settings, write_prepared

LONG = 600  # epochs: longer than any test waits
OUTS = ("models/model.safetensors", "models/model.json", "reports/train/history.csv")


def create_project(
    folder: Path, name: str = "residual", photos: int = 49, large: int = 1, **changes: object
) -> Path:
    """Write params.yaml and data/prepared, with `large` dogs per cat; return the new folder."""
    write_prepared(folder / "data" / "prepared", ["cat", "dog"], photos, large)
    small = {"train__precision": "float32", "train__image_size": 16, "train__eval_image_size": 16}
    values = settings(**{**small, **changes}).model_dump(mode="json")
    values["model"]["name"] = name
    values["model"]["seed"]["dropout"] = 0.0  # its random numbers differ between processes
    (folder / "params.yaml").write_text(yaml.safe_dump(values, sort_keys=False))
    return folder


def start(folder: Path, *arguments: str, **environment: str | None) -> "subprocess.Popen[str]":
    """Start `catdog train` in `folder`, as the leader of a process group."""
    return run_in(folder, "-m", "catdog", "train", *arguments, **environment)


def run_in(folder: Path, *arguments: str, **environment: str | None) -> "subprocess.Popen[str]":
    """Start Python in `folder` with additional environment variables; None unsets one."""
    defaults = {"CATDOG_DEVICE": "cpu", "OMP_NUM_THREADS": "1", "TMPDIR": str(folder.parent)}
    variables = {**os.environ, **defaults, **environment}
    return subprocess.Popen(
        [sys.executable, "-u", *arguments],
        cwd=folder,
        env={name: value for name, value in variables.items() if value is not None},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def finish(process: "subprocess.Popen[str]") -> tuple[int, str, str]:
    """Wait for the end; return exit code, the unread standard output, and standard error."""
    out, err = process.communicate(timeout=600)
    return process.returncode, out, err


def train(folder: Path, *arguments: str) -> str:
    """Train in `folder`; return standard output. It must succeed without standard error."""
    code, out, err = finish(start(folder, *arguments))
    assert (code, err) == (0, ""), err
    return out


def read_until(process: "subprocess.Popen[str]", words: str) -> str:
    """Return the output of a process up to a line that contains `words`."""
    assert process.stdout is not None
    lines = []
    for line in process.stdout:
        lines.append(line)
        if words in line:
            return "".join(lines)
    raise AssertionError(f"no line with {words!r}:\n{''.join(lines)}{finish(process)[2]}")


def ranks(launcher: "subprocess.Popen[str] | psutil.Process") -> list[psutil.Process]:
    """Return the processes that a launcher has started, by rank."""
    children = psutil.Process(launcher.pid).children()
    return sorted(children, key=lambda child: int(child.environ()["RANK"]))


def wait_until_gone(processes: list[psutil.Process]) -> None:
    """Wait until all processes have ended."""
    _, alive = psutil.wait_procs(processes, timeout=60)
    assert not alive


def checkpoints(folder: Path) -> list[Path]:
    """Return the checkpoints in `folder`."""
    return list((folder / ".catdog" / "checkpoints").glob("*"))


def wait_for_checkpoint(folder: Path) -> None:
    """Wait until a training run in `folder` has saved a checkpoint."""
    deadline = time.monotonic() + 300
    while not checkpoints(folder):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def outs(folder: Path) -> dict[str, bytes]:
    """Return the bytes of all DVC outputs of the training run in `folder`."""
    return {name: (folder / name).read_bytes() for name in OUTS}


def losses(folder: Path) -> list[float]:
    """Return the training and validation losses of all epochs in `folder`."""
    with (folder / "reports/train/history.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    return [float(row[name]) for row in rows for name in ("train_loss", "val_loss")]
