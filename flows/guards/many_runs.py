"""Start many runs of one deployment, wait for them, and cancel them if the waiting flow is stopped.

All of it in the calling thread, since Prefect raises the exception of a cancelled flow in the main
thread only.
"""

import re
import signal
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
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
from prefect.settings import PREFECT_API_URL, PREFECT_CLIENT_MAX_RETRIES, temporary_settings
from prefect.states import Cancelling, Crashed
from pydantic import Field

from flows.errors import FlowError
from flows.log import Log

POLL_SECONDS = 3.0
PAGE_SIZE = 200  # the most runs that the server returns in one answer
DEPLOYMENT = r"^[^/]+/[^/]+$"  # FLOW/NAME
Deployment = Annotated[str, Field(pattern=DEPLOYMENT)]
Parameters = Mapping[str, Any]
NOT_ANSWERED = (httpx.TransportError, PrefectHTTPStatusError)


def run_all(
    deployment: str,
    runs: Mapping[str, Parameters],
    at_once: int | None,
    log: Log,
    cancel_joined: bool = False,
) -> dict[str, State[Any]]:
    """Run `deployment` once for each item of `runs` (name: parameters); return the final states.

    At most `at_once` runs are active at the same time (None: as many as the agents take). If an
    unfinished run with the same name and parameters exists, it is joined instead of starting
    another. A failed run does not stop the others. If this flow is interrupted, the runs that it
    started are cancelled and, with `cancel_joined`, those that it joined. Requests are repeated
    while the server does not answer. Raises FlowError if the server has no such deployment.
    """
    found = find_deployment(deployment)
    _warn_without_agent(found, log)
    run_set = _RunSet(deployment, runs, at_once or len(runs), log)
    run_set.join(_already_running(found, runs))
    answers = True
    try:
        while run_set.unfinished:
            try:
                run_set.step()
                answers = True
            except NOT_ANSWERED as error:
                if isinstance(error, PrefectHTTPStatusError) and error.response.status_code < 500:
                    raise
                if answers:
                    log(f"the server does not answer ({type(error).__name__}); trying again")
                answers = False
            time.sleep(POLL_SECONDS)
    except BaseException:
        cancel([*run_set.started, *(run_set.joined if cancel_joined else [])])
        raise
    return run_set.ended


class _RunSet:
    """The runs that still have to start, those in progress, and the final states of the others."""

    def __init__(
        self, deployment: str, runs: Mapping[str, Parameters], at_once: int, log: Log
    ) -> None:
        self.deployment, self.runs, self.at_once, self.log = deployment, runs, at_once, log
        self.not_started = list(runs)
        self.started: dict[UUID, str] = {}
        self.joined: dict[UUID, str] = {}
        self.running: set[UUID] = set()
        self.ended: dict[str, State[Any]] = {}

    @property
    def unfinished(self) -> bool:
        """Whether a run has not ended yet."""
        return len(self.ended) < len(self.runs)

    def join(self, others: Mapping[UUID, str]) -> None:
        """Wait for these runs instead of starting new ones of the same names."""
        for run, name in others.items():
            self.log(f"{name}: already running; waiting for it")
            self.joined[run] = name
            self.not_started.remove(name)

    def step(self) -> None:
        """Start as many runs as allowed, and update the states of those in progress."""
        while self.not_started and len(self.started) + len(self.joined) < self.at_once:
            name = self.not_started[0]
            with _delayed_interrupt():  # a run that is not in `started` yet would not be cancelled
                self.started[_start(self.deployment, name, self.runs[name])] = name
            self.not_started.remove(name)
        for run, state in _states([*self.started, *self.joined]).items():
            name = self.started[run] if run in self.started else self.joined[run]
            if state.is_final():
                self.ended[name] = state
                self.log(f"{name}: {state.name} ({len(self.ended)} of {len(self.runs)})")
                self.started.pop(run, None)
                self.joined.pop(run, None)
            elif state.is_running() and run not in self.running:
                self.running.add(run)
                self.log(f"{name}: {state.name}")


def find_deployment(name: str) -> DeploymentResponse:
    """Return the deployment FLOW/NAME; FlowError if the server has none."""
    with get_client(sync_client=True) as client:
        try:
            return client.read_deployment_by_name(name)
        except ObjectNotFound:
            raise FlowError(
                f"deployment: {name!r} is not on the server at {PREFECT_API_URL.value()};"
                " install it with make deploy"
            ) from None


