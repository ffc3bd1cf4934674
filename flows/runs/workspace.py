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
from typing import Any

from configobj import ConfigObj, ConfigObjError
from dvc.config import Config, _pack_named, merge
from dvc.config_schema import RelPath
from dvc.exceptions import DvcException

from flows.errors import FlowError
from flows.guards.child_processes import child_environment
from flows.log import Log
from flows.paths import CHECKPOINTS, DVC_FOLDER, STATE
from flows.runs import records
from flows.runs.git import clone, git, try_git
from flows.runs.request import Job
from flows.runs.run_params import write_params

MISSING_OUTPUTS = Path(__file__).with_name("missing_outputs.py")


@dataclass(frozen=True)
class Workspace:
    """A clone for one run.

    `folder` is the DVC project in the clone: the clone itself, unless the repository has the
    project in a subfolder. `logs` is the folder for the logs of its stages, outside the clone.
    `experiment` is the name of the result in the repository.
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
        folder = run.folder(home) / job.repository.subfolder
        workspace = Workspace(run.name, folder, run.logs(home), job, run.experiment)
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

    PYTHONPATH makes the command `catdog`, which the stages of older revisions run, import the code
    of `folder` instead of the installed package, which may come from another checkout.
    """
    paths = [str(folder), *filter(None, [os.environ.get("PYTHONPATH")])]
    ours = {"PYTHONPATH": os.pathsep.join(paths), records.MARK: str(folder)}
    return {**child_environment(), **ours, **more}


def _make_or_remove(workspace: Workspace, run: records.Run, log: Log) -> None:
    """Make the clone; if that fails, remove the incomplete one."""
    try:
        _make(workspace, run.folder(workspace.job.repository.home), log)
    except BaseException as error:
        records.remove(workspace.job.repository.home, run)
        if isinstance(error, OSError | DvcException | ConfigObjError):
            raise FlowError(f"{workspace.folder}: cannot be created ({error})") from None
        raise


def _make(workspace: Workspace, top: Path, log: Log) -> None:
    """Clone the repository at the commit into `top`, share its caches, and write the params."""
    if os.pathsep in str(top):
        raise FlowError(
            f"{top}: the path of a clone must not contain {os.pathsep!r}, which separates the "
            "folders of PYTHONPATH; move the repository or set CATDOG_HOME to another folder"
        )
    _clone(workspace.job, top)
    _share_checkpoints(workspace, top)
    _configure_dvc(workspace)
    _let_dvc_use_the_run_cache(workspace, log)
    request = workspace.job.request
    write_params(workspace.folder, request.params_file, request.overrides)


def _clone(job: Job, folder: Path) -> None:
    source = job.repository.folder
    clone(str(source), folder, working_folder=source)
    git(folder, "checkout", "--quiet", "--detach", job.commit)
    if job.baseline != job.commit:
        git(folder, "reset", "--quiet", "--soft", job.baseline)
    git(folder, "remote", "set-url", "origin", job.repository.source)
    # git needs an author to commit, and a service account may not have one configured.
    for key, default in (("user.name", "catdog"), ("user.email", "catdog@localhost")):
        git(folder, "config", key, try_git(source, "config", key) or default)


def _share_checkpoints(workspace: Workspace, top: Path) -> None:
    """Link the checkpoints of the repository, so that a run resumes the training of another one."""
    repository = workspace.job.repository
    home = repository.project / STATE if repository.is_checkout else repository.home
    shared, link = home / CHECKPOINTS.name, workspace.folder / CHECKPOINTS
    shared.mkdir(parents=True, exist_ok=True)
    link.parent.mkdir(exist_ok=True)
    link.symlink_to(shared.resolve(), target_is_directory=True)
    exclude = top / ".git" / "info" / "exclude"
    exclude.parent.mkdir(exist_ok=True)  # from git's template, which is not used
    exclude.write_text(f"{STATE}/\n", encoding="utf-8")


def _configure_dvc(workspace: Workspace) -> None:
    """Configure the cache of the repository, and the settings of the checkout outside git."""
    repository, dvc_folder = workspace.job.repository, workspace.folder / DVC_FOLDER
    settings = Config(str(dvc_folder))
    local, cache = settings.load_one("local"), repository.home / "cache"
    if repository.is_checkout:
        theirs = Config(str(repository.project / DVC_FOLDER))
        merge(local, theirs.load_one("local"))
        cache = Path(theirs["cache"].get("dir", f"{theirs.dvc_dir}/cache"))
        merge(local, {"remote": _relative_remotes(workspace, settings, theirs)})
    local["cache"]["dir"] = str(cache)
    if not any("type" in known["cache"] for known in (settings, local)):
        # Copies of all photos for each run would take minutes and fill the disk. Links are
        # safe: DVC removes an output before its stage writes it.
        local["cache"]["type"] = "reflink,hardlink,copy"
    # The default, /var/tmp/dvc, keeps a folder for every clone that ever existed.
    local["core"]["site_cache_dir"] = str(dvc_folder / "tmp" / "site")
    _write_config(Path(settings.files["local"]), local)


def _write_config(file: Path, settings: dict[str, Any]) -> None:
    """Write a configuration file of DVC in UTF-8; ConfigObjError if a value cannot be quoted.

    DVC's own `Config.edit` writes ASCII only, so it fails for a path with other letters
    (DiffSK/configobj#55).
    """
    config = ConfigObj(_pack_named(settings), encoding="utf-8", interpolation=False)
    with file.open("wb") as target:
        config.write(target)


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
            url = os.path.normpath(workspace.job.repository.project / inside)
            remotes[name] = {"url": url}
    return remotes
