"""Flow runs as the Prefect server knows them: create one, read its state and its log."""

import uuid
from typing import TYPE_CHECKING, Any

from tools.prefect_services import wait_for

if TYPE_CHECKING:  # importing Prefect takes a second, which tests without a server need not wait
    from prefect.client.schemas.objects import FlowRun, State


def run_deployment_now(name: str, **parameters: Any) -> "FlowRun":
    """Create a run of the deployment `name` for a worker, and return it without waiting."""
    from prefect.client.schemas.objects import FlowRun
    from prefect.deployments import run_deployment

    run = run_deployment(name, parameters=parameters, timeout=0)
    assert isinstance(run, FlowRun)
    return run


def state_of(run_id: uuid.UUID) -> "State[Any]":
    """Return the current state of a flow run."""
    from prefect.client.orchestration import get_client

    with get_client(sync_client=True) as client:
        state = client.read_flow_run(run_id).state
    assert state is not None
    return state


def wait_for_end(run_id: uuid.UUID, seconds: float = 600) -> "State[Any]":
    """Wait until a flow run has ended; return its final state."""
    wait_for(lambda: state_of(run_id).is_final(), seconds)
    return state_of(run_id)


def log_of(run_id: uuid.UUID) -> list[str]:
    """Return the log lines of a flow run and its tasks that the server has so far."""
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import LogFilter, LogFilterFlowRunId
    from prefect.client.schemas.sorting import LogSort

    only = LogFilter(flow_run_id=LogFilterFlowRunId(any_=[run_id]))
    lines: list[str] = []
    with get_client(sync_client=True) as client:
        while page := client.read_logs(only, offset=len(lines), sort=LogSort.TIMESTAMP_ASC):
            lines += [log.message for log in page]
    return lines
