"""Export the result of a run: save its clone as a DVC experiment of the repository."""

import tempfile
from itertools import chain, count

from dvc.repo.experiments.refs import ExpRefInfo

from flows.errors import FlowError
from flows.guards.child_processes import dvc_output
from flows.runs.git import git, try_git
from flows.runs.workspace import Workspace, environment

LEFTOVER = ".dvc/tmp/repro.dat"


def export_result(workspace: Workspace) -> str | None:
    """Save the clone as a DVC experiment of its baseline and push it to the repository.

    Returns its name there: `workspace.experiment`, with a number appended if that name is already
    used. Returns None if nothing differs from the commit and the request names no experiment, since
    the commit already has this result. Raises FlowError if the experiment cannot be pushed.
    """
    folder = workspace.folder
    changes = git(folder, "status", "--porcelain")
    if not changes and workspace.job.request.experiment is None:
        return None
    name = _free_name(workspace)
    listed = git(folder, "ls-files", "--others", "--exclude-standard", "-z")
    new = filter(None, listed.split("\0"))
    _dvc(workspace, "exp", "save", "--name", name, *(f"--include-untracked={path}" for path in new))
    ref = _ref(workspace, name)
    _remove_leftover(workspace, ref)
    _push(workspace, name, ref)
    return name


def _push(workspace: Workspace, name: str, ref: str) -> None:
    """Push an experiment to the repository; FlowError if that is refused.

    With git: `dvc exp push` cannot push from a shallow clone (its library dulwich looks for the
    missing commits), and exits with code 0 if another run has pushed an experiment of this name in
    the meantime (treeverse/dvc#9308).
    """
    folder, repository = workspace.folder, workspace.job.repository
    new = f"--force-with-lease={ref}:"  # only if it does not exist
    receive = ["--receive-pack=git -c core.hooksPath=/dev/null receive-pack"]
    local = receive if repository.is_checkout else []  # a server may have hooks for a reason
    try:
        git(folder, "push", "--quiet", "--no-signed", "--no-verify", *local, new, "origin", ref)
    except FlowError:
        if not git(folder, "ls-remote", "origin", ref):
            raise
        raise FlowError(
            f"experiment {name}: {repository.source} already has an experiment with"
            f" this name; rename this one and push it in {folder}: dvc exp rename {name} NEW;"
            " dvc exp push --no-cache origin NEW"
        ) from None


def _ref(workspace: Workspace, name: str) -> str:
    """Return the git ref of an experiment."""
    return str(ExpRefInfo(workspace.job.baseline, name))


def _free_name(workspace: Workspace) -> str:
    """Return the first of NAME, NAME-2, … that no experiment of the baseline has in origin."""
    listed = git(workspace.folder, "ls-remote", "origin", _ref(workspace, "*"))
    taken = {line.rpartition("/")[2] for line in listed.splitlines()}
    numbered = (f"{workspace.experiment}-{number}" for number in count(2))
    return next(name for name in chain([workspace.experiment], numbered) if name not in taken)


def _remove_leftover(workspace: Workspace, ref: str) -> None:
    """Remove the temporary file that `dvc exp save` adds to an experiment (treeverse/dvc#8680)."""
    folder = workspace.folder
    if try_git(folder, "cat-file", "-e", f"{ref}:./{LEFTOVER}") is None:
        return
    with tempfile.TemporaryDirectory(prefix="catdog-") as temporary:
        index = {"GIT_INDEX_FILE": f"{temporary}/index"}
        git(folder, "read-tree", ref, environment=index)
        git(folder, "rm", "--cached", "--quiet", LEFTOVER, environment=index)
        tree = git(folder, "write-tree", environment=index)
    message = git(folder, "log", "-1", "--format=%B", ref)
    commit = git(folder, "commit-tree", tree, "-p", workspace.job.baseline, "-m", message)
    git(folder, "update-ref", ref, commit)


def _dvc(workspace: Workspace, *arguments: str) -> None:
    """Run a dvc command in the clone; FlowError with its reason if it fails."""
    dvc_output(workspace.folder, environment(workspace.folder), *arguments)
