"""The one place that picks the device and the arithmetic, and says why."""

import ctypes
import os
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Literal

import torch

from catdog.errors import CatdogError

Precision = Literal["auto", "float32", "bfloat16"]

# <malloc.h> of glibc
M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX = -1, -2, -4


@dataclass(frozen=True)
class Device:
    """Where tensors live and in which type matrix products run."""

    torch_device: torch.device
    dtype: torch.dtype
    why: str

    def autocast(self) -> AbstractContextManager[object]:
        """Return the context in which a forward pass runs; it does nothing with float32."""
        kind = self.torch_device.type
        return torch.autocast(kind, self.dtype, enabled=self.dtype != torch.float32)


def pick_device(
    precision: Precision = "auto", name: str | None = None, local_rank: int = 0
) -> Device:
    """Return the device to compute on.

    `name`, or else the environment's CATDOG_DEVICE, asks for one (cpu, cuda, cuda:1, mps); without
    it the CUDA device of number `local_rank` is taken, then Apple's, then the CPU. `auto` means
    bfloat16 where the hardware multiplies it (on x86: avx512_bf16 or AMX; CUDA from compute
    capability 8.0), since there it is about twice as fast and the weights stay float32. Raises
    CatdogError for a device that this machine lacks.
    """
    wanted = name or os.environ.get("CATDOG_DEVICE") or best_device()
    if wanted == "cuda":
        wanted = f"cuda:{local_rank}"
    try:
        device = torch.device(wanted)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, ImportError) as error:
        reason = str(error).splitlines()[0]
        raise CatdogError(f"device {wanted}: not on this machine ({reason})") from None
    if device.type == "cpu":
        keep_freed_memory()
    if precision == "auto":
        native = _multiplies_bfloat16(device)
        dtype = torch.bfloat16 if native else torch.float32
        why = f"the hardware {'multiplies' if native else 'does not multiply'} bfloat16"
    else:
        dtype = torch.bfloat16 if precision == "bfloat16" else torch.float32
        why = f"train.precision is {precision}"
    return Device(device, dtype, why)


def compute_deterministically() -> None:
    """Let this process compute the same bits from the same inputs, where torch knows a way.

    Where it knows none it warns (https://pytorch.org/docs/stable/notes/randomness.html).
    """
    torch.use_deterministic_algorithms(True, warn_only=True)
    # With that, torch fills memory that is about to be written anyway: a step in twenty's time.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]


def keep_freed_memory() -> None:
    """Let this process keep the memory that it frees, where its C library can.

    glibc hands large blocks back to the kernel at once, so that each step of a training would
    take its activations anew, zeroed and page by page (man 3 mallopt).
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if os.name == "posix" else None
    if mallopt is None:  # macOS, Windows, musl
        return
    for setting, value in ((M_MMAP_MAX, 0), (M_TRIM_THRESHOLD, 2**31 - 1), (M_TOP_PAD, 2**26)):
        mallopt(setting, value)


def describe(device: Device, count: int = 1) -> str:
    """Return the one line of log that says what computes, in what type, and why."""
    kind = device.torch_device.type
    name = (
        torch.cuda.get_device_name(device.torch_device)
        if kind == "cuda"
        else f"{torch.get_num_threads()} threads"
        if kind == "cpu"
        else kind
    )
    dtype = str(device.dtype).removeprefix("torch.")
    others = f" and {count - 1} more" if count > 1 else ""
    return f"device {device.torch_device} ({name}){others}, {dtype}: {device.why}"


def how_many(asked: int | None = None) -> int:
    """Return on how many devices to train: as many as are `asked` for, or else all CUDA devices.

    CUDA_VISIBLE_DEVICES hides some; CATDOG_DEVICE may name another kind, or one of them. A CPU is
    one, but can be shared by more processes. Raises CatdogError for more than there are.
    """
    wanted = os.environ.get("CATDOG_DEVICE") or best_device()
    here = torch.cuda.device_count() if wanted == "cuda" else 1
    if asked is None:
        return max(1, here)
    if asked > here and wanted != "cpu":
        raise CatdogError(
            f"--devices {asked}: device {wanted} can be had {here} times only; ask for fewer, or "
            "look at CUDA_VISIBLE_DEVICES and CATDOG_DEVICE"
        )
    return asked


def best_device() -> str:
    """Return the name of the fastest kind of device that is here."""
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def _multiplies_bfloat16(device: torch.device) -> bool:
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    if device.type == "cpu":
        # torch.backends.cpu names the instruction set at large, not bfloat16, hence cpuinfo's flags
        # through torch.cpu; both are private but for their names, so a missing one means no.
        checks = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
        return any(getattr(torch.cpu, check, lambda: False)() for check in checks)
    return False
