"""Damaged photos are refused, with the same reason for the same damage."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from catdog.errors import PhotoError
from catdog.preparation.photos import open_photo


def noise(width: int, height: int) -> Image.Image:
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


@pytest.mark.parametrize("max_side", [None, 64])
@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.99])
def test_equal_damage_has_the_same_reason_at_any_size(
    share: float, progressive: bool, max_side: int | None
) -> None:
    """Draft mode decodes fewer pixels but reads the whole file; reasons can be counted."""
    stream = io.BytesIO()
    noise(600, 400).save(stream, "JPEG", progressive=progressive)
    content = stream.getvalue()
    with pytest.raises(PhotoError, match=r"^damaged: image file is truncated$"):
        open_photo(io.BytesIO(content[: int(share * len(content))]), max_side)


@pytest.mark.parametrize("format", ["GIF", "WEBP", "TIFF", "BMP"])
def test_half_a_file_is_refused(format: str) -> None:
    stream = io.BytesIO()
    noise(60, 40).save(stream, format)
    with pytest.raises(PhotoError, match=r"^damaged: "):
        open_photo(io.BytesIO(stream.getvalue()[: len(stream.getvalue()) // 2]))


def test_a_200_megapixel_photo_is_not_a_decompression_bomb() -> None:
    """16320×12240 as of a phone; only the header is valid here, so the file counts as damaged."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        crc = struct.pack(">I", zlib.crc32(kind + data))
        return struct.pack(">I", len(data)) + kind + data + crc

    header = struct.pack(">IIBBBBB", 16_320, 12_240, 8, 0, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 9)) + chunk(b"IEND", b"")
    with pytest.raises(PhotoError, match=r"^damaged: "):
        open_photo(io.BytesIO(b"\x89PNG\r\n\x1a\n" + body))
