"""The git repository that runs come from: a checkout on this machine, or one with a URL."""

import hashlib
import os
import re
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock

from flows.errors import FlowError
from flows.paths import CHECKOUT, DVC_FOLDER, STATE
from flows.runs.git import UNTRUSTED, git, try_git


@dataclass(frozen=True)
class Repository:
    """A git repository as runs use it.

    `source` is its path or URL, where results are pushed to. `folder` is a repository on this
    machine with its commits: the checkout itself, or a mirror of the URL. `home` is the folder for
    the data of runs on this machine. `subfolder` is the path of the DVC project in the repository,
    empty if it is the top folder.
    """

    source: str
    folder: Path
    home: Path
    is_checkout: bool
    subfolder: str = ""

    @property
    def project(self) -> Path:
        """The folder of the DVC project in a checkout."""
        return self.folder / self.subfolder

    def path(self, file: str) -> str:
        """Return the path that git has for a file of the project."""
        return f"{self.subfolder}/{file}" if self.subfolder else file

    def has(self, commit: str, file: str) -> bool:
        """Return whether a commit has a file or folder of the project."""
        return self._try("cat-file", "-e", f"{commit}:{self.path(file)}") is not None

    def read(self, commit: str, file: str) -> str | None:
        """Return the text of a file of the project at a commit; None if it does not exist."""
        return self._try("cat-file", "blob", f"{commit}:{self.path(file)}")

    def list(self, commit: str, folder: str) -> list[str]:
        """Return the paths of the files in a folder of the project; empty if it does not exist."""
        names = self._try("ls-tree", "-z", "--name-only", f"{commit}:{self.path(folder)}") or ""
        return [f"{folder}/{name}" for name in names.split("\0") if name]

    def _try(self, *arguments: str) -> str | None:
        return try_git(self.folder, *arguments)

    def apply_command(self, experiment: str) -> str:
        """Return the command that applies an experiment to a user's checkout."""
        apply = f"dvc exp apply {experiment}"
        return apply if self.is_checkout else f"dvc exp pull origin {experiment} && {apply}"

    def remove_command(self, experiment: str) -> str:
        """Return the command that removes an experiment."""
        return f"dvc exp remove {'' if self.is_checkout else '-g origin '}{experiment}"


def home() -> Path:
    """Return the folder for the data of runs on this machine, without using the network.

    It is $CATDOG_HOME or .catdog/flows in the project or, with a URL, catdog in the user's cache.
    """
    if given := os.environ.get("CATDOG_HOME"):
        return Path(given).expanduser().resolve()
    source = _source()
    if top := _checkout_root(source):
        return top / _subfolder(Path(source), top) / STATE / "flows"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "catdog"


def repository(fetch: bool = True) -> Repository:
    """Return the repository in $CATDOG_REPOSITORY; default: the checkout with this file.

    The path of a folder may be that of a DVC project in a subfolder of the repository. In a URL,
    the project is where it is in the repository of this file, else in the top folder. A URL is
    mirrored in `home`; an existing mirror is updated unless `fetch` is false. Raises FlowError if
    it is not a git repository, or the URL cannot be reached.
    """
    source = _source()
    if top := _checkout_root(source):
        return Repository(str(top), top, home(), True, _subfolder(Path(source), top))
    if Path(source).is_dir():
        try:
            git(Path(source), "rev-parse", "--git-dir")
        except FlowError as error:
            raise FlowError(
                f"{source}: not a git repository ({error}); set CATDOG_REPOSITORY to one"
            ) from None
        source = str(Path(source).resolve())  # a bare one
    elif not re.match(r"[\w.+-]+://|[^/]+:", source):
        raise FlowError(f"CATDOG_REPOSITORY: no such folder {source}; set it to a git repository")
    mirror = _mirror(source, fetch)
    return Repository(source, mirror, home(), False, _subfolder_in(mirror))


def uncommitted_changes(repository: Repository, commit: str) -> list[str]:
    """Return a line for each change in the checkout that a run of `commit` does not use.

    Empty if another commit is checked out, or without a checkout. A changed folder that DVC tracks
    is not listed until `dvc add` has changed its .dvc file. Of a repository with several projects,
    only the changes of this one are listed.
    """
    head = try_git(repository.folder, "rev-parse", "HEAD")
    if not repository.is_checkout or head != commit:
        return []
    status = git(repository.project, "status", "--porcelain", "--", ".")
    return [
        f"{line[3:]}: {_kind_of_change(line[:2])} but not committed; this run ignores the change"
        for line in status.splitlines()
    ]


def _kind_of_change(letters: str) -> str:
    kinds = {"?": "new", "A": "new", "D": "deleted", "R": "renamed"}
    return next((word for letter, word in kinds.items() if letter in letters), "changed")


def _source() -> str:
    return os.environ.get("CATDOG_REPOSITORY") or str(CHECKOUT)


def _checkout_root(source: str) -> Path | None:
    """Return the root folder of the checkout that contains a path; None outside a checkout.

    Raises FlowError if git refuses the repository because it belongs to another user.
    """
    folder = Path(source).expanduser()
    try:
        top = git(folder, "rev-parse", "--show-toplevel") if folder.is_dir() else ""
    except FlowError as error:
        if UNTRUSTED in str(error):
            raise
        return None  # not a repository, or a bare one
    return Path(top).resolve() if top else None


def _subfolder(folder: Path, top: Path) -> str:
    """Return the path in a checkout of the DVC project that contains a folder; empty if the top."""
    inside = folder.expanduser().resolve()
    found = [each for each in (inside, *inside.parents) if (each / DVC_FOLDER).is_dir()]
    project = next((each for each in found if each.is_relative_to(top)), top)
    return "" if project == top else project.relative_to(top).as_posix()


def _subfolder_in(mirror: Path) -> str:
    """Return the path of the DVC project in a mirror, if it is that of the code of the flows."""
    top = _checkout_root(str(CHECKOUT))
    ours = _subfolder(CHECKOUT, top) if top else ""
    exists = ours and try_git(mirror, "cat-file", "-e", f"HEAD:{ours}/{DVC_FOLDER}") is not None
    return ours if exists else ""


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
        raise FlowError(f"{url}: cannot be cloned or fetched: {error}") from None
    return mirror


def _follow_default_branch(mirror: Path) -> None:
    """Set HEAD to the default branch of the URL, which `git fetch` does not do."""
    listed = git(mirror, "ls-remote", "--symref", "origin", "HEAD")
    if found := re.match(r"ref: (\S+)\tHEAD", listed):
        git(mirror, "symbolic-ref", "HEAD", found[1])
