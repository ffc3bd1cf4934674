"""prepare → train → evaluate as three Prefect tasks, in a clone of their own.

    python -m flows.pipeline [--revision REV] [--recipe NAME] [-S KEY=VALUE]... [--experiment NAME]

runs it at once, without a server unless PREFECT_API_URL names one. The result comes home as a DVC
experiment. With --here it works in the checkout itself, on its files as they are.
"""

import argparse
import dataclasses
import json
import os
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Annotated, Any

# As a script, and as an entrypoint of Prefect, this file is loaded without its package.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
# Prefect reads these when it is imported. It reports usage unless the first two are set, and the
# server takes a run for dead that is silent for three beats.
os.environ.setdefault("DO_NOT_TRACK", "1")
os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
os.environ.setdefault("PREFECT_FLOWS_HEARTBEAT_FREQUENCY", "30")

import httpx
from prefect import flow, get_run_logger, tags
from prefect.runtime import flow_run
from prefect.settings import PREFECT_API_URL
from pydantic import Field

from flows.errors import FlowError
from flows.guards.child_processes import child_environment
from flows.guards.flow_command import cancelled_by_interrupt, choose_server, run_as_command
from flows.guards.outages import wait_for_server
from flows.remote_stage import NO_REMOTE, check_pools, run_on
from flows.runs import artifacts
from flows.runs.records import sweep_up
from flows.runs.repository import repository
from flows.runs.request import (
    Experiment,
    Override,
    Recipe,
    Revision,
    RunRequest,
    check,
    make_request,
)
from flows.runs.stage_lock import turn
from flows.runs.stages import (
    STAGES,
    UNCACHED,
    Report,
    Stage,
    StageError,
    first_line,
    has_default_remote,
    push_results,
    run_stage,
)
from flows.runs.workspace import Workspace, bring_home, dirty, environment, workspace

Placement = dict[Stage, str]
Share = Annotated[float, Field(ge=0, le=1)]
ALERT_DROP = 0.02


@flow
@cancelled_by_interrupt
def pipeline(
    revision: Revision = "HEAD",
    recipe: Recipe | None = None,
    overrides: tuple[Override, ...] = (),
    experiment: Experiment | None = None,
    placement: Placement | None = None,
    alert_drop: Share = ALERT_DROP,
    keep_workspace: bool = False,
) -> dict[str, Any]:
    """Run the DVC pipeline of a revision in a clone, and bring the result home as an experiment.

    Returns what metrics.json holds. Raises FlowError if the request cannot be done, and then
    nothing is copied, if a stage fails, and then those after it do not run, or if the results
    cannot be pushed to the default remote, and then they are home all the same.

    Args:
        revision: Commit, branch, tag or experiment of the repository to run.
        recipe: Name of a file recipes/NAME.yaml in that revision, to use as params.yaml.
        overrides: Params to change, each as section.key=value.
        experiment: Name of the DVC experiment that holds the result; empty for the run's name.
        placement: Work pool of each stage that is to run on another machine; needs a DVC remote.
        alert_drop: Emit an event when accuracy is lower than the parent's by more than this.
        keep_workspace: Keep the clone after success too; after a failure it is kept anyway.
    """
    source = repository()
    request = make_request(revision, recipe, overrides, experiment)
    commit = check(request, source)
    check_pools((placement or {}).values())
    logger = get_run_logger()
    sweep_up(source.home, logger.info)
    for line in dirty(source, commit):
        logger.warning("%s", line)
    name, run = str(flow_run.get_name()), str(flow_run.get_id())
    with workspace(
        request, source, commit, name, flow_run=run, keep=keep_workspace, say=logger.info
    ) as space:
        return _run_in(space, request, placement or {}, alert_drop)


@flow
@cancelled_by_interrupt
def pipeline_here() -> dict[str, Any]:
    """Run the DVC pipeline in the checkout itself, on its files as they are.

    Returns what metrics.json holds. Raises FlowError if a stage fails, or if there is no checkout.
    It is no deployment: what an agent runs must not change anybody's files.
    """
    source = repository()
    if not source.is_checkout or not (source.folder / "dvc.yaml").is_file():
        raise FlowError(f"{source.source}: holds no dvc.yaml; name the top folder of a checkout")
    logs = source.home / "logs" / str(flow_run.get_name())
    place = Place(source.folder, child_environment(), logs)
    in_checkout = {"result": "in the checkout"}
    return _run(place, RunRequest(), {}, ALERT_DROP, "HEAD", lambda: in_checkout)


def _run_in(
    space: Workspace, request: RunRequest, placement: Placement, alert_drop: float
) -> dict[str, Any]:
    """Run the stages in a workspace, and bring the result home."""
    say = get_run_logger().info

    def finish() -> dict[str, str]:
        name = bring_home(space)
        if name is None:
            say("nothing differs from %s: its own results are the result", space.commit[:12])
            return {"experiment": "none, since nothing differs from the commit"}
        home = f"{name}; `{space.repository.taking_over(name)}` takes it over"
        say("the result is experiment %s", home)
        return {"experiment": home}

    place = Place(
        space.folder,
        environment(space.folder),
        space.logs,
        lambda stage: turn(space, stage, say),
    )
    request = request.model_copy(update={"revision": space.commit})  # elsewhere HEAD is another
    return _run(place, request, placement, alert_drop, space.commit, finish)


