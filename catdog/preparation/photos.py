"""One photo file: open, validate, decode, resize to a square."""

import io
import re
import warnings
from pathlib import Path
from typing import BinaryIO

import numpy as np
import numpy.typing as npt
from PIL import ExifTags, Image, UnidentifiedImageError

from catdog.errors import PhotoError, first_line
from catdog.preparation import colour, photo_formats, photo_limits, png_chunks

# Pillow warns about invalid metadata even if the pixels are valid. The filter is global because
# photos are decoded in threads, where warnings.catch_warnings is not safe.
warnings.filterwarnings("ignore", module=r"PIL\.")

CHECKED_SIDE = 64  # pixels; see `check_photo`
REDUCED_FROM = 1 << 24  # pixels; see `_to_srgb`
BAND_ROWS = 64
UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""by EXIF orientation (EXIF 2.32, section 4.6.4)"""


def open_photo(source: Path | BinaryIO, max_side: int | None = None) -> Image.Image:
    """Decode a photo completely and return it as an upright 8-bit sRGB image.

    The EXIF orientation is applied, colours are converted to sRGB by the ICC profile, transparency
    is composited over white, and of several frames or pages only the first is used. With
    `max_side`, large photos are reduced by an integer, with no side below `max_side`: a JPEG while
    it is decoded (Pillow's draft mode), which is several times faster, others after it, for less
    memory. The whole file is still read and checked.

    The returned image's `info` has the original "width" and "height" in pixels, after rotation, and
    "animated", whether there are more frames or pages. Raises PhotoError if the file is empty,
    damaged, truncated, over a limit of `photo_limits`, or not in a format of `photo_formats`.
    """
    content = _read(source)
    try:
        return _decode(content, max_side)
    except PhotoError:
        raise
    except UnidentifiedImageError:
        raise PhotoError(photo_formats.describe_unsupported(content)) from None
    except Image.DecompressionBombError:
        raise PhotoError(f"more than {photo_limits.MAX_PIXELS:,} pixels") from None
    except MemoryError:
        raise PhotoError("needs too much memory") from None
    except Exception as error:  # Pillow raises many types of exceptions for damaged files
        raise PhotoError(_describe(error)) from None


def check_photo(content: bytes) -> bool:
    """Return whether a photo has more frames or pages than the first.

    Raises PhotoError if `open_photo` would, and is faster for large photos.
    """
    return bool(open_photo(io.BytesIO(content), CHECKED_SIDE).info["animated"])


def _read(source: Path | BinaryIO) -> bytes:
    if isinstance(source, Path):
        if not source.is_file():
            raise PhotoError("not a file")
        photo_limits.check_bytes(source.stat().st_size)
        with source.open("rb") as stream:
            return _read(stream)
    content = source.read(photo_limits.MAX_BYTES + 1)
    photo_limits.check_bytes(len(content))
    return content


def _decode(content: bytes, max_side: int | None) -> Image.Image:
    decoder = photo_limits.check_structure(content)
    png = None
    if content.startswith(png_chunks.SIGNATURE):
        png = png_chunks.clean(content, colour.MAX_PROFILE)
        content = png.content
    with Image.open(io.BytesIO(content), formats=photo_formats.ALLOWED) as image:
        size = image.size
        photo_limits.check_pixels(*size, decoder or str(image.format))
        if photo_formats.is_camera_raw(image):
            raise PhotoError("unsupported format: camera raw")
        if max_side is not None:
            image.draft(None, (max_side, max_side))
        grey16 = colour.Grey16.of(image)
        image.load()
        colour.check_mode(image)
        if png:
            image.info.update(png.info)
        orientation = _orientation(image)
        photo = _to_srgb(image, grey16, max_side)
        animated = png.animated if png else _is_animated(image)
    if orientation in UPRIGHT:
        photo = photo.transpose(UPRIGHT[orientation])
    width, height = size[::-1] if orientation in range(5, 9) else size
    photo.info = {"width": width, "height": height, "animated": animated}
    return photo


def _to_srgb(image: Image.Image, grey16: colour.Grey16, max_side: int | None) -> Image.Image:
    """Convert a decoded image to sRGB; reduce it if it is very large or has a wide gamut.

    Converting fewer pixels is faster. A very large image is converted in bands, since conversions
    need up to 25 bytes per pixel. Reducing by an integer so that twice `max_side` remains
    is nearly as exact as resizing in one step: `reducing_gap=2` of Pillow's `resize` does the same.
    """
    profile = image.info.get("icc_profile")
    factor = max(min(image.size) // (2 * max_side), 1) if max_side else 1
    converted = colour.is_converted(image, profile)
    if image.width * image.height < REDUCED_FROM or (
        factor == 1 and image.mode == "RGB" and not converted
    ):
        return colour.to_srgb(image.reduce(factor) if converted else image, grey16, profile)
    rows = factor * -(-BAND_ROWS // factor)
    photo = Image.new("RGB", (-(-image.width // factor), -(-image.height // factor)))
    for top in range(0, image.height, rows):
        band = image.crop((0, top, image.width, min(top + rows, image.height)))
        photo.paste(colour.to_srgb(band, grey16, profile).reduce(factor), (0, top // factor))
    return photo


def _orientation(image: Image.Image) -> int:
    """Return the EXIF orientation that the decoder has not applied, 1 if it is upright."""
    try:
        return int(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # damaged metadata, but valid pixels: use them without rotation
        return 1


def _is_animated(image: Image.Image) -> bool:
    try:
        return bool(getattr(image, "is_animated", False))
    except Exception:  # the second frame of a GIF is damaged
        return True


TRUNCATED = re.compile(r"truncat|not enough|unexpected end|end of file|buffer overrun|no more data")


def _describe(error: Exception) -> str:
    """Return a reason that is the same for the same kind of damage, so that reasons can be counted.

    Details such as "(17 bytes not processed)" are left out.
    """
    words = first_line(error)
    if TRUNCATED.search(words.lower()):
        return "damaged: truncated"
    if "data stream" in words or "decoder error" in words or words.startswith("unrecognized data"):
        return "damaged: invalid image data"
    return f"damaged: {re.sub(r' [(].*[)]$', '', words)}"


def resize_to_square(image: Image.Image, image_size: int) -> npt.NDArray[np.uint8]:
    """Resize an RGB image to a square and return it as uint8 (image_size, image_size, 3).

    The photo is stretched rather than cropped, because the animal is often near an edge. Pillow's
    bicubic filter is antialiased: its support grows with the scale of the reduction.
    """
    resized = image.resize((image_size, image_size), Image.Resampling.BICUBIC)
    return np.asarray(resized, dtype=np.uint8)
