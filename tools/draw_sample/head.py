"""The head of an animal: from the front, from behind and in profile."""

import random

from tools.draw_sample.anatomy import Anatomy
from tools.draw_sample.coat import Coat
from tools.draw_sample.pen import INK, PINK, Paint, Pen, blend, smooth


def head_from_front(pen: Pen, animal: Anatomy, coat: Coat, rng: random.Random) -> None:
    """Draw a head from the front; y goes from -1 to 1."""
    skull(pen, animal, coat)
    _muzzle(pen, animal, coat)
    for side in (-1, 1):
        _eye(pen.at(side * 0.42 * animal.head_width, -0.06 - 0.08 * animal.muzzle), animal, rng)


def skull(pen: Pen, animal: Anatomy, coat: Coat) -> None:
    """Draw skull and ears: all that is visible from behind."""
    if animal.ears != "floppy":
        _ear_pair(pen, animal, coat)
    w, chin = animal.head_width, 0.86 + 0.12 * animal.muzzle
    jaw = 0.62 - 0.16 * animal.muzzle
    half = [(0.55 * w, -0.78), (0.96 * w, -0.25), (0.93 * w, 0.3), (jaw * w, 0.76)]
    ring = [(0.0, -0.86), *half, (0.0, chin), *[(-x, y) for x, y in reversed(half)]]
    pen.blob(ring, coat.near, line=coat.line)
    if animal.ears == "floppy":
        _ear_pair(pen, animal, coat)


def _ear_pair(pen: Pen, animal: Anatomy, coat: Coat) -> None:
    w, length, width = animal.head_width, animal.ear_length, animal.ear_width
    inside = blend(PINK, coat.base, 0.45)
    for side in (-1, 1):
        root, tip = side * 0.56 * w, side * (0.60 * w + 0.22 * width)
        if animal.ears == "floppy":
            down = -0.55 + 1.2 * length
            hang = [(0.52 * w, -0.76), (0.98 * w, -0.66), (1.12 * w + 0.1, down * 0.5)]
            hang += [(1.02 * w + 0.1, down), (0.78 * w, down * 0.8), (0.74 * w, -0.2)]
            pen.blob([(side * x, y) for x, y in hang], coat.ears, line=coat.line)
            continue
        ends = (root + side * width * 0.75, -0.22), (root - side * width * 0.62, -0.72)
        if animal.ears == "folded":
            pen.fill([ends[0], (tip, -0.72 - 0.4 * length), ends[1]], coat.near, line=coat.line)
            flap = [(tip, -0.72 - 0.4 * length), ends[1], (root + side * 0.2, -0.2)]
            pen.fill([*flap, ends[0]], coat.ears, line=coat.line)
            continue
        top = (tip, -0.68 - length)
        bulge = [
            ((e[0] + top[0]) / 2 + s * side * 0.07, (e[1] + top[1]) / 2 - 0.03)
            for e, s in zip(ends, (1, -1), strict=True)
        ]
        pen.fill([ends[0], bulge[0], top, bulge[1], ends[1]], coat.ears, line=coat.line)
        centre = ((ends[0][0] + ends[1][0] + top[0]) / 3, (ends[0][1] + ends[1][1] + top[1]) / 3)
        inner = [
            (c + 0.62 * (x - c), d + 0.62 * (y - d) + 0.06)
            for (x, y), (c, d) in ((p, centre) for p in (ends[0], top, ends[1]))
        ]
        pen.fill(inner, inside)


def _muzzle(pen: Pen, animal: Anatomy, coat: Coat) -> None:
    """Draw muzzle, nose, mouth, tongue and whiskers."""
    m, y = animal.muzzle, 0.26 + 0.18 * animal.muzzle
    for side in (-1, 1):
        pen.oval(side * (0.17 + 0.04 * m), y + 0.2, 0.22 + 0.14 * m, 0.18 + 0.18 * m, coat.muzzle)
    if m > 0.4:
        pen.blob([(-0.2, -0.15), (0.2, -0.15), (0.3, y + 0.2), (-0.3, y + 0.2)], coat.muzzle)
    bottom = y + 0.2 + 0.14 * m
    if animal.tongue:
        pen.oval(0, bottom + 0.16, 0.13, 0.24, (220, 96, 108), line=(150, 60, 70))
    _nose(pen.at(0, y), animal)
    pen.stroke([(0, y), (0, bottom)], 0.035, INK)
    for side in (-1, 1):
        reach = 0.2 + 0.12 * m
        lip = [(0, bottom), (side * reach / 2, bottom + 0.09), (side * reach, bottom + 0.02)]
        pen.stroke(smooth(lip, closed=False), 0.035, INK)
        for hair in range(3 if animal.whiskers else 0):
            rise = (hair - 1) * 0.16
            start = (side * 0.3, y + 0.18 + rise / 3)
            pen.stroke([start, (side * 1.25, y + 0.12 + rise)], 0.02, (236, 234, 230))


