"""The embedded sample: cats and dogs drawn by the program.

Both classes share coats, poses, places, clutter and camera; only the anatomy in `KINDS` differs. So
a network has to look at ears, muzzles, eyes and tails, and colours tell it nothing. A picture
depends on its class, its seed and the version of Pillow alone, to the byte.
"""

import cmath
import math
import random
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from functools import partial
from pathlib import Path
from typing import Literal, Self

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFilter, ImageOps

from catdog.errors import CatdogError
from catdog.support.process_pool import process_pool, usable_cores

Point = tuple[float, float]
Colour = tuple[int, int, int]
Paint = Colour | Image.Image

SUPERSAMPLING = 4  # drawn this much larger: Pillow's polygons have hard edges
SEEDS_PER_SAMPLE = 1_000_000  # picture i of sample s has the seed s * this + i
JPEG_QUALITY = 85

FURS: list[Colour] = [
    (48, 44, 46),
    (96, 94, 100),
    (150, 148, 150),
    (104, 70, 48),
    (150, 98, 58),
    (206, 128, 62),
    (222, 178, 122),
    (232, 214, 186),
    (240, 238, 234),
]
INK: Colour = (34, 28, 30)
PINK: Colour = (226, 148, 150)
PATTERNS = ("plain", "plain", "tabby", "tabby", "patches", "bicolour", "bicolour", "mask")


@dataclass(frozen=True)
class Anatomy:
    """What tells a cat from a dog. Head parts in half heads, body parts in body heights."""

    ears: Literal["pointed", "folded", "floppy"]
    ear_length: float
    ear_width: float
    head_width: float
    muzzle: float
    """0: flat face, 1: long snout"""
    nose: float
    eye: float
    legs: float
    girth: float
    tail_length: float
    tail_width: float
    slit_pupils: bool = False
    pink_nose: bool = False
    whiskers: bool = False
    tongue: bool = False
    iris: Colour = INK


@dataclass(frozen=True)
class Kind:
    """A class: its breeds, each as likely as the others, and how often what they share is seen."""

    breeds: tuple[Anatomy, ...]
    irises: tuple[Colour, ...]
    slit_pupils: float
    pink_nose: float
    whiskers: float
    tongue: float


@dataclass(frozen=True)
class Coat:
    """The fur of one animal: textures as large as the picture, cut to each part's shape."""

    near: Image.Image
    far: Image.Image
    base: Colour
    second: Colour
    line: Colour
    muzzle: Paint
    ears: Paint
    paws: Paint


GREEN, AMBER, BLUE, BROWN = (136, 168, 88), (216, 164, 60), (120, 168, 204), (98, 62, 38)
# An Anatomy's numbers: ear length, ear width, head width, muzzle, nose, eye, legs, girth, tail
# length, tail width. Some dogs have a cat's ears and some cats a dog's, as in life.
KINDS = {
    "cat": Kind(
        breeds=(
            Anatomy("pointed", 0.80, 0.62, 1.10, 0.15, 0.12, 0.25, 0.30, 0.15, 0.62, 0.060),
            Anatomy("pointed", 0.75, 0.60, 1.08, 0.22, 0.13, 0.23, 0.30, 0.17, 0.58, 0.065),
            Anatomy("pointed", 0.85, 0.64, 1.14, 0.12, 0.11, 0.25, 0.32, 0.16, 0.64, 0.080),
            Anatomy("pointed", 0.95, 0.60, 0.96, 0.32, 0.12, 0.22, 0.34, 0.13, 0.66, 0.045),
            Anatomy("pointed", 0.58, 0.52, 1.20, 0.05, 0.12, 0.26, 0.24, 0.19, 0.46, 0.100),
            Anatomy("folded", 0.55, 0.55, 1.14, 0.12, 0.13, 0.26, 0.27, 0.17, 0.55, 0.070),
        ),
        irises=(GREEN, GREEN, GREEN, AMBER, AMBER, AMBER, BLUE, BROWN),
        slit_pupils=0.75,
        pink_nose=0.75,
        whiskers=0.85,
        tongue=0.02,
    ),
    "dog": Kind(
        breeds=(
            Anatomy("floppy", 1.00, 0.50, 0.96, 0.70, 0.22, 0.16, 0.34, 0.18, 0.44, 0.085),
            Anatomy("floppy", 0.90, 0.50, 0.90, 0.80, 0.23, 0.15, 0.37, 0.17, 0.46, 0.075),
            Anatomy("floppy", 1.30, 0.55, 0.92, 0.60, 0.20, 0.17, 0.28, 0.17, 0.34, 0.070),
            Anatomy("floppy", 0.75, 0.50, 1.08, 0.30, 0.20, 0.20, 0.27, 0.19, 0.30, 0.075),
            Anatomy("folded", 0.70, 0.55, 0.96, 0.60, 0.19, 0.17, 0.32, 0.16, 0.28, 0.065),
            Anatomy("pointed", 0.82, 0.50, 1.00, 0.65, 0.19, 0.17, 0.36, 0.17, 0.42, 0.120),
        ),
        irises=(BROWN, BROWN, BROWN, BROWN, BROWN, BROWN, AMBER, BLUE),
        slit_pupils=0.0,
        pink_nose=0.12,
        whiskers=0.10,
        tongue=0.35,
    ),
}


