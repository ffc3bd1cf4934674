"""The params of a run: a params file of its revision, with the overrides of the request applied."""

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dvc.exceptions import DvcException
from dvc.utils.hydra import apply_overrides, to_hydra_overrides
from dvc.utils.serialize import load_yaml

from flows.errors import FlowError
from flows.guards.yaml_nesting import check_nesting
from flows.paths import PARAMS
from flows.runs.repository import Repository


def write_params(folder: Path, file: str, overrides: Sequence[str] = ()) -> None:
    """Write params.yaml in `folder`: a copy of `file` there, with the overrides applied."""
    params = folder / PARAMS
    if file != PARAMS:
        params.write_bytes((folder / file).read_bytes())
    if overrides:
        apply_overrides(params, list(overrides))


def read_params(
    repository: Repository, commit: str, file: str, overrides: Sequence[str] = ()
) -> Any:
    """Return the params that `write_params` writes in a clone of `commit`.

    Raises FlowError if the commit does not have the file.
    """
    with _folder_with(file, repository, commit) as folder:
        write_params(folder, file, overrides)
        return load_yaml(folder / PARAMS)


def check_overrides(
    repository: Repository, commit: str, file: str, overrides: Sequence[str]
) -> None:
    """Apply the overrides one by one to a copy of the params.

    Raises FlowError if the commit does not have the file, if it is invalid, or if an override does
    not fit it; the message names the override.
    """
    with _folder_with(file, repository, commit) as folder:
        write_params(folder, file)
        params = folder / PARAMS
        try:
            load_yaml(params)
        except DvcException as error:
            why = str(error.__cause__ or error).replace(str(params), file).replace("\n", " ")
            raise FlowError(f"{commit[:7]}:{file}: invalid YAML: {why}") from None
        for override in overrides:
            _try_override(override, params, file)


@contextmanager
def _folder_with(file: str, repository: Repository, commit: str) -> Iterator[Path]:
    """Yield a temporary folder with a file of the commit; FlowError if it does not exist."""
    text = repository.read(commit, file)
    if text is None:
        raise FlowError(f"params: {commit[:7]} has no {file}; choose another revision or recipe")
    check_nesting(text, f"{commit[:7]}:{file}")
    with tempfile.TemporaryDirectory(prefix="catdog-") as name:
        path = Path(name) / file
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"{text}\n", encoding="utf-8")
        yield Path(name)


def _try_override(override: str, params: Path, file: str) -> None:
    """Apply an override to a params file; FlowError if it fails or changes the type of a value."""
    key = override.partition("=")[0]
    before = _kind(_value(params, key))
    try:
        if to_hydra_overrides([override])[0].is_sweep_override():
            raise ValueError("contains several values; a run takes one per key, a study several")
        apply_overrides(params, [override])
    except Exception as error:  # DVC, hydra, OmegaConf and ruamel.yaml each raise their own
        raise FlowError(f"overrides: {override!r}: {_reason(error, key, file)}") from None
    after = _value(params, key)
    if before not in ("string", "null", _kind(after)) and after is not None:
        raise FlowError(f"overrides: {override!r}: {key} must be a {before}, as in {file}")


def _value(params: Path, key: str) -> Any:
    """Return the value of a dotted key of the params file; None if the key does not exist.

    The file is read as DVC reads it: PyYAML takes 1e-05 for a string.
    """
    value = load_yaml(params)
    for part in key.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    return value


def _kind(value: object) -> str:
    """Return the type of a param's value, as used in error messages."""
    kinds = {bool: "boolean (true or false)", int: "number", float: "number", list: "list"}
    return {**kinds, dict: "mapping", type(None): "null"}.get(type(value), "string")


def _reason(error: Exception, key: str, file: str) -> str:
    """Return hydra's reason, which DVC's error has as its cause, in one line."""
    reason = str(error.__cause__ or error).partition("\n")[0]
    return f"{file} has no {key}" if reason.startswith("Could not override") else reason
