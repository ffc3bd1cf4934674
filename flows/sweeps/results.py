"""The results of a commit's DVC experiments, as `dvc exp show` tells them."""

import json
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flows.guards.child_processes import child_environment, dvc
from flows.paths import PARAMS
from flows.runs.repository import Repository, git
from flows.runs.request import baseline_of


@dataclass(frozen=True)
class Result:
    """Params and metrics of one experiment, nested as in their files."""

    params: Mapping[str, Any]
    metrics: Mapping[str, Any]


def results(repository: Repository, commit: str) -> dict[str, Result]:
    """Return the results of the experiments that `repository` has of `commit`, by their names.

    Of a commit that is itself an experiment, those of the commit that it belongs to. Those of a URL
    are as its mirror has them: call `repository()` anew to see new ones. Raises FlowError with
    dvc's reason if it cannot read them.
    """
    baseline = baseline_of(commit, repository)
    options = ("--json", "--hide-queued", "--hide-failed", "--rev", baseline)
    with _checkout(repository, baseline) as folder:
        said = dvc(folder, child_environment(), "exp", "show", *options)
    shown = next(entry for entry in json.loads(said) if entry["rev"] == baseline)
    return {each["name"]: _result(each["revs"][0]) for each in shown["experiments"] or []}


@contextmanager
def _checkout(repository: Repository, commit: str) -> Iterator[Path]:
    """Yield a folder that dvc can show the experiments of `commit` in; a mirror has no files."""
    if repository.is_checkout:
        yield repository.folder
        return
    with tempfile.TemporaryDirectory(prefix="catdog-") as name:
        folder = Path(name) / "checkout"
        git(repository.folder, "clone", "--quiet", "--shared", "--no-checkout", ".", str(folder))
        git(folder, "fetch", "--quiet", "origin", "+refs/exps/*:refs/exps/*")
        git(folder, "checkout", "--quiet", "--detach", commit)
        yield folder


def _result(entry: Mapping[str, Any]) -> Result:
    """Return the result in an entry of `dvc exp show --json`; a file it could not read is empty."""
    data = entry.get("data") or {}
    params = data.get("params", {}).get(PARAMS, {}).get("data", {})
    metrics: dict[str, Any] = {}
    for file in data.get("metrics", {}).values():
        metrics |= file.get("data", {})
    return Result(params, metrics)


def leaves(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield each leaf of nested params or metrics with its dotted name; a list is a leaf."""
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