@dataclasses.dataclass(frozen=True)
class Place:
    """Where stages run: the DVC project, the environment, the folder of logs, and the turns."""

    root: Path
    environment: Mapping[str, str]
    logs: Path
    turn: Callable[[Stage], AbstractContextManager[None]] = lambda stage: nullcontext()


def _run(
    place: Place,
    request: RunRequest,
    placement: Placement,
    alert_drop: float,
    revision: str,
    finish: Callable[[], dict[str, str]],
) -> dict[str, Any]:
    """Run the stages in `place`, `finish`, and fill the run's page; return the metrics.

    `finish` keeps the result, and returns what the page says of it.
    """
    reports: list[Report] = []
    facts = {"revision": revision}
    try:
        unpushed = run_stages(place, request, placement, reports)
        facts |= finish()
        metrics = _read_metrics(place.root / "metrics.json")
    except FlowError as error:
        kept = {"kept in": str(place.root), "logs": str(place.logs)}
        artifacts.show_summary(f"Failed: {first_line(error)}", facts | kept, reports)
        raise
    artifacts.show_metrics(metrics, revision)
    artifacts.show_pictures(place.root)
    if difference := artifacts.against_parent(place.root, place.environment, revision):
        artifacts.show_comparison(difference)
        if any(report.outcome == "ran" for report in reports):
            artifacts.tell_of_a_drop(difference, alert_drop)
    artifacts.show_summary(first_line(unpushed) if unpushed else "Done", facts, reports)
    if unpushed:
        raise unpushed
    return metrics


def run_stages(
    place: Place, request: RunRequest, placement: Placement, reports: list[Report]
) -> FlowError | None:
    """Run the stages one after the other, and add a report of each that ends well.

    With a default remote, results are pushed after each stage that did something. Returns the error
    of a push that failed: a result that is only here is worth the next stage all the same.
    """
    unpushed: FlowError | None = None
    remote = has_default_remote(place.root)
    if placement and not remote:
        raise FlowError(NO_REMOTE)
    say = get_run_logger().info
    for stage in STAGES:
        wait_for_server(say)
        pool = placement.get(stage)
        # What another machine has done is only restored here, and needs no device.
        placed = pool is not None and run_on(pool, stage, request)
        with place.turn(stage):
            report = run_stage(stage, place.root, place.environment, place.logs, device=not placed)
        reports.append(dataclasses.replace(report, pool=pool if placed else None))
        if remote and not unpushed and (report.outcome == "ran" or stage == STAGES[-1]):
            wait_for_server(say)
            unpushed = _push(stage, place)
    wait_for_server(say)
    return unpushed


def _push(stage: Stage, place: Place) -> FlowError | None:
    """Push the results so far; return an error instead of raising it."""
    try:
        push_results(stage, place.root, place.environment, place.logs)
    except (StageError, httpx.HTTPError) as error:  # of a server that stays away
        lines = str(error).splitlines() or [type(error).__name__]
        reason = next((line for line in reversed(lines) if line.startswith("ERROR")), lines[-1])
        uncached = shlex.join([sys.executable, str(UNCACHED)])
        later = f"cd {shlex.quote(str(place.root))} && dvc push --run-cache && {uncached}"
        first = f"the results are kept, but could not be pushed: {reason}; push them with: {later}"
        return FlowError("\n".join([first, *lines]))
    return None


def _read_metrics(path: Path) -> dict[str, Any]:
    """Return the object that a JSON file holds; FlowError if there is none."""
    try:
        metrics = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise FlowError(f"{path}: cannot be read after evaluate ({error})") from None
    if not isinstance(metrics, dict):
        raise FlowError(f"{path}: must hold a JSON object, not {type(metrics).__name__}")
    return metrics


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the pipeline from the command line and print the metrics; return the exit code.

    0: done; 1: failed, with one line that says why; 130: stopped by Ctrl-C or SIGTERM.
    """
    options = _parser().parse_args(arguments)

    def work() -> None:
        request = make_request(
            options.revision, options.recipe, options.overrides, options.experiment
        )
        if not options.here:
            check(request, repository())  # before a server is started for nothing
        elif request != RunRequest() or options.keep:
            raise FlowError(
                "--here runs the files as they are: change params.yaml, or leave it out"
            )
        # A run with this tag that falls silent is marked crashed (make deploy). Each of its tasks
        # then asks the server for a slot of the tag: too much for a temporary server.
        with choose_server(), tags(*(["catdog"] if PREFECT_API_URL.value() else [])):
            metrics = (
                pipeline_here()
                if options.here
                else pipeline(**request.model_dump(), keep_workspace=options.keep)
            )
        for name, value in artifacts.flatten(metrics):
            print(f"{name:<40} {value}")

    return run_as_command("pipeline", work)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m flows.pipeline",
        description="Run the DVC pipeline of a revision; its result comes home as an experiment.",
    )
    add = parser.add_argument
    add("--revision", default="HEAD", help="commit, branch, tag or experiment (default: HEAD)")
    add("--recipe", metavar="NAME", help="use recipes/NAME.yaml as params.yaml")
    add("-S", "--set", dest="overrides", action="append", default=[], metavar="KEY=VALUE",
        help="change a param; may be given several times")  # fmt: skip
    add("--experiment", metavar="NAME", help="name of the result (default: the run's name)")
    add("--keep", action="store_true", help="keep the clone after success too")
    add("--here", action="store_true", help="work in the checkout itself, on its files as they are")
    return parser


if __name__ == "__main__":
    sys.exit(main())
