"""The flow `pipeline`: the stages prepare, train and evaluate of one revision, in a clone.

    python -m flows.pipeline [--revision REV] [--recipe NAME] [-S KEY=VALUE]... [--experiment NAME]

runs it in this process, without a server unless PREFECT_API_URL is set. The result becomes a DVC
experiment.
"""

import argparse
import dataclasses
import json
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import httpx
from prefect import flow, get_run_logger, tags
from prefect.runtime import flow_run
from prefect.settings import PREFECT_API_URL
from pydantic import Field

from flows.errors import FlowError
from flows.guards.flow_command import cancelled_by_interrupt, choose_server, run_as_command
from flows.guards.outages import wait_for_server
from flows.paths import METRICS
from flows.remote_stage import NO_REMOTE, check_pools, run_on
from flows.runs import artifacts
from flows.runs.records import clean_up
from flows.runs.repository import repository
from flows.runs.request import Experiment, Override, Recipe, Revision, check, make_request
from flows.runs.stage_lock import stage_lock
from flows.runs.stages import (
    PUSH_UNCACHED,
    STAGES,
    Report,
    Stage,
    StageError,
    first_line,
    has_default_remote,
    push_results,
    run_stage,
)
from flows.runs.workspace import Workspace, export_result, uncommitted_changes, workspace

Placement = dict[Stage, str]
Share = Annotated[float, Field(ge=0, le=1)]


@flow
@cancelled_by_interrupt
def pipeline(
    revision: Revision = "HEAD",
    recipe: Recipe | None = None,
    overrides: tuple[Override, ...] = (),
    experiment: Experiment | None = None,
    placement: Placement | None = None,
    alert_drop: Share = 0.02,
    keep_workspace: bool = False,
) -> dict[str, Any]:
    """Run the DVC pipeline of a revision in a clone; the result becomes a DVC experiment.

    Returns the metrics. Raises FlowError if the request is invalid, before anything is copied; if a
    stage fails, without running the next ones; or if the results cannot be pushed to the default
    remote, after they are stored in the repository.

    Args:
        revision: Commit, branch, tag or experiment of the repository to run.
        recipe: Name of a file recipes/NAME.yaml in that revision, to use as params.yaml.
        overrides: Params to change, each as section.key=value.
        experiment: Name of the DVC experiment that holds the result (default: the run's name).
        placement: Work pool of each stage that is to run on another machine; needs a DVC remote.
        alert_drop: Emit an event when accuracy is lower than the parent's by more than this.
        keep_workspace: Keep the clone after success too; after a failure it is always kept.
    """
    job = check(make_request(revision, recipe, overrides, experiment), repository())
    placement = placement or {}
    check_pools(placement.values())
    logger = get_run_logger()
    clean_up(job.repository.home, logger.info)
    for line in uncommitted_changes(job.repository, job.commit):
        logger.warning("%s", line)
    name, run = str(flow_run.get_name()), str(flow_run.get_id())
    with workspace(job, name, flow_run=run, keep=keep_workspace, log=logger.info) as space:
        facts = {"revision": job.commit}
        reports: list[Report] = []
        try:
            push_error = run_stages(space, placement, reports)
            facts["experiment"] = _export(space)
            metrics = _read_metrics(space.folder / METRICS)
        except FlowError as error:
            facts |= {"workspace": str(space.folder), "logs": str(space.logs)}
            artifacts.show_summary(f"Failed: {first_line(error)}", facts, reports)
            raise
        _show_results(space, metrics, reports, alert_drop)
        artifacts.show_summary(first_line(push_error) if push_error else "Done", facts, reports)
        if push_error:
            raise push_error
    return metrics


def run_stages(space: Workspace, placement: Placement, reports: list[Report]) -> FlowError | None:
    """Run the stages in order, and add a report to `reports` for each that succeeds.

    With a default remote, the results of each stage that ran are pushed. A failed push is returned
    instead of raised: the next stages can use results that are on this machine only.
    """
    log, folder = get_run_logger().info, space.folder
    remote = has_default_remote(folder)
    if placement and not remote:
        raise FlowError(NO_REMOTE)
    push_error: FlowError | None = None
    for stage in STAGES:
        wait_for_server(log)
        pool = placement.get(stage)
        # What another machine has run is only restored here, which needs no device.
        placed = pool is not None and run_on(pool, stage, space.job)
        with stage_lock(space, stage, log):
            report = run_stage(stage, folder, space.logs, device=not placed)
        reports.append(dataclasses.replace(report, pool=pool if placed else None))
        if remote and not push_error and (report.outcome == "ran" or stage == STAGES[-1]):
            wait_for_server(log)
            push_error = _push(stage, space)
    wait_for_server(log)
    return push_error


