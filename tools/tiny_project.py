"""A git and DVC project with three minimal stages, for tests with the real commands.

Its model depends on params.yaml. Each stage that runs appends its name to the file RUNS_LOG, which
shows what has run in any copy of the project.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

METRICS = {"accuracy": 0.875, "recall": {"cat": 0.75, "dog": 1.0}, "photos": 8}

DVC_YAML = """\
stages:
  prepare:
    cmd: python prepare.py
    deps: [prepare.py]
    outs: [arrays.txt]
  train:
    cmd: python train.py
    deps: [train.py, arrays.txt]
    params: [optimizer, train]
    outs: [model.txt]
  evaluate:
    cmd: python evaluate.py
    deps: [evaluate.py, model.txt]
    metrics:
    - metrics.json: {cache: false}
"""

PARAMS = """\
optimizer:
  name: sgd # sgd or adam
  lr: 0.1
train:
  seed: 1
  sizes:
  - 8
  - 16
  epochs: 2
"""

STAGE = """\
import os
from pathlib import Path

print("output of stage {name}: é")
Path("{out}").write_text({text})
with Path(os.environ.get("RUNS_LOG", "runs.log")).open("a") as log:
    log.write("{name} ")
"""

# Without .catdog/: a project need not ignore the files of the flows.
IGNORED = "/arrays.txt\n/model.txt\n/runs.log\n/saved\n/training\n"


def create(top: Path, subfolder: str = "") -> Path:
    """Create a project, with its files committed and no stage run; return its folder.

    `top` becomes a git repository with the project, in `subfolder` unless that is empty.
    """
    folder = top / subfolder
    folder.mkdir(parents=True, exist_ok=True)
    start_git(top)
    assert dvc(folder, "init", "-q", *(["--subdir"] if subfolder else [])) == 0
    settings = "[core]\n    analytics = false\n    check_update = false\n"
    (folder / ".dvc" / "config").write_text(settings, encoding="utf-8")
    # An absolute path, since DVC resolves a relative one from the current directory.
    site = f"[core]\n    site_cache_dir = {folder / '.dvc' / 'tmp' / 'site'}\n"
    (folder / ".dvc" / "config.local").write_text(site, encoding="utf-8")
    (folder / ".gitignore").write_text(IGNORED, encoding="utf-8")
    (folder / "dvc.yaml").write_text(DVC_YAML, encoding="utf-8")
    (folder / "params.yaml").write_text(PARAMS, encoding="utf-8")
    (folder / "recipes").mkdir()
    slow = PARAMS.replace("lr: 0.1", "lr: 0.001").replace("epochs: 2", "epochs: 9")
    (folder / "recipes" / "slow.yaml").write_text(slow, encoding="utf-8")
    write_stage(folder, "prepare", "arrays.txt", "'arrays'")
    write_stage(folder, "train", "model.txt", "'model of ' + Path('params.yaml').read_text()")
    write_stage(folder, "evaluate", "metrics.json", repr(json.dumps(METRICS)))
    commit(folder, "Three stages")
    return folder


def start_git(folder: Path) -> None:
    """Make `folder` an empty git repository with a configured author."""
    git(folder, "init", "-q", "-b", "main")
    git(folder, "config", "user.name", "A Tester")
    git(folder, "config", "user.email", "tester@example.com")


def write_stage(project: Path, name: str, out: str, text: str) -> None:
    """Write the script of a stage that writes the value of the expression `text` to `out`."""
    source = STAGE.format(name=name, out=out, text=text)
    (project / f"{name}.py").write_text(source, encoding="utf-8")


def commit(project: Path, message: str) -> str:
    """Commit all files of the project; return the commit."""
    git(project, "add", "-A")
    git(project, "commit", "-q", "-m", message)
    return git(project, "rev-parse", "HEAD")


def git(folder: Path, *arguments: str) -> str:
    """Return the output of a git command; it must succeed."""
    done = subprocess.run(
        ["git", *arguments], cwd=folder, check=True, stdout=subprocess.PIPE, text=True
    )
    return done.stdout.strip()


def dvc(folder: Path, *arguments: str) -> int:
    """Return the exit code of a dvc command."""
    return _dvc(folder, *arguments).returncode


def dvc_output(folder: Path, *arguments: str) -> str:
    """Return the output of a dvc command; it must succeed."""
    done = _dvc(folder, *arguments, stdout=subprocess.PIPE)
    assert done.returncode == 0, done.stdout
    return done.stdout


def _dvc(folder: Path, *arguments: str, **settings: Any) -> "subprocess.CompletedProcess[str]":
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    environment = {**os.environ, "PATH": path}
    command = [sys.executable, "-m", "dvc", *arguments]
    return subprocess.run(command, cwd=folder, env=environment, check=False, text=True, **settings)
