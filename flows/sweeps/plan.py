"""What a sweep has to do: its study, its commit, and which of its points are not finished."""

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dvc.utils.hydra import apply_overrides
from dvc.utils.serialize import load_yaml

from flows.errors import FlowError
from flows.paths import PARAMS
from flows.runs.repository import Repository, git, try_git
from flows.runs.request import RunRequest, check, make_request, resolve
from flows.sweeps.results import Result, leaves
from flows.sweeps.study import Point, Study, parse, points


@dataclass(frozen=True)
class Plan:
    """A study that can be run: its commit, and what the pipeline is asked for each point."""

    study: Study
    file: str
    commit: str
    points: list[Point]
    requests: Mapping[str, RunRequest]


def make_plan(file: str, repository: Repository) -> Plan:
    """Return the plan of the study in `file`, whose settings all fit the params of its revision.

    Raises FlowError, in one line, if there is no such study or it asks for what cannot be done.
    """
    study = read_study(file, repository)
    commit = resolve(study.revision, repository)
    found = points(study)
    requests: dict[str, RunRequest] = {}
    tried: set[str] = set()
    for point in found:
        # To try a setting takes a tenth of a second, and points share most of theirs.
        fresh = [override for override in point.overrides if override not in tried]
        try:
            request = make_request(commit, study.recipe, point.overrides, point.name)
            if fresh or not requests:
                asked = {"experiment": None, "overrides": tuple(fresh)}
                check(request.model_copy(update=asked), repository)
        except FlowError as error:
            raise FlowError(f"{file}: {error}") from None
        tried.update(fresh)
        requests[point.name] = request
    return Plan(study, file, commit, found, requests)


def read_study(file: str, repository: Repository) -> Study:
    """Return the study in `file`, a path in the repository: as it is in the checkout, else in HEAD.

    What is in the checkout need not be committed: a study only asks, and what it asks for is in the
    params of each experiment. Raises FlowError if there is no such file, or it is wrong.
    """
    path = repository.folder / file
    if repository.is_checkout and path.is_file():
        return parse(path.read_text(encoding="utf-8"), file)
    text = try_git(repository.folder, "show", f"HEAD:{file}")
    if text is None:
        listed = git(repository.folder, "ls-tree", "--name-only", "HEAD", "studies/").splitlines()
        known = f"it has {', '.join(listed)}" if listed else "it has none in studies/"
        raise FlowError(f"study: no {file} in {repository.source}; {known}")
    return parse(text, file)


def unfinished(
    plan: Plan, had: Mapping[str, Result], repository: Repository
) -> dict[str, RunRequest]:
    """Return the requests of the points that have no experiment yet.

    `had` are the experiments of the plan's commit. Raises FlowError if one of a point's name has
    other params, or no metrics: nothing is overwritten.
    """
    for name in plan.requests.keys() & had.keys():
        wanted = params_of(plan.requests[name], repository)
        if wrong := _difference(had[name], wanted):
            raise FlowError(
                f"{plan.file}: experiment {name} of {plan.commit[:7]} is there already, with"
                f" {wrong}; rename the study's file, or remove it:"
                f" {repository.remove_command(name)}"
            )
    return {name: request for name, request in plan.requests.items() if name not in had}


def params_of(request: RunRequest, repository: Repository) -> Any:
    """Return the params that a run of the request works with; its revision is a commit."""
    file = f"recipes/{request.recipe}.yaml" if request.recipe else PARAMS
    with tempfile.TemporaryDirectory(prefix="catdog-") as folder:
        params = Path(folder) / PARAMS
        text = git(repository.folder, "show", f"{request.revision}:{file}")
        params.write_text(f"{text}\n", encoding="utf-8")
        apply_overrides(params, list(request.overrides))
        return load_yaml(params)


def _difference(result: Result, wanted: Mapping[str, Any]) -> str:
    """Return in words how an experiment differs from what is wanted; empty if it does not.

    Params that it does not have do not count: dvc shows those that a stage depends on.
    """
    if not result.metrics:
        return "no metrics"
    ours = dict(leaves(wanted))
    for key, value in leaves(result.params):
        if key not in ours or ours[key] != value:
            return f"{key} {value} instead of {ours.get(key)}"
    return ""
