"""Mutated photos of all formats through open_photo, as the workers of import and prepare do."""

import importlib.util
import io
import random
import struct
import zlib
from functools import cache
from pathlib import Path
from typing import Any

from PIL import Image

from catdog.preparation.photos import open_photo, resize_to_square
from tools.fuzz.mutations import BOUNDARY_INTEGERS, mutate_bytes
from tools.fuzz.runner import GIGABYTE, InvariantError

# Format of Pillow, mode, options of `save`; a number of frames is an option of its own.
VARIANTS: tuple[tuple[str, str, dict[str, Any]], ...] = (
    ("JPEG", "RGB", {"quality": 80}),
    ("JPEG", "RGB", {"progressive": True, "icc_profile": b"not a profile" * 100}),
    ("JPEG", "L", {"comment": b"x" * 1000}),
    ("JPEG", "CMYK", {}),
    ("PNG", "RGB", {}),
    ("PNG", "RGBA", {}),
    ("PNG", "LA", {}),
    ("PNG", "P", {"transparency": 3}),
    ("PNG", "I;16", {}),
    ("PNG", "1", {}),
    ("PNG", "RGB", {"frames": 3}),
    ("WEBP", "RGB", {}),
    ("WEBP", "RGBA", {"lossless": True}),
    ("WEBP", "RGB", {"frames": 3}),
    ("GIF", "P", {}),
    ("GIF", "P", {"frames": 3}),
    ("BMP", "RGB", {}),
    ("BMP", "P", {}),
    ("TIFF", "RGB", {"compression": "tiff_lzw"}),
    ("TIFF", "RGB", {"compression": "jpeg"}),
    ("TIFF", "RGBA", {"compression": "tiff_adobe_deflate"}),
    ("TIFF", "1", {"compression": "group4"}),
    ("TIFF", "I;16", {}),
    ("TIFF", "CMYK", {"frames": 2}),
    ("AVIF", "RGB", {}),
    ("JPEG2000", "RGB", {}),
    ("MPO", "RGB", {"frames": 2}),
    ("PPM", "RGB", {}),
    ("HEIF", "RGB", {}),
)
SIDES = (48, 40)  # width and height of the photos before they are mutated
MAX_SIDE = 32


class Images:
    """The target; each input is one file."""

    max_bytes = GIGABYTE

    def make(self, rng: random.Random, folder: Path) -> None:
        """Write a mutated photo."""
        data, other = (rng.choice(photos()) for _ in range(2))
        if data.startswith(b"\x89PNG") and rng.random() < 0.4:
            changed = _change_chunk(rng, data)
        else:
            changed = mutate_bytes(rng, data, other)
        (folder / "photo").write_bytes(changed)

    def check(self, folder: Path) -> None:
        """Open the photo completely, and at a reduced size; both must be RGB of that size."""
        data = (folder / "photo").read_bytes()
        for source in (io.BytesIO(data), folder / "photo"):
            photo = open_photo(source, max_side=MAX_SIDE if isinstance(source, Path) else None)
            if photo.mode != "RGB" or min(photo.info["width"], photo.info["height"]) < 1:
                raise InvariantError("traceback", f"{photo.mode} photo with {photo.info}")
            if resize_to_square(photo, MAX_SIDE).shape != (MAX_SIDE, MAX_SIDE, 3):
                raise InvariantError("traceback", "array of another shape")


@cache
def photos() -> tuple[bytes, ...]:
    """Return a small photo in each variant that can be written here."""
    if importlib.util.find_spec("pillow_heif"):
        importlib.import_module("pillow_heif").register_heif_opener()
    Image.init()
    return tuple(_write(*variant) for variant in VARIANTS if variant[0] in Image.SAVE)


def _write(format: str, mode: str, options: dict[str, Any]) -> bytes:
    frames = [_photo(mode, number) for number in range(options.get("frames", 1))]
    exif = Image.Exif()
    exif[0x0112] = 6  # rotated by 90 degrees
    arguments = {name: value for name, value in options.items() if name != "frames"}
    if format in ("JPEG", "PNG", "WEBP", "TIFF", "AVIF"):
        arguments["exif"] = exif
    if len(frames) > 1:
        arguments |= {"save_all": True, "append_images": frames[1:]}
    stream = io.BytesIO()
    frames[0].save(stream, format, **arguments)
    return stream.getvalue()


def _photo(mode: str, number: int) -> Image.Image:
    noise = random.Random(number).randbytes(SIDES[0] * SIDES[1] * 3)
    photo = Image.frombytes("RGB", SIDES, noise).resize((12, 10)).resize(SIDES)
    if mode == "I;16":
        return photo.convert("L").convert("I").point(lambda value: value * 256).convert("I;16")
    return photo.convert(mode)


def _change_chunk(rng: random.Random, data: bytes) -> bytes:
    """Return a PNG with one chunk changed, repeated, removed or added, and valid checksums."""
    chunks, at = [], 8
    while at < len(data):
        (length,) = struct.unpack(">I", data[at : at + 4])
        chunks.append((data[at + 4 : at + 8], data[at + 8 : at + 8 + length]))
        at += 12 + length
    index = rng.randrange(len(chunks))
    name, content = chunks[index]
    match rng.randrange(5):
        case 0:
            chunks[index] = name, mutate_bytes(rng, content)
        case 1:
            chunks.insert(index, chunks[index])
        case 2:
            del chunks[index]
        case 3:
            kind = rng.choice((b"tEXt", b"zTXt", b"iTXt", b"iCCP", b"eXIf", b"acTL", b"fcTL"))
            bomb = b"x\x00\x00" + zlib.compress(bytes(rng.choice((10, 10_000_000))))
            chunks.insert(index, (kind, rng.choice((bomb, rng.randbytes(50)))))
        case 4:
            sizes = struct.pack(">II", rng.choice(BOUNDARY_INTEGERS), rng.choice(BOUNDARY_INTEGERS))
            chunks[0] = b"IHDR", sizes + chunks[0][1][8:]
    parts = [
        struct.pack(">I", len(content))
        + name
        + content
        + struct.pack(">I", zlib.crc32(name + content))
        for name, content in chunks
    ]
    return data[:8] + b"".join(parts)
