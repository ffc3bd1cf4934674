"""The schedules of learning rate and image size, against numbers computed by hand."""

import itertools

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from catdog.params import Schedule
from catdog.training import schedules

QUICK = hypothesis_settings(max_examples=25, deadline=None)


def schedule(name: str, **changes: object) -> Schedule:
    values = {"name": name, "warmup": 0.2, "final": 0.1, "step_every": 0.3}
    return Schedule.model_validate({**values, **changes})


@pytest.mark.parametrize(
    ("name", "factors"),
    [
        # at the start, half the warmup, its end, the middle of what is left, the end
        ("constant", (1, 1, 1, 1, 1)),
        ("one_cycle", (0, 0.5, 1, 0.55, 0.1)),
        ("cosine", (0, 0.5, 1, 0.55, 0.1)),
    ],
)
def test_schedules_at_their_breakpoints(name: str, factors: tuple[float, ...]) -> None:
    settings = schedule(name)
    corners = (0, 0.1, 0.2, 0.6, 1)
    assert [schedules.lr_factor(settings, at) for at in corners] == pytest.approx(factors)


def test_one_cycle_decays_linearly_and_cosine_along_a_cosine() -> None:
    # A quarter of the way down: 1 - 0.9/4, and 0.1 + 0.9 · (1 + cos 45°)/2.
    assert schedules.lr_factor(schedule("one_cycle"), 0.4) == pytest.approx(0.775)
    assert schedules.lr_factor(schedule("cosine"), 0.4) == pytest.approx(0.868198)


def test_step_divides_by_ten_at_each_interval() -> None:
    settings = schedule("step", step_every=0.25)
    progress = (0, 0.24, 0.25, 0.49, 0.5, 0.75, 0.99)
    factors = [schedules.lr_factor(settings, at) for at in progress]
    assert factors == pytest.approx([1, 1, 0.1, 0.1, 0.01, 0.001, 0.001])


def test_step_every_1_never_steps() -> None:
    assert schedules.lr_factor(schedule("step", step_every=1.0), 0.999) == 1


@pytest.mark.parametrize("name", ["one_cycle", "cosine"])
@pytest.mark.parametrize("warmup", [0.0, 0.2, 0.9])
def test_schedules_are_continuous(name: str, warmup: float) -> None:
    settings = schedule(name, warmup=warmup)
    factors = [schedules.lr_factor(settings, at / 1000) for at in range(1001)]
    assert max(abs(a - b) for a, b in itertools.pairwise(factors)) < 0.02
    assert max(factors) == pytest.approx(1, abs=1e-2)
    assert min(factors) >= 0


SIZES = st.integers(16, 256)
SHARES = st.floats(0, 1)


@QUICK
@given(sizes=st.tuples(SIZES, SIZES), shares=st.tuples(SHARES, SHARES))
def test_image_size_grows_in_multiples_of_16(
    sizes: tuple[int, int], shares: tuple[float, float]
) -> None:
    start, end = sorted(sizes)
    grow_from, grow_until = sorted(shares)

    def at(progress: float) -> int:
        return schedules.image_size_at(progress, start, end, grow_from, grow_until)

    grown = [at(step / 100) for step in range(101)]
    assert grown == sorted(grown)
    assert all(size in (start, end) or size % 16 == 0 for size in grown)
    assert all(start <= size <= end for size in grown)
    assert at(grow_until) == at(1) == end
    if grow_from < grow_until:
        assert at(grow_from) == at(0) == start


def test_image_size_is_halfway_at_half_of_the_growth() -> None:
    assert schedules.image_size_at(0.5, 64, 128, 0.25, 0.75) == 96
