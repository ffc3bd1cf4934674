"""An isolated clone of the repository that one run works in, and its result as an experiment.

A clone shares the git objects and the DVC cache of the repository, so it costs little time and
disk, and three runs can be in three revisions while you edit files in the checkout. (A git worktree
is not enough: DVC keeps the state of a running experiment in refs, which worktrees share.)
"""

import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain, count
from pathlib import Path

from dvc.config import Config, merge
from dvc.config_schema import RelPath
from dvc.exceptions import DvcException
from dvc.utils.hydra import apply_overrides

from flows.errors import FlowError
from flows.guards.child_processes import child_environment, dvc_output
from flows.runs import records
from flows.runs.repository import Repository, git, try_git
from flows.runs.request import PARAMS, RunRequest, baseline_of

CHECKPOINTS = Path(".catdog") / "checkpoints"
LEFTOVER = ".dvc/tmp/repro.dat"


@dataclass(frozen=True)
class Workspace:
    """A clone for one run.

    `commit` is the revision that was asked for, `baseline` the commit that the result becomes an
    experiment of: the same, unless the revision is itself an experiment. `experiment` is the name
    that the result will have at home, and `named` whether it was asked for. `logs` is the folder
    for the stages' logs, outside the clone.
    """

    name: str
    folder: Path
    repository: Repository
    commit: str
    baseline: str
    experiment: str
    named: bool
    logs: Path


@contextmanager
def workspace(
    request: RunRequest,
    repository: Repository,
    commit: str,
    name: str,
    *,
    flow_run: str = "",
    keep: bool = False,
    say: Callable[[str], None] = print,
) -> Iterator[Workspace]:
    """Make a clone of `commit` (as `request.check` returned it) with the request's params in it.

    It lies in home/runs/NAME (NAME-2 if there is one) and is removed when the block ends well and
    not `keep`; kept, and said so, when it raises. Raises FlowError if the clone cannot be made.
    """
    home = repository.home
    with records.hold(home, name, flow_run, commit, request.experiment or "") as run:
        made = Workspace(
            name=run.name,
            folder=run.folder(home),
            repository=repository,
            commit=commit,
            baseline=baseline_of(commit, repository),
            experiment=run.experiment,
            named=request.experiment is not None,
            logs=run.logs(home),
        )
        _make_or_leave_nothing(made, request, run)
        with _settled(home, run, keep, say):
            yield made


@contextmanager
def _settled(
    home: Path, run: records.Run, keep: bool, say: Callable[[str], None]
) -> Iterator[None]:
    """Keep or remove the workspace, as the block ends."""
    try:
        yield
    except BaseException as error:
        failed = isinstance(error, Exception)
        said = (str(error) or type(error).__name__) if failed else "stopped from outside"
        records.keep(home, run, "failed" if failed else "cancelled", said)
        say(
            f"the workspace is kept for {records.keep_days():g} days: {run.folder(home)}"
            " (`python -m flows.runs` lists and removes such)"
        )
        raise
    if keep:
        records.keep(home, run, "finished", "kept as asked")
        return
    try:
        records.remove(home, run)
    except FlowError as error:  # the run itself ended well
        records.keep(home, run, "finished", str(error))
        say(str(error))


def environment(folder: Path, **more: str) -> dict[str, str]:
    """Return the environment of commands in `folder`: a child's, with `more`, and PYTHONPATH.

    The stages import the code of `folder`: the package that is installed is some checkout's.
    """
    paths = [str(folder), *filter(None, [os.environ.get("PYTHONPATH")])]
    ours = {"PYTHONPATH": os.pathsep.join(paths), records.MARK: str(folder)}
    return {**child_environment(), **ours, **more}