class Pen:
    """Draws on an image in a frame of its own: a shift, a scale and a turn of the plane.

    The frame is held as two complex numbers, so a point z is drawn at origin + unit · z.
    """

    def __init__(self, image: Image.Image, origin: complex, unit: complex) -> None:
        self.image, self.origin, self.unit = image, origin, unit
        self._draw = ImageDraw.Draw(image)

    def at(self, x: float, y: float, scale: float = 1, degrees: float = 0) -> "Pen":
        """Return a pen whose origin is at (x, y) of this one's frame."""
        turn = cmath.rect(scale, math.radians(degrees))
        return Pen(self.image, self.origin + self.unit * complex(x, y), self.unit * turn)

    def on(self, image: Image.Image) -> Self:
        """Return a pen with the same frame on another image."""
        return type(self)(image, self.origin, self.unit)

    def fill(
        self, points: Sequence[Point], paint: Paint, alpha: float = 1, line: Colour | None = None
    ) -> None:
        """Fill a polygon with a colour, or with what a texture of the image's size has there."""
        pixels = self._pixels(points)
        if isinstance(paint, tuple) and alpha == 1:
            self._draw.polygon(pixels, fill=paint)
        else:
            self._paste(pixels, paint, alpha)
        if line:
            width = max(1, round(self.image.width / 150))
            self._draw.line([*pixels, *pixels[:2]], fill=line, width=width, joint="curve")

    def blob(
        self, points: Sequence[Point], paint: Paint, alpha: float = 1, line: Colour | None = None
    ) -> None:
        """Fill the smooth closed curve through the points."""
        self.fill(_smooth(points), paint, alpha, line)

    def oval(
        self,
        x: float,
        y: float,
        width: float,
        height: float,
        paint: Paint,
        alpha: float = 1,
        line: Colour | None = None,
    ) -> None:
        """Fill an ellipse given by its centre and its half axes."""
        turns = [2 * math.pi * i / 36 for i in range(36)]
        ring = [(x + width * math.cos(t), y + height * math.sin(t)) for t in turns]
        self.fill(ring, paint, alpha, line)

    def tube(
        self,
        points: Sequence[Point],
        first: float,
        last: float,
        paint: Paint,
        line: Colour | None = None,
    ) -> None:
        """Fill a round-ended tube along a smooth curve, its half width going first → last."""
        spine = np.array([complex(*p) for p in _smooth(points, closed=False)])
        along = np.gradient(spine)
        normal = 1j * along / np.maximum(abs(along), 1e-9)
        half = np.linspace(first, last, len(spine))
        cap = spine[-1] + last * normal[-1] * np.exp(-1j * np.linspace(0, np.pi, 9)[1:-1])
        ring = np.concatenate([spine + half * normal, cap, (spine - half * normal)[::-1]])
        self.fill([(z.real, z.imag) for z in ring], paint, line=line)

    def stroke(self, points: Sequence[Point], width: float, colour: Colour) -> None:
        """Draw a line of the given width through the points."""
        thick = max(1, round(width * abs(self.unit)))
        self._draw.line(self._pixels(points), fill=colour, width=thick, joint="curve")

    def _pixels(self, points: Sequence[Point]) -> list[Point]:
        moved = (self.origin + self.unit * complex(*point) for point in points)
        return [(z.real, z.imag) for z in moved]

    def _paste(self, pixels: list[Point], paint: Paint, alpha: float) -> None:
        xs, ys = zip(*pixels, strict=True)
        left, top = max(0, math.floor(min(xs))), max(0, math.floor(min(ys)))
        right = min(self.image.width, math.ceil(max(xs)) + 1)
        bottom = min(self.image.height, math.ceil(max(ys)) + 1)
        if right <= left or bottom <= top:
            return
        mask = Image.new("L", (right - left, bottom - top))
        shifted = [(x - left, y - top) for x, y in pixels]
        ImageDraw.Draw(mask).polygon(shifted, fill=round(255 * alpha))
        box = (left, top, right, bottom)
        self.image.paste(paint.crop(box) if isinstance(paint, Image.Image) else paint, box, mask)


