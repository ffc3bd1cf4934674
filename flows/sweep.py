"""A study's points as runs of the pipeline, as many at once as there are devices, and one table.

    python -m flows.sweep studies/example.yaml [--deployment pipeline/pipeline] [--at-once N]

Without --deployment the points run in this process, one after the other, and no server is needed.
Each point becomes a DVC experiment. A sweep that is started again runs only what is not finished.

It is no `dvc queue`, which knows of neither devices nor other machines, and whose `dvc queue stop
--kill` left a trainer alive and started the next task (DVC 3.67).
"""

import argparse
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import PurePosixPath
from typing import Annotated, Any

from prefect import State, flow, get_run_logger, tags
from prefect.settings import PREFECT_API_URL
from pydantic import Field

from flows.errors import FlowError
from flows.guards.flow_command import cancelled_by_interrupt, run_as_command, some_server
from flows.guards.many_runs import DEPLOYMENT, Deployment, Say, run_all
from flows.pipeline import pipeline
from flows.runs.repository import repository
from flows.runs.request import RunRequest
from flows.runs.workspace import uncommitted_changes
from flows.sweeps import artifacts
from flows.sweeps.artifacts import Row
from flows.sweeps.plan import Plan, make_plan, unfinished
from flows.sweeps.results import results

StudyFile = Annotated[str, Field(max_length=300, pattern=r"\.ya?ml$")]
AtOnce = Annotated[int, Field(ge=1)]
QUIET = {"alert_drop": 1.0}  # a study tries what may be worse: no alarm for that
DONE, BEFORE = "done", "done before"


@flow
@cancelled_by_interrupt
def sweep(
    study: StudyFile = "studies/example.yaml",
    deployment: Deployment | None = "pipeline/pipeline",
    at_once: AtOnce | None = None,
) -> list[dict[str, Any]]:
    """Run each point of a study that is not finished, then show all of them in one table.

    Returns the table's rows. Raises FlowError if the study, or a setting in it, is wrong, and then
    nothing is run; or if points have failed, but then all have ended, and the table is there.

    Args:
        study: The study file in the repository; flows/sweeps/study.py explains what is in one.
        deployment: Deployment that runs a point, as FLOW/NAME; empty for this very process.
        at_once: How many points may run at the same time; empty for as many as the agents take.
    """
    logger, source = get_run_logger(), repository()
    plan = make_plan(study, source)
    for line in unused(uncommitted_changes(source, plan.commit), study):
        logger.warning("%s", line)
    todo = unfinished(plan, results(source, plan.commit), source)
    logger.info("%d points, %d of them done before", len(plan.points), len(plan.points) - len(todo))
    if deployment:
        asked = {name: request.model_dump(mode="json") | QUIET for name, request in todo.items()}
        states = run_all(deployment, asked, at_once, logger.info) if asked else {}
    else:
        states = run_here(todo, logger.info)
    rows = collect(plan, states)
    title = f"{plan.study.name} at {plan.commit[:7]}: {plan.study.description or study}"
    artifacts.show(rows, title, plan.study.metric)
    complain(rows)
    return artifacts.table(rows)


def unused(lines: Iterable[str], study: str) -> list[str]:
    """Return the lines about uncommitted changes that are not about the study's file or folder.

    The study itself is used as it is in the checkout.
    """
    paths = {study, *(f"{folder}/" for folder in PurePosixPath(study).parents)}
    return [line for line in lines if line.partition(": ")[0] not in paths]


def run_here(runs: Mapping[str, RunRequest], say: Say) -> dict[str, State[Any]]:
    """Run the pipeline for each request, one after the other, in this process; return the states.

    One that fails stops none of the others; an interrupt stops all.
    """
    states: dict[str, State[Any]] = {}
    for name, request in runs.items():
        run = pipeline.with_options(flow_run_name=name)
        states[name] = run(**request.model_dump(), **QUIET, return_state=True)
        if states[name].is_cancelled():  # by Ctrl-C, which is meant for all
            raise KeyboardInterrupt
        say(f"{name}: {states[name].name} ({len(states)} of {len(runs)})")
    return states


def collect(plan: Plan, states: Mapping[str, State[Any]]) -> list[Row]:
    """Return a row for each point of the plan: those without a state were done before."""
    source = repository()  # anew: of a URL, with what has come there meanwhile
    found, rows = results(source, plan.commit), []
    for point in plan.points:
        state, result = states.get(point.name), found.get(point.name)
        if state and not state.is_completed():
            rows.append(Row(point, str(state.name).lower(), reason=reason(state)))
            continue
        missing = "" if result else f"its experiment is not in {source.source}"
        rows.append(Row(point, DONE if state else BEFORE, result, missing))
    return rows


def reason(state: State[Any]) -> str:
    """Return the first line of a state's message, without what Prefect puts before it."""
    said = (state.message or "").partition("\n")[0]
    return re.sub(r"^Flow run encountered an exception: (\w+Error: )?", "", said)


def complain(rows: Sequence[Row]) -> None:
    """Raise FlowError if points have not ended well, with a line for each."""
    lost = [row for row in rows if row.state not in (DONE, BEFORE)]
    if lost:
        lines = [f"{row.point.name}: {row.state}: {row.reason}" for row in lost]
        first = f"{len(lost)} of {len(rows)} points did not end well: {lines[0]}"
        raise FlowError("\n".join([first, *lines[1:]]))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a sweep from the command line and print what became of its points; return the exit code.

    0: done; 1: failed, with one line that says why; 130: stopped by Ctrl-C or SIGTERM.
    """
    options = _parser().parse_args(arguments)

    def work() -> None:
        # Before a server is started for nothing.
        refuse(options.deployment, options.at_once)
        make_plan(options.study, repository())
        # Tasks have the tags too, and each then asks for a slot of its tag: not of a server that
        # is there for this run only, and has no automation that looks for the tag.
        server = some_server(no_other=options.deployment is not None)
        with server, tags(*(["catdog"] if PREFECT_API_URL.value() else [])):
            rows = sweep(options.study, options.deployment, options.at_once)
        for row in rows:
            print(f"{row['experiment']:<60} {row['state']}")

    return run_as_command("sweep", work)


def refuse(deployment: str | None, at_once: int | None) -> None:
    """Raise FlowError if the options do not say what to do."""
    if deployment is not None and not re.fullmatch(DEPLOYMENT, deployment):
        raise FlowError(f"--deployment: {deployment!r} is none; for example: pipeline/pipeline")
    if at_once is not None and deployment is None:
        raise FlowError("--at-once needs --deployment: without it there is only this process")
    if at_once is not None and at_once < 1:
        raise FlowError(f"--at-once: must be at least 1, not {at_once}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m flows.sweep",
        description="Run each point of a study that is not finished, as a DVC experiment.",
    )
    add = parser.add_argument
    add("study", metavar="FILE", help="the study, such as studies/example.yaml")
    add("--deployment", metavar="FLOW/NAME", help="let agents run the points (default: none does)")
    add("--at-once", type=int, metavar="N", help="how many points agents may run at the same time")
    return parser


if __name__ == "__main__":
    sys.exit(main())
