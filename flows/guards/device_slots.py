"""Which device a training may use: for each device of this machine one leased slot of the server.

The slots are the queue that people see (in the UI under Concurrency), so that a training waits for
a free device instead of failing on a full one. The truth on the machine is the file lock that a
training takes for itself: it holds without a server, and while the server is away.
"""

import os
import re
import shutil
import socket
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import NamedTuple
from uuid import UUID, uuid4

import httpx
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import GlobalConcurrencyLimitUpdate
from prefect.client.schemas.objects import ConcurrencyLeaseHolder
from prefect.concurrency.asyncio import ConcurrencySlotAcquisitionError
from prefect.concurrency.sync import concurrency
from prefect.context import FlowRunContext, TaskRunContext
from prefect.exceptions import ObjectNotFound, PrefectHTTPStatusError
from prefect.settings import PREFECT_API_URL

LEASE_SECONDS = 60.0  # the shortest that Prefect grants: a dead host's device is free after it
POLL_SECONDS = 5.0
LOST_LOOKS = 8  # 40 s: the server takes back the slot of an expired lease every 15 s
_NOT_ANSWERED = (httpx.HTTPError, PrefectHTTPStatusError)


class Device(NamedTuple):
    """A device by its short name, and what CUDA_VISIBLE_DEVICES must say to have it alone."""

    name: str
    visible: str | None = None

    @property
    def tag(self) -> str:
        """The device's name among the machines of a server."""
        return f"catdog-{socket.gethostname()}-{self.name}"

    @property
    def limit(self) -> str:
        """The name of its concurrency limit.

        Of a limit named `tag:...` the server tells who holds it, of any other only how many do.
        """
        return f"tag:{self.tag}"

    @property
    def environment(self) -> dict[str, str]:
        """The variables that give a child process this device and no other."""
        return {} if self.visible is None else {"CUDA_VISIBLE_DEVICES": self.visible}


def devices() -> list[Device]:
    """Return the devices of this machine that a training may use, at least the CPU.

    CUDA_VISIBLE_DEVICES chooses among the GPUs, as everywhere; otherwise nvidia-smi lists them.
    """
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    found = _listed() if named is None else _visible(named)
    return found or [Device("cpu")]


def _visible(named: str) -> list[Device]:
    """Return the devices that a value of CUDA_VISIBLE_DEVICES names; it ends at a negative one."""
    found: list[Device] = []
    for token in (part.strip() for part in named.split(",")):
        if not token or token.startswith("-"):
            break
        found.append(Device(f"gpu{token}" if token.isdigit() else token, token))
    return found


def _listed() -> list[Device]:
    """Return the GPUs (the parts of those that are split by MIG) that nvidia-smi lists.

    By UUID: the numbers of nvidia-smi need not be those of CUDA.
    """
    if shutil.which("nvidia-smi") is None:
        return []
    done = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, check=False)
    pattern = r"^(?:GPU (\d+):|\s+MIG .*Device +(\d+):).*\(UUID: (\S+)\)"
    found: list[Device] = []
    for gpu, part, identity in re.findall(pattern, done.stdout, re.MULTILINE):
        if gpu:
            whole = Device(f"gpu{gpu}", identity)
            found.append(whole)
        else:
            found = [device for device in found if device is not whole]
            found.append(Device(f"{whole.name}-mig{part}", identity))
    return found


@contextmanager
def device_slot(say: Callable[[str], None]) -> Iterator[dict[str, str]]:
    """Hold one device of this machine; yield the variables that give it to a child process.

    Waits for a free one, and says who has them. Enter it in a task, in the main thread: the task
    run is on record as the holder, and a cancelled run must get out of the wait. Without a server
    there is nobody to share with, and nothing to set. A server that goes away does not end what
    runs in the context.
    """
    if not has_slots():
        yield {}
        return
    with ExitStack() as stack:
        yield _first_free(devices(), say, stack).environment


def has_slots() -> bool:
    """Return whether there is a queue for devices: on a server, and not switched off.

    CATDOG_DEVICE_SLOTS=off is for what gives each run a device of its own, as Kubernetes does.
    """
    return bool(PREFECT_API_URL.value()) and os.environ.get("CATDOG_DEVICE_SLOTS") != "off"


