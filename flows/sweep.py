"""Run every point of a study as a pipeline run, and show all results in one table.

    python -m flows.sweep studies/example.yaml [--deployment pipeline/pipeline] [--at-once N]

Without --deployment the points run in this process, one after the other, and no server is needed.
With it, agents run them, one per device at the same time. Each point becomes a DVC experiment. A
sweep that is run again skips the points that are finished.

`dvc queue` is not used: it assigns no devices, runs on one machine only, and `dvc queue stop
--kill` left a training running and started the next task (DVC 3.67; no upstream issue found,
searched 2026-11-30).
"""

import argparse
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import PurePosixPath
from typing import Annotated, Any

from prefect import State, flow, get_run_logger
from pydantic import Field

from flows.errors import FlowError
from flows.guards.flow_command import cancelled_by_interrupt, choose_server, run_as_command
from flows.guards.many_runs import DEPLOYMENT, Deployment, run_all, state_message
from flows.log import Log, shorten_errors
from flows.pipeline import pipeline
from flows.runs.repository import repository, uncommitted_changes
from flows.runs.request import RunRequest
from flows.sweeps import artifacts
from flows.sweeps.artifacts import PointResult
from flows.sweeps.plan import Plan, make_plan, unfinished
from flows.sweeps.results import results

StudyFile = Annotated[str, Field(max_length=300, pattern=r"\.ya?ml$")]
AtOnce = Annotated[int, Field(ge=1)]
NO_ALERT = {"alert_drop": 1.0}  # a point may be worse than its parent: that is what a study is for
DONE, ALREADY_DONE = "done", "already done"

shorten_errors()


@flow
@cancelled_by_interrupt
def sweep(
    study: StudyFile = "studies/example.yaml",
    deployment: Deployment | None = "pipeline/pipeline",
    at_once: AtOnce | None = None,
) -> list[dict[str, Any]]:
    """Run the points of a study that are not finished, then show all points in one table.

    Returns the rows of the table. Raises FlowError before anything runs if the study or a setting
    in it is invalid. Raises FlowError after all points have ended, and the table has been created,
    if some have failed.

    Args:
        study: Path of the study file in the repository; flows/sweeps/study.py describes the format.
        deployment: Deployment that runs the points, as FLOW/NAME; empty: run them in this process.
        at_once: Maximum number of points that run at the same time (default: as agents allow).
    """
    logger, source = get_run_logger(), repository()
    plan = make_plan(study, source)
    for line in unrelated_to(study, uncommitted_changes(source, plan.commit)):
        logger.warning("%s", line)
    todo = unfinished(plan, results(source, plan.commit), source)
    logger.info("%d points, %d already done", len(plan.points), len(plan.points) - len(todo))
    if deployment:
        parameters = {
            name: request.model_dump(mode="json") | NO_ALERT for name, request in todo.items()
        }
        states = run_all(deployment, parameters, at_once, logger.info) if todo else {}
    else:
        states = run_here(todo, logger.info)
    points = point_results(plan, states)
    title = f"{plan.study.name} at {plan.commit[:7]}: {plan.study.description or study}"
    artifacts.show(points, title, plan.study.metric)
    raise_for_failed(points)
    return artifacts.table(points)


def unrelated_to(study: str, lines: Iterable[str]) -> list[str]:
    """Return the warnings about uncommitted changes that do not concern the study's file or folder.

    The study file is read from the checkout, so it need not be committed.
    """
    paths = {study, *(f"{folder}/" for folder in PurePosixPath(study).parents)}
    return [line for line in lines if line.partition(": ")[0] not in paths]


def run_here(runs: Mapping[str, RunRequest], log: Log) -> dict[str, State[Any]]:
    """Run the pipeline for each request in this process, one after the other; return the states.

    A failed run does not stop the others; Ctrl-C stops all.
    """
    states: dict[str, State[Any]] = {}
    for name, request in runs.items():
        run = pipeline.with_options(flow_run_name=name)
        states[name] = run(**request.model_dump(), **NO_ALERT, return_state=True)
        if states[name].is_cancelled():  # by Ctrl-C, which is meant for the whole sweep
            raise KeyboardInterrupt
        log(f"{name}: {states[name].name} ({len(states)} of {len(runs)})")
    return states


def point_results(plan: Plan, states: Mapping[str, State[Any]]) -> list[PointResult]:
    """Return the result of each point of the plan; points without a state were already done."""
    source = repository()  # again, since this fetches the new experiments from a URL
    found, points = results(source, plan.commit), []
    for point in plan.points:
        state, result = states.get(point.name), found.get(point.name)
        if state and not state.is_completed():
            reason = state_message(state).partition("\n")[0]
            points.append(PointResult(point, str(state.name).lower(), reason=reason))
            continue
        missing = "" if result else f"its experiment is not in {source.source}"
        points.append(PointResult(point, DONE if state else ALREADY_DONE, result, missing))
    return points


def raise_for_failed(points: Sequence[PointResult]) -> None:
    """Raise FlowError, with a line for each failed point, if there are any."""
    failed = [each for each in points if each.state not in (DONE, ALREADY_DONE)]
    if failed:
        lines = [f"{each.point.name}: {each.state}: {each.reason}" for each in failed]
        first = f"{len(failed)} of {len(points)} points failed: {lines[0]}"
        raise FlowError("\n".join([first, *lines[1:]]))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a sweep from the command line and print the state of each point; return the exit code.

    0: done; 1: failed, with the reason as one line on stderr; 130: stopped by Ctrl-C or SIGTERM.
    """
    options = _parser().parse_args(arguments)

    def work() -> None:
        # Check everything before a temporary server is started.
        check_options(options.deployment, options.at_once)
        make_plan(options.study, repository())
        with choose_server(required=options.deployment is not None):
            rows = sweep(options.study, options.deployment, options.at_once)
        for row in rows:
            print(f"{row['experiment']:<60} {row['state']}")

    return run_as_command("sweep", work)


def check_options(deployment: str | None, at_once: int | None) -> None:
    """Raise FlowError if the command line options are invalid."""
    if deployment is not None and not re.fullmatch(DEPLOYMENT, deployment):
        raise FlowError(
            f"--deployment: {deployment!r} is not FLOW/NAME, for example pipeline/pipeline"
        )
    if at_once is not None and deployment is None:
        raise FlowError("--at-once: requires --deployment; without it points run one by one")
    if at_once is not None and at_once < 1:
        raise FlowError(f"--at-once: must be at least 1, not {at_once}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m flows.sweep",
        description="Run the points of a study that are not finished, each as a DVC experiment.",
    )
    add = parser.add_argument
    add("study", metavar="FILE", help="study file, such as studies/example.yaml")
    deployment = "deployment that runs the points on agents (default: run them in this process)"
    add("--deployment", metavar="FLOW/NAME", help=deployment)
    at_once = "maximum number of points that run at the same time (default: as agents allow)"
    add("--at-once", type=int, metavar="N", help=at_once)
    return parser


if __name__ == "__main__":
    sys.exit(main())
