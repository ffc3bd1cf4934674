"""What a run is asked to do, and whether that can be done: asked before any copy is made."""

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, get_args

from dvc.exceptions import DvcException
from dvc.utils.hydra import apply_overrides, to_hydra_overrides
from dvc.utils.serialize import load_yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from flows.errors import FlowError
from flows.runs.repository import Repository, git, try_git

PARAMS = "params.yaml"


def _is_name_of_a_ref(name: str) -> str:
    if name.endswith(".lock"):
        raise ValueError("must not end with .lock, which git keeps for itself")
    return name


Revision = Annotated[
    str,
    Field(
        min_length=1,
        max_length=200,
        pattern=r"^[A-Za-z0-9_@/.][^\s:]*$",
        description="A commit, branch, tag or experiment of the repository.",
        examples=["HEAD", "main", "v1.0"],
    ),
]
Recipe = Annotated[
    str,
    Field(
        max_length=100,
        pattern=r"^[A-Za-z0-9_][A-Za-z0-9_-]*$",
        description="NAME of recipes/NAME.yaml in that revision, which takes params.yaml's place.",
        examples=["quick"],
    ),
]
Override = Annotated[
    str,
    Field(
        pattern=r"^[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z0-9_]+)*=.*$",
        description="A change to the params, as section.key=value.",
        examples=["optimizer.lr=0.1"],
    ),
]
Experiment = Annotated[
    str,
    Field(
        max_length=100,
        # What DVC and git take for a name, and no shell needs quotes for.
        pattern=r"^[A-Za-z0-9_][A-Za-z0-9_+=-]*(\.[A-Za-z0-9_+=-]+)*$",
        description="Name of the DVC experiment that the result becomes.",
        examples=["lr=0.1"],
    ),
    AfterValidator(_is_name_of_a_ref),
]


class RunRequest(BaseModel):
    """What a run is asked to do."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    revision: Revision = "HEAD"
    recipe: Recipe | None = None
    overrides: tuple[Override, ...] = ()
    experiment: Experiment | None = None


def make_request(
    revision: str = "HEAD",
    recipe: str | None = None,
    overrides: Sequence[str] = (),
    experiment: str | None = None,
) -> RunRequest:
    """Return the request; raises FlowError that names the wrong value, not a ValidationError."""
    given = {
        "revision": revision,
        "recipe": recipe,
        "overrides": list(overrides),
        "experiment": experiment,
    }
    try:
        return RunRequest.model_validate(given)
    except ValidationError as error:
        raise FlowError("; ".join(_in_words(problem) for problem in error.errors())) from None


def _in_words(problem: Mapping[str, Any]) -> str:
    field = str(problem["loc"][0])
    if problem["type"] != "string_pattern_mismatch":
        return f"{field}: {problem['input']!r}: {problem['msg']}"
    kinds = {"revision": Revision, "recipe": Recipe, "overrides": Override}
    wanted = get_args(kinds.get(field, Experiment))[1]
    return (
        f"{field}: {problem['input']!r} is none. {wanted.description} For example:"
        f" {wanted.examples[0]}"
    )


def check(request: RunRequest, repository: Repository) -> str:
    """Return the full hash of the commit that `request.revision` names in `repository`.

    Raises FlowError, in one line, if there is no such revision, it is no DVC project, it has no
    such recipe, its params (or the recipe's) lack a key of the overrides or a value does not parse,
    or the experiment's name is taken at that commit.
    """
    commit = resolve(request.revision, repository)
    for needed in ("dvc.yaml", ".dvc"):
        if try_git(repository.folder, "cat-file", "-e", f"{commit}:{needed}") is None:
            raise FlowError(
                f"revision: {request.revision} ({commit[:7]}) has no {needed} at its top"
            )
    file = PARAMS if request.recipe is None else f"recipes/{request.recipe}.yaml"
    if request.recipe is not None:
        _check_recipe(file, commit, repository)
    if request.overrides:
        _check_overrides(request.overrides, file, commit, repository)
    if request.experiment is not None:
        _check_experiment(request.experiment, baseline_of(commit, repository), repository)
    return commit


def resolve(revision: str, repository: Repository) -> str:
    """Return the full hash of the commit, branch, tag or experiment; FlowError if there is none.

    A hash that the repository lacks is fetched from its origin: another machine may have sent it.
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
            f"revision: {revision!r} is no commit, branch, tag or experiment of {repository.source}"
        )
    return found


