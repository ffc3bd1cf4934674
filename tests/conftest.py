"""Fixtures for all tests."""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytest_plugins = [
    "tests.helpers.prefect_fixtures",
    "tests.helpers.flow_commands",
    "tests.helpers.two_machines",
]


@pytest.fixture(scope="session", autouse=True)
def separate_locks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Use separate device locks, so that no test waits for a real training on this machine.

    With one core for training, training runs of a test wait for each other on every machine.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CATDOG_CORES", "1")
        patch.setenv("CATDOG_LOCKS", str(tmp_path_factory.mktemp("locks")))
        yield


@pytest.fixture(scope="session")
def make_photos() -> Callable[[Path, int], Path]:
    """Return a function that writes a number of small, different JPEG photos into a folder."""
    generator = np.random.default_rng(0)

    def make(folder: Path, count: int) -> Path:
        folder.mkdir(parents=True, exist_ok=True)
        for index in range(count):
            pixels = generator.integers(0, 256, (12, 16, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / f"photo_{index}.jpg", quality=90)
        return folder

    return make
