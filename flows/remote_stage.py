"""The flow `stage`: one DVC stage on another machine, and how a pipeline places a stage there.

A machine that runs a stage works in its own clone with its own DVC cache. The inputs come from the
default DVC remote (`dvc repro --pull`) and the outputs are pushed to it right after the stage (`dvc
push --run-cache`). So no machine runs a stage that another one has run.
"""

from collections.abc import Callable, Iterable
from typing import Any
from uuid import UUID

from prefect import State, flow, get_run_logger
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowFilter, FlowFilterName
from prefect.runtime import flow_run
from prefect.settings import PREFECT_API_URL

from flows.errors import FlowError
from flows.guards.many_runs import run_all
from flows.guards.outages import wait_for_server
from flows.runs.records import clean_up
from flows.runs.repository import repository
from flows.runs.request import Job, Override, Recipe, Revision, check, make_request
from flows.runs.stage_lock import stage_lock
from flows.runs.stages import Stage, has_default_remote, push_results, run_stage
from flows.runs.workspace import Workspace, workspace

FLOW = "stage"  # each of its deployments has the name of its work pool
NO_REMOTE = (
    "placement requires a default DVC remote, through which machines exchange results; add one with"
    " `dvc remote add --default NAME URL` and commit .dvc/config"
)


@flow(name=FLOW)
def stage(
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
    with workspace(job, name, flow_run=run, log=log) as space:
        return _run_and_push(stage, space, log)


def _run_and_push(stage: Stage, space: Workspace, log: Callable[[str], None]) -> str:
    """Run the stage in the workspace and push its results; return its outcome."""
    if not has_default_remote(space.folder):
        raise FlowError(NO_REMOTE)
    with stage_lock(space, stage, log):
        report = run_stage(stage, space.folder, space.logs)
    wait_for_server(log)
    # Even if it did not run: an earlier run may have run it and failed to push.
    push_results(stage, space.folder, space.logs)
    return report.outcome


def check_pools(pools: Iterable[str]) -> None:
    """Raise FlowError unless the server of this run has a deployment of `stage` for each pool."""
    wanted = set(pools)
    if wanted and not PREFECT_API_URL.value():
        raise FlowError(
            "placement requires a server with a worker for each pool; run make server, make deploy"
            " and make agent POOL=..., and set PREFECT_API_URL"
        )
    if missing := sorted(wanted - (known := _pools() if wanted else set())):
        names = ", ".join(sorted(known)) or "none"
        raise FlowError(
            f"placement: the server has no deployment {FLOW}/{missing[0]}; run make deploy or"
            f" choose another pool; pools for stages: {names}"
        )


def _pools() -> set[str]:
    """Return the pools that stages can be placed on."""
    with get_client(sync_client=True) as client:
        stages = FlowFilter(name=FlowFilterName(any_=[FLOW]))
        return {deployment.name for deployment in client.read_deployments(flow_filter=stages)}


def run_on(pool: str, stage: Stage, job: Job) -> bool:
    """Run `stage` on a machine of `pool` and wait for it; return whether another run did it.

    A run that is itself in `pool` does nothing and returns False: it can run the stage, and would
    wait forever in a pool that takes one run at a time. Afterwards the results are in the default
    DVC remote. Raises FlowError with the reason if the other run fails; if this run is stopped, it
    cancels the other one.
    """
    if pool == _own_pool():
        return False
    check_pools([pool])
    request = job.pinned.model_dump(mode="json", exclude={"experiment"})
    name, log = f"{flow_run.get_name()}-{stage}", get_run_logger().info
    log("stage %s: waiting for run %s on pool %s", stage, name, pool)
    # A run of this name belongs to this run, even if an earlier attempt of it has started it.
    runs = {name: {"stage": stage, **request}}
    state = run_all(f"{FLOW}/{pool}", runs, None, log, cancel_joined=True)[name]
    if not state.is_completed():
        raise FlowError(f"stage {stage} on pool {pool}: run {name} is {_describe(state)}")
    return True


def _own_pool() -> str | None:
    """Return the work pool of this run; None if no worker started it."""
    with get_client(sync_client=True) as client:
        return client.read_flow_run(UUID(flow_run.get_id())).work_pool_name


def _describe(state: State[Any]) -> str:
    """Return the name and the message of a state, without the prefix that Prefect adds."""
    reason = (state.message or "").removeprefix("Flow run encountered an exception: ")
    reason = reason.removeprefix("StageError: ").removeprefix("FlowError: ")
    return f"{state.name}: {reason}" if reason else str(state.name)
