"""Clones of this repository, with params that train within seconds."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[2]
STAGES = ("prepare", "train", "evaluate")


class Project:
    """A working copy in which commands run with the dvc and catdog of this environment."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def run(self, *command: str, code: int = 0) -> str:
        """Run a command and return its output; fail unless it exits with `code`."""
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        environment = {
            **os.environ,
            "PATH": path,
            "DVC_NO_ANALYTICS": "1",
            "DVC_SITE_CACHE_DIR": str(self.folder.parent / "site"),
            "GIT_CONFIG_GLOBAL": os.devnull,
        }
        for name in ("AUTHOR", "COMMITTER"):
            environment |= {f"GIT_{name}_NAME": "t", f"GIT_{name}_EMAIL": "t@localhost"}
        done = subprocess.run(
            command,
            cwd=self.folder,
            env=environment,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            check=False,
        )
        assert done.returncode == code, f"{command}: {done.returncode}\n{done.stdout}"
        return done.stdout

    def set(self, **changes: object) -> None:
        """Change params.yaml; keys: `section__key`."""
        file = self.folder / "params.yaml"
        values = yaml.safe_load(file.read_text())
        for name, value in changes.items():
            section, key = name.split("__")
            values[section][key] = value
        file.write_text(yaml.safe_dump(values, sort_keys=False))

    def commit(self, message: str) -> None:
        self.run("git", "add", "--all")
        self.run("git", "commit", "--quiet", "--message", message)

    def clone(self, name: str) -> "Project":
        self.run("git", "clone", "--quiet", str(self.folder), str(self.folder.parent / name))
        return Project(self.folder.parent / name)


def ran(output: str) -> list[str]:
    """Return the stages that `dvc repro` ran, or would run."""
    return [stage for stage in STAGES if f"Running stage '{stage}'" in output]


def create_origin(folder: Path) -> Project:
    """Create a repository in `folder`: the tracked files of this one, with a tiny training."""
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    for name in filter(None, listed.stdout.split("\0")):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    (folder / "dvc.lock").unlink(missing_ok=True)
    (folder / "metrics.json").unlink(missing_ok=True)
    project = Project(folder)
    project.run("git", "init", "--quiet", "--initial-branch", "main")
    project.set(
        prepare__image_size=32,
        train__start_image_size=16,
        train__image_size=32,
        train__eval_image_size=32,
        train__epochs=2,
        train__precision="float32",
    )
    project.run("git", "add", "--all", "--force")  # git ignores new files in data/store
    project.commit("sample")
    return project