def _smooth(points: Sequence[Point], closed: bool = True, steps: int = 7) -> list[Point]:
    """Points on the Catmull-Rom spline through the given ones."""
    knots = np.array([complex(*point) for point in points])
    ends = (knots[-1:], knots[:2]) if closed else (knots[:1], knots[-1:])
    knots = np.concatenate([ends[0], knots, ends[1]])
    a, b, c, d = knots[:-3], knots[1:-2], knots[2:-1], knots[3:]
    t = (np.arange(steps) / steps)[:, None]
    curve = 0.5 * (
        2 * b + (c - a) * t + (2 * a - 5 * b + 4 * c - d) * t**2 + (3 * b - a - 3 * c + d) * t**3
    )
    curve = curve.T.ravel()
    if not closed:
        curve = np.append(curve, points[-1][0] + 1j * points[-1][1])
    return [(z.real, z.imag) for z in curve]


def _blend(colour: Colour, other: Colour, share: float) -> Colour:
    """Return `colour` with a share of `other` mixed in."""
    red, green, blue = (round(a + share * (b - a)) for a, b in zip(colour, other, strict=True))
    return (red, green, blue)


def _any_colour(rng: random.Random, low: int = 60, high: int = 230) -> Colour:
    """Return a colour between two levels, not too vivid."""
    grey = rng.randint(low, high)
    vivid = (rng.randint(low, high), rng.randint(low, high), rng.randint(low, high))
    return _blend(vivid, (grey, grey, grey), 0.5)


# --- the animal's traits ------------------------------------------------------------------------


def _grow(kind: Kind, rng: random.Random, variation: float = 0.12) -> Anatomy:
    """One animal of a breed of that kind, each of its measures varied on its own."""
    breed = rng.choice(kind.breeds)
    measures = {
        field.name: getattr(breed, field.name) * rng.uniform(1 - variation, 1 + variation)
        for field in fields(breed)
        if field.type is float
    }
    return replace(
        breed,
        **measures,
        slit_pupils=rng.random() < kind.slit_pupils,
        pink_nose=rng.random() < kind.pink_nose,
        whiskers=rng.random() < kind.whiskers,
        tongue=rng.random() < kind.tongue,
        iris=rng.choice(kind.irises),
    )