def experiments(repository: Repository) -> list[tuple[str, str, str]]:
    """Return the baseline, name and commit of each experiment in the repository."""
    said = git(repository.folder, "for-each-ref", "--format=%(objectname) %(refname)", "refs/exps")
    found = []
    for line in said.splitlines():
        commit, _, ref = line.partition(" ")
        parts = ref.split("/", 4)  # refs/exps/ab/cdef.../NAME
        if len(parts) == 5 and len(parts[2] + parts[3]) == 40:
            found.append((parts[2] + parts[3], parts[4], commit))
    return found


def baseline_of(commit: str, repository: Repository) -> str:
    """Return the commit that an experiment of this commit belongs to: itself, or an experiment's.

    DVC shows experiments of commits only; one that starts from an experiment is its sibling.
    """
    of_experiments = [
        baseline for baseline, _, experiment in experiments(repository) if experiment == commit
    ]
    return of_experiments[0] if of_experiments else commit


def _commit_of_experiment(name: str, repository: Repository) -> str | None:
    """Return the commit of the experiment; where several bear the name, that of HEAD's."""
    found = {baseline: commit for baseline, exp, commit in experiments(repository) if exp == name}
    head = try_git(repository.folder, "rev-parse", "HEAD") or ""
    if len(found) > 1 and head not in found:
        raise FlowError(
            f"revision: {len(found)} experiments are named {name!r}; give the commit of the one"
            " that is meant (git for-each-ref refs/exps)"
        )
    return found.get(head) or next(iter(found.values()), None)


def _check_recipe(file: str, commit: str, repository: Repository) -> None:
    listed = git(repository.folder, "ls-tree", "--name-only", commit, "recipes/").splitlines()
    if file not in listed:
        names = sorted(Path(name).stem for name in listed if name.endswith(".yaml"))
        known = f"it has {', '.join(names)}" if names else "it has none"
        raise FlowError(f"recipe: {commit[:7]} has no {file}; {known}")


def _check_overrides(
    overrides: Sequence[str], file: str, commit: str, repository: Repository
) -> None:
    """Try the overrides one by one on a copy of the params; FlowError names the wrong one."""
    text = try_git(repository.folder, "show", f"{commit}:{file}")
    if text is None:
        raise FlowError(f"overrides: {commit[:7]} has no {file} that they could change")
    with tempfile.TemporaryDirectory(prefix="catdog-") as folder:
        params = Path(folder) / PARAMS
        params.write_text(text, encoding="utf-8")
        try:
            load_yaml(params)
        except DvcException as error:
            why = str(error.__cause__ or error).replace(str(params), file).replace("\n", " ")
            raise FlowError(f"{commit[:7]}:{file}: is no YAML: {why}") from None
        for override in overrides:
            _try_override(override, params, file)


def _try_override(override: str, params: Path, file: str) -> None:
    """Apply one override to a params file; FlowError if it is refused or changes what a key is."""
    key, _, value = override.partition("=")
    before = _kind(_value(params, key))
    try:
        if to_hydra_overrides([override])[0].is_sweep_override():
            raise ValueError("several values are a sweep's; a run takes one")
        apply_overrides(params, [override])
    except Exception as error:  # DVC, hydra, OmegaConf and ruamel each have their own for a value
        raise FlowError(f"overrides: {override!r}: {_why(error, key, file)}") from None
    if before not in ("text", "nothing", _kind(after := _value(params, key))) and after is not None:
        raise FlowError(f"overrides: {key} is a {before} in {file}, and {value!r} is none")


def _value(params: Path, key: str) -> Any:
    """Return the value of a dotted key of the params file; None if it has no such key.

    Read as DVC reads it: to PyYAML, 1e-05 is a text.
    """
    value = load_yaml(params)
    for part in key.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    return value


def _kind(value: object) -> str:
    """Return in words what a value is."""
    kinds = {bool: "switch (true or false)", int: "number", float: "number", list: "list"}
    return {**kinds, dict: "section", type(None): "nothing"}.get(type(value), "text")


def _why(error: Exception, key: str, file: str) -> str:
    """Return hydra's reason, which DVC hides behind its own, in one line."""
    reason = str(error.__cause__ or error).partition("\n")[0]
    return f"{file} has no {key}" if reason.startswith("Could not override") else reason


def _check_experiment(name: str, baseline: str, repository: Repository) -> None:
    if any((at, known) == (baseline, name) for at, known, _ in experiments(repository)):
        raise FlowError(
            f"experiment: {name!r} exists at {baseline[:7]}; choose another name, or remove it:"
            f" {repository.removing(name)}"
        )
