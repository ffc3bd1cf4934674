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
from prefect import flow, get_run_logger
from prefect.runtime import flow_run
from pydantic import Field

from flows.errors import FlowError, first_line
from flows.guards.flow_command import cancelled_by_interrupt, choose_server, run_as_command
from flows.guards.outages import wait_for_server
from flows.log import shorten_errors
from flows.paths import LOCK, METRICS
from flows.runs import artifacts
from flows.runs.export import (
    apply_command,
    differs_only_in_outputs,
    export_result,
    find_equal,
    is_stored,
)
from flows.runs.placement import NO_REMOTE, check_pools, run_stage_on_pool
from flows.runs.records import clean_up
from flows.runs.repository import repository, uncommitted_changes
from flows.runs.request import Experiment, Override, Recipe, Revision, check, make_request
from flows.runs.stage_lock import stage_lock
from flows.runs.stages import (
    STAGES,
    Report,
    Stage,
    StageError,
    has_default_remote,
    push_commands,
    push_results,
    run_stage,
)
from flows.runs.workspace import Workspace, open_workspace

Placement = dict[Stage, str]
OTHER_RESULTS = (
    "has other results for the same params, code and photos, from a machine that rounds"
    " differently; to make the results of this machine the baseline, run"
    f' `{{apply}} && git commit -m "Results of this machine" {LOCK} {METRICS}`'
)
Fraction = Annotated[float, Field(ge=0, le=1)]

shorten_errors()


@flow
@cancelled_by_interrupt
def pipeline(
    revision: Revision = "HEAD",
    recipe: Recipe | None = None,
    overrides: tuple[Override, ...] = (),
    experiment: Experiment | None = None,
    placement: Placement | None = None,
    alert_drop: Fraction = 0.02,
    keep_workspace: bool = False,
) -> dict[str, Any]:
    """Run the DVC pipeline of a revision in a clone; the result becomes a DVC experiment.

    Returns the metrics. Raises FlowError if the request is invalid, before anything is copied; if a
    stage fails, without running the next ones; or if the results cannot be pushed to the default
    remote, after they are stored in the repository.

    Args:
        revision: Commit, branch, tag or experiment of the repository to run.
        recipe: Use the file recipes/NAME.yaml of that revision as params.yaml.
        overrides: Params to change, each as section.key=value.
        experiment: Name of the DVC experiment that holds the result (default: the run's name).
        placement: Work pools of the stages that run on other machines; requires a DVC remote.
        alert_drop: Emit an event if accuracy is lower than the parent commit's by more than this.
        keep_workspace: Keep the clone even if the run succeeds; after a failure it is always kept.
    """
    job = check(make_request(revision, recipe, overrides, experiment), repository())
    placement = placement or {}
    check_pools(placement.values())
    logger = get_run_logger()
    clean_up(job.repository.home, logger.info)
    for line in uncommitted_changes(job.repository, job.commit):
        logger.warning("%s", line)
    name, run = str(flow_run.get_name()), str(flow_run.get_id())
    with open_workspace(job, name, flow_run=run, keep=keep_workspace, log=logger.info) as workspace:
        facts = {"revision": job.commit}
        reports: list[Report] = []
        try:
            push_error = run_stages(workspace, placement, reports)
            facts["experiment"] = _export(workspace)
            metrics = _read_metrics(workspace.folder / METRICS)
        except FlowError as error:
            facts |= {"clone": str(workspace.folder), "logs": str(workspace.logs)}
            artifacts.show_summary(f"Failed: {first_line(error)}", facts, reports)
            raise
        _show_results(workspace, metrics, reports, alert_drop)
        artifacts.show_summary(
            first_line(push_error) if push_error else "Completed", facts, reports
        )
        if push_error:
            raise push_error
    return metrics


