"""Track new raw photos with DVC, and report what changed in git."""

import os
import subprocess
import sys
from pathlib import Path

from dvc.utils.serialize import dumps_yaml

from catdog.errors import CatdogError
from catdog.support.atomic_files import write_text
from catdog.support.yaml_files import parse_mapping


def add(raw: Path) -> list[str]:
    """Run `dvc add` on the folder `raw`; return the changed paths as `git status` prints them.

    First removes the remote from the folder's .dvc file: that remote, inside the repository, stores
    the drawn sample, and other photos must not be pushed to it. Raises CatdogError if DVC or git
    fails; the photos stay in `raw`.
    """
    remove_remote(raw.with_name(f"{raw.name}.dvc"))
    track(raw)
    status = _run(["git", "status", "--porcelain", "--", str(raw.parent)])
    return [line for line in status.splitlines() if line.strip()]


def track(raw: Path) -> None:
    """Run `dvc add` on the folder `raw`; CatdogError if it fails."""
    _run([sys.executable, "-m", "dvc", "add", str(raw)])


def remove_remote(dvc_file: Path) -> None:
    """Remove the `remote` entries of a .dvc file, if the file exists."""
    if not dvc_file.is_file():
        return
    content = parse_mapping(dvc_file.read_text(encoding="utf-8"), str(dvc_file))
    for out in content["outs"]:
        out.pop("remote", None)
    write_text(dvc_file, dumps_yaml(content))


def _run(command: list[str]) -> str:
    environment = {**os.environ, "DVC_NO_ANALYTICS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if done.returncode:
        name = "dvc add" if "dvc" in command else "git status"
        reason = (done.stderr.strip() or done.stdout.strip()).splitlines()[-1:]
        raise CatdogError(f"{name} failed: {' '.join(reason)}; the imported photos are kept")
    return done.stdout
