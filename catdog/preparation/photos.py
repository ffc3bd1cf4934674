"""One photo file: open, validate, decode, resize to a square."""

import re
import warnings
from pathlib import Path
from typing import BinaryIO

import numpy as np
import numpy.typing as npt
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from catdog.errors import CatdogError

MAX_PIXELS = 200_000_000  # the largest phone cameras; a limit against decompression bombs

# Pillow refuses images of more than twice this number, by default 179 million pixels.
Image.MAX_IMAGE_PIXELS = MAX_PIXELS

# Pillow warns about invalid metadata even if the pixels are valid. The filter is global because
# photos are decoded in threads, where warnings.catch_warnings is not safe.
warnings.filterwarnings("ignore", module=r"PIL\.")


class PhotoError(CatdogError):
    """A file that cannot be used as a photo; the message is the reason, without the path."""


def open_photo(source: Path | BinaryIO, max_side: int | None = None) -> Image.Image:
    """Decode a photo completely and return it as an upright 8-bit RGB image.

    The EXIF orientation is applied, transparency is composited over white, and of an animation only
    the first frame is used. With `max_side`, a large JPEG is decoded at 1/2, 1/4 or 1/8 of its size
    with no side below `max_side` (Pillow's draft mode): several times faster, and the whole file is
    still read and checked. The returned image's `info` has the original "width" and "height" in
    pixels, after rotation. Raises PhotoError if the file is empty, damaged, truncated, too large or
    not an image.
    """
    try:
        return _decode(source, max_side)
    except PhotoError:
        raise
    except UnidentifiedImageError:
        raise PhotoError("unsupported image format") from None
    except (Image.DecompressionBombError, MemoryError):
        raise PhotoError(f"more than {MAX_PIXELS:,} pixels") from None
    except Exception as error:  # Pillow raises many types of exceptions for damaged files
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        # Details such as "(17 bytes not processed)" are cut, so that reasons can be counted.
        raise PhotoError(f"damaged: {re.sub(r' [(].*[)]$', '', reason)}") from None


def _decode(source: Path | BinaryIO, max_side: int | None) -> Image.Image:
    if isinstance(source, Path):
        if not source.is_file():
            raise PhotoError("not a file")
        if source.stat().st_size == 0:
            raise PhotoError("empty file")
    with Image.open(source) as image:
        size = image.size
        if size[0] * size[1] > MAX_PIXELS:
            raise PhotoError(f"more than {MAX_PIXELS:,} pixels")
        if max_side is not None:
            image.draft(None, (max_side, max_side))
        image.load()
        upright, transposed = _apply_orientation(image)
    photo = _to_rgb(upright)
    photo.info = dict(zip(("width", "height"), size[::-1] if transposed else size, strict=True))
    return photo


def _apply_orientation(image: Image.Image) -> tuple[Image.Image, bool]:
    """Return the image in its EXIF orientation, and whether width and height were exchanged."""
    try:
        transposed = image.getexif().get(ExifTags.Base.Orientation) in range(5, 9)
        return ImageOps.exif_transpose(image), transposed
    except Exception:  # damaged metadata, but valid pixels: use them without rotation
        return image.copy(), False


def _to_rgb(image: Image.Image) -> Image.Image:
    """Convert to 8-bit RGB: transparency over white, 16-bit grey scaled instead of clipped."""
    if image.mode.startswith("I"):
        grey = np.asarray(image).astype(np.int64) // 257
        return Image.fromarray(grey.clip(0, 255).astype(np.uint8)).convert("RGB")
    if image.mode == "F":
        raise PhotoError("unsupported floating-point pixels")
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        white = Image.new("RGBA", layer.size, "white")
        return Image.alpha_composite(white, layer).convert("RGB")
    return image.convert("RGB")


def resize_to_square(image: Image.Image, image_size: int) -> npt.NDArray[np.uint8]:
    """Resize an RGB image to a square and return it as uint8 (image_size, image_size, 3).

    The photo is stretched rather than cropped, because the animal is often near an edge. Pillow's
    bicubic filter is antialiased: its support grows with the scale of the reduction.
    """
    resized = image.resize((image_size, image_size), Image.Resampling.BICUBIC)
    return np.asarray(resized, dtype=np.uint8)
