"""What surrounds an animal: backgrounds, objects on the floor, and objects in front of it."""

import random

from PIL import Image, ImageOps

from tools.draw_sample.pen import INK, Colour, Pen, any_colour, blend, smooth


def gradient(image_side: int, rng: random.Random) -> Image.Image:
    """Return a vertical gradient between two random colours, `image_side` pixels square."""
    ramp = Image.linear_gradient("L").resize((image_side, image_side))
    top, bottom = any_colour(rng, 70, 240), any_colour(rng, 70, 240)
    return ImageOps.colorize(ramp, top, blend(top, bottom, 0.6))


def _ground(pen: Pen, colour: Colour, level: float) -> None:
    pen.fill([(-2, level), (3, level), (3, 3), (-2, 3)], colour)


def _meadow(pen: Pen, rng: random.Random) -> None:
    green = (rng.randint(80, 130), rng.randint(130, 175), rng.randint(60, 100))
    level = rng.uniform(0.2, 0.7)
    for _ in range(rng.randint(0, 4)):
        x, r = rng.uniform(-0.2, 1.2), rng.uniform(0.15, 0.35)
        pen.oval(x, level, r, r * 0.9, blend(green, (30, 70, 50), rng.uniform(0.2, 0.6)))
    _ground(pen, green, level)
    for _ in range(rng.randint(30, 90)):
        x, y = rng.uniform(-0.2, 1.2), rng.uniform(level, 1.2)
        shade = blend(green, (20, 60, 20), rng.uniform(0.1, 0.4))
        pen.stroke([(x, y), (x + rng.uniform(-0.03, 0.03), y - 0.06)], 0.008, shade)


def _room(pen: Pen, rng: random.Random) -> None:
    level, wood = rng.uniform(0.55, 0.8), blend((150, 110, 80), any_colour(rng), 0.3)
    _ground(pen, wood, level)
    for plank in range(-4, 14):
        end = (0.5 + (plank / 10 - 0.5) * 2.5, 1.5)
        pen.stroke([(plank / 10, level), end], 0.008, blend(wood, INK, 0.25))
    pen.stroke([(-1, level), (2, level)], 0.03, (236, 232, 226))
    if rng.random() < 0.5:
        x, y, pane = rng.uniform(0, 0.7), rng.uniform(0, 0.2), any_colour(rng, 120, 230)
        box = [(x, y), (x + 0.3, y), (x + 0.3, y + 0.35), (x, y + 0.35)]
        pen.fill(box, pane, line=blend(pane, INK, 0.6))


def _sofa(pen: Pen, rng: random.Random) -> None:
    cloth, seat = any_colour(rng, 50, 210), rng.uniform(0.6, 0.8)
    seam = blend(cloth, INK, 0.35)
    for x in (-0.45, 0.1, 0.65):
        box = [(x, seat - 0.5), (x + 0.54, seat - 0.5), (x + 0.54, seat), (x, seat)]
        pen.blob(smooth(box, steps=2), blend(cloth, (255, 255, 255), 0.08), line=seam)
    _ground(pen, cloth, seat)
    pen.stroke([(-1, seat), (2, seat)], 0.015, seam)


def _wallpaper(pen: Pen, rng: random.Random) -> None:
    stripe, gap = any_colour(rng), rng.uniform(0.08, 0.3)
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
        spot = any_colour(rng, 90, 250)
        pen.oval(rng.uniform(-0.1, 1.1), rng.uniform(-0.1, 1.1), r, r, spot, 0.4)


def _tiles(pen: Pen, rng: random.Random) -> None:
    colour, gap = any_colour(rng, 90, 230), rng.uniform(0.12, 0.3)
    _ground(pen, colour, rng.uniform(0.4, 0.7))
    for i in range(-8, 16):
        for line in ([(i * gap, -1), (i * gap, 2)], [(-1, i * gap), (2, i * gap)]):
            pen.stroke([(float(x), float(y)) for x, y in line], 0.01, blend(colour, INK, 0.3))


def _nothing(pen: Pen, rng: random.Random) -> None:
    """Draw nothing: the gradient alone is the background."""


BACKGROUNDS = (_meadow, _meadow, _room, _sofa, _wallpaper, _lights, _tiles, _nothing)


def _ball(pen: Pen, rng: random.Random) -> None:
    colour = any_colour(rng, 40, 240)
    pen.oval(0, -0.08, 0.08, 0.08, colour, line=blend(colour, INK, 0.4))
    pen.stroke([(-0.07, -0.1), (0, -0.06), (0.07, -0.1)], 0.012, (240, 240, 236))


def _bowl(pen: Pen, rng: random.Random) -> None:
    colour = any_colour(rng, 60, 230)
    pen.fill([(-0.12, -0.08), (0.12, -0.08), (0.15, 0), (-0.15, 0)], colour)
    pen.oval(0, -0.08, 0.12, 0.03, blend(colour, INK, 0.5))


def _plant(pen: Pen, rng: random.Random) -> None:
    green = (rng.randint(40, 100), rng.randint(110, 160), rng.randint(50, 100))
    for _ in range(rng.randint(4, 9)):
        x, y = rng.uniform(-0.2, 0.2), rng.uniform(-0.55, -0.25)
        pen.tube([(0, -0.1), (x / 2, y * 0.7), (x, y)], 0.035, 0.004, green, blend(green, INK, 0.4))
    pen.fill([(-0.1, -0.14), (0.1, -0.14), (0.07, 0), (-0.07, 0)], any_colour(rng, 70, 220))


def _carton(pen: Pen, rng: random.Random) -> None:
    wide, high = rng.uniform(0.1, 0.2), rng.uniform(0.1, 0.25)
    colour = blend((180, 140, 96), any_colour(rng), 0.4)
    box = [(-wide, -high), (wide, -high), (wide, 0), (-wide, 0)]
    pen.fill(box, colour, line=blend(colour, INK, 0.5))


def _cushion(pen: Pen, rng: random.Random) -> None:
    colour, r = any_colour(rng, 60, 230), rng.uniform(0.1, 0.18)
    pen.blob([(-r, -r), (r, -r), (r, 0), (-r, 0)], colour, line=blend(colour, INK, 0.4))


OBJECTS = (_ball, _bowl, _plant, _carton, _cushion)


def add_objects(pen: Pen, rng: random.Random, most: int, y: float) -> None:
    """Draw up to `most` objects on the floor, at about height y."""
    for _ in range(rng.randint(0, most)):
        draw_object, size = rng.choice(OBJECTS), rng.uniform(0.7, 1.5)
        draw_object(pen.at(rng.uniform(0, 1), y + rng.uniform(-0.05, 0.1), size), rng)


def occlude(pen: Pen, rng: random.Random) -> None:
    """Draw bars, leaves or a blanket in front of the animal, or (mostly) nothing."""
    colour = any_colour(rng, 40, 220)
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
            level, fold = rng.uniform(0.65, 0.9), blend(colour, INK, 0.3)
            edge = [(x / 4, level + rng.uniform(-0.06, 0.06)) for x in range(-2, 7)]
            pen.fill([*smooth(edge, closed=False), (2, 2), (-1, 2)], colour, line=fold)
