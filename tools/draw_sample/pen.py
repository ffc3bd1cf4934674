"""A pen that fills smooth shapes, in a coordinate frame that can be moved, scaled and rotated."""

import cmath
import math
import random
from collections.abc import Sequence
from typing import Self

import numpy as np
from PIL import Image, ImageDraw

Point = tuple[float, float]
Colour = tuple[int, int, int]
Paint = Colour | Image.Image

INK: Colour = (34, 28, 30)
PINK: Colour = (226, 148, 150)


class Pen:
    """Draws on an image in its own coordinate frame: shifted, scaled and rotated.

    The frame is two complex numbers: a point z of the frame is drawn at pixel origin + unit · z.
    """

    def __init__(self, image: Image.Image, origin: complex, unit: complex) -> None:
        self.image, self.origin, self.unit = image, origin, unit
        self._draw = ImageDraw.Draw(image)

    def at(self, x: float, y: float, scale: float = 1, degrees: float = 0) -> "Pen":
        """Return a pen with its origin at (x, y) in this frame, scaled and rotated clockwise."""
        turn = cmath.rect(scale, math.radians(degrees))
        return Pen(self.image, self.origin + self.unit * complex(x, y), self.unit * turn)

    def on(self, image: Image.Image) -> Self:
        """Return a pen with the same frame on another image."""
        return type(self)(image, self.origin, self.unit)

    def fill(
        self, points: Sequence[Point], paint: Paint, alpha: float = 1, line: Colour | None = None
    ) -> None:
        """Fill a polygon with a colour, or with that area of a texture of the image's size."""
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
        self.fill(smooth(points), paint, alpha, line)

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
        """Fill an ellipse, given by its centre and semi-axes."""
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
        """Fill a tube with a round end along a smooth curve; its half width goes first → last."""
        spine = np.array([complex(*p) for p in smooth(points, closed=False)])
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


def smooth(points: Sequence[Point], closed: bool = True, steps: int = 7) -> list[Point]:
    """Return points on the Catmull-Rom spline through `points`, `steps` for each of them."""
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


def blend(colour: Colour, other: Colour, fraction: float) -> Colour:
    """Return the mixture (1 - fraction) · colour + fraction · other."""
    red, green, blue = (round(a + fraction * (b - a)) for a, b in zip(colour, other, strict=True))
    return (red, green, blue)


def any_colour(rng: random.Random, low: int = 60, high: int = 230) -> Colour:
    """Return a random colour of low saturation, its channels between `low` and `high`."""
    grey = rng.randint(low, high)
    vivid = (rng.randint(low, high), rng.randint(low, high), rng.randint(low, high))
    return blend(vivid, (grey, grey, grey), 0.5)