def _dress(pen: Pen, rng: random.Random) -> Coat:
    """A coat in colours and a pattern that cats and dogs share, laid out in the pen's frame."""
    base = _blend(rng.choice(FURS), _any_colour(rng, 80, 180), rng.uniform(0, 0.15))
    second = rng.choice([fur for fur in FURS if abs(sum(fur) - sum(base)) > 120])
    pattern = rng.choice(PATTERNS)
    dark = sum(base) < 330
    near = Image.new("RGB", pen.image.size, base)
    _paint_pattern(pen.on(near), pattern, base, second, rng)
    _paint_hairs(pen.on(near), base, rng)
    white = _blend(second, (244, 240, 232), 0.8)
    light = _blend(base, (255, 246, 230), rng.uniform(0.1, 0.5))
    pale: Paint = white if pattern == "bicolour" else light if rng.random() < 0.6 else near
    masked = _blend(base, INK, 0.65)
    return Coat(
        near=near,
        far=near.point(lambda value: round(value * 0.82)),
        base=base,
        second=second,
        line=_blend(base, (130, 120, 116), 0.45) if dark else _blend(base, INK, 0.45),
        muzzle=masked if pattern == "mask" else pale,
        ears=masked if pattern == "mask" else near if rng.random() < 0.6 else second,
        paws=white if pattern == "bicolour" else near,
    )


def _paint_pattern(
    pen: Pen, pattern: str, base: Colour, second: Colour, rng: random.Random
) -> None:
    """Lay stripes, patches or a white underside over the whole frame."""
    if pattern == "tabby":
        stripe = _blend(base, (0, 0, 0) if sum(base) > 300 else second, rng.uniform(0.3, 0.55))
        gap, width = rng.uniform(0.07, 0.12), rng.uniform(0.02, 0.035)
        for column in range(-9, 10):
            for row in range(-3, 4):
                x, y = column * gap + rng.gauss(0, 0.012), row * 0.26 + (column % 2) * 0.13
                bend = rng.uniform(-0.04, 0.04)
                pen.tube([(x, y - 0.1), (x + bend, y), (x, y + 0.1)], width / 2, width / 4, stripe)
    if pattern == "patches":
        for _ in range(rng.randint(7, 14)):
            _patch(pen, rng, rng.uniform(-0.6, 0.6), rng.uniform(-0.6, 0.6), second)
    if pattern == "bicolour":
        level = rng.uniform(0.1, 0.35)
        pen.blob([(-1, level), (0, level - 0.1), (1, level), (1, 1), (-1, 1)], second)
        pen.oval(rng.uniform(-0.1, 0.3), level - 0.1, 0.14, 0.3, second)


def _patch(pen: Pen, rng: random.Random, x: float, y: float, colour: Colour) -> None:
    turns = [2 * math.pi * i / 7 for i in range(7)]
    reach = [rng.uniform(0.06, 0.17) for _ in turns]
    pen.blob(
        [(x + r * math.cos(t), y + r * math.sin(t)) for r, t in zip(reach, turns, strict=True)],
        colour,
    )


def _paint_hairs(pen: Pen, base: Colour, rng: random.Random) -> None:
    """Short strokes, a little lighter or darker, that make a flat colour look like fur."""
    strength = rng.uniform(0.08, 0.25)
    for _ in range(rng.randint(40, 160)):
        x, y, lean = rng.uniform(-0.7, 0.7), rng.uniform(-0.7, 0.7), rng.uniform(-0.02, 0.02)
        shade = rng.choice([(0, 0, 0), (255, 255, 255)])
        pen.stroke([(x, y), (x + lean, y + 0.05)], 0.008, _blend(base, shade, strength))


# --- the head -----------------------------------------------------------------------------------


def _head_from_front(pen: Pen, animal: Anatomy, coat: Coat, rng: random.Random) -> None:
    """A head seen from the front; its height goes from -1 to 1."""
    _skull(pen, animal, coat)
    _muzzle(pen, animal, coat)
    for side in (-1, 1):
        _eye(pen.at(side * 0.42 * animal.head_width, -0.06 - 0.08 * animal.muzzle), animal, rng)


def _skull(pen: Pen, animal: Anatomy, coat: Coat) -> None:
    """Skull and ears, which is all that is seen of a head from behind."""
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
    inside = _blend(PINK, coat.base, 0.45)
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
    """Snout, nose, mouth, and what hangs from them."""
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
        pen.stroke(_smooth(lip, closed=False), 0.035, INK)
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
    pen.oval(-0.35 * r, -0.35 * r, 0.25 * r, 0.14 * r, _blend(colour, (255, 255, 255), 0.5))