def cancel(runs: Iterable[UUID]) -> None:
    """Cancel flow runs; those that no agent has taken yet end at once.

    A run that cannot be cancelled or does not exist is skipped. Does nothing if the server does not
    answer.
    """
    cancelling: State[Any] = Cancelling(message="the flow that waited for this run was stopped")
    with suppress(httpx.TransportError), get_client(sync_client=True) as client:
        for run in runs:
            with suppress(PrefectHTTPStatusError, ObjectNotFound):
                client.set_flow_run_state(run, cancelling)


@contextmanager
def _delayed_interrupt() -> Iterator[None]:
    """Delay SIGINT and SIGTERM until the end of the block."""
    if threading.current_thread() is not threading.main_thread():  # it gets no signals
        yield
        return
    received: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        received.append(number)

    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        if received:
            signal.raise_signal(received[0])


def _start(deployment: str, name: str, parameters: Parameters) -> UUID:
    """Start a run; return its id. Sends one request only, since an interrupt has to wait for it."""
    with temporary_settings({PREFECT_CLIENT_MAX_RETRIES: 0}):
        run = run_deployment(
            deployment,
            parameters=dict(parameters),
            flow_run_name=name,
            timeout=0,
            # If the answer is lost, the same request starts no second run. A retry of this flow
            # run does start new ones.
            idempotency_key=f"{flow_run.id}-{flow_run.run_count}-{name}",
        )
    assert isinstance(run, FlowRun)  # a coroutine in async code only
    return run.id


def _states(runs: Sequence[UUID]) -> dict[UUID, State[Any]]:
    """Return the states of the runs that have one; a deleted run counts as crashed."""
    states: dict[UUID, State[Any] | None] = dict.fromkeys(
        runs, Crashed(message="the run was deleted")
    )
    with get_client(sync_client=True) as client:
        for first in range(0, len(runs), PAGE_SIZE):
            these = FlowRunFilter(id=FlowRunFilterId(any_=list(runs[first : first + PAGE_SIZE])))
            found = client.read_flow_runs(flow_run_filter=these, limit=PAGE_SIZE)
            states |= {run.id: run.state for run in found}
    return {run: state for run, state in states.items() if state}


def _already_running(
    deployment: DeploymentResponse, runs: Mapping[str, Parameters]
) -> dict[UUID, str]:
    """Return unfinished runs with the names and parameters of `runs`, as a killed flow leaves."""
    ended = [*TERMINAL_STATES, StateType.CANCELLING]
    named = FlowRunFilter(
        name=FlowRunFilterName(any_=list(runs)),
        state=FlowRunFilterState(type=FlowRunFilterStateType(not_any_=ended)),
    )
    of_it = DeploymentFilter(id=DeploymentFilterId(any_=[deployment.id]))
    with get_client(sync_client=True) as client:
        found = client.read_flow_runs(flow_run_filter=named, deployment_filter=of_it)
    same = {
        run.name: run.id
        for run in found
        if all(run.parameters.get(key) == value for key, value in runs[run.name].items())
    }
    return {run: name for name, run in same.items()}


def state_message(state: State[Any]) -> str:
    """Return the message of a run's state, without the prefix that Prefect adds to an error."""
    prefix = r"^Flow run encountered an exception: ((Flow|Stage)Error: )?"
    return re.sub(prefix, "", state.message or "")


def _warn_without_agent(deployment: DeploymentResponse, log: Log) -> None:
    """Log the command that starts an agent if none is online in the deployment's pool."""
    pool = deployment.work_pool_name
    if pool and not _has_agent(pool):
        with get_client(sync_client=True) as client:
            process = client.read_work_pool(pool).type == "process"
        start = f"make agent POOL={pool}" if process else f"prefect worker start --pool {pool}"
        log(f"no agent of pool {pool} is online; the runs wait until one starts: {start}")


def _has_agent(pool: str) -> bool:
    with get_client(sync_client=True) as client:
        workers = client.read_workers_for_work_pool(pool)
    return any(worker.status == "ONLINE" for worker in workers)
