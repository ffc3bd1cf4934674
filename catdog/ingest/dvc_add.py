"""Hand new raw photos to DVC, and say what that changed in git."""

import os
import subprocess
import sys
from pathlib import Path

import yaml

from catdog.errors import CatdogError
from catdog.support.atomic_files import load_yaml, write_text


def add(raw: Path) -> list[str]:
    """Let DVC version the folder `raw`; return what git now sees as changed, a line a path.

    A remote named in the folder's .dvc file is taken out first: it is the one inside the
    repository that holds the drawn sample, and nobody's own photos may be pushed there.
    Raises CatdogError if DVC cannot do it; the photos are in place nevertheless.
    """
    forget_remote(raw.with_name(f"{raw.name}.dvc"))
    _run([sys.executable, "-m", "dvc", "add", str(raw)])
    status = _run(["git", "status", "--porcelain", "--", str(raw.parent)])
    return [line for line in status.splitlines() if line.strip()]


def forget_remote(dvc_file: Path) -> None:
    """Take the remote out of a .dvc file, if it is there and names one."""
    if not dvc_file.is_file():
        return
    content = load_yaml(dvc_file.read_text(encoding="utf-8"), str(dvc_file))
    for out in content["outs"]:
        out.pop("remote", None)
    write_text(dvc_file, yaml.safe_dump(content, sort_keys=False))


def _run(command: list[str]) -> str:
    environment = {**os.environ, "DVC_NO_ANALYTICS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if done.returncode:
        name = "dvc" if "dvc" in command else command[0]
        reason = (done.stderr.strip() or done.stdout.strip()).splitlines()[-1:]
        raise CatdogError(f"the photos are in place, but {name} failed: {' '.join(reason)}")
    return done.stdout
