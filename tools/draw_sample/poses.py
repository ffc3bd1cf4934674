"""The body of an animal, one function per pose.

In the frame of the pen the feet are at y = 0.5, and an animal seen from the side faces right.
"""

import random
from collections.abc import Callable
from functools import partial

from tools.draw_sample.anatomy import Anatomy
from tools.draw_sample.coat import Coat
from tools.draw_sample.head import head_from_front, head_from_side, skull
from tools.draw_sample.pen import Paint, Pen


def _tail(pen: Pen, animal: Anatomy, coat: Coat, rng: random.Random, up: bool) -> None:
    """Draw a tail from its root to the left, along the floor or upwards."""
    n, w = animal.tail_length, animal.tail_width
    rise = rng.uniform(0.4, 1) if up else rng.uniform(-0.05, 0.12)
    curl = rng.uniform(-0.3, 0.3)
    spine = [(0.05, 0.0), (-0.3 * n, -0.1 * rise * n), (-0.6 * n, -0.45 * rise * n)]
    spine += [(-(0.8 + curl) * n, -0.9 * rise * n)]
    pen.tube(spine, w * 0.8, w * 0.6, coat.near, line=coat.line)


def _leg(pen: Pen, animal: Anatomy, paint: Paint, coat: Coat, x: float, top: float) -> None:
    wide = 0.24 * animal.girth + 0.022
    pen.tube([(x, top), (x - 0.01, (top + 0.5) / 2), (x, 0.46)], wide * 1.3, wide, paint, coat.line)
    pen.oval(x + 0.02, 0.47, wide * 1.4, 0.035, coat.paws, line=coat.line)


def close_up(pen: Pen, animal: Anatomy, coat: Coat, rng: random.Random) -> None:
    """Draw the head and the top of the chest, from the front."""
    g = 1.4 * animal.girth
    chest = [(-0.14 - g, 1.0), (-0.1 - g, 0.35), (-0.2, 0.1), (0.2, 0.1), (0.1 + g, 0.35)]
    pen.blob([*chest, (0.14 + g, 1.0)], coat.near, line=coat.line)
    head_from_front(pen.at(0, 0.06, 0.33, rng.gauss(0, 8)), animal, coat, rng)


def _sitting(
    pen: Pen, animal: Anatomy, coat: Coat, rng: random.Random, behind: bool = False
) -> None:
    g = animal.girth
    if not behind:
        _tail(pen.at(-0.12 - g / 2, 0.43), animal, coat, rng, up=False)
    half = [(0.5 * g + 0.04, -0.15), (0.8 * g + 0.04, 0.1), (1.2 * g + 0.05, 0.38)]
    half += [(0.9 * g, 0.5)]
    pen.blob([*half, *[(-x, y) for x, y in reversed(half)]], coat.near, line=coat.line)
    for side in (-1, 1):
        pen.oval(side * (g + 0.03), 0.42, 0.09, 0.08, coat.near, line=coat.line)
        if not behind:
            _leg(pen.at(side * (0.4 * g + 0.02), 0), animal, coat.near, coat, 0, 0.1)
    head = pen.at(rng.uniform(-0.04, 0.04), -0.22, rng.uniform(0.24, 0.28), rng.gauss(0, 7))
    if behind:
        _tail(pen.at(0, 0.42, 1, rng.choice([0, 40, 120])), animal, coat, rng, up=True)
        skull(head, animal, coat)
    else:
        head_from_front(head, animal, coat, rng)


def _sitting_sideways(pen: Pen, animal: Anatomy, coat: Coat, rng: random.Random) -> None:
    g = animal.girth
    _tail(pen.at(-0.26, 0.45), animal, coat, rng, up=rng.random() < 0.3)
    _leg(pen, animal, coat.far, coat, 0.17, 0.1)
    back = [(-0.3, 0.49), (-0.2 - g, 0.25), (-0.12 - 0.5 * g, -0.05), (-0.02, -0.25)]
    pen.blob(
        [*back, (0.14, -0.22), (0.12 + 0.6 * g, 0.05), (0.16, 0.3), (0.05, 0.49)],
        coat.near,
        line=coat.line,
    )
    _leg(pen, animal, coat.near, coat, 0.13, 0.05)
    pen.oval(-0.1, 0.36, 0.06 + 0.6 * g, 0.14, coat.near, line=coat.line)
    pen.oval(0.0, 0.47, 0.12, 0.035, coat.paws, line=coat.line)
    _turned_head(pen.at(0.1, -0.24, rng.uniform(0.22, 0.25)), animal, coat, rng)


def _standing(pen: Pen, animal: Anatomy, coat: Coat, rng: random.Random) -> None:
    pen = pen.at(-0.06, 0.05, 0.9)  # makes room for the head, which protrudes
    g, belly = animal.girth, 0.5 - animal.legs
    spine = belly - 1.5 * g
    _tail(pen.at(-0.36, spine + 0.06), animal, coat, rng, up=rng.random() < 0.75)
    stride = rng.uniform(0.0, 0.07)
    for x in (-0.26 - stride, 0.2 + stride):
        _leg(pen, animal, coat.far, coat, x, belly - 0.08)
    head = pen.at(0.40, spine - 0.1, rng.uniform(0.20, 0.23))
    pen.tube([(0.22, spine + 0.12), (0.37, spine - 0.06)], 0.12, 0.09, coat.near, coat.line)
    torso = [(-0.39, spine + 0.1), (-0.3, spine), (0.0, spine + 0.02), (0.26, spine - 0.01)]
    torso += [(0.36, belly - g), (0.26, belly + 0.01), (0.0, belly - 0.02), (-0.3, belly - 0.04)]
    pen.blob(torso, coat.near, line=coat.line)
    for x in (-0.31 + stride, 0.27 - stride):
        _leg(pen, animal, coat.near, coat, x, belly - 0.1)
    _turned_head(head, animal, coat, rng)


def _lying(pen: Pen, animal: Anatomy, coat: Coat, rng: random.Random) -> None:
    pen = pen.at(-0.04, 0, 0.95)
    g = animal.girth
    top = 0.48 - 1.6 * g
    _tail(pen.at(-0.4, 0.45), animal, coat, rng, up=rng.random() < 0.2)
    pen.tube([(0.1, 0.44), (0.3, 0.46), (0.48, 0.46)], 0.05, 0.04, coat.far, coat.line)
    torso = [(-0.46, 0.42), (-0.38, top + 0.04), (-0.1, top), (0.2, top), (0.34, 0.4)]
    pen.blob([*torso, (0.2, 0.5), (-0.36, 0.5)], coat.near, line=coat.line)
    pen.oval(-0.28, 0.38, 0.06 + 0.6 * g, 0.115, coat.near, line=coat.line)
    pen.tube([(0.1, 0.46), (0.25, 0.48), (0.42, 0.48)], 0.05, 0.04, coat.paws, coat.line)
    head = pen.at(0.3, top - rng.uniform(0.0, 0.12), rng.uniform(0.22, 0.25), rng.gauss(0, 8))
    _turned_head(head, animal, coat, rng)


def _turned_head(pen: Pen, animal: Anatomy, coat: Coat, rng: random.Random) -> None:
    draw_head = head_from_side if rng.random() < 0.3 else head_from_front
    draw_head(pen, animal, coat, rng)


Pose = Callable[[Pen, Anatomy, Coat, random.Random], None]
POSES: list[tuple[Pose, int]] = [
    (close_up, 11),
    (_sitting, 7),
    (partial(_sitting, behind=True), 1),
    (_sitting_sideways, 2),
    (_standing, 2),
    (_lying, 2),
]
