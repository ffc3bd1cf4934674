"""`make test-portable`: what it finds, and what it says when its emulator is missing."""

import subprocess
import sys
from pathlib import Path

import pytest

from tools import portability


def test_a_missing_emulator_is_named_with_the_package_to_install() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tools.portability", "--emulator", "no-such-emulator"],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.startswith("catdog: no-such-emulator: not found; install ")
    assert "apt-get install qemu-user" in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.slow
def test_a_difference_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The precision float32 is not portable: other code paths give other weights."""
    monkeypatch.setattr(portability, "PROJECTS", {"float32": {"train": {"precision": "float32"}}})
    other = {"ATEN_CPU_CAPABILITY": "default", "ONEDNN_MAX_CPU_ISA": "SSE41"}
    places = [portability.Place("native"), portability.Place("other", (), other)]
    assert portability.compare(tmp_path, places) == 1
    assert "models/model.safetensors" in "".join(capsys.readouterr().out.split())
