"""The same checks in `make lint`, in the pre-commit hooks and in the workflow of the tests."""

import re
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[2]


def lint_commands() -> list[str]:
    """Return the commands of `make lint`, in their order."""
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    recipe = re.search(r"^lint:.*\n((?:\t.*\n)+)", makefile, re.MULTILINE)
    assert recipe
    return [line.removeprefix("\t@$(BIN)/") for line in recipe[1].splitlines()]


def test_the_pre_commit_hooks_run_what_make_lint_runs() -> None:
    config = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))
    hooks = [hook["entry"].removeprefix(".venv/bin/") for hook in config["repos"][0]["hooks"]]
    # a hook's command gets the names of the changed files, make's the names of all
    commands = [re.sub(r" (\.|\.github/workflows/\*\.yml)$", "", line) for line in lint_commands()]
    assert hooks == commands


def test_the_workflow_runs_make_test_on_the_oldest_supported_python() -> None:
    workflow = yaml.safe_load((ROOT / ".github/workflows/test.yml").read_text(encoding="utf-8"))
    job = workflow["jobs"]["test"]
    assert "make test" in [step.get("run") for step in job["steps"]]
    pyproject = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    (oldest,) = re.findall(r'^requires-python = ">=(.+)"$', pyproject, re.MULTILINE)
    assert job["strategy"]["matrix"]["python"][0] == oldest