def dirty(repository: Repository, commit: str) -> list[str]:
    """Return a line for each uncommitted change in the checkout that a run of `commit` lacks.

    Empty if there are none, if `commit` is not what is checked out, or without a checkout. It sees
    what git sees: not what has become of a folder that DVC keeps since its `dvc add`.
    """
    head = try_git(repository.folder, "rev-parse", "HEAD")
    if not repository.is_checkout or head != commit:
        return []
    status = git(repository.folder, "-c", "core.quotePath=off", "status", "--porcelain")
    return [
        f"{line[3:]}: {_change(line[:2])}, but not committed; this run does not use that"
        for line in status.splitlines()
    ]


def _change(letters: str) -> str:
    kinds = {"?": "new", "A": "new", "D": "deleted", "R": "renamed"}
    return next((word for letter, word in kinds.items() if letter in letters), "changed")


def _make_or_leave_nothing(workspace: Workspace, request: RunRequest, run: records.Run) -> None:
    try:
        _make(workspace, request)
    except BaseException as error:
        records.remove(workspace.repository.home, run)
        if isinstance(error, OSError | DvcException):
            raise FlowError(f"{workspace.folder}: cannot be made ({error})") from None
        raise


def _make(workspace: Workspace, request: RunRequest) -> None:
    """Clone the repository at the commit, let it use the caches here, and write the params."""
    _clone(workspace)
    _share_checkpoints(workspace)
    _configure_dvc(workspace)
    params = workspace.folder / PARAMS
    if request.recipe is not None:
        recipe = workspace.folder / "recipes" / f"{request.recipe}.yaml"
        params.write_bytes(recipe.read_bytes())
    if request.overrides:
        apply_overrides(params, list(request.overrides))


def _clone(workspace: Workspace) -> None:
    source, folder = workspace.repository.folder, workspace.folder
    git(source, "clone", "--quiet", "--shared", "--no-checkout", str(source), str(folder))
    git(folder, "checkout", "--quiet", "--detach", workspace.commit)
    if workspace.baseline != workspace.commit:
        git(folder, "reset", "--quiet", "--soft", workspace.baseline)
    git(folder, "remote", "set-url", "origin", workspace.repository.source)
    for key, default in (("user.name", "catdog"), ("user.email", "catdog@localhost")):
        # A service's user has none, and git makes no commit without them.
        git(folder, "config", key, try_git(source, "config", key) or default)


def _share_checkpoints(workspace: Workspace) -> None:
    """Let the run go on from the checkpoint of one that died, and others from its own."""
    repository = workspace.repository
    top = repository.folder / ".catdog" if repository.is_checkout else repository.home
    shared, link = top / CHECKPOINTS.name, workspace.folder / CHECKPOINTS
    shared.mkdir(parents=True, exist_ok=True)
    link.parent.mkdir(exist_ok=True)
    link.symlink_to(shared.resolve(), target_is_directory=True)
    with (workspace.folder / ".git" / "info" / "exclude").open("a", encoding="utf-8") as exclude:
        exclude.write(f"\n/{CHECKPOINTS.parent}/\n")


def _configure_dvc(workspace: Workspace) -> None:
    """Give the clone the cache of the repository, and the settings that git does not know."""
    repository, dvc_folder = workspace.repository, workspace.folder / ".dvc"
    settings = Config(str(dvc_folder))
    with settings.edit("local") as local:
        local["cache"]["dir"] = str(repository.home / "cache")
        if repository.is_checkout:
            theirs = Config(str(repository.folder / ".dvc"))
            merge(local, theirs.load_one("local"))
            local["cache"]["dir"] = theirs["cache"].get("dir", f"{theirs.dvc_dir}/cache")
            merge(local, {"remote": _remotes_of_the_checkout(workspace, settings, theirs)})
        if not any("type" in known["cache"] for known in (settings, local)):
            # A copy of every photo for every run would take minutes, and the disk. Links are safe:
            # DVC removes an output before its stage writes it.
            local["cache"]["type"] = "reflink,hardlink,copy"
        local["core"]["site_cache_dir"] = str(dvc_folder / "tmp" / "site")


