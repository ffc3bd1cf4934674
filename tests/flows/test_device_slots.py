"""Device slots: which device a run gets, which run it waits for, and when a slot is freed."""

import itertools
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import GlobalConcurrencyLimitUpdate
from prefect.exceptions import ObjectNotFound
from prefect.settings import PREFECT_API_URL, PREFECT_CLIENT_MAX_RETRIES, temporary_settings

from flows.guards import device_slots
from flows.guards.device_slots import Device, device_slot, devices
from tools.prefect_services import Server, Service, wait_for

# Output of `nvidia-smi -L`: two GPUs, the second with two MIG instances.
LISTED = """\
GPU 0: NVIDIA A100-SXM4-40GB (UUID: GPU-5f2e)
GPU 1: NVIDIA A100-SXM4-40GB (UUID: GPU-c0de)
  MIG 3g.20gb     Device  0: (UUID: MIG-1111)
  MIG 3g.20gb     Device  1: (UUID: MIG-2222)
"""

# A run that holds a device until the file `go` exists.
HOLD = """\
import sys, time
from pathlib import Path
from prefect import flow, task
from flows.guards.device_slots import device_slot

@task
def train(name: str, folder: Path) -> None:
    with device_slot(lambda line: print(line, flush=True)) as environment:
        # Renamed into place, so that the file is complete as soon as it exists.
        (folder / "new").mkdir(exist_ok=True)
        (folder / "new" / name).write_text(environment.get("CUDA_VISIBLE_DEVICES", "none"))
        (folder / "new" / name).rename(folder / name)
        while not (folder / "go").exists():
            time.sleep(0.1)

@flow(flow_run_name=sys.argv[1])
def run() -> None:
    train(sys.argv[1], Path(sys.argv[2]))

run()
"""


