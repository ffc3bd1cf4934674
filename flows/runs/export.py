"""Export the result of a run: save its clone as a DVC experiment of the repository."""

import tempfile
from itertools import chain, count

from dvc.repo.experiments.refs import ExpRefInfo

from flows.errors import FlowError
from flows.guards.child_processes import dvc_output
from flows.paths import LOCK, METRICS, PARAMS
from flows.runs.dvc_lock import same_inputs, same_result
from flows.runs.git import git, try_git
from flows.runs.request import Job
from flows.runs.revisions import StoredExperiment, experiments
from flows.runs.workspace import Workspace, environment

LEFTOVER = ".dvc/tmp/repro.dat"


def export_result(workspace: Workspace) -> str | None:
    """Save the clone as a DVC experiment of its baseline and push it to the repository.

    Returns its name there: `workspace.experiment`, with a number appended if that name is already
    used. Returns None if the request names no experiment and the commit, or an experiment
    (`find_equal`), already has this result. Raises FlowError if the experiment cannot be pushed.
    """
    folder = workspace.folder
    if workspace.job.request.experiment is None and (is_stored(workspace) or find_equal(workspace)):
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


def is_stored(workspace: Workspace) -> bool:
    """Return whether the commit of the run itself has the result."""
    return same_result(_lock(workspace), _lock_at(workspace, workspace.job.commit))


def find_equal(workspace: Workspace, other_than: str | None = None) -> StoredExperiment | None:
    """Return an experiment with the same params, code, photos and outputs; None without one.

    Those of the run's own baseline come first, except the one named `other_than`. Those of other
    commits count in a checkout only, where they can be applied.
    """
    ours, job = _lock(workspace), workspace.job
    found = [
        each
        for each in experiments(job.repository)
        if (each.baseline, each.name) != (job.baseline, other_than)
        and (each.baseline == job.baseline or job.repository.is_checkout)
        and same_result(ours, _lock_at(workspace, each.commit))
    ]
    return min(found, key=lambda each: each.baseline != job.baseline, default=None)


def apply_command(experiment: StoredExperiment, job: Job) -> str:
    """Return the command that applies an experiment with the result of `job` to a checkout.

    `dvc exp apply` of another commit's experiment would also restore all other files as they were
    in that commit.
    """
    if experiment.baseline == job.baseline:
        return job.repository.apply_command(experiment.name)
    return f"git checkout {experiment.commit[:10]} -- {PARAMS} {LOCK} {METRICS} && dvc checkout"


def differs_only_in_outputs(workspace: Workspace) -> bool:
    """Return whether the commit has another result of the same params, code and photos.

    Then another machine has computed it, which rounds differently.
    """
    ours, theirs = _lock(workspace), _lock_at(workspace, workspace.job.commit)
    return same_inputs(ours, theirs) and not same_result(ours, theirs)


def _lock(workspace: Workspace) -> str:
    file = workspace.folder / LOCK
    return file.read_text(encoding="utf-8") if file.is_file() else ""


def _lock_at(workspace: Workspace, commit: str) -> str:
    """Return the dvc.lock of a commit of the repository; empty if it has none."""
    repository = workspace.job.repository
    blob = f"{commit}:{repository.path(LOCK)}"
    return try_git(repository.folder, "cat-file", "blob", blob) or ""


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
