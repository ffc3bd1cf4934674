"""Params and metrics of a commit's DVC experiments, read with `dvc exp show`."""

import json
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flows.guards.child_processes import child_environment, dvc_output
from flows.paths import PARAMS
from flows.runs.git import clone, git
from flows.runs.repository import Repository
from flows.runs.revisions import baseline_of


@dataclass(frozen=True)
class Result:
    """Params and metrics of one experiment, nested as in their files."""

    params: Mapping[str, Any]
    metrics: Mapping[str, Any]


def results(repository: Repository, commit: str) -> dict[str, Result]:
    """Return the results of the experiments of `commit` in `repository`, by name.

    If `commit` is itself an experiment, those of its baseline commit. Experiments of a URL are read
    from its mirror, which `repository()` updates. Raises FlowError with DVC's error message.
    """
    baseline = baseline_of(commit, repository)
    options = ("--json", "--hide-queued", "--hide-failed", "--rev", baseline)
    with _checkout(repository, baseline) as folder:
        output = dvc_output(folder, child_environment(), "exp", "show", *options)
    shown = next(entry for entry in json.loads(output) if entry["rev"] == baseline)
    return {each["name"]: _result(each["revs"][0]) for each in shown["experiments"] or []}


@contextmanager
def _checkout(repository: Repository, commit: str) -> Iterator[Path]:
    """Yield a checkout of `commit` in which dvc can show its experiments; a mirror has no files."""
    if repository.is_checkout:
        yield repository.project
        return
    with tempfile.TemporaryDirectory(prefix="catdog-") as name:
        folder = Path(name) / "checkout"
        clone(".", folder, working_folder=repository.folder)
        git(folder, "fetch", "--quiet", "origin", "+refs/exps/*:refs/exps/*")
        git(folder, "checkout", "--quiet", "--detach", commit)
        yield folder / repository.subfolder


def _result(entry: Mapping[str, Any]) -> Result:
    """Return the result in an entry of `dvc exp show --json`; unreadable files have no values."""
    data = entry.get("data") or {}
    params = data.get("params", {}).get(PARAMS, {}).get("data", {})
    metrics: dict[str, Any] = {}
    for file in data.get("metrics", {}).values():
        metrics |= file.get("data", {})
    return Result(params, metrics)
