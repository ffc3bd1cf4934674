"""Damaged photos are refused, with the same reason for the same damage."""

import io

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
    with pytest.raises(PhotoError, match=r"^damaged: truncated$"):
        open_photo(io.BytesIO(content[: int(share * len(content))]), max_side)


@pytest.mark.parametrize("format", ["GIF", "WEBP", "TIFF", "BMP"])
def test_half_a_file_is_refused(format: str) -> None:
    stream = io.BytesIO()
    noise(60, 40).save(stream, format)
    with pytest.raises(PhotoError, match=r"^damaged: "):
        open_photo(io.BytesIO(stream.getvalue()[: len(stream.getvalue()) // 2]))