def run_stages(
    workspace: Workspace, placement: Placement, reports: list[Report]
) -> FlowError | None:
    """Run the stages in order, and add a report to `reports` for each that succeeds.

    With a default remote, the results of each stage that ran are pushed. A failed push is returned
    instead of raised: the next stages can use results that are on this machine only.
    """
    log, folder = get_run_logger().info, workspace.folder
    remote = has_default_remote(folder)
    if placement and not remote:
        raise FlowError(NO_REMOTE)
    push_error: FlowError | None = None
    for stage in STAGES:
        wait_for_server(log)
        pool = placement.get(stage)
        # Results of another machine are only restored here, which does not need a device.
        placed = pool is not None and run_stage_on_pool(pool, stage, workspace.job)
        with stage_lock(workspace, stage, log):
            report = run_stage(stage, folder, workspace.logs, device=not placed)
        reports.append(dataclasses.replace(report, pool=pool if placed else None))
        if remote and not push_error and (report.outcome == "ran" or stage == STAGES[-1]):
            wait_for_server(log)
            push_error = _push(stage, workspace)
    wait_for_server(log)
    return push_error


def _push(stage: Stage, workspace: Workspace) -> FlowError | None:
    """Push the results so far; return an error instead of raising it."""
    try:
        push_results(stage, workspace.folder, workspace.logs)
    except (StageError, httpx.HTTPError) as error:  # HTTPError: the server is unreachable
        lines = str(error).splitlines() or [type(error).__name__]
        reason = next((line for line in reversed(lines) if line.startswith("ERROR")), lines[-1])
        commands = [["cd", str(workspace.folder)], *push_commands()]
        command = " && ".join(shlex.join(each) for each in commands)
        first = f"cannot push the results: {reason}; they are kept; to push them, run: {command}"
        return FlowError("\n".join([first, *lines]))
    return None


def _export(workspace: Workspace) -> str:
    """Export the result; return its experiment as the summary shows it."""
    log, job = get_run_logger().info, workspace.job
    name = export_result(workspace)
    if name is None and is_stored(workspace):
        log("no changes since %s; using its stored results", job.commit[:12])
        return "none (no changes since the revision)"
    equal = find_equal(workspace, other_than=name)
    if name is not None:
        apply = job.repository.apply_command(name)
        log("the result is experiment %s; apply it with `%s`", name, apply)
        if equal:
            log("it equals experiment %s of %s", equal.name, equal.baseline[:12])
    else:
        assert equal is not None  # otherwise it would have been exported
        name, apply = equal.name, apply_command(equal, job)
        log("the result equals experiment %s of %s, so no other is saved; apply it with `%s`",
            name, equal.baseline[:12], apply)  # fmt: skip
    if differs_only_in_outputs(workspace):
        log("%s %s", job.commit[:12], OTHER_RESULTS.format(apply=apply))
    return f"{name}; apply it with `{apply}`"


def _read_metrics(path: Path) -> dict[str, Any]:
    """Return the object in a JSON file; FlowError if it is missing or invalid."""
    try:
        metrics = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise FlowError(
            f"{path}: cannot be read after stage evaluate ({error}); the stage must write it"
        ) from None
    if not isinstance(metrics, dict):
        raise FlowError(f"{path}: must hold a JSON object, not {type(metrics).__name__}")
    return metrics


def _show_results(
    workspace: Workspace, metrics: dict[str, Any], reports: Sequence[Report], alert_drop: float
) -> None:
    """Create the artifacts of a result, and report a drop if a stage has run."""
    artifacts.show_metrics(metrics, workspace.job.commit)
    artifacts.show_plots(workspace.folder)
    if difference := artifacts.difference_from_parent(workspace.folder, workspace.job.commit):
        artifacts.show_comparison(difference)
        if any(report.outcome == "ran" for report in reports):
            artifacts.report_drop(difference, alert_drop)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the pipeline from the command line and print the metrics; return the exit code.

    0: done; 1: failed, with the reason as one line on stderr; 130: stopped by Ctrl-C or SIGTERM.
    """
    options = _parser().parse_args(arguments)

    def work() -> None:
        request = make_request(
            options.revision, options.recipe, options.overrides, options.experiment
        )
        check(request, repository())  # fail before starting a temporary server
        with choose_server():
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
    add("--keep", action="store_true", help="keep the clone even if the run succeeds")
    return parser


if __name__ == "__main__":
    sys.exit(main())
