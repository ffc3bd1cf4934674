"""The runs of a setting: those that differ from a revision only in the seed."""

from dataclasses import dataclass
from typing import Any

from catdog.errors import CatdogError
from catdog.experiments.dvc_lock import params_used
from catdog.experiments.run_results import (
    SEED,
    NotCachedError,
    RunResults,
    evaluated_stages,
    read_results,
)
from catdog.experiments.snapshots import Project


@dataclass(frozen=True)
class Setting:
    """A setting to compare: one run, or with --seeds all runs that differ only in the seed."""

    name: str
    runs: list[RunResults]


def find_replicates(project: Project, run: RunResults, notes: list[str]) -> Setting:
    """Return all runs of a run's setting, one per seed, sorted by seed.

    Searches HEAD, branches, tags, experiments and the workspace. Adds to `notes` the runs that were
    skipped, with the reason. Raises CatdogError if there is no second seed.
    """
    runs, seen, skipped = {run.params.get(SEED): run}, set(), list[str]()
    for name in project.names():
        try:
            if (commit := project.commit(name)) in seen:  # HEAD is the tip of a branch, too
                continue
            seen.add(commit)
            params = params_used(evaluated_stages(project, name))
            seed = params.get(SEED)
            if seed in runs or {**params, SEED: None} != {**run.params, SEED: None}:
                continue
            found = read_results(project, name)
        except NotCachedError as error:
            skipped.append(f"skipped: {error}")
            continue
        except CatdogError:  # for example a branch that has not been evaluated
            continue
        if found.setting != run.setting:
            skipped.append(
                f"skipped: {name}: same params as {run.name}, but different code or photos"
            )
        elif found.notes:
            skipped.append(f"skipped: {'; '.join(found.notes)}")
        else:
            runs[seed] = found
    if len(runs) < 2:
        raise CatdogError(
            f"{run.name}: only one seed ({SEED}={run.params.get(SEED)}); run a second with the "
            f"same params: `dvc exp run -S {SEED}={_unused_seed(runs)}`"
            + "".join(f"; {note}" for note in skipped)
        )
    notes += skipped
    return Setting(run.name, sorted(runs.values(), key=lambda run: run.params.get(SEED, 0)))


def _unused_seed(runs: dict[Any, RunResults]) -> int:
    return next(seed for seed in range(1, len(runs) + 2) if seed not in runs)


def check_settings_differ(settings: list[Setting]) -> None:
    """Raise CatdogError if two of the settings differ at most in the seed."""
    seen: dict[str, str] = {}
    for setting in settings:
        key = setting.runs[0].setting
        if key in seen:
            raise CatdogError(
                f"{seen[key]} and {setting.name}: the same setting (at most {SEED} differs); "
                "pass different settings, or omit --seeds"
            )
        seen[key] = setting.name
