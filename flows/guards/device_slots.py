"""One training run per device: each device of this machine is a concurrency slot on the server.

Without a GPU, the CPU counts as one device or, with OMP_NUM_THREADS, as one for each training run
that fits on its cores.

A slot is a global concurrency limit of 1 that is held with a lease. The slots are the queue that
the UI shows under Concurrency: training waits for a free device instead of running out of memory.
They are only a queue: exclusive use of a device is guaranteed by the file lock that the train stage
itself takes (catdog/support/device_lock.py), with or without a server.
"""

import os
import re
import shutil
import socket
import subprocess
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import NamedTuple
from uuid import UUID, uuid4

import httpx
import psutil
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import GlobalConcurrencyLimitUpdate
from prefect.client.schemas.objects import ConcurrencyLeaseHolder
from prefect.concurrency.asyncio import ConcurrencySlotAcquisitionError
from prefect.concurrency.sync import concurrency
from prefect.context import FlowRunContext, TaskRunContext
from prefect.exceptions import ObjectNotFound, PrefectHTTPStatusError
from prefect.settings import PREFECT_API_URL

from flows.log import Log

LEASE_SECONDS = 60.0  # Prefect's minimum; the slot of a failed machine is released after it
POLL_SECONDS = 5.0
ORPHAN_POLLS = 8  # 40 s: the server frees the slots of expired leases every 15 s
SERVER_ERRORS = (httpx.HTTPError, PrefectHTTPStatusError)


class Device(NamedTuple):
    """A device: its short name, and the value of CUDA_VISIBLE_DEVICES that selects only it."""

    name: str
    visible: str | None = None

    @property
    def tag(self) -> str:
        """The device's name, unique among the machines of a server."""
        return f"catdog-{socket.gethostname()}-{self.name}"

    @property
    def limit(self) -> str:
        """The name of its concurrency limit.

        It is named `tag:...` because the server returns the holders of a limit only for such names,
        otherwise only the number of slots in use (no upstream issue found, searched 2026-11-30).
        """
        return f"tag:{self.tag}"

    @property
    def environment(self) -> dict[str, str]:
        """The environment variables that give a child process this device only."""
        return {} if self.visible is None else {"CUDA_VISIBLE_DEVICES": self.visible}


CPU = Device("cpu")


def devices() -> list[Device]:
    """Return the devices of this machine that training may use; without a GPU, those of the CPU.

    The GPUs are those in CUDA_VISIBLE_DEVICES if it is set, otherwise those that nvidia-smi lists.
    """
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    found = _gpus_from_nvidia_smi() if named is None else _gpus_from_environment(named)
    return found or _parts_of_cpu()