def _nose(pen: Pen, animal: Anatomy) -> None:
    r, colour = animal.nose, PINK if animal.pink_nose else INK
    pen.blob(
        [
            (-r, -0.5 * r),
            (0, -0.7 * r),
            (r, -0.5 * r),
            (0.5 * r, 0.5 * r),
            (0, 0.8 * r),
            (-0.5 * r, 0.5 * r),
        ],
        colour,
    )
    pen.oval(-0.35 * r, -0.35 * r, 0.25 * r, 0.14 * r, blend(colour, (255, 255, 255), 0.5))


def _eye(pen: Pen, animal: Anatomy, rng: random.Random) -> None:
    r = animal.eye
    pen.oval(0, 0, 1.12 * r, r, INK)
    pen.oval(0, 0, 0.95 * r, 0.84 * r, animal.iris)
    pupil = rng.uniform(0.18, 0.45) if animal.slit_pupils else rng.uniform(0.55, 0.7)
    pen.oval(0, 0, pupil * r, 0.72 * r, INK)
    pen.oval(0.25 * r, -0.3 * r, 0.18 * r, 0.18 * r, (250, 250, 250))


def head_from_side(pen: Pen, animal: Anatomy, coat: Coat, rng: random.Random) -> None:
    """Draw a head in profile, facing right."""
    m = animal.muzzle
    front, w = 0.72 + 1.0 * m, 0.45 + 0.5 * animal.head_width
    profile = [(-0.8 * w, -0.1), (-0.45, -0.72), (0.15, -0.82), (0.55, -0.42 + 0.1 * m)]
    profile += [(0.6 + 0.5 * m, -0.1 + 0.06 * m), (front, 0.0 + 0.1 * m), (front, 0.4)]
    profile += [(0.5 + 0.3 * m, 0.62), (0.0, 0.8), (-0.6 * w, 0.55)]
    if animal.ears == "pointed":
        _side_ear(pen.at(0.25, -0.05, 0.95), animal, coat.far, coat)
    pen.blob(profile, coat.near, line=coat.line)
    pen.oval(front - 0.2, 0.3, 0.24 + 0.1 * m, 0.22, coat.muzzle)
    if animal.tongue:
        pen.oval(front - 0.2, 0.62, 0.1, 0.22, (220, 96, 108), line=(150, 60, 70))
    _nose(pen.at(front - 0.02, 0.02 + 0.1 * m), animal)
    pen.stroke([(front - 0.05, 0.4), (front - 0.3 - 0.2 * m, 0.46)], 0.04, INK)
    _eye(pen.at(0.32, -0.2, 0.9), animal, rng)
    for hair in range(3 if animal.whiskers else 0):
        rise = (hair - 1) * 0.15
        pen.stroke([(front - 0.2, 0.3), (front - 0.75, 0.34 + rise)], 0.02, (236, 234, 230))
    _side_ear(pen, animal, coat.ears, coat)


def _side_ear(pen: Pen, animal: Anatomy, paint: Paint, coat: Coat) -> None:
    length, width = animal.ear_length, animal.ear_width
    match animal.ears:
        case "pointed":
            tip = (-0.35, -0.65 - length)
            pen.fill([(-0.6, -0.45), tip, (-0.6 + 1.2 * width, -0.7)], paint, line=coat.line)
        case "folded":
            high = -0.7 - 0.35 * length
            flap = [(-0.55, -0.5), (-0.4, high), (0.25, high + 0.2), (0.2, -0.3)]
            pen.fill(flap, paint, line=coat.line)
        case "floppy":
            down = -0.5 + 1.2 * length
            hang = [(-0.5, -0.6), (-0.05, -0.55), (0.0, down * 0.5), (-0.2, down)]
            pen.blob([*hang, (-0.6, down * 0.9), (-0.7, 0.0)], paint, line=coat.line)