def _eye(pen: Pen, animal: Anatomy, rng: random.Random) -> None:
    r = animal.eye
    pen.oval(0, 0, 1.12 * r, r, INK)
    pen.oval(0, 0, 0.95 * r, 0.84 * r, animal.iris)
    pupil = rng.uniform(0.18, 0.45) if animal.slit_pupils else rng.uniform(0.55, 0.7)
    pen.oval(0, 0, pupil * r, 0.72 * r, INK)
    pen.oval(0.25 * r, -0.3 * r, 0.18 * r, 0.18 * r, (250, 250, 250))


def _head_from_side(pen: Pen, animal: Anatomy, coat: Coat, rng: random.Random) -> None:
    """A head in profile, looking right."""
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


# --- the body, one function a pose; feet stand at y = 0.5, the animal looks right ----------------


def _tail(pen: Pen, animal: Anatomy, coat: Coat, rng: random.Random, up: bool) -> None:
    """A tail that leaves its root to the left, along the ground or into the air."""
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


def _close_up(pen: Pen, animal: Anatomy, coat: Coat, rng: random.Random) -> None:
    g = 1.4 * animal.girth
    chest = [(-0.14 - g, 1.0), (-0.1 - g, 0.35), (-0.2, 0.1), (0.2, 0.1), (0.1 + g, 0.35)]
    pen.blob([*chest, (0.14 + g, 1.0)], coat.near, line=coat.line)
    _head_from_front(pen.at(0, 0.06, 0.33, rng.gauss(0, 8)), animal, coat, rng)


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
        _skull(head, animal, coat)
    else:
        _head_from_front(head, animal, coat, rng)


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
    pen = pen.at(-0.06, 0.05, 0.9)  # the head sticks out: make room for it
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
    draw_head = _head_from_side if rng.random() < 0.3 else _head_from_front
    draw_head(pen, animal, coat, rng)


Pose = Callable[[Pen, Anatomy, Coat, random.Random], None]
POSES: list[tuple[Pose, int]] = [
    (_close_up, 11),
    (_sitting, 7),
    (partial(_sitting, behind=True), 1),
    (_sitting_sideways, 2),
    (_standing, 2),
    (_lying, 2),
]


# --- places and clutter -------------------------------------------------------------------------


def _ground(pen: Pen, colour: Colour, level: float) -> None:
    pen.fill([(-2, level), (3, level), (3, 3), (-2, 3)], colour)


def _meadow(pen: Pen, rng: random.Random) -> None:
    green = (rng.randint(80, 130), rng.randint(130, 175), rng.randint(60, 100))
    level = rng.uniform(0.2, 0.7)
    for _ in range(rng.randint(0, 4)):
        x, r = rng.uniform(-0.2, 1.2), rng.uniform(0.15, 0.35)
        pen.oval(x, level, r, r * 0.9, _blend(green, (30, 70, 50), rng.uniform(0.2, 0.6)))
    _ground(pen, green, level)
    for _ in range(rng.randint(30, 90)):
        x, y = rng.uniform(-0.2, 1.2), rng.uniform(level, 1.2)
        shade = _blend(green, (20, 60, 20), rng.uniform(0.1, 0.4))
        pen.stroke([(x, y), (x + rng.uniform(-0.03, 0.03), y - 0.06)], 0.008, shade)


def _room(pen: Pen, rng: random.Random) -> None:
    level, wood = rng.uniform(0.55, 0.8), _blend((150, 110, 80), _any_colour(rng), 0.3)
    _ground(pen, wood, level)
    for plank in range(-4, 14):
        end = (0.5 + (plank / 10 - 0.5) * 2.5, 1.5)
        pen.stroke([(plank / 10, level), end], 0.008, _blend(wood, INK, 0.25))
    pen.stroke([(-1, level), (2, level)], 0.03, (236, 232, 226))
    if rng.random() < 0.5:
        x, y, pane = rng.uniform(0, 0.7), rng.uniform(0, 0.2), _any_colour(rng, 120, 230)
        box = [(x, y), (x + 0.3, y), (x + 0.3, y + 0.35), (x, y + 0.35)]
        pen.fill(box, pane, line=_blend(pane, INK, 0.6))