@pytest.fixture(autouse=True)
def one_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hide the GPUs of this machine, and make polling fast and limited."""
    polls = itertools.count(1)

    def poll(_: float) -> None:
        if next(polls) > 100:
            pytest.fail("no device became free")
        time.sleep(0.05)

    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.setattr(device_slots, "time", SimpleNamespace(sleep=poll))


@pytest.fixture
def hold(prefect_server: Server, tmp_path: Path) -> Iterator[Callable[..., Service]]:
    """Start a run of the given name that holds a device until the test creates the file `go`."""
    runs: list[Service] = []

    def start(name: str, **variables: str) -> Service:
        command = [sys.executable, "-c", HOLD, name, str(tmp_path)]
        variables = {"PREFECT_API_URL": prefect_server.url, **variables}
        runs.append(Service(command, tmp_path / f"home of {name}", **variables))
        runs[-1].start()
        return runs[-1]

    yield start
    for run in runs:
        run.kill()


def in_use(device: Device) -> int:
    with get_client(sync_client=True) as client:
        return int(client.read_global_concurrency_limit_by_name(device.limit).active_slots)


def change(device: Device, **fields: int) -> None:
    with get_client(sync_client=True) as client:
        update = GlobalConcurrencyLimitUpdate.model_validate(fields)
        client.update_global_concurrency_limit(device.limit, update)


@pytest.mark.parametrize(
    ("visible", "expected"),
    [
        ("0,2", [Device("gpu0", "0"), Device("gpu2", "2")]),
        ("GPU-5f2e", [Device("GPU-5f2e", "GPU-5f2e")]),
        ("1,-1,0", [Device("gpu1", "1")]),  # CUDA ignores everything after a negative number
        ("", [Device("cpu")]),
        ("-1", [Device("cpu")]),
    ],
)
def test_cuda_visible_devices_selects_the_devices(
    monkeypatch: pytest.MonkeyPatch, visible: str, expected: list[Device]
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert devices() == expected


def test_nvidia_smi_lists_the_devices_with_mig_instances_instead_of_their_gpu(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "nvidia-smi").write_text(f"#!/bin/sh\ncat <<'END'\n{LISTED}END\n")
    (tmp_path / "nvidia-smi").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    assert devices() == [
        Device("gpu0", "GPU-5f2e"),
        Device("gpu1-mig0", "MIG-1111"),
        Device("gpu1-mig1", "MIG-2222"),
    ]


def test_without_nvidia_smi_the_cpu_is_the_device(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    assert devices() == [Device("cpu")]


@pytest.mark.skipif(
    sys.platform != "linux" or len(os.sched_getaffinity(0)) < 2, reason="needs Linux and two cores"
)
@pytest.mark.parametrize(
    ("cores", "threads", "expected"),
    [
        ("2", "1", [Device("cpu-1"), Device("cpu-2")]),
        ("2", "1,1", [Device("cpu-1"), Device("cpu-2")]),  # threads of nested parallel regions
        ("2", "2", [Device("cpu")]),
        ("2", "8", [Device("cpu")]),
        ("2", None, [Device("cpu")]),  # training uses all cores
        ("1", "1", [Device("cpu")]),
    ],
)
def test_the_cpu_is_as_many_devices_as_training_runs_fit_on_its_cores(
    monkeypatch: pytest.MonkeyPatch, cores: str, threads: str | None, expected: list[Device]
) -> None:
    monkeypatch.setenv("CATDOG_CORES", cores)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if threads:
        monkeypatch.setenv("OMP_NUM_THREADS", threads)
    assert devices() == expected


def test_without_a_server_there_are_no_slots(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "7")
    with temporary_settings({PREFECT_API_URL: None}), device_slot(pytest.fail) as environment:
        assert environment == {}


def test_free_device_is_taken_without_a_message_and_released(
    prefect_server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "7")
    device = Device("gpu7", "7")
    with device_slot(pytest.fail) as environment:
        assert environment == {"CUDA_VISIBLE_DEVICES": "7"}
        assert in_use(device) == 1
    assert in_use(device) == 0
    with pytest.raises(ZeroDivisionError), device_slot(pytest.fail):
        raise ZeroDivisionError
    assert in_use(device) == 0


def test_second_run_logs_which_run_it_waits_for_and_continues_when_that_ends(
    hold: Callable[..., Service], tmp_path: Path
) -> None:
    first = hold("first")
    wait_for((tmp_path / "first").exists)
    second = hold("second")
    wait_for(lambda: "waiting" in second.log() or (tmp_path / "second").exists())
    assert "waiting for a free device: cpu is in use by run first\n" in second.log()
    assert not (tmp_path / "second").exists()
    (tmp_path / "go").touch()
    for run in (first, second):
        assert run.process is not None
        assert run.process.wait(timeout=60) == 0, run.log()
    assert (tmp_path / "second").read_text() == "none"  # the CPU needs no variable
    assert second.log().count("waiting") == 1


def test_two_runs_get_one_device_each_and_a_third_waits_for_both(
    hold: Callable[..., Service], tmp_path: Path
) -> None:
    first, second = (hold(name, CUDA_VISIBLE_DEVICES="3,4") for name in ("first", "second"))
    for name in ("first", "second"):
        wait_for((tmp_path / name).exists)
    assert {(tmp_path / name).read_text() for name in ("first", "second")} == {"3", "4"}
    third = hold("third", CUDA_VISIBLE_DEVICES="3,4")
    wait_for(lambda: "waiting" in third.log() or (tmp_path / "third").exists())
    assert "run first" in third.log()
    assert "run second" in third.log()
    (tmp_path / "go").touch()
    for run in (first, second, third):
        assert run.process is not None
        assert run.process.wait(timeout=60) == 0, run.log()


@pytest.mark.slow
def test_device_of_a_killed_run_is_freed_when_its_lease_expires(
    hold: Callable[..., Service], tmp_path: Path
) -> None:
    dead = hold("dead")
    wait_for((tmp_path / "dead").exists)
    wait_for(lambda: in_use(Device("cpu")))
    dead.kill()
    living = hold("living")
    wait_for(lambda: "cpu is in use by run dead" in living.log())
    wait_for((tmp_path / "living").exists, 300)


def test_slot_without_a_lease_is_freed(prefect_server: Server) -> None:
    """A server that keeps its leases in memory leaves such slots when it stops."""
    device = Device("cpu")
    with device_slot(pytest.fail):
        pass
    change(device, active_slots=1)
    logged: list[str] = []
    with device_slot(logged.append):
        assert in_use(device) == 1
    assert logged == ["waiting for a free device: cpu is in use by a run that has ended"]
    assert in_use(device) == 0


def test_run_waits_for_a_device_with_a_limit_of_zero(prefect_server: Server) -> None:
    device = Device("cpu")
    with device_slot(pytest.fail):
        pass
    change(device, limit=0)
    logged: list[str] = []

    def raise_limit(line: str) -> None:
        logged.append(line)
        change(device, limit=1)

    with device_slot(raise_limit):
        assert in_use(device) == 1
    assert logged == [f"waiting for a free device: cpu is disabled (the limit {device.limit} is 0)"]


def test_unreachable_server_at_the_end_of_a_training_does_not_hide_its_error(
    prefect_server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "8")
    logged: list[str] = []
    try:
        with pytest.raises(ZeroDivisionError), device_slot(logged.append):
            prefect_server.stop()
            raise ZeroDivisionError
    finally:
        prefect_server.start()
    assert logged == ["the slot of gpu8 was not released; it expires in 60 s"]


def test_slots_can_be_switched_off(prefect_server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "9")
    monkeypatch.setenv("CATDOG_DEVICE_SLOTS", "off")
    with device_slot(pytest.fail) as environment:
        assert environment == {}
    with pytest.raises(ObjectNotFound):
        in_use(Device("gpu9", "9"))


def test_server_that_does_not_answer_is_named_in_the_log() -> None:
    def stop(line: str) -> None:
        raise InterruptedError(line)

    nowhere = {PREFECT_API_URL: "http://127.0.0.1:9/api", PREFECT_CLIENT_MAX_RETRIES: 0}
    with temporary_settings(nowhere), pytest.raises(InterruptedError) as error, device_slot(stop):
        pass
    assert str(error.value) == (
        "waiting for a free device: cpu could not be requested"
        " (http://127.0.0.1:9/api does not respond)"
    )
