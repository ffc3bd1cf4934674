"""Run what a study names and is not finished, one `dvc exp run` after the other.

Each point runs in a temporary copy that DVC makes of the checkout (`--temp`), so the checkout stays
as it is. DVC's queue is not used: stopped, it leaves a training running. A point that was
interrupted begins again; one that has its experiment is never run twice.
"""

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from dvc.utils.hydra import apply_overrides
from dvc.utils.serialize import load_yaml

from catdog import params, revisions
from catdog.errors import CatdogError
from catdog.study import Point, Study, as_override, parse, points

PARAMS = Path("params.yaml")
GRACE = 60.0  # seconds in which a training that is told to stop may save

Say = Callable[[str], None]


@dataclass(frozen=True)
class Plan:
    """A study whose every point can be run at the commit that is checked out."""

    file: Path
    points: list[Point]
    overrides: dict[str, list[str]]
    """by name: all that `dvc exp run -S` is given, the recipe's settings first"""
    finished: set[str]
    """names of the points that have their experiment"""


def make_plan(file: Path) -> Plan:
    """Return what the study in `file` asks for, and what of it is finished.

    Raises CatdogError, before anything is run, if the study or a setting in it is wrong, if it is
    about another commit than the one checked out, or if an experiment has the name of a point but
    other params.
    """
    try:
        study = parse(file.read_text(encoding="utf-8"), str(file))
    except OSError as error:
        raise CatdogError(f"{file}: cannot be read ({error.strerror})") from None
    head = revisions.resolve("HEAD")
    if revisions.resolve(study.revision) != head:
        raise CatdogError(
            f"{file}: is about revision {study.revision}, but {head[:7]} is checked out; run: "
            f"git checkout {study.revision}"
        )
    found = points(study)
    recipe = _recipe_overrides(study)
    overrides = {point.name: _last_of_each_key([*recipe, *point.overrides]) for point in found}
    wanted = {name: _params_with(given, f"{file}: {name}") for name, given in overrides.items()}
    return Plan(file, found, overrides, _finished(file, head, wanted))


def run(plan: Plan, say: Say) -> None:
    """Run each point that is not finished; one that fails does not stop the others.

    Raises CatdogError at the end if points have failed, and at once if tracked files have changes
    that are not committed: they would become part of the experiments without being named in them.
    """
    todo = [point.name for point in plan.points if point.name not in plan.finished]
    say(f"{len(plan.points)} points, {len(plan.finished)} of them finished before")
    failed = []
    for number, name in enumerate(todo, start=1):
        refuse_changes(plan.file)
        say(f"{name} ({number} of {len(todo)})")
        if _run_experiment(name, plan.overrides[name]) != 0:
            failed.append(name)
            say(f"{name} failed; what dvc says is above")
    if failed:
        raise CatdogError(
            f"{plan.file}: {len(failed)} of {len(todo)} points failed: {', '.join(failed)}; "
            "the same command runs them again"
        )


def refuse_changes(study_file: Path) -> None:
    """Raise CatdogError if tracked files differ from HEAD; the study's own file may."""
    command = ["git", "status", "--porcelain", "--untracked-files=no", "--", "."]
    ours = os.path.relpath(study_file)
    status = subprocess.run(
        [*command, f":(exclude){ours}"], capture_output=True, text=True, check=True
    )
    changed = [line[3:] for line in status.stdout.splitlines()]
    if changed:
        more = f" and {len(changed) - 3} more" if len(changed) > 3 else ""
        raise CatdogError(
            f"{', '.join(changed[:3])}{more}: changed but not committed; commit or `git stash` it, "
            "since experiments are of a commit"
        )


def _recipe_overrides(study: Study) -> list[str]:
    """Return what turns params.yaml into the study's recipe."""
    if study.recipe is None:
        return []
    recipe = dict(_leaves(params.read_yaml(Path(f"recipes/{study.recipe}.yaml"))))
    ours = dict(_leaves(params.read_yaml(PARAMS)))
    return [as_override(key, value) for key, value in recipe.items() if ours.get(key) != value]


def _last_of_each_key(overrides: list[str]) -> list[str]:
    """Return the overrides without those whose key is set again later."""
    return list({override.partition("=")[0]: override for override in overrides}.values())


def _leaves(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _params_with(overrides: list[str], where: str) -> Any:
    """Return the params of a point, as plain values; CatdogError says `where` and what is wrong."""
    with tempfile.TemporaryDirectory(prefix="catdog-") as folder:
        copy = Path(folder) / PARAMS.name
        copy.write_bytes(PARAMS.read_bytes())
        for override in overrides:
            try:
                apply_overrides(copy, [override])
            except Exception as error:  # hydra, OmegaConf and ruamel each have their own
                reason = str(error.__cause__ or error).partition("\n")[0]
                raise CatdogError(f"{where}: {override}: {reason}") from None
        params.parse(params.read_yaml(copy), where)
        return load_yaml(copy)


def _finished(file: Path, head: str, wanted: Mapping[str, Any]) -> set[str]:
    """Return the names that have an experiment of HEAD with metrics; it must have these params."""
    had = {name: commit for base, name, commit in revisions.experiments() if base == head}
    finished = set()
    for name in wanted.keys() & had.keys():
        with tempfile.TemporaryDirectory(prefix="catdog-") as folder:
            copy = Path(folder) / PARAMS.name
            copy.write_text(revisions.read(had[name], PARAMS.name), encoding="utf-8")
            theirs, ours = dict(_leaves(load_yaml(copy))), dict(_leaves(wanted[name]))
        if wrong := sorted(key for key in theirs | ours if theirs.get(key) != ours.get(key)):
            key = wrong[0]
            raise CatdogError(
                f"{file}: experiment {name} is there already, with {key} {theirs.get(key)} instead "
                f"of {ours.get(key)}; rename the study's file, or: dvc exp remove {name}"
            )
        finished.add(name)
    return finished


def _run_experiment(name: str, overrides: list[str]) -> int:
    """Run one point and return dvc's exit code. Stopped itself, it lets the training save first."""
    settings = [part for override in overrides for part in ("-S", override)]
    command = [sys.executable, "-m", "dvc", "exp", "run", "--temp", "-n", name, *settings]
    # The stages import the code of the copy that they run in: the checkout may change meanwhile.
    path = os.pathsep.join([".", *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = {**os.environ, "DVC_NO_ANALYTICS": "1", "PYTHONPATH": path}
    before = signal.signal(signal.SIGTERM, _exit)
    child = subprocess.Popen(command, env=environment, start_new_session=True)
    try:
        return child.wait()
    except BaseException:
        _end_group(child)
        raise
    finally:
        signal.signal(signal.SIGTERM, before)


def _exit(number: int, frame: FrameType | None) -> None:
    sys.exit(128 + number)


def _end_group(child: "subprocess.Popen[bytes]") -> None:
    """Ask dvc and the training under it to stop, wait for both, and then make sure of it."""
    end = time.monotonic() + GRACE
    try:
        os.killpg(child.pid, signal.SIGTERM)
        child.wait()
        while time.monotonic() < end:
            os.killpg(child.pid, 0)
            time.sleep(0.1)
        os.killpg(child.pid, signal.SIGKILL)
    except ProcessLookupError:
        return  # the group is gone