def _sofa(pen: Pen, rng: random.Random) -> None:
    cloth, seat = _any_colour(rng, 50, 210), rng.uniform(0.6, 0.8)
    seam = _blend(cloth, INK, 0.35)
    for x in (-0.45, 0.1, 0.65):
        box = [(x, seat - 0.5), (x + 0.54, seat - 0.5), (x + 0.54, seat), (x, seat)]
        pen.blob(_smooth(box, steps=2), _blend(cloth, (255, 255, 255), 0.08), line=seam)
    _ground(pen, cloth, seat)
    pen.stroke([(-1, seat), (2, seat)], 0.015, seam)


def _wallpaper(pen: Pen, rng: random.Random) -> None:
    stripe, gap = _any_colour(rng), rng.uniform(0.08, 0.3)
    dots = rng.random() < 0.5
    for column in range(-6, 22):
        x = column * gap
        if not dots:
            pen.fill([(x, -1), (x + gap / 2, -1), (x + gap / 2, 2), (x, 2)], stripe, 0.5)
            continue
        for row in range(-3, 14):
            pen.oval(x, (row + column % 2 / 2) * gap, gap / 5, gap / 5, stripe)


def _lights(pen: Pen, rng: random.Random) -> None:
    for _ in range(rng.randint(6, 16)):
        r = rng.uniform(0.04, 0.2)
        spot = _any_colour(rng, 90, 250)
        pen.oval(rng.uniform(-0.1, 1.1), rng.uniform(-0.1, 1.1), r, r, spot, 0.4)


def _tiles(pen: Pen, rng: random.Random) -> None:
    colour, gap = _any_colour(rng, 90, 230), rng.uniform(0.12, 0.3)
    _ground(pen, colour, rng.uniform(0.4, 0.7))
    for i in range(-8, 16):
        for line in ([(i * gap, -1), (i * gap, 2)], [(-1, i * gap), (2, i * gap)]):
            pen.stroke([(float(x), float(y)) for x, y in line], 0.01, _blend(colour, INK, 0.3))


def _nothing(pen: Pen, rng: random.Random) -> None:
    """Leave the gradient as it is."""


PLACES = (_meadow, _meadow, _room, _sofa, _wallpaper, _lights, _tiles, _nothing)


def _gradient(image_side: int, rng: random.Random) -> Image.Image:
    """A backdrop that goes from one colour to another, from top to bottom."""
    ramp = Image.linear_gradient("L").resize((image_side, image_side))
    top, bottom = _any_colour(rng, 70, 240), _any_colour(rng, 70, 240)
    return ImageOps.colorize(ramp, top, _blend(top, bottom, 0.6))


def _ball(pen: Pen, rng: random.Random) -> None:
    colour = _any_colour(rng, 40, 240)
    pen.oval(0, -0.08, 0.08, 0.08, colour, line=_blend(colour, INK, 0.4))
    pen.stroke([(-0.07, -0.1), (0, -0.06), (0.07, -0.1)], 0.012, (240, 240, 236))


def _bowl(pen: Pen, rng: random.Random) -> None:
    colour = _any_colour(rng, 60, 230)
    pen.fill([(-0.12, -0.08), (0.12, -0.08), (0.15, 0), (-0.15, 0)], colour)
    pen.oval(0, -0.08, 0.12, 0.03, _blend(colour, INK, 0.5))


