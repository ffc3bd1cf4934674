"""A project whose committed results are those of another machine.

The machines differ in the environment variable MACHINE, which the stage `train` writes into its
model, as processors differ in how they round.
"""

from pathlib import Path

import pytest

from tools import tiny_project
from tools.tiny_project import dvc, git

TRAIN = "'model of ' + Path('params.yaml').read_text() + os.environ['MACHINE']"


@pytest.fixture(scope="session")
def other_machine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project on the other machine, with its results in its cache and in git."""
    other = tiny_project.create(tmp_path_factory.mktemp("machines") / "other")
    tiny_project.write_stage(other, "train", "model.txt", TRAIN)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MACHINE", "other")
        assert dvc(other, "repro", "-q") == 0
    tiny_project.commit(other, "Results of the other machine")
    return other


@pytest.fixture
def cloned(other_machine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A clone on this machine; the stages that run are listed in the file runs.log next to it."""
    monkeypatch.setenv("MACHINE", "this")
    monkeypatch.setenv("RUNS_LOG", str(tmp_path / "runs.log"))
    project = tmp_path / "cloned"
    git(tmp_path, "clone", "-q", str(other_machine), str(project))
    git(project, "config", "user.name", "A Tester")
    git(project, "config", "user.email", "tester@example.com")
    site = f"[core]\n    site_cache_dir = {project / '.dvc' / 'tmp' / 'site'}\n"
    (project / ".dvc" / "config.local").write_text(site, encoding="utf-8")
    monkeypatch.setenv("CATDOG_REPOSITORY", str(project))
    return project


def stages_run(project: Path) -> list[str]:
    """Return the stages that have run since the last call."""
    log = project.parent / "runs.log"
    stages = log.read_text(encoding="utf-8").split() if log.exists() else []
    log.unlink(missing_ok=True)
    return stages
