"""The same commands in every environment: a flow, `compare`, `champion` and `predict`.

An environment is the place of the project (a path with any letters, a subfolder of a repository, a
git worktree, a shallow clone) and the user's git settings. One test combines all of them; each slow
test has one of them.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from catdog.model import saved
from flows.guards.child_processes import child_environment
from tests.helpers.flow_commands import experiments
from tests.helpers.small_model import card, network
from tools import tiny_project
from tools.tiny_project import git

ROOT = Path(__file__).resolve().parents[2]
DVC_YAML = """\
stages:
  prepare:
    cmd: python prepare.py
    deps: [prepare.py]
    outs: [arrays.txt]
  train:
    cmd: python train.py
    deps: [train.py, trained, arrays.txt]
    params: [optimizer, train]
    outs: [models]
  evaluate:
    cmd: python evaluate.py
    deps: [evaluate.py, models]
    params: [train]
    metrics:
    - metrics.json: {cache: false}
    outs: [reports/evaluate]
"""
TRAIN = """\
import shutil

shutil.copytree("trained", "models")
"""
# The number of epochs is the number of photos, of 200, that are classified correctly.
EVALUATE = """\
import json
from pathlib import Path
import yaml

right = yaml.safe_load(Path("params.yaml").read_text())["train"]["epochs"]
rows = ["sha256,path,class,prediction,probability_cat,probability_dog"]
for index in range(200):
    predicted = "cat" if index < right else "dog"
    rows.append(f"{index:064d},cat/{index}.jpg,cat,{predicted},0.5,0.5")
Path("reports/evaluate").mkdir(parents=True)
Path("reports/evaluate/predictions.csv").write_text("\\n".join(rows) + "\\n")
metrics = {"accuracy": right / 200, "photos": 200, "correct": right}
Path("metrics.json").write_text(json.dumps(metrics))
"""
# Without braces, with which DVC itself fails: it uses the path of its cache as a format string.
LETTERS = """Müller's "a" 写真 😀 %d #1 [x] $z ~;,=&"""
SUBFOLDER = "teams/my project [1]"


@dataclass(frozen=True)
class Place:
    """Where the project is."""

    parent: str = "plain"
    subfolder: str = ""
    shallow: bool = False
    worktree: bool = False


def settings(folder: Path, **given: str) -> str:
    """Return a .gitconfig, with hooks and programs that fail, and with `section_key` as given."""
    refuse = folder / "refuse"
    refuse.write_text("#!/bin/sh\nexit 1\n")
    refuse.chmod(0o755)
    hooks = folder / "hooks"
    hooks.mkdir()
    for name in ("post-checkout", "pre-commit", "reference-transaction", "post-index-change"):
        shutil.copy2(refuse, hooks / name)
    (folder / "ignored").write_text("*\n")
    lines = [
        f"[{name.replace('_', '] ', 1)} = {value.format(folder=folder, refuse=refuse)}"
        for name, value in given.items()
    ]
    return "\n".join(lines) + "\n"


SETTINGS = {
    "remote name": {"clone_defaultRemoteName": "upstream"},
    "signed commits": {"commit_gpgSign": "true", "gpg_program": "{refuse}"},
    "signed tags": {
        "tag_gpgSign": "true",
        "tag_forceSignAnnotated": "true",
        "gpg_program": "{refuse}",
    },
    "line endings": {"core_autocrlf": "true", "core_safecrlf": "true"},
    "untracked files: no": {"status_showUntrackedFiles": "no"},
    "untracked files: all": {"status_showUntrackedFiles": "all"},
    "quoted paths": {"core_quotePath": "true"},
    "default branch": {"init_defaultBranch": "trunk"},
    "fetch and push": {
        "fetch_prune": "true",
        "fetch_pruneTags": "true",
        "push_default": "nothing",
        "pull_rebase": "true",
        "merge_ff": "only",
        "rebase_autoStash": "true",
    },
    "hooks": {"core_hooksPath": "{folder}/hooks", "init_templateDir": "{folder}"},
    "file system monitor": {"core_fsmonitor": "{refuse}", "core_untrackedCache": "true"},
    "output": {
        "diff_noprefix": "true",
        "diff_external": "{refuse}",
        "color_ui": "always",
        "log_showSignature": "true",
        "format_pretty": "oneline",
        "status_short": "true",
        "status_branch": "true",
    },
    "ignored files": {"core_excludesFile": "{folder}/ignored"},
    "safe folders": {"safe_directory": "/nowhere"},
}
ALL_SETTINGS = {key: value for some in SETTINGS.values() for key, value in some.items()}
PLACES = {
    "letters": Place(parent=LETTERS),
    "subfolder": Place(subfolder=SUBFOLDER),
    "worktree": Place(worktree=True),
    "shallow clone": Place(shallow=True),
}


