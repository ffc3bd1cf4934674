"""The coat of an animal: colours and patterns, which cats and dogs share."""

import math
import random
from dataclasses import dataclass

from PIL import Image

from tools.draw_sample.pen import INK, Colour, Paint, Pen, any_colour, blend

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
PATTERNS = ("plain", "plain", "tabby", "tabby", "patches", "bicolour", "bicolour", "mask")


@dataclass(frozen=True)
class Coat:
    """The fur of one animal: textures of the picture's size, from which each part is cut."""

    near: Image.Image
    far: Image.Image
    base: Colour
    second: Colour
    line: Colour
    muzzle: Paint
    ears: Paint
    paws: Paint


def random_coat(pen: Pen, rng: random.Random) -> Coat:
    """Return a coat of random colours and pattern, laid out in the frame of the pen."""
    base = blend(rng.choice(FURS), any_colour(rng, 80, 180), rng.uniform(0, 0.15))
    second = rng.choice([fur for fur in FURS if abs(sum(fur) - sum(base)) > 120])
    pattern = rng.choice(PATTERNS)
    dark = sum(base) < 330
    near = Image.new("RGB", pen.image.size, base)
    _paint_pattern(pen.on(near), pattern, base, second, rng)
    _paint_hairs(pen.on(near), base, rng)
    white = blend(second, (244, 240, 232), 0.8)
    light = blend(base, (255, 246, 230), rng.uniform(0.1, 0.5))
    pale: Paint = white if pattern == "bicolour" else light if rng.random() < 0.6 else near
    masked = blend(base, INK, 0.65)
    return Coat(
        near=near,
        far=near.point(lambda value: round(value * 0.82)),
        base=base,
        second=second,
        line=blend(base, (130, 120, 116), 0.45) if dark else blend(base, INK, 0.45),
        muzzle=masked if pattern == "mask" else pale,
        ears=masked if pattern == "mask" else near if rng.random() < 0.6 else second,
        paws=white if pattern == "bicolour" else near,
    )


def _paint_pattern(
    pen: Pen, pattern: str, base: Colour, second: Colour, rng: random.Random
) -> None:
    """Draw stripes, patches or an underside in the second colour, over the whole frame."""
    if pattern == "tabby":
        stripe = blend(base, (0, 0, 0) if sum(base) > 300 else second, rng.uniform(0.3, 0.55))
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
    """Draw short strokes, slightly lighter or darker, so that a flat colour looks like fur."""
    strength = rng.uniform(0.08, 0.25)
    for _ in range(rng.randint(40, 160)):
        x, y, lean = rng.uniform(-0.7, 0.7), rng.uniform(-0.7, 0.7), rng.uniform(-0.02, 0.02)
        shade = rng.choice([(0, 0, 0), (255, 255, 255)])
        pen.stroke([(x, y), (x + lean, y + 0.05)], 0.008, blend(base, shade, strength))
