"""The commands that restore or recompute outputs which are not in the DVC cache, for messages.

Each command can be run in the state in which it is advised, and changes nothing that it does not
name: `make flow` works in a clone, `make repro` takes from the run cache what was computed before.
"""

from __future__ import annotations

from itertools import chain, count
from pathlib import Path
from typing import TYPE_CHECKING

from catdog import params
from catdog.errors import CatdogError
from catdog.experiments import dvc_lock, revisions
from catdog.paths import LOCK, METRICS, PARAMS
from catdog.support import git
from catdog.support.yaml_files import parse_mapping

if TYPE_CHECKING:  # outputs.py needs no Project, and DVC takes a second to import
    from catdog.experiments.snapshots import Project

COMMIT_RESULTS = f'git commit -m "Results of this machine" {LOCK} {METRICS}'

OTHER_RESULTS = (
    "HEAD has results of another machine, and the workspace has those of this machine for the same "
    f"params, code and photos; make them the baseline with `{COMMIT_RESULTS}`"
)

RESTORE_PARAMS = f"git checkout {PARAMS} && make repro"


def recovery_advice(project: Project, name: str, commit: str | None, out: str) -> str:
    """Return how to restore an output of a revision, or how to recompute it."""
    if commit is None:
        return repro_advice()
    advice = ""
    if commit == project.commit("HEAD"):
        here, head = project.snapshot(None).stages, project.snapshot(commit).stages
        if dvc_lock.has_other_outputs(here, head):
            advice = OTHER_RESULTS
        elif repro := _repro_of_head(project):  # `make repro` pulls from the remote
            return repro
    # `dvc fetch --all-commits` skips experiments, but the run in a clone pulls from the remote.
    is_experiment = commit in dict(project.experiments).values()
    pull = ""
    if project.has_default_remote and not is_experiment:
        pull = f"run `dvc fetch --all-commits {out}` if the remote has it; otherwise, "
    return pull + (advice or recompute_advice(project, name, commit, out))


def recompute_advice(project: Project, name: str, commit: str, out: str) -> str:
    """Return how to recompute a commit in a clone, as an experiment to use instead."""
    again, exists = experiment_of_this_machine(project, commit, out)
    if exists:
        return f"use the experiment `{again}` instead: the same commit, computed on this machine"
    return (
        f"compute it on this machine with `{recompute_command(project, name, commit, again)}` and "
        f"use the experiment `{again}` instead"
    )


def recompute_command(project: Project, name: str, commit: str, experiment: str) -> str:
    """Return the command that runs the pipeline of a commit in a clone, as a new experiment."""
    ambiguous = name in [known for known, _ in project.experiments] or name == revisions.CHAMPION
    revision = "" if name == "HEAD" else f"--revision {commit[:10] if ambiguous else name} "
    return f"make flow ARGS='{revision}--experiment {experiment}'"


def experiment_of_this_machine(project: Project, commit: str, out: str) -> tuple[str, bool]:
    """Return the name for a recomputed commit, and whether an experiment with `out` has it."""
    known, name = dict(project.experiments), f"again-{commit[:7]}"
    names = chain([name], (f"{name}-{number}" for number in count(2)))
    return next(
        (name, name in known)
        for name in names
        if name not in known or project.snapshot(known[name]).has(out)
    )


def workspace_advice(project: Project, out: str) -> str:
    """Return how to bring back a missing output of the workspace."""
    if project.snapshot(None).has(out):
        return f"restore it with `dvc checkout {out}`"
    return repro_advice()


def repro_advice() -> str:
    """Return how to compute the outputs of the workspace, or restore them from the run cache."""
    try:
        params.load()
    except CatdogError as error:
        return f"{error}; correct it and run `make repro`, or run `{RESTORE_PARAMS}`"
    return "run `make repro`"


def _repro_of_head(project: Project) -> str:
    """Return how to get the results of HEAD in this checkout; empty if other files have changed."""
    changed = _changed_files(project.root)
    if changed - {str(LOCK), str(METRICS)}:
        return ""
    return f"run `make repro{f' && {COMMIT_RESULTS}' if changed else ''}`"


def _changed_files(root: Path) -> set[str]:
    """Return the files that git tracks and that differ from HEAD, relative to `root`."""
    return set(git.find("-C", str(root), "diff", "--name-only", "--relative", "HEAD").split())


def results_of_another_machine() -> bool:
    """Return whether HEAD has other results for the same params, code and photos as the workspace.

    False if one of the two has no dvc.lock. Raises CatdogError if a dvc.lock is invalid.
    """
    if not LOCK.is_file() or not (text := git.find("cat-file", "blob", f"HEAD:./{LOCK}")):
        return False
    here = parse_mapping(LOCK.read_text(encoding="utf-8"), str(LOCK)).get("stages", {})
    head = parse_mapping(text, f"HEAD: {LOCK}").get("stages", {})
    return dvc_lock.has_other_outputs(here, head)


def describe_other_results() -> str:
    """Return what `make repro` has changed in git, why, and how to make it the baseline."""
    changed = ", ".join(sorted({str(LOCK), str(METRICS)} & _changed_files(Path())))
    return (
        f"Changed in git: {changed}. The last commit has results of another machine for the same "
        "params, code and photos; arithmetic differs between processors, numbers of threads and "
        "versions of PyTorch.\nNext: make the results of this machine the baseline with\n"
        f"  {COMMIT_RESULTS}"
    )
