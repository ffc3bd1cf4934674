"""Limits for photo files, checked from their structure before decoding: the same on every machine.

They keep the memory of a worker below 1 GB and the time per photo at a few seconds;
benchmarks/README.md has the measurements. The worker processes have limits for everything that the
structure does not show, see `catdog.support.process_pool`.
"""

import re
import struct
from collections.abc import Iterator

from PIL import Image

from catdog.errors import PhotoError

MAX_BYTES = 310_000_000  # an uncompressed photo with 100 million pixels of 3 bytes
TOO_LARGE = f"more than {MAX_BYTES:,} bytes"
MAX_PIXELS = 200_000_000  # the largest phone cameras
MAX_SIDE = 65_535  # of a JPEG or GIF; so the parts in which a large photo is converted are small
MAX_SCANS = 100  # of a JPEG; encoders write about 10, a decoder needs time for each

# Bytes per pixel: Pillow keeps 1 to 4, and decoders add buffers of the whole image.
MAX_PIXELS_OF = {
    "JPEG": MAX_PIXELS,  # decoded line by line, at reduced size
    "MPO": MAX_PIXELS,
    "progressive JPEG": 100_000_000,  # libjpeg keeps all coefficients: up to 6 bytes
    "WEBP": 50_000_000,  # two frames of 4 bytes in libwebp, and a copy
    "AVIF": 50_000_000,
    "HEIF": 50_000_000,
    "JPEG2000": 40_000_000,  # 12 bytes in OpenJPEG, and copies
}
MAX_PIXELS_OTHERS = 100_000_000

MAX_STRIPS = 200_000  # of a TIFF, or tiles; Pillow needs about 100 bytes for each
MAX_TAG_VALUES = 500_000  # of all other tags of a TIFF together, except byte strings

# Pillow refuses images of more than twice this number, by default 179 million pixels.
Image.MAX_IMAGE_PIXELS = MAX_PIXELS


def check_bytes(size: int) -> None:
    """Raise PhotoError for an empty file and for one of more than MAX_BYTES."""
    if size == 0:
        raise PhotoError("empty file")
    if size > MAX_BYTES:
        raise PhotoError(TOO_LARGE)


def check_structure(content: bytes) -> str:
    """Check a file before it is opened; return its decoder, a key of MAX_PIXELS_OF or "".

    Raises PhotoError for a JPEG with more than MAX_SCANS scans, a WebP with too many pixels, of
    which Pillow allocates two frames when it opens the file, and a TIFF whose tables are too large.
    """
    if content.startswith(b"\xff\xd8"):
        scans = count_scans(content)
        if scans > MAX_SCANS:
            raise PhotoError(f"progressive JPEG with more than {MAX_SCANS} scans")
        return "progressive JPEG" if scans > 1 else "JPEG"
    if content[:4] == b"RIFF" and content[8:12] == b"WEBP":
        width, height = webp_size(content)
        check_pixels(width, height, "WEBP")
    elif content[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        _check_tiff(content)
    return ""


def check_pixels(width: int, height: int, decoder: str) -> None:
    """Raise PhotoError if a side is too long, or for more pixels than the limit of the decoder."""
    limit = MAX_PIXELS_OF.get(decoder, MAX_PIXELS_OTHERS)
    if width * height > limit:
        raise PhotoError(f"more than {limit:,} pixels")
    if max(width, height) > MAX_SIDE:
        raise PhotoError(f"a side of more than {MAX_SIDE:,} pixels")


# A marker, but no stuffed byte (FF 00) and no restart marker (FF D0 to FF D7)
MARKER = re.compile(rb"\xff+([^\x00\xff\xd0-\xd7])")
START = b"\xff\xda"
START_OF_SCAN, END_OF_IMAGE, WITHOUT_LENGTH = 0xDA, 0xD9, {0x01, 0xD8}


def count_scans(content: bytes) -> int:
    """Return the number of scans of a JPEG up to its end, at most MAX_SCANS + 1.

    Source of the format: ITU-T T.81, annex B.
    """
    if content.count(START) == 1:  # of most files; much faster
        return 1
    scans, position = 0, 2
    while scans <= MAX_SCANS and (found := MARKER.search(content, position)):
        marker, position = found[1][0], found.end()
        if marker == END_OF_IMAGE:
            break
        if marker not in WITHOUT_LENGTH:
            scans += marker == START_OF_SCAN
            position += int.from_bytes(content[position : position + 2], "big")
    return scans


def webp_size(content: bytes) -> tuple[int, int]:
    """Return width and height in pixels from the header of a WebP file, 0 and 0 if it is invalid.

    Source: RFC 9649, section 2; RFC 6386, section 9.1.
    """
    kind, header = content[12:16], content[20:30].ljust(10, b"\0")
    if kind == b"VP8X":
        return (
            int.from_bytes(header[4:7], "little") + 1,
            int.from_bytes(header[7:10], "little") + 1,
        )
    if kind == b"VP8L":
        bits = int.from_bytes(header[1:5], "little")
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    if kind == b"VP8 ":
        across, down = struct.unpack("<HH", header[6:10])
        return across & 0x3FFF, down & 0x3FFF
    return 0, 0


BYTE_STRINGS = {1, 2, 6, 7}  # the types BYTE, ASCII, SBYTE and UNDEFINED
STRIPS = {273, 279, 324, 325}  # offsets and lengths of the strips or tiles
TILE_WIDTH, TILE_LENGTH = 322, 323


def _check_tiff(content: bytes) -> None:
    """Raise PhotoError if Pillow would need too much memory for the tables of the first page.

    Source of the format: TIFF 6.0, section 2, and BigTIFF.
    """
    numbers, strings, tile = 0, 0, {TILE_WIDTH: 0, TILE_LENGTH: 0}
    for tag, kind, count, value in _tiff_tags(content):
        if tag in STRIPS and count > MAX_STRIPS:
            raise PhotoError(f"TIFF with more than {MAX_STRIPS:,} strips or tiles")
        if tag in tile:
            tile[tag] = value
        if kind in BYTE_STRINGS:
            strings += count if count <= len(content) else 0  # Pillow skips longer ones
        elif tag not in STRIPS:
            numbers += count
    if numbers > MAX_TAG_VALUES:
        raise PhotoError("TIFF with too many values in its tags")
    if strings > len(content):
        raise PhotoError("TIFF with tags that share their values")
    check_pixels(tile[TILE_WIDTH], tile[TILE_LENGTH], "TIFF")


def _tiff_tags(content: bytes) -> Iterator[tuple[int, int, int, int]]:
    """Yield tag, type, number of values and first value of each entry of the first directory."""
    order = "<" if content[:2] == b"II" else ">"
    if content[2:4] in (b"+\0", b"\0+"):
        offset, number, entry = 8, "Q", "HHQ8s"
    else:
        offset, number, entry = 4, "H", "HHI4s"
    pointer = "Q" if number == "Q" else "I"
    try:
        (start,) = struct.unpack_from(order + pointer, content, offset)
        (entries,) = struct.unpack_from(order + number, content, start)
        start += struct.calcsize(order + number)
        for index in range(min(entries, 1 << 16)):
            tag, kind, count, value = struct.unpack_from(
                order + entry, content, start + index * struct.calcsize(order + entry)
            )
            short = value[:2] if kind == 3 else value
            yield tag, kind, count, int.from_bytes(short, "little" if order == "<" else "big")
    except struct.error:  # Pillow reports what is wrong with the file
        return
