"""What a run is asked to do, checked against the repository before anything is copied."""

import tempfile
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, NamedTuple, get_args

from dvc.exceptions import DvcException
from dvc.repo.experiments.utils import exp_refs
from dvc.scm import Git
from dvc.utils.hydra import apply_overrides, to_hydra_overrides
from dvc.utils.serialize import load_yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from flows.errors import FlowError
from flows.paths import PARAMS, recipe_file
from flows.runs.repository import Repository, git, try_git


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
        # What DVC and git accept, and what needs no quotes in a shell.
        pattern=r"^[A-Za-z0-9_][A-Za-z0-9_+=-]*(\.[A-Za-z0-9_+=-]+)*$",
        description="name of the DVC experiment that holds the result",
        examples=["lr=0.1"],
    ),
    AfterValidator(_not_a_lock_file),
]


class RunRequest(BaseModel):
    """What a run is asked to do: well-formed, but not yet checked against a repository."""

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
    """A request that can be run, and what it refers to in its repository.

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
    """Return what is wrong with one value of a request, and an example of a right one."""
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
    for required in ("dvc.yaml", ".dvc"):
        if try_git(repository.folder, "cat-file", "-e", f"{commit}:{required}") is None:
            raise FlowError(
                f"revision: {request.revision} ({commit[:7]}) has no {required} in its top folder"
            )
    job = Job(request, repository, commit, baseline_of(commit, repository))
    if request.recipe is not None:
        _check_recipe(job)
    if request.overrides:
        _check_overrides(job)
    if request.experiment is not None:
        _check_experiment(job)
    return job


def resolve(revision: str, repository: Repository) -> str:
    """Return the full hash of a commit, branch, tag or experiment; FlowError if it is unknown.

    A full hash that the repository does not have is fetched from its origin, since another machine
    may have sent it.
    """
    found = try_git(repository.folder, "rev-parse", "--verify", "--quiet", f"{revision}^{{commit}}")
    if found is None and len(revision) == 40:
        try_git(repository.folder, "fetch", "--quiet", "origin", revision)
        found = try_git(repository.folder, "cat-file", "-e", f"{revision}^{{commit}}")
        found = revision if found is not None else None
    if found is None:
        found = _commit_of_experiment(revision, repository)
    if found is None:
        raise FlowError(
            f"revision: unknown revision {revision!r}; must be a commit, branch, tag or experiment"
            f" of {repository.source}"
        )
    return found


class StoredExperiment(NamedTuple):
    """An experiment in the repository."""

    baseline: str
    name: str
    commit: str


def experiments(repository: Repository) -> list[StoredExperiment]:
    """Return the experiments in the repository, which may be a mirror without files."""
    with closing(Git(str(repository.folder), search_parent_directories=False)) as scm:
        return [
            StoredExperiment(ref.baseline_sha, ref.name, scm.get_ref(str(ref)))
            for ref in exp_refs(scm)
            if ref.name
        ]


def baseline_of(commit: str, repository: Repository) -> str:
    """Return the commit that an experiment based on `commit` belongs to.

    That is `commit`, or its own baseline if it is an experiment: DVC shows experiments of commits
    only, so one that starts from an experiment becomes its sibling.
    """
    baselines = [found.baseline for found in experiments(repository) if found.commit == commit]
    return baselines[0] if baselines else commit


def _commit_of_experiment(name: str, repository: Repository) -> str | None:
    """Return the commit of the experiment; of several with this name, the one of HEAD."""
    found = {each.baseline: each.commit for each in experiments(repository) if each.name == name}
    head = try_git(repository.folder, "rev-parse", "HEAD") or ""
    if len(found) > 1 and head not in found:
        raise FlowError(
            f"revision: {len(found)} experiments are named {name!r}; give the commit of one of them"
            " (git for-each-ref refs/exps)"
        )
    return found.get(head) or next(iter(found.values()), None)


def _check_recipe(job: Job) -> None:
    listed = git(job.repository.folder, "ls-tree", "--name-only", job.commit, "recipes/")
    files = listed.splitlines()
    if job.request.params_file not in files:
        names = sorted(Path(file).stem for file in files if file.endswith(".yaml"))
        raise FlowError(
            f"recipe: unknown recipe {job.request.recipe!r}; {job.commit[:7]} has"
            f" {', '.join(names) or 'no recipes'}"
        )


def _check_overrides(job: Job) -> None:
    """Apply the overrides one by one to a copy of the params; FlowError names the wrong one."""
    file = job.request.params_file
    text = try_git(job.repository.folder, "show", f"{job.commit}:{file}")
    if text is None:
        raise FlowError(f"overrides: {job.commit[:7]} has no {file} to override")
    with tempfile.TemporaryDirectory(prefix="catdog-") as folder:
        params = Path(folder) / PARAMS
        params.write_text(text, encoding="utf-8")
        try:
            load_yaml(params)
        except DvcException as error:
            why = str(error.__cause__ or error).replace(str(params), file).replace("\n", " ")
            raise FlowError(f"{job.commit[:7]}:{file}: invalid YAML: {why}") from None
        for override in job.request.overrides:
            _try_override(override, params, file)


def _try_override(override: str, params: Path, file: str) -> None:
    """Apply an override to a params file; FlowError if it fails or changes the type of a value."""
    key = override.partition("=")[0]
    before = _kind(_value(params, key))
    try:
        if to_hydra_overrides([override])[0].is_sweep_override():
            raise ValueError("a run takes one value; a sweep takes several")
        apply_overrides(params, [override])
    except Exception as error:  # DVC, hydra, OmegaConf and ruamel.yaml each raise their own
        raise FlowError(f"overrides: {override!r}: {_reason(error, key, file)}") from None
    after = _value(params, key)
    if before not in ("text", "null", _kind(after)) and after is not None:
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
    """Return the kind of a param's value, as an error message names it."""
    kinds = {bool: "switch (true or false)", int: "number", float: "number", list: "list"}
    return {**kinds, dict: "section", type(None): "null"}.get(type(value), "text")


def _reason(error: Exception, key: str, file: str) -> str:
    """Return hydra's reason, which DVC's error has as its cause, in one line."""
    reason = str(error.__cause__ or error).partition("\n")[0]
    return f"{file} has no {key}" if reason.startswith("Could not override") else reason


def _check_experiment(job: Job) -> None:
    name, baseline = job.request.experiment, job.baseline
    if any((each.baseline, each.name) == (baseline, name) for each in experiments(job.repository)):
        raise FlowError(
            f"experiment: {name!r} already exists at {baseline[:7]}; choose another name or remove"
            f" it: {job.repository.remove_command(str(name))}"
        )
