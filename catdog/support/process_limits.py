"""Limits of CPU time and memory for the current process, enforced by the kernel.

See setrlimit(2). They are set in worker processes only, since exceeding CPU time ends the process.
"""

import math
import resource
import sys
from pathlib import Path


def limit_cpu_time(seconds: int) -> None:
    """End this process by SIGXCPU after `seconds` more of CPU time, with a resolution of 1 s."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    soft = math.ceil(used.ru_utime + used.ru_stime) + seconds
    if hard != resource.RLIM_INFINITY:
        soft = min(soft, hard)
    resource.setrlimit(resource.RLIMIT_CPU, (soft, hard))
    # The default action of SIGXCPU writes a core dump.
    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))


def limit_memory(size: int) -> None:
    """Make allocations fail after `size` more bytes, on Linux only.

    RLIMIT_DATA counts what is allocated (since Linux 4.7 also anonymous mappings), RLIMIT_AS also
    address space that glibc and CUDA only reserve. On macOS the kernel ignores both.
    """
    if sys.platform != "linux":
        return
    status = Path("/proc/self/status").read_text(encoding="ascii", errors="replace")
    used = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmData"))
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    soft = used * 1024 + size
    if hard != resource.RLIM_INFINITY:
        soft = min(soft, hard)
    resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))
