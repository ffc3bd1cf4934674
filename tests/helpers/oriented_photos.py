"""An image that is different under every rotation and flip, and its EXIF orientations."""

import numpy as np
from PIL import Image

RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)

# The colours of the quarters, left to right and top to bottom, for each value of Orientation
# (EXIF 2.32, section 4.6.4)
ORIENTED = {
    1: (RED, GREEN, BLUE, WHITE),
    2: (GREEN, RED, WHITE, BLUE),
    3: (WHITE, BLUE, GREEN, RED),
    4: (BLUE, WHITE, RED, GREEN),
    5: (RED, BLUE, GREEN, WHITE),
    6: (BLUE, RED, WHITE, GREEN),
    7: (WHITE, GREEN, BLUE, RED),
    8: (GREEN, WHITE, RED, BLUE),
}


def quarters(width: int = 96, height: int = 64) -> Image.Image:
    """Return an image of four colours."""
    colours = np.array([[RED, GREEN], [BLUE, WHITE]], np.uint8)
    return Image.fromarray(colours.repeat(height // 2, axis=0).repeat(width // 2, axis=1))


def corners(photo: Image.Image) -> list[list[int]]:
    """Return the colours of the quarters, left to right and top to bottom."""
    pixels = np.asarray(photo)
    down, across = pixels.shape[0] // 4, pixels.shape[1] // 4
    return [pixels[y, x].tolist() for y in (down, 3 * down) for x in (across, 3 * across)]