def _parts_of_cpu() -> list[Device]:
    """Return a device per training run that fits on the cores: one, unless OMP_NUM_THREADS is set.

    The number of cores is that of the locks of the stage `train`, which holds one core per thread.
    """
    wanted = os.environ.get("CATDOG_CORES", "")
    physical = psutil.cpu_count(logical=False) or psutil.cpu_count() or 1
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else physical
    cores = min(int(wanted) if wanted.isdecimal() else physical, usable)
    threads = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0]
    runs = max(1, cores // max(1, int(threads))) if threads.isdecimal() else 1
    return [Device(f"cpu-{number}") for number in range(1, runs + 1)] if runs > 1 else [CPU]


def _gpus_from_environment(named: str) -> list[Device]:
    """Return the devices in a value of CUDA_VISIBLE_DEVICES, up to the first negative number."""
    found: list[Device] = []
    for token in (part.strip() for part in named.split(",")):
        if not token or token.startswith("-"):
            break
        found.append(Device(f"gpu{token}" if token.isdigit() else token, token))
    return found


def _gpus_from_nvidia_smi() -> list[Device]:
    """Return the GPUs that nvidia-smi lists; for a GPU in MIG mode, its instances.

    They are selected by UUID, since nvidia-smi and CUDA may number the GPUs differently.
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
def device_slot(log: Log) -> Iterator[dict[str, str]]:
    """Hold one device of this machine; yield the variables that give it to a child process.

    Waits for a free device, and logs which runs hold them. Enter it in a task, in the main thread:
    the task run is recorded as the holder, and cancelling the run must end the wait. Yields an
    empty dictionary immediately if there are no slots (see `has_slots`). The body keeps running if
    the server becomes unreachable.
    """
    if not has_slots():
        yield {}
        return
    with ExitStack() as stack:
        yield _enter_first_free(devices(), log, stack).environment


def has_slots() -> bool:
    """Return whether devices have slots: with a server, unless CATDOG_DEVICE_SLOTS is `off`.

    `off` is for infrastructure that assigns devices to runs itself, such as Kubernetes.
    """
    return bool(PREFECT_API_URL.value()) and os.environ.get("CATDOG_DEVICE_SLOTS") != "off"


def _enter_first_free(found: Sequence[Device], log: Log, stack: ExitStack) -> Device:
    """Wait until a device is free, enter its slot, and return it."""
    logged = ""
    lost: Counter[str] = Counter()
    while True:
        taken = []
        for device in found:
            try:
                stack.enter_context(_slot(device, log))
                return device
            except (ConcurrencySlotAcquisitionError, *SERVER_ERRORS) as error:
                taken.append(f"{device.name} {_why_not_free(device, error, lost)}")
        if (text := "; ".join(taken)) != logged:
            log(f"waiting for a free device: {text}")
            logged = text
        time.sleep(POLL_SECONDS)


@contextmanager
def _slot(device: Device, log: Log) -> Iterator[None]:
    """Hold the slot of `device`; raise ConcurrencySlotAcquisitionError if it is not free."""
    with get_client(sync_client=True) as client:
        _create_limit(client, device)
    slot = concurrency(
        device.limit,
        max_retries=0,
        lease_duration=LEASE_SECONDS,
        holder=_holder(),
        raise_on_lease_renewal_failure=False,  # a server restart must not stop training
    )
    slot.__enter__()
    try:
        yield
    finally:
        # No `with` statement: an exception from an unreachable server would hide the exception of
        # the training.
        try:
            slot.__exit__(None, None, None)
        except SERVER_ERRORS:
            log(f"the slot of {device.name} was not released; it expires in {LEASE_SECONDS:g} s")


def _create_limit(client: SyncPrefectClient, device: Device) -> None:
    """Create the limit of `device` unless it exists, since a user may have set it to 0."""
    try:
        client.read_global_concurrency_limit_by_name(device.limit)
    except ObjectNotFound:
        client.create_concurrency_limit(device.tag, 1)


def _holder() -> ConcurrencyLeaseHolder:
    """Return this task run as the holder; the server returns holders of that type only."""
    task, flow = TaskRunContext.get(), FlowRunContext.get()
    run = task.task_run if task else flow.flow_run if flow else None
    return ConcurrencyLeaseHolder(type="task_run", id=run.id if run else uuid4())


def _why_not_free(device: Device, error: Exception, lost: Counter[str]) -> str:
    """Return why the slot of `device` could not be acquired, as text."""
    cause = error.__cause__
    if isinstance(cause, httpx.HTTPStatusError):
        if cause.response.status_code == httpx.codes.LOCKED:
            return f"is in use by {_holders_of(device, lost)}"
        if cause.response.status_code == httpx.codes.UNPROCESSABLE_ENTITY:
            return f"is disabled (the limit {device.limit} is 0)"
    return f"could not be requested ({PREFECT_API_URL.value()} does not respond)"


def _holders_of(device: Device, lost: Counter[str]) -> str:
    """Return the flow runs that hold `device`, as text; `lost` counts the polls without a holder.

    A server that keeps its leases in memory, which is Prefect's default, loses them when it stops,
    and the slots stay occupied forever. So a slot without a holder is freed after ORPHAN_POLLS.
    `make server` keeps leases in files. Upstream: https://github.com/PrefectHQ/prefect/pull/20091
    (closed unmerged) would make that the default;
    https://github.com/PrefectHQ/prefect/issues/17415 (open) is about orphaned slots in general.
    """
    try:
        with get_client(sync_client=True) as client:
            holders = client.read_concurrency_limit_by_tag(device.tag).active_slots
            lost[device.name] = 0 if holders else lost[device.name] + 1
            if lost[device.name] >= ORPHAN_POLLS:
                free = GlobalConcurrencyLimitUpdate(active_slots=0)
                client.update_global_concurrency_limit(device.limit, free)
            return (
                " and ".join(_run_of(client, holder) for holder in holders)
                or "a run that has ended"
            )
    except SERVER_ERRORS:
        return "another run"


def _run_of(client: SyncPrefectClient, holder: UUID) -> str:
    """Return the name of the flow run that a task run belongs to."""
    try:
        run = client.read_task_run(holder).flow_run_id or holder
    except ObjectNotFound:  # not recorded yet, or held by a flow run
        run = holder
    try:
        return f"run {client.read_flow_run(run).name}"
    except ObjectNotFound:
        return "another run"
