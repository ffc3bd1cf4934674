"""The device and the precision to compute with, and the reason for the choice."""

import ctypes
import os
import re
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass

import torch

from catdog.errors import CatdogError, first_line
from catdog.model import portable
from catdog.params import Precision

# parameters of mallopt, from <malloc.h> of glibc
M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX = -1, -2, -4

DEVICE_NAME = re.compile(r"cpu|mps|cuda(:\d+)?")


@dataclass(frozen=True)
class Device:
    """The device of the tensors and the dtype of matrix products."""

    torch_device: torch.device
    dtype: torch.dtype
    reason: str
    """why this dtype"""

    def autocast(self) -> AbstractContextManager[object]:
        """Return the autocast context for a forward pass; with float32 it has no effect."""
        kind = self.torch_device.type
        return torch.autocast(kind, self.dtype, enabled=self.dtype != torch.float32)


def pick_device(
    precision: Precision = "auto", name: str | None = None, local_rank: int = 0, threads: int = 0
) -> Device:
    """Return the device to compute on.

    `name`, or else the environment variable CATDOG_DEVICE, selects it (cpu, cuda, cuda:1, mps). The
    default is CUDA device number `local_rank`, then MPS, then the CPU. Precision `auto` means
    bfloat16 where the hardware supports it (x86: avx512_bf16 or AMX; CUDA: compute capability 8.0
    and higher), where it is about twice as fast, and float32 elsewhere, where bfloat16 can be
    slower (pytorch/pytorch#86550). `portable` means float32; the default device is then the CPU.
    The weights are always float32. On the CPU, torch uses `threads` threads from then on (0 = no
    change). Raises CatdogError for a device that is unknown or not available.
    """
    wanted = name or os.environ.get("CATDOG_DEVICE") or best_device(precision)
    if not DEVICE_NAME.fullmatch(wanted):
        raise CatdogError(
            f"CATDOG_DEVICE: unknown device {wanted!r}; must be cpu, cuda, mps, or cuda:1 for the "
            "second GPU"
        )
    if wanted == "cuda":
        wanted = f"cuda:{local_rank}"
    try:
        device = torch.device(wanted)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, ImportError) as error:
        raise CatdogError(
            f"device {wanted}: not available on this machine ({first_line(error)}); set "
            "CATDOG_DEVICE to cpu, cuda or mps"
        ) from None
    if device.type == "cpu":
        keep_freed_memory()
        if threads:
            torch.set_num_threads(threads)
    if precision == "auto":
        native = _supports_bfloat16(device)
        dtype = torch.bfloat16 if native else torch.float32
        reason = f"the hardware {'supports' if native else 'does not support'} bfloat16"
    else:
        dtype = torch.bfloat16 if precision == "bfloat16" else torch.float32
        reason = f"train.precision is {precision}"
        if precision == "portable" and (problem := _not_portable_because(device)):
            reason += f", but results may differ from those of other machines: {problem}"
    return Device(device, dtype, reason)


@contextmanager
def allocation_errors(where: str, advice: str) -> Iterator[None]:
    """Raise CatdogError(`where`: reason; `advice`) if allocating memory fails in the block."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        reason = first_line(error)
        messages = ("can't allocate memory", "not enough memory", "out of memory")
        if not isinstance(error, MemoryError) and not any(text in reason for text in messages):
            raise
        raise CatdogError(f"{where}: not enough memory ({reason}); {advice}") from None


def use_deterministic_algorithms() -> None:
    """Use deterministic algorithms in this process, and warn about operations that have none.

    See https://pytorch.org/docs/stable/notes/randomness.html.
    """
    torch.use_deterministic_algorithms(True, warn_only=True)
    # By default torch then also fills all new memory, which takes 5 % of a step's time and is only
    # of use to code that reads uninitialized memory (pytorch/pytorch#117081, #109802).
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]


def keep_freed_memory() -> None:
    """Do not return freed memory to the operating system, if the C library is glibc.

    By default glibc returns large blocks to the kernel when they are freed, so that each training
    step gets its activations page by page from the kernel, which fills them with zeros. See
    mallopt(3) for the parameters, and benchmarks/freed_memory.py for the effect.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if os.name == "posix" else None
    if mallopt is None:  # macOS, Windows, musl
        return
    for setting, value in ((M_MMAP_MAX, 0), (M_TRIM_THRESHOLD, 2**31 - 1), (M_TOP_PAD, 2**26)):
        mallopt(setting, value)


def describe(device: Device, count: int = 1) -> str:
    """Return the log line with the device, its precision and the reason for it."""
    kind = device.torch_device.type
    name = (
        torch.cuda.get_device_name(device.torch_device)
        if kind == "cuda"
        else f"threads: {torch.get_num_threads()}"
        if kind == "cpu"
        else kind
    )
    dtype = str(device.dtype).removeprefix("torch.")
    others = f" and {count - 1} more" if count > 1 else ""
    return f"device {device.torch_device} ({name}){others}, {dtype}: {device.reason}"


def device_count(requested: int | None = None, precision: Precision = "auto") -> int:
    """Return the number of devices to train on: the requested number, or all CUDA devices.

    CUDA_VISIBLE_DEVICES limits the CUDA devices; CATDOG_DEVICE selects another type of device, or
    one device. The CPU counts as one device, which several processes can share; it is the default
    with precision `portable`. Raises CatdogError if fewer devices are available than requested.
    """
    wanted = os.environ.get("CATDOG_DEVICE") or best_device(precision)
    available = torch.cuda.device_count() if wanted == "cuda" else 1
    if requested is None:
        return max(1, available)
    if requested > available and wanted != "cpu":
        raise CatdogError(
            f"--devices {requested}: only {available} available (device {wanted}); request fewer, "
            "or check CUDA_VISIBLE_DEVICES and CATDOG_DEVICE"
        )
    return requested


def best_device(precision: Precision = "auto") -> str:
    """Return the type of the fastest device for a precision: cuda, mps or cpu."""
    if precision == "portable":
        return "cpu"
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def _not_portable_because(device: torch.device) -> str:
    """Return why results on `device` may differ from another machine's; empty if they do not."""
    if device.type != "cpu":
        return f"the device is {device}, not the CPU"
    if reason := portable.unsupported_because():
        return reason
    capability = torch.backends.cpu.get_cpu_capability()
    if not portable.variables_are_set() or capability != "AVX2":
        return "torch was imported before catdog.model.portable.fix_code_paths was called"
    return ""


def _supports_bfloat16(device: torch.device) -> bool:
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    if device.type == "cpu":
        # torch.backends.cpu.get_cpu_capability does not mention bfloat16. These functions do, but
        # are private, and missing in some versions of torch: then the answer is no.
        checks = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
        return any(getattr(torch.cpu, check, lambda: False)() for check in checks)
    return False