def _plant(pen: Pen, rng: random.Random) -> None:
    green = (rng.randint(40, 100), rng.randint(110, 160), rng.randint(50, 100))
    for _ in range(rng.randint(4, 9)):
        x, y = rng.uniform(-0.2, 0.2), rng.uniform(-0.55, -0.25)
        pen.tube(
            [(0, -0.1), (x / 2, y * 0.7), (x, y)], 0.035, 0.004, green, _blend(green, INK, 0.4)
        )
    pen.fill([(-0.1, -0.14), (0.1, -0.14), (0.07, 0), (-0.07, 0)], _any_colour(rng, 70, 220))


def _carton(pen: Pen, rng: random.Random) -> None:
    wide, high = rng.uniform(0.1, 0.2), rng.uniform(0.1, 0.25)
    colour = _blend((180, 140, 96), _any_colour(rng), 0.4)
    box = [(-wide, -high), (wide, -high), (wide, 0), (-wide, 0)]
    pen.fill(box, colour, line=_blend(colour, INK, 0.5))


def _cushion(pen: Pen, rng: random.Random) -> None:
    colour, r = _any_colour(rng, 60, 230), rng.uniform(0.1, 0.18)
    pen.blob([(-r, -r), (r, -r), (r, 0), (-r, 0)], colour, line=_blend(colour, INK, 0.4))


THINGS = (_ball, _bowl, _plant, _carton, _cushion)


def _clutter(pen: Pen, rng: random.Random, most: int, y: float) -> None:
    """Put some things on the ground at height y."""
    for _ in range(rng.randint(0, most)):
        thing, size = rng.choice(THINGS), rng.uniform(0.7, 1.5)
        thing(pen.at(rng.uniform(0, 1), y + rng.uniform(-0.05, 0.1), size), rng)


def _occlude(pen: Pen, rng: random.Random) -> None:
    """Put bars, leaves or a blanket between the camera and the animal, or nothing."""
    colour = _any_colour(rng, 40, 220)
    match rng.choice(["", "", "", "", "", "", "", "bars", "leaves", "blanket"]):
        case "bars":
            gap, width = rng.uniform(0.2, 0.4), rng.uniform(0.02, 0.05)
            for bar in range(-3, 8):
                x = bar * gap + rng.uniform(0, 0.05)
                pen.stroke([(x, -1), (x, 2)], width, colour)
        case "leaves":
            for _ in range(rng.randint(3, 9)):
                leaf = pen.at(
                    rng.random(), rng.random(), rng.uniform(0.08, 0.2), rng.uniform(0, 360)
                )
                green = (rng.randint(50, 120), rng.randint(100, 160), rng.randint(40, 90))
                leaf.blob([(-1, 0), (0, -0.35), (1, 0), (0, 0.35)], green)
        case "blanket":
            level, fold = rng.uniform(0.65, 0.9), _blend(colour, INK, 0.3)
            edge = [(x / 4, level + rng.uniform(-0.06, 0.06)) for x in range(-2, 7)]
            pen.fill([*_smooth(edge, closed=False), (2, 2), (-1, 2)], colour, line=fold)


# --- the camera ---------------------------------------------------------------------------------


def _expose(image: Image.Image, rng: random.Random) -> Image.Image:
    """Return the picture under some light: its direction, strength and tint."""
    pixels = np.asarray(image, dtype=np.float32)
    height, width, _ = pixels.shape
    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j].astype(np.float32)
    angle, fall = rng.uniform(0, 2 * math.pi), rng.uniform(0, 0.3)
    light = 1 + fall * (math.cos(angle) * x + math.sin(angle) * y)
    light *= 1 - rng.choice([0, 0, 0.25]) * (x * x + y * y) / 2
    gain = rng.uniform(0.8, 1.2) * np.array([rng.uniform(0.88, 1.12) for _ in range(3)])
    contrast = rng.uniform(0.75, 1.1)
    lit = (pixels - 128) * contrast + 128
    return _to_image(lit * light[..., None] * gain.astype(np.float32))