def _push(stage: Stage, space: Workspace) -> FlowError | None:
    """Push the results so far; return an error instead of raising it."""
    try:
        push_results(stage, space.folder, space.logs)
    except (StageError, httpx.HTTPError) as error:  # the latter if the Prefect server is away
        lines = str(error).splitlines() or [type(error).__name__]
        reason = next((line for line in reversed(lines) if line.startswith("ERROR")), lines[-1])
        uncached = shlex.join([sys.executable, str(PUSH_UNCACHED)])
        command = f"cd {shlex.quote(str(space.folder))} && dvc push --run-cache && {uncached}"
        first = f"cannot push the results: {reason}; they are kept, push them with: {command}"
        return FlowError("\n".join([first, *lines]))
    return None


def _export(space: Workspace) -> str:
    """Export the result; return its experiment as the summary shows it."""
    log = get_run_logger().info
    name = export_result(space)
    if name is None:
        log("nothing changed since %s; its stored results are used", space.job.commit[:12])
        return "none, since nothing changed since the revision"
    apply = space.job.repository.apply_command(name)
    log("the result is experiment %s; apply it with `%s`", name, apply)
    return f"{name}; apply it with `{apply}`"


def _read_metrics(path: Path) -> dict[str, Any]:
    """Return the object in a JSON file; FlowError if it is missing or invalid."""
    try:
        metrics = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise FlowError(f"{path}: cannot be read after evaluate ({error})") from None
    if not isinstance(metrics, dict):
        raise FlowError(f"{path}: must hold a JSON object, not {type(metrics).__name__}")
    return metrics


def _show_results(
    space: Workspace, metrics: dict[str, Any], reports: Sequence[Report], alert_drop: float
) -> None:
    """Create the artifacts of a result, and report a drop if a stage has run."""
    artifacts.show_metrics(metrics, space.job.commit)
    artifacts.show_plots(space.folder)
    if difference := artifacts.difference_from_parent(space.folder, space.job.commit):
        artifacts.show_comparison(difference)
        if any(report.outcome == "ran" for report in reports):
            artifacts.report_drop(difference, alert_drop)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the pipeline from the command line and print the metrics; return the exit code.

    0: done; 1: failed, with a line that says why; 130: stopped by Ctrl-C or SIGTERM.
    """
    options = _parser().parse_args(arguments)

    def work() -> None:
        request = make_request(
            options.revision, options.recipe, options.overrides, options.experiment
        )
        check(request, repository())  # before a temporary server is started in vain
        # The automation of flows/deploy.py marks silent runs with this tag as crashed. Tasks have
        # the tag too and ask the server for a slot of it, which would slow a temporary server down.
        with choose_server(), tags(*(["catdog"] if PREFECT_API_URL.value() else [])):
            metrics = pipeline(**request.model_dump(), keep_workspace=options.keep)
        for name, value in artifacts.as_text(metrics).items():
            print(f"{name:<40} {value}")

    return run_as_command("pipeline", work)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m flows.pipeline",
        description="Run the DVC pipeline of a revision in a clone; the result is an experiment.",
    )
    add = parser.add_argument
    add("--revision", default="HEAD", help="commit, branch, tag or experiment (default: HEAD)")
    add("--recipe", metavar="NAME", help="use recipes/NAME.yaml as params.yaml")
    add("-S", "--set", dest="overrides", action="append", default=[], metavar="KEY=VALUE",
        help="change a param; may be repeated")  # fmt: skip
    add("--experiment", metavar="NAME", help="name of the result (default: the run's name)")
    add("--keep", action="store_true", help="keep the clone after success too")
    return parser


if __name__ == "__main__":
    sys.exit(main())
