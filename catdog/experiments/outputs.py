"""Fetch an output of a commit into a folder on disk."""

from pathlib import Path
from tempfile import TemporaryDirectory

from catdog.errors import CatdogError
from catdog.experiments import recovery, revisions
from catdog.paths import FETCHED, LOCK, MODELS
from catdog.support.yaml_files import parse_mapping


def fetch(name: str, commit: str, path: str) -> Path:
    """Return a folder with the content of the DVC output `path` of a commit, given as `name`.

    It comes from DVC's cache or else from the remote, and is kept in .catdog/fetched under its
    hash. Raises CatdogError if the commit has no such output, or if it is in neither.
    """
    fetched = FETCHED / _hash_of(commit, path)
    if fetched.is_dir():
        return fetched
    from catdog.experiments.snapshots import Project  # noqa: PLC0415 (DVC takes a second to import)

    FETCHED.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=".", dir=FETCHED) as folder:
        project, download = Project(), Path(folder) / "output"
        try:
            project.download(commit, path, download)
        except CatdogError as error:
            reason = f" ({error})" if str(error) else ""
            raise CatdogError(
                f"{name}: {path} is in neither the DVC cache nor a reachable remote{reason}; "
                f"{recovery.recovery_advice(project, name, commit, path)}"
            ) from None
        try:
            download.rename(fetched)
        except OSError:  # another process has fetched it at the same time
            if not fetched.is_dir():
                raise
    return fetched


def fetch_model(name: str) -> Path:
    """Return a folder with the model of a revision, as `catdog predict --model` names it.

    Raises CatdogError if there is no such revision, or its model cannot be fetched. For the folder
    of the workspace, which is missing, the error says how to bring the model back.
    """
    if Path(name) == MODELS:
        from catdog.experiments.snapshots import Project  # noqa: PLC0415 (imports DVC)

        raise CatdogError(
            f"{MODELS}: no model in the workspace, because none has been trained or the last run "
            f"failed; {recovery.workspace_advice(Project(), str(MODELS))}"
        )
    try:
        commit = revisions.resolve(name)
    except CatdogError as error:
        raise CatdogError(f"--model {error}; or pass the folder of a model") from None
    return fetch(name, commit, str(MODELS))


def _hash_of(commit: str, path: str) -> str:
    """Return the hash of an output in the commit's dvc.lock, without the suffix .dir."""
    lock = parse_mapping(revisions.read_text(commit, str(LOCK)), f"{commit[:7]}: {LOCK}")
    for stage in lock.get("stages", {}).values():
        for out in stage.get("outs", []):
            if out["path"] == path:
                return str(out["md5"]).removesuffix(".dir")
    raise CatdogError(
        f"{commit[:7]}: {path} is missing from dvc.lock; check out this commit, run `dvc repro` "
        "and commit dvc.lock"
    )
