"""The camera: where it points, the light, the focus and the noise of its sensor."""

import cmath
import math
import random

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFilter

from tools.draw_sample.pen import Pen


def aim(image: Image.Image, rng: random.Random) -> Pen:
    """Return a pen whose unit square is about what the camera shows, randomly moved and rotated."""
    zoom = image.width * rng.uniform(0.9, 1.2)
    turn = cmath.rect(zoom, math.radians(rng.gauss(0, 5)))
    middle = complex(image.width, image.width) / 2
    miss = zoom * complex(rng.gauss(0, 0.05), rng.gauss(0, 0.04))
    return Pen(image, middle + miss - turn * complex(0.5, 0.5), turn)


def expose(image: Image.Image, rng: random.Random) -> Image.Image:
    """Return the picture under light of random direction, strength, tint and contrast."""
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


def blur_and_noise(image: Image.Image, rng: random.Random) -> Image.Image:
    """Return the picture slightly out of focus, with the noise of a sensor."""
    scale = image.width / 112
    image = image.filter(ImageFilter.GaussianBlur(rng.choice([0, 0.3, 0.6, 0.9]) * scale))
    strength = rng.choice([0.0, 2.0, 5.0])
    count = image.width * image.height * 3
    grain = np.frombuffer(rng.randbytes(count), dtype=np.uint8).astype(np.float32)
    pixels = np.asarray(image, dtype=np.float32)
    return _to_image(pixels + strength * (grain.reshape(pixels.shape) / 127.5 - 1))


def _to_image(pixels: npt.NDArray[np.float32]) -> Image.Image:
    return Image.fromarray(np.clip(np.rint(pixels), 0, 255).astype(np.uint8))
