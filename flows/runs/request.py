"""The request of a run, validated against the repository before anything is copied."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, get_args

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from flows.errors import FlowError
from flows.paths import DVC_FOLDER, PARAMS, recipe_file
from flows.runs.repository import Repository
from flows.runs.revisions import baseline_of, experiments, resolve
from flows.runs.run_params import check_overrides


def _not_a_lock_file(name: str) -> str:
    if name.endswith(".lock"):
        raise ValueError("must not end with .lock, which git reserves")
    return name


Revision = Annotated[
    str,
    Field(
        min_length=1,
        max_length=200,
        pattern=r"^[A-Za-z0-9_@/.][^\s:]*$",
        description="a commit, branch, tag or experiment of the repository",
        examples=["HEAD", "main", "v1.0"],
    ),
]
Recipe = Annotated[
    str,
    Field(
        max_length=100,
        pattern=r"^[A-Za-z0-9_][A-Za-z0-9_-]*$",
        description="NAME of a file recipes/NAME.yaml in the revision, used as params.yaml",
        examples=["quick"],
    ),
]
Override = Annotated[
    str,
    Field(
        pattern=r"^[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z0-9_]+)*=.*$",
        description="a changed param, as section.key=value",
        examples=["optimizer.lr=0.1"],
    ),
]
Experiment = Annotated[
    str,
    Field(
        max_length=100,
        # Characters that DVC and git accept and that need no quoting in a shell.
        pattern=r"^[A-Za-z0-9_][A-Za-z0-9_+=-]*(\.[A-Za-z0-9_+=-]+)*$",
        description="a name (letters, digits, _ . + = -) for the DVC experiment with the result",
        examples=["larger-lr"],
    ),
    AfterValidator(_not_a_lock_file),
]


class RunRequest(BaseModel):
    """The parameters of a run: syntactically valid, but not yet checked against a repository."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    revision: Revision = "HEAD"
    recipe: Recipe | None = None
    overrides: tuple[Override, ...] = ()
    experiment: Experiment | None = None

    @property
    def params_file(self) -> str:
        """The file of the revision that the params come from."""
        return PARAMS if self.recipe is None else recipe_file(self.recipe)


@dataclass(frozen=True)
class Job:
    """A validated request, with the repository and the commits that it refers to.

    `commit` is the revision. `baseline` is the commit that the result becomes an experiment of: the
    same, unless the revision is itself an experiment.
    """

    request: RunRequest
    repository: Repository
    commit: str
    baseline: str

    @property
    def pinned(self) -> RunRequest:
        """The request for the commit: on another machine, HEAD may be another one."""
        return self.request.model_copy(update={"revision": self.commit})


def make_request(
    revision: str = "HEAD",
    recipe: str | None = None,
    overrides: Sequence[str] = (),
    experiment: str | None = None,
) -> RunRequest:
    """Return the request; raises FlowError, not a ValidationError, that names each wrong value."""
    given = {
        "revision": revision,
        "recipe": recipe,
        "overrides": list(overrides),
        "experiment": experiment,
    }
    try:
        return RunRequest.model_validate(given)
    except ValidationError as error:
        raise FlowError("; ".join(_explain(problem) for problem in error.errors())) from None


def _explain(problem: Mapping[str, Any]) -> str:
    """Return what is wrong with one value of a request, and an example of a valid one."""
    field = str(problem["loc"][0])
    if problem["type"] != "string_pattern_mismatch":
        reason = problem["msg"].removeprefix("Value error, ")
        return f"{field}: {problem['input']!r}: {reason}"
    kinds = {"revision": Revision, "recipe": Recipe, "overrides": Override}
    wanted = get_args(kinds.get(field, Experiment))[1]
    name = field.removesuffix("s")  # one of the overrides
    return (
        f"{field}: {problem['input']!r} is not a valid {name}; must be {wanted.description},"
        f" such as {wanted.examples[0]}"
    )


def check(request: RunRequest, repository: Repository) -> Job:
    """Return the job that `request` describes in `repository`.

    Raises FlowError, in one line, if the revision does not exist or is not a DVC project, if it
    does not have the recipe, if an override does not fit the params, or if the baseline already has
    an experiment of the requested name.
    """
    commit = resolve(request.revision, repository)
    for required in ("dvc.yaml", DVC_FOLDER):
        if not repository.has(commit, required):
            where = repository.subfolder or "its top folder"
            raise FlowError(
                f"revision: {request.revision} ({commit[:7]}) has no {required} in {where}"
            )
    job = Job(request, repository, commit, baseline_of(commit, repository))
    if request.recipe is not None:
        _check_recipe(job)
    if request.overrides:
        check_overrides(repository, commit, request.params_file, request.overrides)
    if request.experiment is not None:
        _check_experiment(job)
    return job


def _check_recipe(job: Job) -> None:
    files = job.repository.list(job.commit, "recipes")
    if job.request.params_file not in files:
        names = sorted(Path(file).stem for file in files if file.endswith(".yaml"))
        raise FlowError(
            f"recipe: unknown recipe {job.request.recipe!r}; {job.commit[:7]} has"
            f" {', '.join(names) or 'no recipes'}"
        )


def _check_experiment(job: Job) -> None:
    name, baseline = job.request.experiment, job.baseline
    if any((each.baseline, each.name) == (baseline, name) for each in experiments(job.repository)):
        raise FlowError(
            f"experiment: {name!r} already exists at {baseline[:7]}; choose another name or remove"
            f" it: {job.repository.remove_command(str(name))}"
        )
