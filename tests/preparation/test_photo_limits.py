"""Files over a limit are refused by their structure, before they need time or memory."""

import io
import struct
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from catdog.errors import PhotoError
from catdog.preparation import colour, photo_limits, photos
from catdog.preparation.photos import check_photo, open_photo
from tools.photo_files import LONG, SHORT, png_chunk, tiff


def saved(format: str, size: tuple[int, int] = (64, 64), **options: Any) -> bytes:
    stream = io.BytesIO()
    pixels = np.random.default_rng(0).integers(0, 256, (*size[::-1], 3), dtype=np.uint8)
    Image.fromarray(pixels).save(stream, format, **options)
    return stream.getvalue()


def reason(content: bytes) -> str:
    """Return why a file is refused; the same from a file and from an archive."""
    with pytest.raises(PhotoError) as refused:
        check_photo(content)
    with pytest.raises(PhotoError) as again:
        open_photo(io.BytesIO(content), 128)
    assert str(again.value) == str(refused.value)
    return str(refused.value)


def resized(content: bytes, marker: bytes, offset: int, size: bytes) -> bytes:
    """Return a file with another size in its header, `offset` bytes after `marker`."""
    position = content.index(marker) + offset
    return content[:position] + size + content[position + len(size) :]


def large_png(side: int) -> bytes:
    header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + png_chunk(b"IDAT", b"") + png_chunk(b"IEND", b"")


def large_jpeg(side: int, **options: Any) -> bytes:
    marker = b"\xff\xc2" if options else b"\xff\xc0"
    return resized(saved("JPEG", **options), marker, 5, struct.pack(">HH", side, side))


# pytest resets the warning filter that catdog.preparation.photos sets
@pytest.mark.filterwarnings("ignore:Image size")
def test_pixels_are_limited_by_the_memory_of_each_decoder() -> None:
    for content, limit in (
        (large_png(14_000), "100,000,000"),
        (large_jpeg(15_000), "200,000,000"),
        (large_jpeg(11_000, progressive=True), "100,000,000"),
        (resized(saved("GIF"), b"GIF8", 6, b"\xff\xff\xff\xff"), "200,000,000"),
        (resized(saved("GIF"), b"GIF8", 6, struct.pack("<HH", 12_000, 12_000)), "100,000,000"),
        (resized(saved("BMP"), b"BM", 18, struct.pack("<II", 12_000, 12_000)), "100,000,000"),
        (resized(saved("JPEG2000"), b"ihdr", 4, struct.pack(">II", 7_000, 7_000)), "40,000,000"),
        (tiff(b"", 12_000, 12_000, (8,), 1), "100,000,000"),
    ):
        assert reason(content) == f"more than {limit} pixels"


@pytest.mark.parametrize("options", [{}, {"lossless": True}, {"exif": b"Exif\0\0II*\0\x08\0\0\0"}])
def test_a_webp_is_checked_before_pillow_allocates_its_frames(options: dict[str, Any]) -> None:
    content = saved("WEBP", (16_383, 4), **options)
    assert photo_limits.webp_size(content) == (16_383, 4)
    if content[12:16] == b"VP8X":
        content = content[:24] + b"\xff\xff\xff\xff\xff\xff" + content[30:]
    elif content[12:16] == b"VP8L":
        content = content[:21] + b"\xff\xff\xff\x0f" + content[25:]
    else:
        content = content[:26] + b"\xff\x3f\xff\x3f" + content[30:]
    assert reason(content) == "more than 50,000,000 pixels"


def test_a_200_megapixel_jpeg_of_a_phone_is_within_the_limits() -> None:
    """Only the header is valid here; libjpeg fills in the missing pixels."""
    check_photo(resized(saved("JPEG"), b"\xff\xc0", 5, struct.pack(">HH", 12_240, 16_320)))


def test_the_scans_of_a_jpeg_are_limited() -> None:
    content = saved("JPEG", progressive=True)
    last = content.rindex(b"\xff\xda")
    assert photo_limits.count_scans(content) == 10
    scan, end = content[last:-2], content[-2:]
    assert reason(content[:-2] + scan * 91 + end) == "progressive JPEG with more than 100 scans"
    check_photo(content)
    # Neither an embedded preview nor what follows the end counts.
    preview = b"\xff\xe1" + struct.pack(">H", 2 + len(scan[:200]) * 100) + scan[:200] * 100
    check_photo(content[:2] + preview + content[2:] + scan * 200)


def test_bytes_are_limited_without_reading_them(tmp_path: Path) -> None:
    sparse = tmp_path / "sparse.jpg"
    with sparse.open("wb") as stream:
        stream.truncate(3_000_000_000)
    tracemalloc.start()
    try:
        with pytest.raises(PhotoError, match=r"^more than 310,000,000 bytes$"):
            open_photo(sparse)
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()


