"""What another revision holds: its commit by any name that git or DVC knows, and its outputs."""

import subprocess
from pathlib import Path
from tempfile import TemporaryDirectory

from catdog.errors import CatdogError
from catdog.paths import FETCHED, RAW, RAW_POINTER
from catdog.support.yaml_files import parse_mapping

CHAMPION = "champion"


def resolve(revision: str) -> str:
    """Return the full hash of a commit, branch, tag or DVC experiment, or of the champion.

    Of experiments with the same name, the one of HEAD is meant. `champion` is the present champion
    unless it is a name of git or DVC as well. Raises CatdogError if there is none, or several and
    none of HEAD.
    """
    commit = _try_git(
        "rev-parse", "--verify", "--quiet", "--end-of-options", f"{revision}^{{commit}}"
    )
    if commit:
        return commit
    found = {base: commit for base, name, commit in experiments() if name == revision}
    head = _try_git("rev-parse", "HEAD")
    if head in found or len(found) == 1:
        return found.get(head) or next(iter(found.values()))
    if found:
        known = ", ".join(commit[:7] for commit in found.values())
        raise CatdogError(f"{revision}: experiments of several commits have this name: {known}")
    if revision == CHAMPION:
        return _champion()
    raise CatdogError(
        f"{revision}: no commit, branch, tag or experiment here; `dvc exp list --all` and "
        "`git branch --all` show what there is"
    )


def _champion() -> str:
    from catdog.experiments import registry  # noqa: PLC0415 (takes half a second, and few need it)

    champion = registry.current()
    if champion is None:
        raise CatdogError(f"{CHAMPION}: there is none yet; `catdog champion REVISION` makes one")
    return champion.commit


def experiments() -> list[tuple[str, str, str]]:
    """Return the baseline, the name and the commit of each DVC experiment in this repository."""
    found = []
    for line in _try_git("for-each-ref", "--format=%(objectname) %(refname)", "refs/exps").split(
        "\n"
    ):
        commit, _, ref = line.partition(" ")
        parts = ref.split("/", 4)  # refs/exps/ab/cdef…/NAME
        if len(parts) == 5 and len(parts[2] + parts[3]) == 40:
            found.append((parts[2] + parts[3], parts[4], commit))
    return found


def read(commit: str, path: str) -> str:
    """Return the text of a file that git keeps; CatdogError if the commit has none there."""
    text = _try_git("show", f"{commit}:./{path}")  # the project may be a subfolder
    if not text:
        raise CatdogError(
            f"{commit[:7]} has no {path}; take a revision in which `dvc repro` has run"
        )
    return text


def fetch(commit: str, path: str) -> Path:
    """Return a folder with what DVC keeps as the output `path` of the commit.

    It comes from DVC's cache, or else from the remote, and is kept in .catdog/fetched under its
    hash, so that it comes once. Raises CatdogError if the commit has no such output, or if neither
    the cache nor a remote has it.
    """
    kept = FETCHED / _hash_of(commit, path)
    if kept.is_dir():
        return kept
    FETCHED.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=".", dir=FETCHED) as folder:
        got = Path(folder) / "got"
        _get(commit, path, got)
        try:
            got.rename(kept)
        except OSError:  # another process was faster
            if not kept.is_dir():
                raise
    return kept


def _hash_of(commit: str, path: str) -> str:
    """Return DVC's hash of an output as the commit's dvc.lock has it, without its ending."""
    lock = parse_mapping(read(commit, "dvc.lock"), f"{commit[:7]}: dvc.lock")
    for stage in lock.get("stages", {}).values():
        for out in stage.get("outs", []):
            if out["path"] == path:
                return str(out["md5"]).removesuffix(".dir")
    raise CatdogError(f"{commit[:7]}: its dvc.lock has no {path}; run `dvc repro` there and commit")


def _get(commit: str, path: str, target: Path) -> None:
    """Write an output of a commit to `target`; CatdogError if it is in no cache or remote.

    The remotes are those of the checkout. `dvc get` takes the commit's own, which does not know of
    a remote that came later.
    """
    from dvc.api import DVCFileSystem  # noqa: PLC0415 (takes seconds)
    from dvc.config import Config  # noqa: PLC0415
    from dvc.exceptions import DvcException  # noqa: PLC0415
    from dvc_data.index import DataIndexDirError  # noqa: PLC0415

    try:
        files = DVCFileSystem(rev=commit, config=Config(".dvc").load_config_to_level())
        files.get(path, str(target), recursive=True)
    except (DvcException, DataIndexDirError, OSError) as error:
        reason = str(error.__cause__ or error).partition("\n")[0]
        raise CatdogError(
            f"{path} of {commit[:7]} is in neither DVC's cache nor a remote that can be reached "
            f"({reason}); `dvc push --all-commits` where it was made brings it, or "
            f"`git checkout {commit[:7]} && {run_again(commit)}` computes it anew as `again`"
        ) from None


def run_again(commit: str | None, root: Path = Path()) -> str:
    """Return the command that computes a commit's outputs anew, once it is checked out in `root`.

    None stands for what is in `root` now.
    """
    pointer = root / RAW_POINTER
    here = pointer.read_text(encoding="utf-8").strip() if pointer.is_file() else ""
    own = _try_git("-C", str(root), "show", f"{commit}:./{RAW_POINTER}") if commit else here
    # `dvc exp run` fails without photos, and takes others that lie there for the commit's own.
    bring = own and (own != here or not (root / RAW).exists())
    return f"{f'dvc pull {RAW_POINTER} && ' if bring else ''}dvc exp run -n again"


def _try_git(*arguments: str) -> str:
    """Return what a git command prints, without the last line end; nothing if it fails."""
    try:
        done = subprocess.run(["git", *arguments], capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise CatdogError("git is not installed, and revisions are git's") from None
    return done.stdout.strip() if done.returncode == 0 else ""
