"""The project at a commit or in the workspace, read through DVC's own file system.

Files that git tracks and outputs that DVC tracks are read in the same way. Outputs come from DVC's
cache alone: reading a snapshot never downloads anything. Nothing is checked out.
"""

import copy
import posixpath
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

from dvc.api import DVCFileSystem
from dvc.config import Config
from dvc.dependency import ParamsDependency
from dvc.exceptions import DvcException, NotDvcRepoError
from dvc.fs import GitFileSystem
from dvc.repo import Repo
from dvc.repo.experiments.utils import exp_refs
from dvc.repo.index import Index
from dvc_data.index import DataIndexDirError

from catdog.errors import CatdogError
from catdog.experiments import revisions
from catdog.experiments.dvc_lock import Stages
from catdog.paths import LOCK
from catdog.support import git
from catdog.support.yaml_files import parse_mapping

WORKSPACE = "workspace"
NO_REMOTE = {"core": {"remote": ""}}


class Snapshot:
    """The project at one commit, or in the workspace."""

    def __init__(self, repo: Repo, name: str) -> None:
        self._repo = repo
        self._name = name
        self._files = DVCFileSystem(repo=repo)

    def read(self, path: str) -> bytes | None:
        """Return the content of a file; None if it is missing in git (or on disk) and the cache.

        Raises CatdogError if DVC cannot read dvc.yaml or a .dvc file.
        """
        try:
            return bytes(self._files.read_bytes(f"/{path}"))
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError, DataIndexDirError):
            return None
        except DvcException as error:
            raise self._unreadable(error) from None

    def has(self, out: str) -> bool:
        """Return whether an output, a file or a folder, is complete in the cache (or on disk).

        Raises CatdogError if DVC cannot read dvc.yaml or a .dvc file.
        """
        try:
            files = self._files.find(f"/{out}")
            for file in files:
                self._files.open(file).close()
        except (OSError, DataIndexDirError):
            return False
        except DvcException as error:
            raise self._unreadable(error) from None
        return bool(files)

    @cached_property
    def stages(self) -> Stages:
        """The stages in dvc.lock, empty if the file is missing."""
        text = self.read(str(LOCK))
        content = parse_mapping(text.decode("utf-8"), str(LOCK)) if text else {}
        return dict(content.get("stages", {}))

    def changed_code(self) -> list[str]:
        """Return the dependencies, other than DVC's outputs, that differ from dvc.lock.

        Raises CatdogError if DVC cannot read dvc.yaml or a .dvc file.
        """
        outs = list(self._pipeline.outs)
        code = (
            dep
            for stage in self._pipeline.stages
            for dep in stage.deps
            if not isinstance(dep, ParamsDependency)
            and not any(dep.fs.isin_or_eq(dep.fs_path, out.fs_path) for out in outs)
        )
        return list(dict.fromkeys(dep.def_path for dep in code if dep.status()))

    def changed_data(self) -> list[str]:
        """Return the outputs, photos included, that are not those which a later stage has read.

        Raises CatdogError if DVC cannot read dvc.yaml or a .dvc file.
        """
        outs = {out.fs_path: out.hash_info for out in self._pipeline.outs if out.hash_info}
        deps = [dep for stage in self._pipeline.stages for dep in stage.deps]
        changed = (
            dep
            for dep in deps
            if dep.fs_path in outs and outs[dep.fs_path].value != dep.hash_info.value
        )
        return list(dict.fromkeys(dep.def_path for dep in changed))

    @property
    def _pipeline(self) -> Index:
        try:
            return self._repo.index
        except DvcException as error:
            raise self._unreadable(error) from None

    def _unreadable(self, error: DvcException) -> CatdogError:
        line = str(error).partition("\n")[0]
        return CatdogError(
            f"{self._name}: DVC cannot read the pipeline: {line}; fix dvc.yaml or the .dvc file"
        )


class Project:
    """The DVC project of the current folder, at any of its revisions."""

    def __init__(self) -> None:
        git.check_trusted()
        try:
            self._config = Config(Repo.find_dvc_dir()).load_config_to_level()
            self._repo = Repo(config=NO_REMOTE)
        except NotDvcRepoError:
            raise CatdogError(
                "not in a DVC repository; run the command in a clone of catdog"
            ) from None
        self.root = Path(self._repo.root_dir)
        self._commits: dict[str, str | None] = {WORKSPACE: None}
        self._snapshots: dict[str | None, Snapshot] = {None: Snapshot(self._repo, WORKSPACE)}

    @property
    def has_default_remote(self) -> bool:
        """Whether `dvc pull` knows where to pull from."""
        return bool(self._config.get("core", {}).get("remote"))

    def commit(self, name: str) -> str | None:
        """Return the commit that a name stands for, None for the workspace."""
        if name not in self._commits:
            self._commits[name] = revisions.resolve(name)
        return self._commits[name]

    def snapshot(self, commit: str | None) -> Snapshot:
        """Return the project at a commit, or in the workspace for None."""
        if commit is not None and commit not in self._snapshots:
            config = copy.deepcopy(self._config)
            config.setdefault("core", {}).update(NO_REMOTE["core"])
            self._snapshots[commit] = Snapshot(self._open(commit, config), commit[:10])
        return self._snapshots[commit]

    def download(self, commit: str, path: str, target: Path) -> None:
        """Write an output of a commit to `target`, from the cache or else from the remote.

        Raises CatdogError if neither has all of it, with the reason alone: empty if it is missing.
        """
        try:
            # With the remotes of the checkout: an older commit has none of those added later.
            # treeverse/dvc#9754 discusses which configuration DVC should use.
            files = DVCFileSystem(repo=self._open(commit, self._config))
            files.get(f"/{path}", str(target), recursive=True)
        except (DvcException, DataIndexDirError, OSError) as error:
            cause = error.__cause__ or error
            missing = isinstance(cause, FileNotFoundError | DataIndexDirError)
            raise CatdogError("" if missing else str(cause).partition("\n")[0]) from None

    def _open(self, commit: str, config: dict[str, Any]) -> Repo:
        # DVCFileSystem(rev=commit) opens the root of the git repository, so it does not find a
        # project in a subfolder (treeverse/dvc#9698).
        scm = self._repo.scm
        root = posixpath.join("/", *self.root.relative_to(scm.root_dir).parts)
        try:
            return Repo(root, fs=GitFileSystem(scm=scm, rev=commit), scm=scm, config=config)
        except NotDvcRepoError:
            raise CatdogError(
                f"{commit[:10]}: this commit has no DVC project; choose another commit"
            ) from None

    @cached_property
    def experiments(self) -> list[tuple[str, str]]:
        """The name and the commit of each DVC experiment."""
        scm = self._repo.scm
        return [(ref.name, scm.get_ref(str(ref))) for ref in exp_refs(scm)]

    def names(self) -> Iterator[str]:
        """Yield HEAD, branches, tags and experiments by unambiguous names, then the workspace.

        The workspace comes last since its files may differ from its dvc.lock.
        """
        yield from ("HEAD", *self._repo.scm.list_branches(), *self._repo.scm.list_tags())
        names = [name for name, _ in self.experiments]
        for name, commit in self.experiments:
            # Experiments of several commits may share a name: each is then named by its commit.
            unambiguous = name if names.count(name) == 1 else commit[:10]
            self._commits.setdefault(unambiguous, commit)
            yield unambiguous
        yield WORKSPACE
