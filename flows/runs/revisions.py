"""Revisions of the repository: commits, branches, tags, and the DVC experiments it stores."""

from contextlib import closing
from typing import NamedTuple

from dvc.repo.experiments.utils import exp_refs
from dvc.scm import Git

from flows.errors import FlowError
from flows.runs.git import try_git
from flows.runs.repository import Repository


def resolve(revision: str, repository: Repository) -> str:
    """Return the full hash of a commit, branch, tag or experiment; FlowError if it is unknown.

    A full hash that the repository does not have is fetched from its remotes, since another machine
    may have sent it.
    """
    found = try_git(repository.folder, "rev-parse", "--verify", "--quiet", f"{revision}^{{commit}}")
    if found is None and len(revision) == 40:
        for remote in (try_git(repository.folder, "remote") or "").splitlines():
            try_git(repository.folder, "fetch", "--quiet", remote, revision)
        found = try_git(repository.folder, "cat-file", "-e", f"{revision}^{{commit}}")
        found = revision if found is not None else None
    if found is None:
        found = _commit_of_experiment(revision, repository)
    if found is None:
        raise FlowError(
            f"revision: unknown revision {revision!r}; must be a commit, branch, tag or experiment"
            f" of {repository.source}"
        )
    return found


class StoredExperiment(NamedTuple):
    """An experiment in the repository."""

    baseline: str
    name: str
    commit: str


def experiments(repository: Repository) -> list[StoredExperiment]:
    """Return the experiments in the repository, which may be a mirror without files."""
    with closing(Git(str(repository.folder), search_parent_directories=False)) as scm:
        return [
            StoredExperiment(ref.baseline_sha, ref.name, scm.get_ref(str(ref)))
            for ref in exp_refs(scm)
            if ref.name
        ]


def baseline_of(commit: str, repository: Repository) -> str:
    """Return the commit that an experiment based on `commit` belongs to.

    That is `commit`, or its own baseline if it is an experiment: DVC shows experiments of commits
    only, so one that starts from an experiment becomes its sibling.
    """
    baselines = [found.baseline for found in experiments(repository) if found.commit == commit]
    return baselines[0] if baselines else commit


def _commit_of_experiment(name: str, repository: Repository) -> str | None:
    """Return the commit of the experiment; FlowError if several commits have one of this name."""
    found = {each.commit: each.baseline for each in experiments(repository) if each.name == name}
    if len(found) > 1:
        head = try_git(repository.folder, "rev-parse", "HEAD")
        known = ", ".join(
            f"{commit[:10]} (of {'HEAD' if baseline == head else baseline[:10]})"
            for commit, baseline in sorted(found.items(), key=lambda pair: pair[1] != head)
        )
        raise FlowError(
            f"revision: {name!r} is ambiguous: {len(found)} commits have an experiment of this"
            f" name; pass the commit of the experiment, one of {known}"
        )
    return next(iter(found), None)