def _first_free(found: Sequence[Device], say: Callable[[str], None], stack: ExitStack) -> Device:
    """Enter the slot of the first device that is free, sooner or later, and return it."""
    told = ""
    lost: Counter[str] = Counter()
    while True:
        taken = []
        for device in found:
            try:
                stack.enter_context(_slot(device, say))
                return device
            except (ConcurrencySlotAcquisitionError, *_NOT_ANSWERED) as error:
                taken.append(f"{device.name} {_why_not(device, error, lost)}")
        if (text := "; ".join(taken)) != told:
            say(f"{text}: waiting")
            told = text
        time.sleep(POLL_SECONDS)


@contextmanager
def _slot(device: Device, say: Callable[[str], None]) -> Iterator[None]:
    """Hold the slot of `device`; ConcurrencySlotAcquisitionError if it cannot be had at once."""
    with get_client(sync_client=True) as client:
        _create_limit(client, device)
    slot = concurrency(
        device.limit,
        max_retries=0,
        lease_duration=LEASE_SECONDS,
        holder=_holder(),
        raise_on_lease_renewal_failure=False,  # a server that restarts must not end a training
    )
    slot.__enter__()
    try:
        yield
    finally:
        # Not by `with`: what a server that is away raises here would take the place of how the
        # training ended.
        try:
            slot.__exit__(None, None, None)
        except _NOT_ANSWERED:
            say(f"{device.name} could not be given back; it comes free in {LEASE_SECONDS:g} s")


def _create_limit(client: SyncPrefectClient, device: Device) -> None:
    """Create the limit of `device` unless there is one; somebody may have closed it with 0."""
    try:
        client.read_global_concurrency_limit_by_name(device.limit)
    except ObjectNotFound:
        client.create_concurrency_limit(device.tag, 1)


def _holder() -> ConcurrencyLeaseHolder:
    """Return who takes the slot: this task run. The server shows holders of that type only."""
    task, flow = TaskRunContext.get(), FlowRunContext.get()
    run = task.task_run if task else flow.flow_run if flow else None
    return ConcurrencyLeaseHolder(type="task_run", id=run.id if run else uuid4())


def _why_not(device: Device, error: Exception, lost: Counter[str]) -> str:
    """Say in words why the slot of `device` was not to be had."""
    refusal = error.__cause__
    if isinstance(refusal, httpx.HTTPStatusError):
        if refusal.response.status_code == httpx.codes.LOCKED:
            return f"is taken by {_who_has(device, lost)}"
        if refusal.response.status_code == httpx.codes.UNPROCESSABLE_ENTITY:
            return f"is closed (the limit {device.limit} is 0)"
    return f"cannot be asked for (no answer from {PREFECT_API_URL.value()})"


def _who_has(device: Device, lost: Counter[str]) -> str:
    """Return in words which flow run holds `device`; `lost` counts the looks that found nobody.

    A server that keeps its leases in memory leaves, when it ends, slots in use for good: without a
    lease that could end. So one that has none for longer than an expired lease can linger is freed.
    """
    try:
        with get_client(sync_client=True) as client:
            holders = client.read_concurrency_limit_by_tag(device.tag).active_slots
            lost[device.name] = 0 if holders else lost[device.name] + 1
            if lost[device.name] >= LOST_LOOKS:
                free = GlobalConcurrencyLimitUpdate(active_slots=0)
                client.update_global_concurrency_limit(device.limit, free)
            return " and ".join(_run_of(client, holder) for holder in holders) or "a run that ended"
    except _NOT_ANSWERED:
        return "another run"


def _run_of(client: SyncPrefectClient, holder: UUID) -> str:
    """Return the name of the flow run that a task run belongs to."""
    try:
        run = client.read_task_run(holder).flow_run_id or holder
    except ObjectNotFound:  # not recorded yet, or held by the flow itself
        run = holder
    try:
        return f"run {client.read_flow_run(run).name}"
    except ObjectNotFound:
        return "another run"
