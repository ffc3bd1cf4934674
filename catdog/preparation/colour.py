"""Convert decoded images of any mode to 8-bit sRGB, with transparency over white."""

import io
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from PIL import Image, ImageCms, TiffImagePlugin

from catdog.errors import PhotoError

MAX_PROFILE = 1 << 22  # bytes; profiles for printing have up to 3 MB
SRGB = ImageCms.createProfile("sRGB")
PROFILE_SPACES = {"RGB": "RGB ", "L": "GRAY", "CMYK": "CMYK"}
BITS_PER_SAMPLE, PHOTOMETRIC, WHITE_IS_ZERO = 258, 262, 0


@dataclass(frozen=True)
class Grey16:
    """How the values of 16-bit grey pixels relate to 8 bits."""

    bits: int
    white_is_zero: bool

    @classmethod
    def of(cls, image: Image.Image) -> "Grey16":
        """Return the properties of an opened file."""
        if not isinstance(image, TiffImagePlugin.TiffImageFile):
            return cls(16, False)
        # Pillow inverts 1 to 8 bits, but not 16, where 0 is white.
        tags: Mapping[int, Any] = image.tag_v2
        return cls(tags.get(BITS_PER_SAMPLE, (16,))[0], tags.get(PHOTOMETRIC) == WHITE_IS_ZERO)

    def to_8_bits(self, image: Image.Image) -> Image.Image:
        """Return the upper 8 bits, as Pillow's decoders do for 16-bit RGB, as mode L or LA."""
        values = np.asarray(image).astype(np.int64)
        grey = np.clip(values >> (self.bits - 8), 0, 255).astype(np.uint8)
        result = Image.fromarray(255 - grey if self.white_is_zero else grey)
        transparent = image.info.get("transparency")
        if isinstance(transparent, int):
            result.putalpha(Image.fromarray(np.where(values == transparent, 0, 255).astype("u1")))
        return result


def check_mode(image: Image.Image) -> None:
    """Raise PhotoError for pixels without a fixed range: floating-point, signed or 32 bits."""
    if image.mode == "F" or (image.mode == "I" and image.format != "PPM"):
        kind = "floating-point" if image.mode == "F" else "signed or 32-bit"
        raise PhotoError(f"unsupported {kind} pixels")


def to_srgb(image: Image.Image, grey16: Grey16, profile: bytes | None) -> Image.Image:
    """Return an image of any mode, or a part of one, as mode RGB.

    Transparency is composited over white. Colours are converted to sRGB by the ICC profile, unless
    it is invalid or of another colour space than the pixels.
    """
    if image.mode.startswith("I"):
        image = grey16.to_8_bits(image)
    elif image.mode == "1":
        transparency = image.info.get("transparency")
        image = image.convert("L")
        if transparency is not None:
            image.info["transparency"] = transparency
    if image.mode == "LAB":
        return _apply(_from_lab(), image)
    base = _base_mode(image)
    transform = transform_to_srgb(profile, base) if profile else None
    if not image.has_transparency_data:
        return _apply(transform, image.convert(base)) if transform else image.convert("RGB")
    layer = image.convert("LA" if image.mode == "La" else "RGBA").convert("RGBA")
    if transform:
        colours = _apply(transform, layer.convert("RGB").convert(base))
        colours.putalpha(layer.getchannel("A"))
        layer = colours
    white = Image.new("RGBA", layer.size, "white")
    return Image.alpha_composite(white, layer).convert("RGB")


def is_converted(image: Image.Image, profile: bytes | None) -> bool:
    """Return whether `to_srgb` converts the colours of an opaque image by its profile."""
    mode = _base_mode(image)
    return image.mode == mode and bool(profile and transform_to_srgb(profile, mode))


def _base_mode(image: Image.Image) -> str:
    if image.mode in ("L", "LA", "La"):
        return "L"
    return "CMYK" if image.mode == "CMYK" else "RGB"


def _apply(transform: ImageCms.ImageCmsTransform, image: Image.Image) -> Image.Image:
    converted = ImageCms.applyTransform(image, transform)
    assert converted is not None  # it is None only for inPlace=True
    return converted


@lru_cache(maxsize=16)
def transform_to_srgb(profile: bytes, mode: str) -> ImageCms.ImageCmsTransform | None:
    """Return the transform of pixels of a mode (RGB, L or CMYK) to sRGB; None if it has no effect.

    It has none if the profile is sRGB. As there are many versions of that profile, it is recognized
    by its colours: none changes by more than 2 of 255. Invalid profiles, and those of another
    colour space than the pixels, are ignored.
    """
    if len(profile) > MAX_PROFILE:
        return None
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        if source.profile.xcolor_space != PROFILE_SPACES[mode]:
            return None
        transform = _build(source, mode)
        same = mode != "CMYK" and _largest_change(transform, mode) <= 2
    except (ImageCms.PyCMSError, OSError, ValueError):
        return None
    return None if same else transform


@lru_cache(maxsize=1)
def _from_lab() -> ImageCms.ImageCmsTransform:
    return _build(ImageCms.createProfile("LAB"), "LAB")


def _build(source: Any, mode: str) -> ImageCms.ImageCmsTransform:
    return ImageCms.buildTransform(
        source,
        SRGB,
        mode,
        "RGB",
        ImageCms.Intent.RELATIVE_COLORIMETRIC,
        # Without the cache of the last colour, a transform can be used in several threads.
        ImageCms.Flags.BLACKPOINTCOMPENSATION | ImageCms.Flags.NOCACHE,
    )


def _largest_change(transform: ImageCms.ImageCmsTransform, mode: str) -> int:
    levels = np.arange(0, 256, 15, dtype=np.uint8)
    colours = np.stack(np.meshgrid(levels, levels, levels), axis=-1).reshape(len(levels), -1, 3)
    before = Image.fromarray(colours if mode == "RGB" else colours[..., 0])
    after = np.asarray(_apply(transform, before)).astype(int)
    return int(np.abs(after - np.asarray(before.convert("RGB"))).max())
