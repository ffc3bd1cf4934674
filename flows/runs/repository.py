"""Where runs come from: a git repository, a checkout on this machine or one that has a URL."""

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

CHECKOUT = Path(__file__).resolve().parents[2]
# A run never asks: it fails, and says why.
UNATTENDED = {"GIT_TERMINAL_PROMPT": "0", "GIT_SSH_COMMAND": "ssh -o BatchMode=yes"}


@dataclass(frozen=True)
class Repository:
    """A git repository as runs use it.

    `source` is its path or URL, to which results go. `folder` is a repository on this machine that
    has its commits: the checkout itself, or a mirror of the URL. `home` holds what runs leave here.
    """

    source: str
    folder: Path
    home: Path
    is_checkout: bool

    def taking_over(self, experiment: str) -> str:
        """Return the commands that bring the files of an experiment into a user's checkout."""
        apply = f"dvc exp apply {experiment}"
        return apply if self.is_checkout else f"dvc exp pull origin {experiment} && {apply}"

    def removing(self, experiment: str) -> str:
        """Return the command that removes an experiment."""
        return f"dvc exp remove {'' if self.is_checkout else '-g origin '}{experiment}"


def home() -> Path:
    """Return the folder for what runs keep on this machine; nothing is asked of the network.

    $CATDOG_HOME, else .catdog/flows in the checkout, else (with a URL) catdog in the user's cache.
    """
    if given := os.environ.get("CATDOG_HOME"):
        return Path(given).expanduser().resolve()
    if top := _top_of(_source()):
        return top / ".catdog" / "flows"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "catdog"


def repository(fetch: bool = True) -> Repository:
    """Return the repository that $CATDOG_REPOSITORY names, else the checkout these files lie in.

    Of a URL a mirror is kept in `home`; it is brought up to date, unless `fetch` is false and it
    exists. Raises FlowError if there is no git repository, or the URL cannot be reached.
    """
    source = _source()
    if top := _top_of(source):
        return Repository(str(top), top, home(), is_checkout=True)
    if Path(source).is_dir():
        try:
            git(Path(source), "rev-parse", "--git-dir")
        except FlowError as error:
            raise FlowError(
                f"{source}: git cannot use it ({error}); name a repository in CATDOG_REPOSITORY"
            ) from None
        source = str(Path(source).resolve())  # a bare one
    elif not re.match(r"[\w.+-]+://|[^/]+:", source):
        raise FlowError(f"{source}: no such folder; name a git repository in CATDOG_REPOSITORY")
    return Repository(source, _mirror(source, fetch), home(), is_checkout=False)


def git(folder: Path, *arguments: str, environment: Mapping[str, str] | None = None) -> str:
    """Return what `git ARGUMENTS...` prints in `folder`; FlowError with git's reason if it fails.

    `environment` is added to this process's own.
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
    # In a git hook, GIT_DIR and others would point to the hook's repository.
    ours = {key: value for key, value in os.environ.items() if key not in LOCAL_VARIABLES}
    return subprocess.run(
        ["git", *arguments],
        cwd=folder,
        env={**UNATTENDED, **ours, **more, "LC_ALL": "C.UTF-8"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        encoding="utf-8",
        errors="surrogateescape",
        check=False,
    )


# What `git rev-parse --local-env-vars` lists, as far as it says which repository is meant.
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
    """Return the line of git's standard error that says why: the first, but for asides.

    ssh says why first, and git then only that it could not read.
    """
    asides = ("warning:", "hint:", "Cloning into")
    lines = [line.strip() for line in errors.splitlines() if line.strip()]
    telling = [line for line in lines if not line.startswith(asides)]
    return re.sub("^(fatal|error): ", "", (telling or ["no reason given"])[0])


def _source() -> str:
    return os.environ.get("CATDOG_REPOSITORY") or str(CHECKOUT)


def _top_of(source: str) -> Path | None:
    """Return the top of the checkout that a path is in; None if it is in none, or no path."""
    folder = Path(source).expanduser()
    top = try_git(folder, "rev-parse", "--show-toplevel") if folder.is_dir() else None
    return Path(top).resolve() if top else None


def _mirror(url: str, fetch: bool) -> Path:
    """Return the mirror of `url` in `home`, made or brought up to date; FlowError if it cannot."""
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
        raise FlowError(f"{url}: cannot be read; {error}") from None
    return mirror


def _follow_default_branch(mirror: Path) -> None:
    """Let HEAD name the branch that it names at the URL: a fetch does not."""
    said = git(mirror, "ls-remote", "--symref", "origin", "HEAD")
    if found := re.match(r"ref: (\S+)\tHEAD", said):
        git(mirror, "symbolic-ref", "HEAD", found[1])
