"""Track new raw photos with DVC, and report what changed in git."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from dvc.utils.serialize import dumps_yaml

from catdog.errors import CatdogError
from catdog.paths import SAMPLE
from catdog.support import git
from catdog.support.atomic_files import write_text
from catdog.support.yaml_files import parse_mapping

SAMPLE_REMOTE = "sample"  # in .dvc/config


def add(raw: Path) -> list[str] | None:
    """Run `dvc add` on the folder `raw`; return the changed paths as `git status` prints them.

    None if the DVC project is not in a git repository. First removes the sample from the folder's
    .dvc file: its remote, inside the repository, is not for other photos. Raises CatdogError if DVC
    or git fails; the photos stay in `raw`.
    """
    remove_sample(raw.with_name(f"{raw.name}.dvc"))
    try:
        track(raw)
        if not git.find("rev-parse", "--git-dir"):
            return None
        status = git.run("status", "--porcelain", "--", str(raw.parent))
    except CatdogError as error:
        raise CatdogError(f"{error}; the imported photos are kept") from None
    return [line for line in status.splitlines() if line.strip()]


def remove_sample(dvc_file: Path) -> None:
    """Remove the copy of the sample from a .dvc file, where it is a second output, and from disk.

    The photos themselves had the sample's remote in version 0.1.0; it is removed as well. Does
    nothing if the file is missing. Raises CatdogError if it is not valid YAML.
    """
    if not dvc_file.is_file():
        return
    content = parse_mapping(dvc_file.read_text(encoding="utf-8"), str(dvc_file))
    outs = [out for out in content["outs"] if out["path"] != SAMPLE.name]
    for out in outs:
        if out.get("remote") == SAMPLE_REMOTE:
            del out["remote"]
    write_text(dvc_file, dumps_yaml({**content, "outs": outs}))
    if len(outs) < len(content["outs"]):
        shutil.rmtree(dvc_file.with_name(SAMPLE.name), ignore_errors=True)


def track(raw: Path) -> None:
    """Run `dvc add` on the folder `raw`; CatdogError if it fails."""
    command = [sys.executable, "-m", "dvc", "add", str(raw)]
    environment = {**os.environ, "DVC_NO_ANALYTICS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if done.returncode:
        raise CatdogError(f"dvc add failed: {reason(done)}")


def reason(done: "subprocess.CompletedProcess[str]") -> str:
    """Return why a dvc command failed: its line with the error, without the hints around it."""
    lines = (done.stderr.strip() or done.stdout.strip()).splitlines()
    return " ".join([line for line in lines if line.startswith("ERROR")] or lines[-1:])
