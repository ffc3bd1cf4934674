"""Place a stage of a pipeline on another machine: start the flow `stage` there and wait for it."""

from collections.abc import Iterable
from typing import Any
from uuid import UUID

from prefect import State, get_run_logger
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowFilter, FlowFilterName
from prefect.runtime import flow_run
from prefect.settings import PREFECT_API_URL

from flows.errors import FlowError
from flows.guards.many_runs import run_all, state_message
from flows.runs.request import Job
from flows.runs.stages import Stage

FLOW = "stage"  # each of its deployments has the name of its work pool
NO_REMOTE = (
    "placement requires a default DVC remote, through which machines exchange results; add one with"
    " `dvc remote add --default NAME URL` and commit .dvc/config"
)


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
    """Return the name and the message of a state."""
    message = state_message(state)
    return f"{state.name}: {message}" if message else str(state.name)
