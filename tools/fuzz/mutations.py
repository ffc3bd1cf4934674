"""Mutate bytes, and values of JSON or YAML; every choice comes from a seeded generator."""

import copy
import random
from typing import Any

BOUNDARY_INTEGERS = (0, 1, 0x7F, 0x80, 0xFF, 0x100, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF)
UNUSUAL_VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1, 2, 2**31, 2**63, 10**30, 0.0, -0.5, 1e-300, 1e300),
    *(float("nan"), float("inf"), "", "x", "none", "\x00", "\ud800", "../x", "é" * 5000),
    *([], {}, [[]], [0.5, 0.5, 0.5], {"a": 1}, [1] * 1000),
)


def mutate_bytes(rng: random.Random, data: bytes, other: bytes = b"") -> bytes:
    """Return `data` after one to four mutations; `other` is spliced in by some of them."""
    changed = bytearray(data)
    for _ in range(rng.randint(1, 4)):
        _mutate_once(rng, changed, other)
    return bytes(changed)


def _mutate_once(rng: random.Random, data: bytearray, other: bytes) -> None:
    at = rng.randrange(len(data) + 1)
    length = min(len(data) - at, rng.choice((1, 2, 4, 16, 64, 512)))
    match rng.randrange(8):
        case 0:  # flip bits
            for index in range(at, at + length):
                data[index] ^= 1 << rng.randrange(8)
        case 1:  # set an integer of 1, 2 or 4 bytes, in either order
            size = rng.choice((1, 2, 4))
            order = rng.choice(("big", "little"))
            value = rng.choice(BOUNDARY_INTEGERS) % 256**size
            data[at : at + size] = value.to_bytes(size, order)
        case 2:
            del data[at:]
        case 3:
            del data[at : at + length]
        case 4:
            data[at:at] = rng.randbytes(length)
        case 5:  # repeat a part
            data[at:at] = data[at : at + length]
        case 6:
            data[at : at + length] = bytes(length)
        case 7:  # splice
            start = rng.randrange(len(other) + 1)
            data[at : at + length] = other[start : start + length]


def mutate_value(rng: random.Random, value: Any) -> Any:
    """Return a copy of a JSON value, in which one value or key is changed, removed or added."""
    changed = copy.deepcopy(value)
    places = list(_places(changed))
    if not places:
        return rng.choice(UNUSUAL_VALUES)
    parent, key = rng.choice(places)
    match rng.randrange(6):
        case 0:
            del parent[key]
        case 1 if isinstance(parent, dict):
            parent[rng.choice(("x", "", "mean", key + "x"))] = parent[key]
        case 2 if isinstance(parent[key], int | float):
            parent[key] = parent[key] * rng.choice((-1, 0.5, 2, 10, 1000)) + rng.choice((0, 1))
        case _:
            parent[key] = copy.deepcopy(rng.choice(UNUSUAL_VALUES))
    return changed


def _places(value: Any) -> list[tuple[Any, Any]]:
    """Return (parent, key or index) of all values inside a value."""
    found: list[tuple[Any, Any]] = []
    if not isinstance(value, dict | list):
        return found
    for key, child in value.items() if isinstance(value, dict) else enumerate(value):
        found.append((value, key))
        found += _places(child)
    return found
