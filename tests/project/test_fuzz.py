"""The fuzz suite: a short run of each target, and every kind of failure is found."""

import random
import time
from pathlib import Path

import pytest

from tests.helpers.planted_failures import Planted
from tools.fuzz.__main__ import targets
from tools.fuzz.mutations import mutate_bytes, mutate_value
from tools.fuzz.runner import Target, Worker, fuzz

INPUTS = {"archives": 20, "images": 150, "models": 50, "params": 12, "prepared": 60}


@pytest.mark.parametrize("name", sorted(targets()))
def test_mutated_inputs_are_read_or_refused_in_one_line(name: str) -> None:
    result = fuzz(name, targets()[name], iter(range(INPUTS[name])), time.monotonic() + 600)
    assert result.failures == []
    assert result.inputs == INPUTS[name]
    assert 0 < result.refused < result.inputs
    assert 0 < result.peak < targets()[name].max_bytes


@pytest.mark.parametrize(
    ("planted", "kind"),
    [
        ("traceback", "traceback"),
        ("two lines", "traceback"),
        ("death", "traceback"),
        ("escape", "escape"),
        ("overwritten", "escape"),
        ("memory", "memory"),
        ("time", "time"),
        ("data loss", "data loss"),
        ("nothing", ""),
    ],
)
def test_a_violated_invariant_is_found(planted: str, kind: str) -> None:
    worker = Worker(Planted(planted))
    try:
        assert worker.run(1, limit=1.0 if kind == "time" else 60.0)[0] == kind
        worker_again = worker.run(2, limit=1.0 if kind == "time" else 60.0)[0]
    finally:
        worker.close()
    assert worker_again == kind


@pytest.mark.parametrize("name", sorted(targets()))
def test_an_input_can_be_made_again_from_its_number(name: str, tmp_path: Path) -> None:
    target: Target = targets()[name]
    made = []
    for folder in (tmp_path / "a", tmp_path / "b"):
        folder.mkdir()
        target.make(random.Random(7), folder)
        files = sorted(file for file in folder.rglob("*") if file.is_file())
        made.append([(str(f.relative_to(folder)), f.read_bytes()) for f in files])
    if name != "archives":  # a tar.gz and folders of links have times and absolute paths
        assert made[0] == made[1]
    assert [path for path, _ in made[0]] == [path for path, _ in made[1]]


def test_mutations_depend_on_the_seed_alone_and_leave_the_original() -> None:
    value = {"a": [1, 2.5, {"b": "c"}], "d": None}
    before = repr(value)
    for seed in range(50):
        one, two = (random.Random(seed) for _ in range(2))
        assert mutate_bytes(one, b"photo" * 50, b"x") == mutate_bytes(two, b"photo" * 50, b"x")
        assert repr(mutate_value(one, value)) == repr(mutate_value(two, value))
    assert repr(value) == before
