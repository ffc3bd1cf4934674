"""An isolated clone of the repository for one run.

A clone shares the git objects and the DVC cache of the repository, so it is fast to create and
needs little disk space, and runs of different revisions can run while files in the checkout are
edited. A git worktree is not enough: it shares refs/exps/exec, where DVC keeps the state of the
experiment that is being saved, with all other worktrees.
"""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from dvc.config import Config, merge
from dvc.config_schema import RelPath
from dvc.exceptions import DvcException

from flows.errors import FlowError
from flows.guards.child_processes import child_environment
from flows.log import Log
from flows.paths import CHECKPOINTS, STATE
from flows.runs import records
from flows.runs.repository import git, try_git
from flows.runs.request import Job
from flows.runs.run_params import write_params

MISSING_OUTPUTS = Path(__file__).with_name("missing_outputs.py")


@dataclass(frozen=True)
class Workspace:
    """A clone for one run.

    `logs` is the folder for the logs of its stages, outside the clone. `experiment` is the name
    of the result in the repository.
    """

    name: str
    folder: Path
    logs: Path
    job: Job
    experiment: str


@contextmanager
def open_workspace(
    job: Job,
    name: str,
    *,
    flow_run: str = "",
    keep: bool = False,
    log: Log = print,
) -> Iterator[Workspace]:
    """Clone the commit of `job` into home/runs/NAME and write its params; yield the workspace.

    The name is NAME-2, … if NAME is used. The clone is removed when the block ends, unless `keep`
    is set or the block raises; then its path is logged. Raises FlowError if the clone cannot be
    created.
    """
    home = job.repository.home
    with records.register(home, name, flow_run, job.commit, job.request.experiment or "") as run:
        workspace = Workspace(run.name, run.folder(home), run.logs(home), job, run.experiment)
        _make_or_remove(workspace, run, log)
        with _keep_or_remove(home, run, keep, log):
            yield workspace


@contextmanager
def _keep_or_remove(home: Path, run: records.Run, keep: bool, log: Log) -> Iterator[None]:
    """Keep the clone if the block raises or `keep` is set; otherwise remove it."""
    try:
        yield
    except BaseException as error:
        failed = isinstance(error, Exception)
        reason = (str(error) or type(error).__name__) if failed else "stopped by a signal"
        records.mark_ended(home, run, "failed" if failed else "cancelled", reason)
        log(
            f"the clone is kept for {records.keep_days():g} days: {run.folder(home)}"
            " (`python -m flows.runs list` lists the kept clones)"
        )
        raise
    if keep:
        records.mark_ended(home, run, "finished", "kept because keep_workspace is set")
        return
    try:
        records.remove(home, run)
    except FlowError as error:  # the run itself has succeeded
        records.mark_ended(home, run, "finished", str(error))
        log(str(error))


def environment(folder: Path, **more: str) -> dict[str, str]:
    """Return the environment for commands in a clone, with the variables `more`.

    PYTHONPATH makes the stages import the code of `folder`; otherwise they would import the
    installed package, which may come from another checkout.
    """
    paths = [str(folder), *filter(None, [os.environ.get("PYTHONPATH")])]
    ours = {"PYTHONPATH": os.pathsep.join(paths), records.MARK: str(folder)}
    return {**child_environment(), **ours, **more}


def _make_or_remove(workspace: Workspace, run: records.Run, log: Log) -> None:
    """Make the clone; if that fails, remove the incomplete one."""
    try:
        _make(workspace, log)
    except BaseException as error:
        records.remove(workspace.job.repository.home, run)
        if isinstance(error, OSError | DvcException):
            raise FlowError(f"{workspace.folder}: cannot be created ({error})") from None
        raise


def _make(workspace: Workspace, log: Log) -> None:
    """Clone the repository at the commit, share its caches, and write the params."""
    _clone(workspace)
    _share_checkpoints(workspace)
    _configure_dvc(workspace)
    _let_dvc_use_the_run_cache(workspace, log)
    request = workspace.job.request
    write_params(workspace.folder, request.params_file, request.overrides)