def _remotes_of_the_checkout(
    workspace: Workspace, ours: Config, theirs: Config
) -> dict[str, dict[str, str]]:
    """Return the remotes that lie beside or in the checkout, with a path that holds in the clone.

    One that git keeps (like the sample's) is in the clone too, and right for the revision; but what
    is pushed to it would go with the clone, so the default remote is the checkout's in any case.
    """
    remotes = {}
    default, local = theirs["core"].get("remote"), theirs.load_one("local")["remote"]
    for name, remote in ours["remote"].items():
        path = Path(remote.get("url", ""))
        beside = isinstance(remote.get("url"), RelPath)
        if beside and "url" not in local.get(name, {}) and (name == default or not path.exists()):
            inside = os.path.relpath(path, workspace.folder)
            remotes[name] = {"url": os.path.normpath(workspace.repository.folder / inside)}
    return remotes


def bring_home(workspace: Workspace) -> str | None:
    """Save the workspace as a DVC experiment of its baseline and push it to the repository.

    Returns the experiment's name there: `workspace.experiment`, with a number after it if that is
    taken by now. None if nothing differs from the commit and no name was asked for: then the result
    is the commit's own. Raises FlowError if it cannot be pushed; it stays in the workspace.
    """
    folder = workspace.folder
    changes = git(folder, "status", "--porcelain")
    if not changes and not workspace.named:
        return None
    name = _free_name(workspace)
    new = git(folder, "ls-files", "--others", "--exclude-standard").splitlines()
    _dvc(workspace, "exp", "save", "--name", name, *(f"--include-untracked={path}" for path in new))
    _drop_leftover(workspace, _ref(workspace, name))
    _dvc(workspace, "exp", "push", "--no-cache", "origin", name)
    ours = git(folder, "rev-parse", _ref(workspace, name))
    # It says so with exit code 0 when another has pushed one of that name since we looked.
    if not git(folder, "ls-remote", "origin", _ref(workspace, name)).startswith(ours):
        raise FlowError(
            f"experiment {name}: {workspace.repository.source} has another of that name; push this"
            f" one from {folder}: dvc exp rename {name} NEW; dvc exp push --no-cache origin NEW"
        )
    return name


def _ref(workspace: Workspace, name: str) -> str:
    """Return the git ref in which DVC keeps the experiment."""
    return f"refs/exps/{workspace.baseline[:2]}/{workspace.baseline[2:]}/{name}"


def _free_name(workspace: Workspace) -> str:
    """Return the first of NAME, NAME-2, … that no experiment of the baseline in origin has."""
    listed = git(workspace.folder, "ls-remote", "origin", _ref(workspace, "*"))
    taken = {line.rpartition("/")[2] for line in listed.splitlines()}
    numbered = (f"{workspace.experiment}-{number}" for number in count(2))
    return next(name for name in chain([workspace.experiment], numbered) if name not in taken)


def _drop_leftover(workspace: Workspace, ref: str) -> None:
    """Take out of an experiment the file that `dvc exp save` leaves in it (dvc issue 8680)."""
    folder = workspace.folder
    if try_git(folder, "cat-file", "-e", f"{ref}:{LEFTOVER}") is None:
        return
    with tempfile.TemporaryDirectory(prefix="catdog-") as temporary:
        other = {"GIT_INDEX_FILE": f"{temporary}/index"}
        git(folder, "read-tree", ref, environment=other)
        git(folder, "rm", "--cached", "--quiet", LEFTOVER, environment=other)
        tree = git(folder, "write-tree", environment=other)
    message = git(folder, "log", "-1", "--format=%B", ref)
    commit = git(folder, "commit-tree", tree, "-p", workspace.baseline, "-m", message)
    git(folder, "update-ref", ref, commit)


def _dvc(workspace: Workspace, *arguments: str) -> None:
    """Run a dvc command in the clone; FlowError with its reason if it fails."""
    dvc_output(workspace.folder, environment(workspace.folder), *arguments)