def _blur_and_noise(image: Image.Image, rng: random.Random) -> Image.Image:
    """Return the picture a little out of focus, and with the noise of a sensor."""
    scale = image.width / 112
    image = image.filter(ImageFilter.GaussianBlur(rng.choice([0, 0.3, 0.6, 0.9]) * scale))
    strength = rng.choice([0.0, 2.0, 5.0])
    count = image.width * image.height * 3
    grain = np.frombuffer(rng.randbytes(count), dtype=np.uint8).astype(np.float32)
    pixels = np.asarray(image, dtype=np.float32)
    return _to_image(pixels + strength * (grain.reshape(pixels.shape) / 127.5 - 1))


def _to_image(pixels: npt.NDArray[np.float32]) -> Image.Image:
    return Image.fromarray(np.clip(np.rint(pixels), 0, 255).astype(np.uint8))


# --- pictures and the sample --------------------------------------------------------------------


def draw(class_name: str, seed: int, side: int = 112) -> Image.Image:
    """Return an RGB picture of a cat or a dog, `side` pixels square, determined by class and seed.

    Raises CatdogError for another class.
    """
    if class_name not in KINDS:
        raise CatdogError(f"cannot draw {class_name!r}; only {' and '.join(sorted(KINDS))}")
    rng = _generator(class_name, seed)
    image = _gradient(side * SUPERSAMPLING, rng)
    camera = _aim(image, rng)
    rng.choice(PLACES)(camera, rng)
    _clutter(camera, rng, most=3, y=0.75)
    (pose,) = rng.choices([pose for pose, _ in POSES], [weight for _, weight in POSES])
    stage = camera.at(0.5, 0.54, rng.uniform(0.8, 0.95), rng.gauss(0, 4))
    if pose is not _close_up:
        stage.oval(0, 0.5, 0.42, 0.06, INK, alpha=0.3)
    pose(stage, _grow(KINDS[class_name], rng), _dress(stage, rng), rng)
    _clutter(camera, rng, most=1, y=0.98)
    _occlude(camera, rng)
    image = _expose(image.reduce(SUPERSAMPLING), rng)
    image = ImageOps.mirror(image) if rng.random() < 0.5 else image
    return _blur_and_noise(image, rng)


def _generator(class_name: str, seed: int) -> random.Random:
    """Return the one source of chance of a picture, so that no picture depends on another."""
    return random.Random(f"{class_name} {seed}")


def _aim(image: Image.Image, rng: random.Random) -> Pen:
    """Return a pen whose unit square is what the camera was meant to see, and roughly does."""
    zoom = image.width * rng.uniform(0.9, 1.2)
    turn = cmath.rect(zoom, math.radians(rng.gauss(0, 5)))
    middle = complex(image.width, image.width) / 2
    miss = zoom * complex(rng.gauss(0, 0.05), rng.gauss(0, 0.04))
    return Pen(image, middle + miss - turn * complex(0.5, 0.5), turn)


def draw_sample(root: Path, count: int = 800, seed: int = 1) -> None:
    """Write `count` pictures, half of them dogs, as root/cat/cat_0001.jpg, root/dog/dog_0001.jpg, …

    `root` appears whole or not at all. Picture i does not depend on `count`. Raises CatdogError if
    `root` exists, or if `count` is odd or below 2.
    """
    if root.exists() or root.is_symlink():
        raise CatdogError(f"{root} exists; move it away to have the sample drawn there")
    if count < 2 or count % 2:
        raise CatdogError(f"count must be even and at least 2, not {count}")
    temporary = root.with_name(f".{root.name}.tmp")
    jobs = [(temporary, name, seed, i) for name in KINDS for i in range(1, count // 2 + 1)]
    shutil.rmtree(temporary, ignore_errors=True)  # what a killed run left
    try:
        for name in KINDS:
            (temporary / name).mkdir(parents=True)
        with process_pool(usable_cores()) as pool:
            list(pool.map(_save, *zip(*jobs, strict=True), chunksize=16))
        temporary.rename(root)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _save(root: Path, class_name: str, seed: int, index: int) -> None:
    path = root / class_name / f"{class_name}_{index:04}.jpg"
    draw(class_name, seed * SEEDS_PER_SAMPLE + index).save(path, quality=JPEG_QUALITY)
