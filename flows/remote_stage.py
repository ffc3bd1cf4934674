"""The flow `stage`, which runs one DVC stage for a pipeline on another machine.

A machine that runs a stage works in its own clone with its own DVC cache. The inputs come from the
default DVC remote (`dvc repro --pull`) and the outputs are pushed to it right after the stage (`dvc
push --run-cache`). So no machine runs a stage that another one has run. A pipeline starts this flow
with flows/runs/placement.py.
"""

from prefect import flow, get_run_logger
from prefect.runtime import flow_run

from flows.errors import FlowError
from flows.guards.outages import wait_for_server
from flows.log import Log, shorten_errors
from flows.runs.placement import FLOW, NO_REMOTE
from flows.runs.records import clean_up
from flows.runs.repository import repository
from flows.runs.request import Override, Recipe, Revision, check, make_request
from flows.runs.stage_lock import stage_lock
from flows.runs.stages import Stage, has_default_remote, push_results, run_stage
from flows.runs.workspace import Workspace, open_workspace

shorten_errors()


@flow(name=FLOW)
def remote_stage(
    stage: Stage,
    revision: Revision,
    recipe: Recipe | None = None,
    overrides: tuple[Override, ...] = (),
) -> str:
    """Run one DVC stage of a revision in a clone on this machine, and push its results.

    Returns "ran", "cached" (another machine had run it) or "unchanged". Raises FlowError if the
    request is invalid or there is no default DVC remote, StageError if the stage or the push fails;
    the clone is kept then.

    Args:
        stage: The stage; stages before it run too if the remote does not have their results.
        revision: Commit to run; a branch or tag may be another commit on another machine.
        recipe: Name of a file recipes/NAME.yaml in that revision, to use as params.yaml.
        overrides: Params to change, each as section.key=value.
    """
    log = get_run_logger().info
    job = check(make_request(revision, recipe, overrides), repository())
    clean_up(job.repository.home, log)
    name, run = str(flow_run.get_name()), str(flow_run.get_id())
    with open_workspace(job, name, flow_run=run, log=log) as workspace:
        return _run_and_push(stage, workspace, log)


def _run_and_push(stage: Stage, workspace: Workspace, log: Log) -> str:
    """Run the stage in the workspace and push its results; return its outcome."""
    if not has_default_remote(workspace.folder):
        raise FlowError(NO_REMOTE)
    with stage_lock(workspace, stage, log):
        report = run_stage(stage, workspace.folder, workspace.logs)
    wait_for_server(log)
    # Even if it did not run: an earlier run may have run it and failed to push.
    push_results(stage, workspace.folder, workspace.logs)
    return report.outcome
