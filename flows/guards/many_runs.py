"""Many runs of one deployment at once: started, waited for, and cancelled with the flow that waits.

All in the calling thread: only the main one is told that a flow is cancelled.
"""

import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Annotated, Any
from uuid import UUID

import httpx
from prefect import State
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import (
    DeploymentFilter,
    DeploymentFilterId,
    FlowRunFilter,
    FlowRunFilterId,
    FlowRunFilterName,
    FlowRunFilterState,
    FlowRunFilterStateType,
)
from prefect.client.schemas.objects import TERMINAL_STATES, FlowRun, StateType
from prefect.client.schemas.responses import DeploymentResponse
from prefect.deployments import run_deployment
from prefect.exceptions import ObjectNotFound, PrefectHTTPStatusError
from prefect.runtime import flow_run
from prefect.settings import PREFECT_CLIENT_MAX_RETRIES, temporary_settings
from prefect.states import Cancelling, Crashed
from pydantic import Field

from flows.errors import FlowError

POLL_SECONDS = 3.0
MOST_READ = 200  # what the server gives in one answer
DEPLOYMENT = r"^[^/]+/[^/]+$"  # FLOW/NAME
Deployment = Annotated[str, Field(pattern=DEPLOYMENT)]
Parameters = Mapping[str, Any]
Say = Callable[[str], None]
UNREACHABLE = (httpx.TransportError, PrefectHTTPStatusError)


def run_all(
    deployment: str,
    runs: Mapping[str, Parameters],
    at_once: int | None,
    say: Say,
    cancel_joined: bool = False,
) -> dict[str, State[Any]]:
    """Run `deployment` once with each of `runs`, name: parameters; return the final states.

    At most `at_once` run at the same time; None leaves that to the agents. A run of the same name
    and parameters that another flow has started is waited for instead, and one that fails stops
    none of the others. When this flow is interrupted, its runs are cancelled, and with
    `cancel_joined` those of the other flow; a server that does not answer is asked again. Raises
    FlowError if it has no such deployment.
    """
    found = find_deployment(deployment)
    _tell_without_agent(found, say)
    crowd = _Crowd(deployment, runs, at_once or len(runs), say)
    crowd.join(_already_running(found, runs))
    answers = True
    try:
        while crowd.unfinished:
            try:
                crowd.step()
                answers = True
            except UNREACHABLE as error:
                if isinstance(error, PrefectHTTPStatusError) and error.response.status_code < 500:
                    raise
                if answers:
                    say(f"the server does not answer ({type(error).__name__}); asking it again")
                answers = False
            time.sleep(POLL_SECONDS)
    except BaseException:
        cancel([*crowd.ours, *(crowd.others if cancel_joined else [])])
        raise
    return crowd.ended


class _Crowd:
    """Which of the runs wait, which are under way, and which have ended."""

    def __init__(
        self, deployment: str, runs: Mapping[str, Parameters], at_once: int, say: Say
    ) -> None:
        self.deployment, self.runs, self.at_once, self.say = deployment, runs, at_once, say
        self.waiting = list(runs)
        self.ours: dict[UUID, str] = {}
        self.others: dict[UUID, str] = {}
        self.begun: set[UUID] = set()
        self.ended: dict[str, State[Any]] = {}

    @property
    def unfinished(self) -> bool:
        """Whether there is something to do or to wait for."""
        return len(self.ended) < len(self.runs)

    def join(self, others: Mapping[UUID, str]) -> None:
        """Wait for these runs instead of starting ours of the same names."""
        for run, name in others.items():
            self.say(f"{name}: is running already; waiting for it")
            self.others[run] = name
            self.waiting.remove(name)

    def step(self) -> None:
        """Start what there is room for, and see what has ended."""
        while self.waiting and len(self.ours) + len(self.others) < self.at_once:
            name = self.waiting[0]
            with _interrupted_later():  # a run that is not in `ours` yet would not be cancelled
                self.ours[_start(self.deployment, name, self.runs[name])] = name
            self.waiting.remove(name)
        for run, state in _states([*self.ours, *self.others]).items():
            name = self.ours[run] if run in self.ours else self.others[run]
            if state.is_final():
                self.ended[name] = state
                self.say(f"{name}: {state.name} ({len(self.ended)} of {len(self.runs)})")
                self.ours.pop(run, None)
                self.others.pop(run, None)
            elif state.is_running() and run not in self.begun:
                self.begun.add(run)
                self.say(f"{name}: {state.name}")


