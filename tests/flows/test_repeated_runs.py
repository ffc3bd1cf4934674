"""A run with nothing new trains nothing and saves no second experiment.

HEAD has results of another machine (tests/helpers/two_machines.py), so those of each run differ.
"""

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from flows.pipeline import pipeline
from tests.helpers.flow_commands import experiments, log_of_ended
from tests.helpers.two_machines import stages_run
from tools.tiny_project import git


def test_a_nightly_run_repeats_nothing_and_names_the_equal_experiment(
    server: str, cloned: Path
) -> None:
    pipeline()
    assert stages_run(cloned) == ["prepare", "train", "evaluate"]
    (first,) = experiments(cloned)
    state = pipeline(return_state=True)
    assert stages_run(cloned) == []
    assert experiments(cloned) == [first]
    head = git(cloned, "rev-parse", "HEAD")[:12]
    assert (
        f"the result equals experiment {first} of {head}, so no other is saved; apply it with"
        f" `dvc exp apply {first}`"
    ) in log_of_ended(state)


@pytest.mark.slow
def test_the_command_in_the_log_makes_the_results_of_this_machine_the_baseline(
    server: str, cloned: Path
) -> None:
    state = pipeline(experiment="mine", return_state=True)
    (line,) = [line for line in log_of_ended(state) if "baseline" in line]
    command = re.search("`(.*)`", line)
    assert command is not None and "dvc exp apply mine && git commit" in command[1]
    subprocess.run(command[1], shell=True, cwd=cloned, check=True)
    assert git(cloned, "status", "--porcelain", "--", ":!.catdog") == ""
    assert (cloned / "model.txt").read_text().endswith("this")
    stages_run(cloned)
    state = pipeline(return_state=True)
    assert stages_run(cloned) == []
    assert experiments(cloned) == ["mine"]
    head = git(cloned, "rev-parse", "HEAD")
    assert f"no changes since {head[:12]}; using its stored results" in log_of_ended(state)


@pytest.mark.slow
def test_a_requested_name_is_saved_and_the_equal_experiment_is_named(
    server: str, cloned: Path
) -> None:
    options: Any = {"overrides": ("train.seed=4",)}
    pipeline(**options, experiment="four")
    stages_run(cloned)
    state = pipeline(**options, experiment="same", return_state=True)
    assert stages_run(cloned) == []
    assert sorted(experiments(cloned)) == ["four", "same"]
    head = git(cloned, "rev-parse", "HEAD")[:12]
    assert f"it equals experiment four of {head}" in log_of_ended(state)
    assert not [line for line in log_of_ended(state) if "baseline" in line]


@pytest.mark.slow
def test_an_equal_experiment_of_another_commit_is_applied_by_the_command_in_the_log(
    server: str, cloned: Path
) -> None:
    pipeline()
    (first,) = experiments(cloned)
    (cloned / "notes.txt").write_text("documentation")
    git(cloned, "add", "notes.txt")
    git(cloned, "commit", "-qm", "Documentation")
    state = pipeline(return_state=True)
    assert experiments(cloned) == [first]
    (line,) = [line for line in log_of_ended(state) if "no other is saved" in line]
    subprocess.run(line.split("`")[1], shell=True, cwd=cloned, check=True)
    assert (cloned / "model.txt").read_text().endswith("this")
    assert (cloned / "notes.txt").exists()