@pytest.fixture(scope="module")
def make_template(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Return a function that makes a repository with the results of a project in a subfolder."""
    made: dict[str, Path] = {}

    def make(subfolder: str) -> Path:
        if subfolder not in made:
            top = tmp_path_factory.mktemp("template") / "repository"
            made[subfolder] = _template(top, subfolder)
        return made[subfolder]

    return make


def _template(top: Path, subfolder: str) -> Path:
    project = top / subfolder
    tiny_project.create(top, subfolder)
    (project / ".gitignore").write_text("/arrays.txt\n/models\n/reports\n/.catdog\n/runs.log\n")
    shutil.copy2(ROOT / ".gitattributes", project)
    (project / "dvc.yaml").write_text(DVC_YAML)
    (project / "train.py").write_text(TRAIN)
    (project / "evaluate.py").write_text(EVALUATE)
    saved.save(project / "trained", network(card()), card())
    tiny_project.commit(project, "The stages")
    assert tiny_project.dvc(project, "repro", "-q") == 0
    tiny_project.commit(project, "The first results")
    return top


class Environment:
    """A project in a place, in which commands run with the git settings of a user."""

    def __init__(self, template: Path, place: Place, given: dict[str, str], folder: Path) -> None:
        clone = folder / place.parent / "clone"
        depth = ["--depth=1"] if place.shallow else []
        git(folder, "clone", "-q", "--origin=upstream", *depth, template.as_uri(), str(clone))
        if place.worktree:
            git(clone, "worktree", "add", "-q", "-b", "other", str(clone.with_name("worktree")))
            clone = clone.with_name("worktree")
        self.project = clone / place.subfolder
        cache = self.project / ".dvc" / "cache"
        shutil.copytree(template / place.subfolder / ".dvc" / "cache", cache)
        self.home = folder / "home"
        self.home.mkdir()
        user = "[user]\n  name = A Tester\n  email = tester@example.com\n"
        (self.home / ".gitconfig").write_text(user + settings(self.home, **given))

    def run(self, *command: str, code: int = 0, **variables: str) -> str:
        """Run a Python module in the project; return its output; it must exit with `code`."""
        paths = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
        environment = {
            **child_environment(),
            "CATDOG_REPOSITORY": str(self.project),
            "DVC_SITE_CACHE_DIR": str(self.home / "site"),
            "HOME": str(self.home),
            "PREFECT_HOME": str(self.home / "prefect"),
            "PYTHONPATH": paths,
            "RUNS_LOG": str(self.home / "runs.log"),
            **variables,
        }
        done = subprocess.run(
            [sys.executable, "-m", *command],
            cwd=ROOT if command[0].startswith("flows") else self.project,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        assert done.returncode == code, f"{command}: {done.returncode}\n{done.stdout}"
        assert "Traceback" not in done.stdout
        return done.stdout


def run_commands(ours: Environment, server: str, photo: Path) -> None:
    """Run a flow and the commands that read its results; check what they print."""
    ours.run("dvc", "checkout", "--quiet")
    flow = ("flows.pipeline", "-S", "train.epochs=150", "--experiment", "better")
    assert "0.7500" in ours.run(*flow, PREFECT_API_URL=server)
    assert experiments(ours.project) == ["better"]
    assert "better is significantly better" in ours.run("catdog", "compare", "HEAD", "better")
    assert "champion: v0.0.1" in ours.run("catdog", "champion", "HEAD")
    output = ours.run("catdog", "predict", "--model", "HEAD", "--format", "csv", str(photo))
    assert f"{photo}," in output


@pytest.fixture
def photo(tmp_path: Path, make_photos: Callable[[Path, int], Path]) -> Path:
    """A photo to predict."""
    return make_photos(tmp_path / "photos", 1) / "photo_0.jpg"


ALL_PLACES = Place(LETTERS, SUBFOLDER, shallow=True, worktree=True)
COMBINED = [pytest.param(ALL_PLACES, ALL_SETTINGS, id="all")]
EACH = [
    *(pytest.param(place, {}, id=name, marks=pytest.mark.slow) for name, place in PLACES.items()),
    *(
        pytest.param(Place(), given, id=name, marks=pytest.mark.slow)
        for name, given in SETTINGS.items()
    ),
]


@pytest.mark.parametrize(("place", "given"), [*COMBINED, *EACH])
def test_a_flow_and_the_commands_work_in_every_environment(
    place: Place,
    given: dict[str, str],
    make_template: Callable[[str], Path],
    server: str,
    photo: Path,
    tmp_path: Path,
) -> None:
    ours = Environment(make_template(place.subfolder), place, given, tmp_path)
    run_commands(ours, server, photo)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files to another user")
@pytest.mark.parametrize(
    "command",
    [
        ("catdog", "compare", "workspace", "HEAD"),
        ("catdog", "champion"),
        ("catdog", "predict", "--model", "HEAD", "."),
        ("flows.pipeline",),
        ("flows.runs", "list"),
    ],
    ids=lambda command: " ".join(command[:2]),
)
def test_if_git_refuses_the_repository_of_another_user_its_reason_is_one_line(
    command: tuple[str, ...], make_template: Callable[[str], Path], tmp_path: Path
) -> None:
    ours = Environment(make_template(""), Place(), {}, tmp_path)
    top = ours.project
    for path in (top, top / ".git"):
        os.chown(path, 1, 1)
    lines = ours.run(*command, code=1).splitlines()
    assert len(lines) == 1
    assert f"detected dubious ownership in repository at '{top}'" in lines[0]
    assert f"git config --global --add safe.directory {top}" in lines[0]


def test_git_converts_no_file_of_this_repository(tmp_path: Path) -> None:
    """DVC hashes the code: with other line endings, every stage would run again."""
    clone = tmp_path / "clone"
    converting = ("-c", "core.autocrlf=true", "-c", "core.eol=crlf")
    git(tmp_path, *converting, "clone", "-q", "--depth=1", ROOT.as_uri(), str(clone))
    ends = git(clone, "ls-files", "--eol").splitlines()
    assert len(ends) > 100
    assert [line for line in ends if "w/crlf" in line or "w/mixed" in line] == []
