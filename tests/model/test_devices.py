"""The choice of device and precision."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from catdog.errors import CatdogError
from catdog.model.devices import describe, pick_device
from catdog.params import Precision

CPUINFO = Path("/proc/cpuinfo")


@pytest.fixture(autouse=True)
def without_device_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CATDOG_DEVICE", raising=False)


@pytest.mark.parametrize(
    ("precision", "dtype"), [("float32", torch.float32), ("bfloat16", torch.bfloat16)]
)
def test_matrix_products_run_in_the_requested_precision(
    precision: Precision, dtype: torch.dtype
) -> None:
    device = pick_device(precision, "cpu")
    layer, inputs = torch.nn.Linear(4, 4), torch.rand(2, 4)
    with device.autocast():
        assert layer(inputs).dtype == dtype
    assert layer.weight.dtype == torch.float32
    assert device.reason == f"train.precision is {precision}"


@pytest.mark.skipif(not CPUINFO.exists(), reason="requires /proc/cpuinfo")
def test_auto_is_bfloat16_if_the_cpu_supports_it() -> None:
    native = re.search(r"^flags.*\b(avx512_bf16|amx_tile)\b", CPUINFO.read_text(), re.MULTILINE)
    device = pick_device("auto", "cpu")
    assert device.dtype == (torch.bfloat16 if native else torch.float32)
    assert ("does not support" in device.reason) == (native is None)


def test_the_environment_selects_a_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CATDOG_DEVICE", "cpu")
    assert pick_device().torch_device == torch.device("cpu")


def test_an_argument_overrides_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CATDOG_DEVICE", "no-such-device")
    assert pick_device(name="cpu").torch_device == torch.device("cpu")


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a CUDA device")
def test_without_cuda_the_default_is_mps_or_the_cpu() -> None:
    expected = "mps" if torch.backends.mps.is_available() else "cpu"
    assert pick_device().torch_device.type == expected


@pytest.mark.skipif(not torch.cuda.is_available(), reason="requires a CUDA device")
def test_the_default_is_a_cuda_device() -> None:
    device = pick_device()
    assert device.torch_device.type == "cuda"
    native = torch.cuda.get_device_capability() >= (8, 0)
    assert device.dtype == (torch.bfloat16 if native else torch.float32)


@pytest.mark.parametrize(
    "name", ["no-such-device", "gpu", "xpu", "vulkan", "cpu:x", "cpu,cuda", "CUDA", "cuda:"]
)
def test_the_error_of_an_unknown_device_lists_what_is_allowed(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CATDOG_DEVICE", name)
    with pytest.raises(CatdogError) as refused:
        pick_device()
    assert str(refused.value) == (
        f"CATDOG_DEVICE: unknown device {name!r}; must be cpu, cuda, mps, or cuda:1 for the second "
        "GPU"
    )


def test_the_error_of_an_unavailable_device_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CATDOG_DEVICE", "cuda:99")
    with pytest.raises(CatdogError) as refused:
        pick_device()
    assert str(refused.value).startswith("device cuda:99: not available on this machine (")
    assert "\n" not in str(refused.value)


def test_the_log_line_has_device_precision_and_reason() -> None:
    line = describe(pick_device("float32", "cpu"))
    threads = torch.get_num_threads()
    assert line == f"device cpu (threads: {threads}), float32: train.precision is float32"


RESIDENT = """
import psutil, torch
from catdog.model.devices import pick_device
device = pick_device("auto", "cpu") if {picked} else None
before = psutil.Process().memory_info().rss
block = torch.ones(25_000_000)  # 100 MB
del block
print(psutil.Process().memory_info().rss - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has glibc")
@pytest.mark.parametrize("picked", [True, False])
def test_a_process_that_computes_on_the_cpu_keeps_freed_memory(picked: bool) -> None:
    script = RESIDENT.format(picked=picked)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True)
    assert (int(done.stdout) > 90_000_000) == picked
