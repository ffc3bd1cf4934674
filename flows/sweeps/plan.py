"""The plan of a sweep: the run request of each point of a study, and which are not finished."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from dvc.utils.flatten import flatten

from flows.errors import FlowError
from flows.runs.repository import Repository
from flows.runs.request import RunRequest, check, make_request
from flows.runs.revisions import resolve
from flows.runs.run_params import read_params
from flows.sweeps.results import Result
from flows.sweeps.study import Point, Study, parse, points


@dataclass(frozen=True)
class Plan:
    """A valid study: its commit, its points, and the run request of each point by name."""

    study: Study
    file: str
    commit: str
    points: list[Point]
    requests: Mapping[str, RunRequest]


def make_plan(file: str, repository: Repository) -> Plan:
    """Return the plan of the study in `file`; its settings are valid params of its revision.

    Raises FlowError, in one line, if the file does not exist or the study is invalid.
    """
    study = read_study(file, repository)
    commit = resolve(study.revision, repository)
    found = points(study)
    requests: dict[str, RunRequest] = {}
    checked: set[str] = set()
    for point in found:
        # Checking an override takes a tenth of a second, and points share most of theirs.
        new = [override for override in point.overrides if override not in checked]
        try:
            request = make_request(commit, study.recipe, point.overrides, point.name)
            if new or not requests:
                only_new = {"experiment": None, "overrides": tuple(new)}
                check(request.model_copy(update=only_new), repository)
        except FlowError as error:
            raise FlowError(f"{file}: {error}") from None
        checked.update(new)
        requests[point.name] = request
    return Plan(study, file, commit, found, requests)


def read_study(file: str, repository: Repository) -> Study:
    """Return the study in `file`, a path in the repository: from the checkout, otherwise from HEAD.

    The file in a checkout need not be committed, since each experiment records its own params.
    Raises FlowError if the file does not exist or is invalid.
    """
    path = repository.project / file
    if repository.is_checkout and path.is_file():
        return parse(path.read_text(encoding="utf-8"), file)
    text = repository.read("HEAD", file)
    if text is None:
        paths = repository.list("HEAD", "studies")
        listed = [path for path in paths if path.endswith((".yaml", ".yml"))]
        known = (
            f"choose one of {', '.join(listed)}" if listed else "studies/ contains no study files"
        )
        raise FlowError(f"study: {file} does not exist in {repository.source}; {known}")
    return parse(text, file)


def unfinished(
    plan: Plan, existing: Mapping[str, Result], repository: Repository
) -> dict[str, RunRequest]:
    """Return the requests of the points that have no experiment among `existing`, by name.

    Raises FlowError if the experiment of a point has other params or no metrics, since nothing is
    overwritten.
    """
    for name in plan.requests.keys() & existing.keys():
        request = plan.requests[name]
        wanted = read_params(repository, plan.commit, request.params_file, request.overrides)
        if difference := _difference(existing[name], wanted):
            raise FlowError(
                f"{plan.file}: experiment {name} of {plan.commit[:7]} already exists with"
                f" {difference}; rename the study file, or remove the experiment:"
                f" {repository.remove_command(name)}"
            )
    return {name: request for name, request in plan.requests.items() if name not in existing}


def _difference(result: Result, wanted: Mapping[str, Any]) -> str:
    """Return how an experiment differs from the params `wanted`, as text; empty if it does not.

    Params that the experiment does not have are skipped: dvc shows only those that a stage uses.
    """
    if not result.metrics:
        return "no metrics"
    expected = flatten(wanted)
    for key, value in flatten(result.params).items():
        if key not in expected or expected[key] != value:
            return f"{key} {value} instead of {expected.get(key)}"
    return ""