def _clone(workspace: Workspace) -> None:
    job, folder = workspace.job, workspace.folder
    source = job.repository.folder
    git(source, "clone", "--quiet", "--shared", "--no-checkout", str(source), str(folder))
    git(folder, "checkout", "--quiet", "--detach", job.commit)
    if job.baseline != job.commit:
        git(folder, "reset", "--quiet", "--soft", job.baseline)
    git(folder, "remote", "set-url", "origin", job.repository.source)
    # git needs an author to commit, and a service account may not have one configured.
    for key, default in (("user.name", "catdog"), ("user.email", "catdog@localhost")):
        git(folder, "config", key, try_git(source, "config", key) or default)


def _share_checkpoints(workspace: Workspace) -> None:
    """Link the checkpoints of the repository, so that a run resumes the training of another one."""
    repository = workspace.job.repository
    top = repository.folder / STATE if repository.is_checkout else repository.home
    shared, link = top / CHECKPOINTS.name, workspace.folder / CHECKPOINTS
    shared.mkdir(parents=True, exist_ok=True)
    link.parent.mkdir(exist_ok=True)
    link.symlink_to(shared.resolve(), target_is_directory=True)
    with (workspace.folder / ".git" / "info" / "exclude").open("a", encoding="utf-8") as exclude:
        exclude.write(f"\n/{STATE}/\n")


def _configure_dvc(workspace: Workspace) -> None:
    """Configure the cache of the repository, and the settings of the checkout outside git."""
    repository, dvc_folder = workspace.job.repository, workspace.folder / ".dvc"
    settings = Config(str(dvc_folder))
    with settings.edit("local") as local:
        local["cache"]["dir"] = str(repository.home / "cache")
        if repository.is_checkout:
            theirs = Config(str(repository.folder / ".dvc"))
            merge(local, theirs.load_one("local"))
            local["cache"]["dir"] = theirs["cache"].get("dir", f"{theirs.dvc_dir}/cache")
            merge(local, {"remote": _relative_remotes(workspace, settings, theirs)})
        if not any("type" in known["cache"] for known in (settings, local)):
            # Copies of all photos for each run would take minutes and fill the disk. Links are
            # safe: DVC removes an output before its stage writes it.
            local["cache"]["type"] = "reflink,hardlink,copy"
        # The default, /var/tmp/dvc, keeps a folder for every clone that ever existed.
        local["core"]["site_cache_dir"] = str(dvc_folder / "tmp" / "site")


def _let_dvc_use_the_run_cache(workspace: Workspace, log: Log) -> None:
    """Remove the stages from dvc.lock whose outputs exist on other machines only; log them."""
    done = subprocess.run(
        [sys.executable, str(MISSING_OUTPUTS)],
        cwd=workspace.folder,
        env=environment(workspace.folder),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        errors="replace",
        check=False,
    )
    for line in done.stdout.splitlines():
        log(line)


def _relative_remotes(
    workspace: Workspace, ours: Config, theirs: Config
) -> dict[str, dict[str, str]]:
    """Return the remotes whose URL is a path relative to the checkout, as absolute paths.

    Except for those that exist in the clone, such as the sample's remote: these have the data of
    the revision. The default remote is always the checkout's, since data pushed to a remote
    in the clone would be removed with it.
    """
    remotes = {}
    default, local = theirs["core"].get("remote"), theirs.load_one("local")["remote"]
    for name, remote in ours["remote"].items():
        path = Path(remote.get("url", ""))
        relative = isinstance(remote.get("url"), RelPath) and "url" not in local.get(name, {})
        if relative and (name == default or not path.exists()):
            inside = os.path.relpath(path, workspace.folder)
            url = os.path.normpath(workspace.job.repository.folder / inside)
            remotes[name] = {"url": url}
    return remotes
