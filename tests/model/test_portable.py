"""Precision portable: the same bytes, whatever code paths the environment asks for.

Other processors are covered by `make test-portable`, which emulates them.
"""

import platform
import subprocess
import sys
from pathlib import Path

import pytest

from catdog.model import portable
from catdog.model.devices import device_count, pick_device
from tests.helpers import small_training

pytestmark = pytest.mark.skipif(
    bool(portable.unsupported_because()), reason="requires Linux on x86-64 with AVX2"
)

# Each of these changes the result of a training with precision float32.
OTHER_CODE_PATHS = {
    "ATEN_CPU_CAPABILITY": "default",
    "ONEDNN_MAX_CPU_ISA": "SSE41",
    "OMP_NUM_THREADS": "3",
    "OMP_THREAD_LIMIT": "2",
    "MKL_CBWR": "SSE4_2",
}


def bytes_of_training(folder: Path, precision: str, **environment: str) -> dict[str, bytes]:
    """Return the bytes of the outputs of a training in a new folder."""
    small_training.create_project(folder, train__precision=precision, train__threads=2)
    code, _, err = small_training.finish(small_training.start(folder, **environment))
    assert code == 0, err
    return small_training.outs(folder)


def test_training_ignores_variables_that_select_other_code(tmp_path: Path) -> None:
    plain = bytes_of_training(tmp_path / "plain", "portable")
    other = bytes_of_training(tmp_path / "other", "portable", **OTHER_CODE_PATHS)
    assert plain == other


@pytest.mark.slow
def test_without_it_the_same_variables_change_the_weights(tmp_path: Path) -> None:
    """The test above can fail: float32 differs between the two environments."""
    weights = small_training.OUTS[0]
    plain = bytes_of_training(tmp_path / "plain", "float32")
    other = bytes_of_training(tmp_path / "other", "float32", **OTHER_CODE_PATHS)
    assert plain[weights] != other[weights]


def test_the_log_says_that_the_bytes_are_portable(tmp_path: Path) -> None:
    small_training.create_project(
        tmp_path, train__precision="portable", train__threads=1, train__epochs=1
    )
    log = small_training.train(tmp_path)
    assert "device cpu (threads: 1), float32: train.precision is portable\n" in log


def test_torch_must_be_imported_after_the_code_paths_are_fixed() -> None:
    device = pick_device("portable")  # pytest has imported torch
    assert "torch was imported before catdog.model.portable.fix_code_paths" in device.reason


def test_the_device_is_the_cpu_unless_the_environment_selects_another(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("CATDOG_DEVICE", raising=False)
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 4)
    assert pick_device("portable").torch_device.type == "cpu"
    assert device_count(precision="portable") == 1
    assert device_count() == 4


def test_the_command_line_imports_no_numeric_library_before_it_has_read_the_params() -> None:
    code = "import sys, catdog.cli; print(sorted({'torch', 'numpy'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


@pytest.mark.parametrize(
    ("system", "machine", "reason"),
    [
        ("Linux", "aarch64", "this machine is Linux on aarch64, not Linux on x86_64"),
        ("Darwin", "arm64", "this machine is Darwin on arm64, not Linux on x86_64"),
    ],
)
def test_another_kind_of_machine_is_named_and_its_variables_stay(
    system: str, machine: str, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(platform, "system", lambda: system)
    monkeypatch.setattr(platform, "machine", lambda: machine)
    monkeypatch.setenv("MKL_CBWR", "AUTO")
    portable.fix_code_paths()
    assert not portable.variables_are_set()
    assert reason in pick_device("portable", "cpu").reason