def test_the_tables_of_a_tiff_are_limited() -> None:
    pixels = bytes(48)
    shape = (4, 4, (8, 8, 8), 2)
    check_photo(tiff(pixels, *shape))
    strips = struct.pack("<HHI", 273, LONG, 1)
    content = tiff(pixels, *shape).replace(strips, struct.pack("<HHI", 273, LONG, 1_000_000))
    assert reason(content) == "TIFF with more than 200,000 strips or tiles"
    tile = {322: (LONG, [60_000]), 323: (LONG, [60_000])}
    assert reason(tiff(pixels, *shape, tile)) == "more than 100,000,000 pixels"
    numbers = {40_000 + tag: (SHORT, [0] * 1000) for tag in range(600)}
    assert reason(tiff(pixels, *shape, numbers)) == "TIFF with too many values in its tags"
    content = tiff(pixels, *shape, {40_000 + tag: (SHORT, [0, 0]) for tag in range(600)})
    for tag in range(40_000, 40_600):  # all refer to the same bytes
        content = content.replace(
            struct.pack("<HHII", tag, SHORT, 2, 0), struct.pack("<HHII", tag, 7, 5000, 8)
        )
    assert reason(content) == "TIFF with tags that share their values"


def test_a_tiff_whose_pages_form_a_loop_is_read() -> None:
    content = tiff(bytes(range(48)), 4, 4, (8, 8, 8), 2)
    photo = open_photo(io.BytesIO(content[:-4] + content[4:8]))
    assert np.asarray(photo).ravel().tolist() == list(range(48))


def test_only_the_first_frame_is_decoded() -> None:
    """A file of 100,000 frames is not read to its end, so damage in later frames is not found."""
    stream = io.BytesIO()
    frames = [Image.new("RGB", (64, 64), colour) for colour in ("red", "blue", "lime")]
    frames[0].save(stream, "GIF", save_all=True, append_images=frames[1:])
    content = stream.getvalue()
    assert open_photo(io.BytesIO(content[:-40])).getpixel((0, 0)) == (255, 0, 0)


def test_very_large_photos_are_reduced_in_parts_to_nearly_the_same_pixels(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Also with transparency and at the edges, where parts are smaller than others."""
    monkeypatch.setattr(photos, "REDUCED_FROM", 1 << 18)
    rows = np.linspace(0, 255, 1003)[:, None] * np.ones((1, 801))
    columns = np.linspace(0, 255, 801)[None] * np.ones((1003, 1))
    layers = np.stack([rows, columns, 255 - rows, (rows + columns) / 2], axis=-1)
    stream = io.BytesIO()
    Image.fromarray(layers.astype(np.uint8)).save(stream, "PNG")
    whole, reduced = (open_photo(io.BytesIO(stream.getvalue()), side) for side in (None, 64))
    assert (reduced.info["width"], reduced.info["height"]) == whole.size == (801, 1003)
    assert 128 <= min(reduced.size) < 200
    expected, found = (np.asarray(image.resize((64, 64)), int) for image in (whole, reduced))
    np.testing.assert_allclose(found, expected, atol=3)


@pytest.mark.parametrize("mode", ["I;16", "LA", "RGBA", "P", "CMYK"])
@pytest.mark.parametrize("max_side", [None, 64])
def test_very_large_photos_are_converted_in_parts_to_the_same_pixels(
    mode: str, max_side: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also if a side is so short that the photo is not reduced."""
    values = np.random.default_rng(0).integers(0, 256, (90, 2003, 4), dtype=np.uint8)
    if mode == "I;16":
        image = Image.fromarray(values[..., 0].astype(np.uint16) << 8 | values[..., 1])
    else:
        image = Image.fromarray(values).convert("RGB" if mode in ("P", "CMYK") else mode)
        image = image.convert(mode)
    stream, parts = io.BytesIO(), list[tuple[int, int]]()
    image.save(stream, "TIFF" if mode == "CMYK" else "PNG")
    whole = open_photo(io.BytesIO(stream.getvalue()), max_side)
    monkeypatch.setattr(photos, "REDUCED_FROM", 1 << 10)
    convert = colour.to_srgb

    def counted(part: Image.Image, *others: Any) -> Image.Image:
        parts.append(part.size)
        return convert(part, *others)

    monkeypatch.setattr(colour, "to_srgb", counted)
    in_parts = open_photo(io.BytesIO(stream.getvalue()), max_side)
    assert parts == [(2003, 64), (2003, 26)]
    np.testing.assert_array_equal(np.asarray(in_parts), np.asarray(whole))


def test_a_side_that_no_camera_has_is_refused() -> None:
    stream = io.BytesIO()
    Image.new("1", (65_536, 1)).save(stream, "PNG")
    assert reason(stream.getvalue()) == "a side of more than 65,535 pixels"
