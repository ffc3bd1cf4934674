"""Portable arithmetic: the same bits on every x86-64 Linux machine whose processor has AVX2.

The numeric libraries select code for the processor they run on, and each selection rounds
differently. `fix_code_paths` pins the selection with environment variables. The libraries read them
when they are loaded, so it must be called before torch and numpy are imported, and this module
imports neither. `train.threads` fixes the number of threads, which decides in which order sums are
added. `make test-portable` compares the results on emulated processors.
"""

import os
import platform
from pathlib import Path

CODE_PATHS = {
    # https://docs.pytorch.org/docs/stable/threading_environment_variables.html
    "ATEN_CPU_CAPABILITY": "avx2",
    # https://uxlfoundation.github.io/oneDNN/dev_guide_cpu_dispatcher_control.html
    "ONEDNN_MAX_CPU_ISA": "AVX2",
    # AVX2 instead of COMPATIBLE gives different results on Intel and AMD:
    # https://www.intel.com/content/www/us/en/docs/onemkl/developer-guide-linux/current/instruction-set-specific-dispatching-on-intel-archs.html
    "MKL_CBWR": "COMPATIBLE",
    # https://numpy.org/doc/stable/reference/simd/build-options.html#runtime-dispatch
    "NPY_DISABLE_CPU_FEATURES": "X86_V4 AVX512_ICL AVX512_SPR",
    "OPENBLAS_CORETYPE": "Haswell",
}

# Environment variables that select other code paths, another precision or fewer threads
REMOVED = (
    "DNNL_MAX_CPU_ISA",
    "ONEDNN_CPU_ISA_HINTS",
    "DNNL_CPU_ISA_HINTS",
    "ONEDNN_DEFAULT_FPMATH_MODE",
    "DNNL_DEFAULT_FPMATH_MODE",
    "MKL_ENABLE_INSTRUCTIONS",
    "MKL_NUM_THREADS",
    "MKL_DOMAIN_NUM_THREADS",
    "MKL_DYNAMIC",
    "NPY_ENABLE_CPU_FEATURES",
    "OMP_DYNAMIC",
    "OMP_THREAD_LIMIT",
)


def fix_code_paths() -> None:
    """Set the environment variables of this process and its children, if the machine is supported.

    Values that the user has set are replaced, because they would change the results.
    """
    if unsupported_because():
        return
    for name in REMOVED:
        os.environ.pop(name, None)
    os.environ.update(CODE_PATHS)


def unsupported_because() -> str:
    """Return why this machine cannot compute portably; empty if it can."""
    system, machine = platform.system(), platform.machine()
    if (system, machine) != ("Linux", "x86_64"):
        return f"this machine is {system} on {machine}, not Linux on x86_64"
    if "avx2" not in Path("/proc/cpuinfo").read_text(encoding="utf-8").split():
        return "the processor has no AVX2"
    return ""


def variables_are_set() -> bool:
    """Return whether this process has the variables that `fix_code_paths` sets."""
    wrong = [name for name in REMOVED if name in os.environ]
    return not wrong and CODE_PATHS.items() <= os.environ.items()
