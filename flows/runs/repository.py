"""The git repository that runs come from: a checkout on this machine, or one with a URL."""

import hashlib
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock

from flows.errors import FlowError
from flows.paths import CHECKOUT, STATE

# git must fail with a reason instead of asking for a password.
UNATTENDED = {"GIT_TERMINAL_PROMPT": "0", "GIT_SSH_COMMAND": "ssh -o BatchMode=yes"}


@dataclass(frozen=True)
class Repository:
    """A git repository as runs use it.

    `source` is its path or URL, where results are pushed to. `folder` is a repository on this
    machine with its commits: the checkout itself, or a mirror of the URL. `home` is the folder for
    what runs keep on this machine.
    """

    source: str
    folder: Path
    home: Path
    is_checkout: bool

    def apply_command(self, experiment: str) -> str:
        """Return the command that applies an experiment to a user's checkout."""
        apply = f"dvc exp apply {experiment}"
        return apply if self.is_checkout else f"dvc exp pull origin {experiment} && {apply}"

    def remove_command(self, experiment: str) -> str:
        """Return the command that removes an experiment."""
        return f"dvc exp remove {'' if self.is_checkout else '-g origin '}{experiment}"


def home() -> Path:
    """Return the folder for what runs keep on this machine, without using the network.

    It is $CATDOG_HOME or .catdog/flows in the checkout or, with a URL, catdog in the user's cache.
    """
    if given := os.environ.get("CATDOG_HOME"):
        return Path(given).expanduser().resolve()
    if top := _top_of(_source()):
        return top / STATE / "flows"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "catdog"


def repository(fetch: bool = True) -> Repository:
    """Return the repository in $CATDOG_REPOSITORY; default: the checkout with this file.

    A URL is mirrored in `home`; an existing mirror is updated unless `fetch` is false. Raises
    FlowError if it is not a git repository, or the URL cannot be reached.
    """
    source = _source()
    if top := _top_of(source):
        return Repository(str(top), top, home(), is_checkout=True)
    if Path(source).is_dir():
        try:
            git(Path(source), "rev-parse", "--git-dir")
        except FlowError as error:
            raise FlowError(
                f"{source}: not a git repository ({error}); set CATDOG_REPOSITORY to one"
            ) from None
        source = str(Path(source).resolve())  # a bare one
    elif not re.match(r"[\w.+-]+://|[^/]+:", source):
        raise FlowError(f"{source}: no such folder; set CATDOG_REPOSITORY to a git repository")
    return Repository(source, _mirror(source, fetch), home(), is_checkout=False)


def uncommitted_changes(repository: Repository, commit: str) -> list[str]:
    """Return a line for each change in the checkout that a run of `commit` does not use.

    Empty if another commit is checked out, or without a checkout. A changed
    folder that DVC tracks is not listed until `dvc add` has changed its .dvc file.
    """
    head = try_git(repository.folder, "rev-parse", "HEAD")
    if not repository.is_checkout or head != commit:
        return []
    status = git(repository.folder, "-c", "core.quotePath=off", "status", "--porcelain")
    return [
        f"{line[3:]}: {_kind_of_change(line[:2])}, but not committed; this run does not use it"
        for line in status.splitlines()
    ]


def _kind_of_change(letters: str) -> str:
    kinds = {"?": "new", "A": "new", "D": "deleted", "R": "renamed"}
    return next((word for letter, word in kinds.items() if letter in letters), "changed")


def git(folder: Path, *arguments: str, environment: Mapping[str, str] | None = None) -> str:
    """Return what `git ARGUMENTS...` prints in `folder`; FlowError with git's reason if it fails.

    `environment` is added to the environment of this process.
    """
    done = _run_git(folder, arguments, environment or {})
    if done.returncode:
        raise FlowError(f"git {arguments[0]} failed in {folder}: {_reason(done.stderr)}")
    return done.stdout.rstrip("\n")


def try_git(folder: Path, *arguments: str) -> str | None:
    """Return what `git ARGUMENTS...` prints in `folder`, or None if it fails."""
    done = _run_git(folder, arguments, {})
    return None if done.returncode else done.stdout.rstrip("\n")


def _run_git(
    folder: Path, arguments: tuple[str, ...], more: Mapping[str, str]
) -> "subprocess.CompletedProcess[str]":
    # git sets these in a hook, for the repository of the hook.
    inherited = {key: value for key, value in os.environ.items() if key not in LOCAL_VARIABLES}
    return subprocess.run(
        ["git", *arguments],
        cwd=folder,
        env={**UNATTENDED, **inherited, **more, "LC_ALL": "C.UTF-8"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        encoding="utf-8",
        errors="surrogateescape",
        check=False,
    )


# The variables of `git rev-parse --local-env-vars` that choose a repository.
LOCAL_VARIABLES = {
    "GIT_DIR",
    "GIT_WORK_TREE",
    "GIT_INDEX_FILE",
    "GIT_OBJECT_DIRECTORY",
    "GIT_ALTERNATE_OBJECT_DIRECTORIES",
    "GIT_COMMON_DIR",
    "GIT_PREFIX",
}


def _reason(errors: str) -> str:
    """Return the reason in git's standard error: the first line that is not a warning or a hint.

    With SSH that is ssh's own reason; git's, after it, is only that it could not read.
    """
    ignored = ("warning:", "hint:", "Cloning into")
    lines = [line.strip() for line in errors.splitlines() if line.strip()]
    reasons = [line for line in lines if not line.startswith(ignored)]
    return re.sub("^(fatal|error): ", "", (reasons or ["no reason given"])[0])


def _source() -> str:
    return os.environ.get("CATDOG_REPOSITORY") or str(CHECKOUT)


def _top_of(source: str) -> Path | None:
    """Return the top folder of the checkout that contains a path; None if there is none."""
    folder = Path(source).expanduser()
    top = try_git(folder, "rev-parse", "--show-toplevel") if folder.is_dir() else None
    return Path(top).resolve() if top else None


def _mirror(url: str, fetch: bool) -> Path:
    """Return the mirror of `url` in `home`, created or updated; FlowError if that fails."""
    folder = home() / "mirrors"
    folder.mkdir(parents=True, exist_ok=True)
    name = re.sub(r"\W+", "-", url.rpartition("/")[2].removesuffix(".git")) or "repository"
    mirror = folder / f"{name}-{hashlib.sha256(url.encode()).hexdigest()[:8]}.git"
    try:
        with FileLock(mirror.with_suffix(".lock")):
            if not mirror.exists():
                with tempfile.TemporaryDirectory(dir=folder) as half:
                    git(folder, "clone", "--quiet", "--mirror", url, f"{half}/mirror")
                    shutil.move(f"{half}/mirror", mirror)
            elif fetch:
                git(mirror, "fetch", "--quiet", "--prune", "origin")
                _follow_default_branch(mirror)
    except FlowError as error:
        raise FlowError(f"{url}: cannot be read: {error}") from None
    return mirror


def _follow_default_branch(mirror: Path) -> None:
    """Set HEAD to the default branch of the URL, which `git fetch` does not do."""
    listed = git(mirror, "ls-remote", "--symref", "origin", "HEAD")
    if found := re.match(r"ref: (\S+)\tHEAD", listed):
        git(mirror, "symbolic-ref", "HEAD", found[1])
