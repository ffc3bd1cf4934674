"""One stage on another machine: the flow `stage`, and how a pipeline hands a stage to it.

A machine that takes a stage works in a clone of its own, with a DVC cache of its own. What the
stage needs comes from the default DVC remote (`dvc repro --pull`), and what it makes goes there
right after it (`dvc push --run-cache`). So a stage that any machine has done is nowhere done again.
"""

import os
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any
from uuid import UUID

# As an entrypoint of Prefect this file is loaded without its package.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
# Prefect reads these when it is imported: see pipeline.py.
os.environ.setdefault("DO_NOT_TRACK", "1")
os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
os.environ.setdefault("PREFECT_FLOWS_HEARTBEAT_FREQUENCY", "30")

from prefect import State, flow, get_run_logger
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowFilter, FlowFilterName
from prefect.runtime import flow_run
from prefect.settings import PREFECT_API_URL

from flows.errors import FlowError
from flows.guards.many_runs import run_all
from flows.guards.outages import wait_for_server
from flows.runs.records import sweep_up
from flows.runs.repository import repository
from flows.runs.request import Override, Recipe, Revision, RunRequest, check, make_request
from flows.runs.stage_lock import turn
from flows.runs.stages import Stage, has_default_remote, push_results, run_stage
from flows.runs.workspace import Workspace, environment, workspace

FLOW = "stage"  # its deployments are named as their pools
NO_REMOTE = (
    "placement needs a default DVC remote, to hand results from machine to machine; add one with"
    " `dvc remote add --default NAME URL` and commit .dvc/config"
)


@flow(name=FLOW)
def stage(
    stage: Stage,
    revision: Revision,
    recipe: Recipe | None = None,
    overrides: tuple[Override, ...] = (),
) -> str:
    """Run one DVC stage of a revision in a clone on this machine, and push what it makes.

    Returns "ran", "cached" (a machine had done it) or "unchanged". Raises FlowError if the request
    cannot be done or there is no default DVC remote, StageError if the stage or the push fails;
    then the clone is kept.

    Args:
        stage: The stage; what it needs and the remote does not have is run before it.
        revision: Commit to run; a branch or tag may mean another commit on another machine.
        recipe: Name of a file recipes/NAME.yaml in that revision, to use as params.yaml.
        overrides: Params to change, each as section.key=value.
    """
    say = get_run_logger().info
    source = repository()
    request = make_request(revision, recipe, overrides)
    commit = check(request, source)
    sweep_up(source.home, say)
    name, run = str(flow_run.get_name()), str(flow_run.get_id())
    with workspace(request, source, commit, name, flow_run=run, say=say) as space:
        return _do(stage, space, say)


def _do(stage: Stage, space: Workspace, say: Callable[[str], None]) -> str:
    """Run the stage in the workspace and push; return what dvc had to do."""
    variables = environment(space.folder)
    if not has_default_remote(space.folder):
        raise FlowError(NO_REMOTE)
    with turn(space, stage, say):
        report = run_stage(stage, space.folder, variables, space.logs)
    wait_for_server(say)
    # Even if nothing ran: an earlier run may have done it, and failed to push.
    push_results(stage, space.folder, variables, space.logs)
    return report.outcome


def check_pools(pools: Iterable[str]) -> None:
    """Raise FlowError unless the server of this run has the flow `stage` on each of `pools`."""
    wanted = set(pools)
    if wanted and not PREFECT_API_URL.value():
        raise FlowError(
            "placement needs a server with a worker for each pool: make server, make deploy, make"
            " agent POOL=..., and PREFECT_API_URL"
        )
    if missing := sorted(wanted - (known := _pools() if wanted else set())):
        names = ", ".join(sorted(known)) or "none"
        raise FlowError(
            f"placement: no deployment {FLOW}/{missing[0]} on the server; make deploy installs"
            f" them; it has these pools for stages: {names}"
        )


def _pools() -> set[str]:
    """Return the pools that stages can be placed on."""
    with get_client(sync_client=True) as client:
        ours = FlowFilter(name=FlowFilterName(any_=[FLOW]))
        return {deployment.name for deployment in client.read_deployments(flow_filter=ours)}


def run_on(pool: str, stage: Stage, request: RunRequest) -> bool:
    """Have a machine of `pool` do `stage`, and wait; return whether it was another run that did.

    `request.revision` must be a commit. A run that is itself in `pool` does nothing and returns
    False: it can do the stage itself, and would wait for ever in a pool that takes one run at a
    time. Otherwise what the stage made is in the default DVC remote afterwards. Raises FlowError
    with the other run's reason if that does not end well. When this run is stopped it stops the
    other one.
    """
    if pool == _own_pool():
        return False
    check_pools([pool])
    parameters = {"stage": stage, **request.model_dump(mode="json", exclude={"experiment"})}
    name, say = f"{flow_run.get_name()}-{stage}", get_run_logger().info
    say("stage %s: waiting for run %s on pool %s", stage, name, pool)
    # By its name it is ours, even if an earlier try of this very run has started it.
    state = run_all(f"{FLOW}/{pool}", {name: parameters}, None, say, cancel_joined=True)[name]
    if not state.is_completed():
        raise FlowError(f"stage {stage} on pool {pool}: run {name} is {_ended(state)}")
    return True


def _own_pool() -> str | None:
    """Return the work pool that this run is in; None if no worker started it."""
    with get_client(sync_client=True) as client:
        return client.read_flow_run(UUID(flow_run.get_id())).work_pool_name


def _ended(state: State[Any]) -> str:
    """Return the state's name and reason in words, without Prefect's own before it."""
    reason = (state.message or "").removeprefix("Flow run encountered an exception: ")
    reason = reason.removeprefix("StageError: ").removeprefix("FlowError: ")
    return f"{state.name}: {reason}" if reason else str(state.name)