def find_deployment(name: str) -> DeploymentResponse:
    """Return the deployment FLOW/NAME; FlowError if the server has none."""
    with get_client(sync_client=True) as client:
        try:
            return client.read_deployment_by_name(name)
        except ObjectNotFound:
            raise FlowError(
                f"deployment: the server has no {name!r}; run make deploy"
                " (PREFECT_API_URL says which server is meant)"
            ) from None


def cancel(runs: Iterable[UUID]) -> None:
    """Cancel flow runs, if the server answers; those that no agent has taken yet end at once.

    One that cannot be cancelled, or is gone, keeps none of the others from it.
    """
    with suppress(httpx.TransportError), get_client(sync_client=True) as client:
        for run in runs:
            with suppress(PrefectHTTPStatusError, ObjectNotFound):
                client.set_flow_run_state(run, Cancelling(message="who waited for it was stopped"))


@contextmanager
def _interrupted_later() -> Iterator[None]:
    """Put SIGINT and SIGTERM off to the end of the block."""
    if threading.current_thread() is not threading.main_thread():  # it is told of none
        yield
        return
    came: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        came.append(number)

    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        if came:
            signal.raise_signal(came[0])


def _start(deployment: str, name: str, parameters: Parameters) -> UUID:
    """Start a run; return its id. A server that is away is asked once: an interrupt has to wait."""
    with temporary_settings({PREFECT_CLIENT_MAX_RETRIES: 0}):
        run = run_deployment(
            deployment,
            parameters=dict(parameters),
            flow_run_name=name,
            timeout=0,
            # Asked a second time, when the answer was lost, the server starts no second run; but
            # it does when somebody has this run tried again.
            idempotency_key=f"{flow_run.id}-{flow_run.run_count}-{name}",
        )
    assert isinstance(run, FlowRun)  # and no coroutine: this is no async code
    return run.id


def _states(runs: Sequence[UUID]) -> dict[UUID, State[Any]]:
    """Return the states of the runs that have one; a deleted run has ended."""
    states: dict[UUID, State[Any] | None] = dict.fromkeys(
        runs, Crashed(message="somebody deleted the run")
    )
    with get_client(sync_client=True) as client:
        for first in range(0, len(runs), MOST_READ):
            these = FlowRunFilter(id=FlowRunFilterId(any_=list(runs[first : first + MOST_READ])))
            found = client.read_flow_runs(flow_run_filter=these, limit=MOST_READ)
            states |= {run.id: run.state for run in found}
    return {run: state for run, state in states.items() if state}


def _already_running(
    deployment: DeploymentResponse, runs: Mapping[str, Parameters]
) -> dict[UUID, str]:
    """Return the unfinished runs that do what `runs` ask: a flow that was killed leaves such."""
    over = [*TERMINAL_STATES, StateType.CANCELLING]
    alike = FlowRunFilter(
        name=FlowRunFilterName(any_=list(runs)),
        state=FlowRunFilterState(type=FlowRunFilterStateType(not_any_=over)),
    )
    of_it = DeploymentFilter(id=DeploymentFilterId(any_=[deployment.id]))
    with get_client(sync_client=True) as client:
        found = client.read_flow_runs(flow_run_filter=alike, deployment_filter=of_it)
    same = {
        run.name: run.id
        for run in found
        if all(run.parameters.get(key) == value for key, value in runs[run.name].items())
    }
    return {run: name for name, run in same.items()}


def _tell_without_agent(deployment: DeploymentResponse, say: Say) -> None:
    pool = deployment.work_pool_name
    if pool and not _has_agent(pool):
        with get_client(sync_client=True) as client:
            ours = client.read_work_pool(pool).type == "process"
        start = f"make agent POOL={pool}" if ours else f"prefect worker start --pool {pool}"
        say(f"no agent of pool {pool} is online; the runs wait for one ({start})")


def _has_agent(pool: str) -> bool:
    with get_client(sync_client=True) as client:
        workers = client.read_workers_for_work_pool(pool)
    return any(worker.status == "ONLINE" for worker in workers)
