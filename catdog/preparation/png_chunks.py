"""PNG files: remove the chunks that do not affect the pixels before Pillow reads them.

Pillow refuses a file for a wrong checksum of any metadata (python-pillow/Pillow#5631) and for long
texts (#8363), and misreads the transparent grey level of less than 8 bits (#9281). Source of the
format: PNG specification, third edition, https://www.w3.org/TR/png-3/.
"""

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

SIGNATURE = b"\x89PNG\r\n\x1a\n"
PIXELS = frozenset({b"IHDR", b"PLTE", b"IDAT", b"IEND"})
GREY, RGB = 0, 2  # colour types
MAX_EXIF = 1 << 16  # bytes, as in a JPEG
MAX_XMP = 1 << 20
XMP = b"XML:com.adobe.xmp\0"


@dataclass(frozen=True)
class Png:
    """A PNG file without chunks that do not affect the pixels."""

    content: bytes
    info: dict[str, object]
    """for Pillow's Image.info: icc_profile and transparency, a grey level or colour, if any"""
    animated: bool


def clean(content: bytes, max_icc: int) -> Png:
    """Return a PNG file without texts, times, animation frames and damaged metadata.

    Kept are the chunks of the pixels, with their checksums for Pillow to verify, and tRNS, eXIf and
    XMP (both for the orientation) if their checksums are right. A profile of more than `max_icc`
    bytes is ignored.
    """
    kept = [SIGNATURE]
    info: dict[str, object] = {}
    animated, bits, colour = False, 8, RGB
    for kind, start, end in _chunks(content):
        data = content[start + 8 : end - 4]
        if kind in PIXELS:
            kept.append(content[start:end])
            if kind == b"IHDR" and len(data) >= 10:
                bits, colour = data[8], data[9]
        elif zlib.crc32(kind + data) != int.from_bytes(content[end - 4 : end], "big"):
            continue
        elif kind == b"iCCP":
            info["icc_profile"] = _profile(data, max_icc)
        elif kind == b"acTL" and len(data) == 8:
            animated = int.from_bytes(data[:4], "big") > 1
        elif kind == b"tRNS" and colour in (GREY, RGB):
            info["transparency"] = _transparency(data, colour, bits)
        elif kind == b"tRNS" or _has_orientation(kind, data):
            kept.append(content[start:end])
    return Png(
        b"".join(kept), {name: value for name, value in info.items() if value is not None}, animated
    )


def _chunks(content: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Yield type, start and end of each chunk up to IEND, or up to where the file is cut off."""
    start = len(SIGNATURE)
    kind = b""
    while kind != b"IEND" and start + 8 <= len(content):
        length, kind = struct.unpack_from(">I4s", content, start)
        end = start + 12 + length
        if end > len(content):  # let Pillow decide if the rest is sufficient
            yield b"IDAT" if kind == b"IDAT" else b"cut ", start, len(content)
            return
        yield kind, start, end
        start = end


def _profile(data: bytes, max_icc: int) -> bytes | None:
    _, _, compressed = data.partition(b"\0")
    unpacking = zlib.decompressobj()
    try:
        profile = unpacking.decompress(compressed[1:], max_icc)
    except zlib.error:
        return None
    return profile if unpacking.eof else None


def _transparency(data: bytes, colour: int, bits: int) -> int | tuple[int, int, int] | None:
    """Return the transparent grey level or colour as in the pixels that Pillow decodes."""
    if colour == GREY and len(data) >= 2:
        level = int.from_bytes(data[:2], "big")
        return level if bits == 16 else level * 255 // (2**bits - 1)
    if colour == RGB and len(data) >= 6:
        red, green, blue = struct.unpack_from(">3H", data)
        shift = bits - 8  # Pillow decodes 16-bit colours to their upper 8 bits
        return red >> shift, green >> shift, blue >> shift
    return None


def _has_orientation(kind: bytes, data: bytes) -> bool:
    return (kind == b"eXIf" and len(data) <= MAX_EXIF) or (
        kind == b"iTXt" and data.startswith(XMP) and len(data) <= MAX_XMP
    )
