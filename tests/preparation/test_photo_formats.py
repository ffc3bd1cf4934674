"""Photos are recognized by content, also with much or damaged metadata; others are named."""

import io
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pillow_heif
import pytest
from PIL import Image, PngImagePlugin

from catdog.errors import PhotoError
from catdog.preparation.photo_formats import HEAD, sniff
from catdog.preparation.photos import open_photo
from tests.helpers.oriented_photos import BLUE, GREEN, ORIENTED, RED, WHITE, corners, quarters
from tools.photo_files import LONG, SHORT, png, png_chunk, tiff

LOSSLESS: dict[str, dict[str, Any]] = {
    "JPEG": {"quality": 95, "subsampling": 0},
    "MPO": {"quality": 95, "subsampling": 0},
    "PNG": {},
    "WEBP": {"lossless": True},
    "GIF": {},
    "BMP": {},
    "TIFF": {},
    "AVIF": {"quality": 95},
    "JPEG2000": {},
    "PPM": {},
    "HEIC": {"quality": 90},
}


def written(image: Image.Image, format: str, **options: Any) -> bytes:
    stream = io.BytesIO()
    if format == "HEIC":
        file = pillow_heif.from_pillow(image)
        file.info.update(options)
        file.save(stream, **LOSSLESS[format])
    else:
        image.save(stream, format, **LOSSLESS[format], **options)
    return stream.getvalue()


@pytest.mark.parametrize("format", LOSSLESS)
@pytest.mark.parametrize("name", ["photo", "photo.heic", "photo.png"])
def test_a_photo_is_recognized_by_content_whatever_its_name(
    format: str, name: str, tmp_path: Path
) -> None:
    content = written(quarters(), format)
    (tmp_path / name).write_bytes(content)
    photo = open_photo(tmp_path / name)
    assert (photo.mode, photo.size) == ("RGB", (96, 64))
    np.testing.assert_allclose(corners(photo), [RED, GREEN, BLUE, WHITE], atol=10)
    assert sniff(content[:HEAD]) is not None


BOXES = {"AVIF", "HEIC"}  # these formats also have the orientation in boxes of their own


@pytest.mark.parametrize("format", ["JPEG", "MPO", "PNG", "WEBP", "TIFF", "AVIF", "HEIC"])
@pytest.mark.parametrize("orientation", ORIENTED)
def test_the_exif_orientation_is_applied_once_in_every_format(
    format: str, orientation: int
) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    content = written(quarters(), format, exif=exif.tobytes() if format == "HEIC" else exif)
    assert (b"irot" in content or b"imir" in content) == (format in BOXES and orientation > 1)
    photo = open_photo(io.BytesIO(content))
    np.testing.assert_allclose(corners(photo), ORIENTED[orientation], atol=10)
    size = (64, 96) if orientation >= 5 else (96, 64)
    assert photo.size == (photo.info["width"], photo.info["height"]) == size


@pytest.mark.parametrize("format", ["GIF", "WEBP", "PNG", "AVIF", "TIFF", "MPO", "HEIC"])
def test_the_first_of_several_frames_is_used_and_reported(format: str) -> None:
    frames = [Image.new("RGB", (64, 64), colour) for colour in (BLUE, RED, GREEN)]
    if format == "HEIC":
        stream = io.BytesIO()
        file = pillow_heif.from_pillow(frames[0])
        file.add_from_pillow(frames[1])
        file.save(stream, quality=90)
        content = stream.getvalue()
    else:
        content = written(frames[0], format, save_all=True, append_images=frames[1:])
    photo = open_photo(io.BytesIO(content))
    np.testing.assert_allclose(np.asarray(photo)[32, 32], BLUE, atol=10)
    assert photo.info["animated"]
    assert not open_photo(io.BytesIO(written(frames[0], format))).info["animated"]


# Metadata of PNG files


def pixel(before: bytes = b"", after: bytes = b"") -> bytes:
    """Return a PNG of one pixel of colour (10, 20, 30)."""
    return png([bytes([10, 20, 30])], 1, 8, 2, before, after)


LONG_TEXT = b"Comment\0" + b"x" * (1 << 21)
PACKED_TEXT = b"Comment\0\0" + zlib.compress(b"x" * (1 << 26))
PACKED_ITXT = b"Comment\0\1\0\0\0" + zlib.compress(b"x" * (1 << 26))
PACKED_PROFILE = b"profile\0\0" + zlib.compress(bytes(1 << 26))


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize(
    "chunk",
    [
        png_chunk(b"tEXt", LONG_TEXT) * 40,
        png_chunk(b"zTXt", PACKED_TEXT),
        png_chunk(b"iTXt", PACKED_ITXT),
        png_chunk(b"iCCP", PACKED_PROFILE),
        *(
            png_chunk(kind, b"any\0\0data" * 4, damaged=True)
            for kind in (b"tEXt", b"iTXt", b"zTXt", b"iCCP", b"eXIf", b"tRNS", b"gAMA", b"prVt")
        ),
        png_chunk(b"gAMA", b"\0"),
        png_chunk(b"pHYs", b"\0"),
        png_chunk(b"zTXt", b"Comment\0\5method"),
        png_chunk(b"fcTL", bytes(26)),
    ],
    ids=lambda chunk: chunk[4:8].decode() + f"_{zlib.crc32(chunk) & 255}",
)
def test_metadata_of_a_png_never_hides_its_pixels(chunk: bytes, after: bool) -> None:
    content = pixel(after=chunk) if after else pixel(before=chunk)
    assert np.asarray(open_photo(io.BytesIO(content))).tolist() == [[[10, 20, 30]]]


def test_damaged_pixels_of_a_png_are_refused() -> None:
    content = pixel()
    header = content.index(b"IHDR")
    with pytest.raises(PhotoError, match=r"^damaged: "):
        open_photo(io.BytesIO(content[: header + 4] + b"\0\0\0\2" + content[header + 8 :]))
    pixels = content.index(b"IDAT")
    with pytest.raises(PhotoError, match=r"^damaged: "):
        open_photo(io.BytesIO(content[: pixels + 6] + b"\xff" + content[pixels + 7 :]))


def test_the_orientation_of_xmp_in_a_png_is_applied() -> None:
    info = PngImagePlugin.PngInfo()
    info.add_itxt("XML:com.adobe.xmp", '<x tiff:Orientation="6" />')
    photo = open_photo(io.BytesIO(written(quarters(), "PNG", pnginfo=info)))
    assert corners(photo) == [list(colour) for colour in ORIENTED[6]]


def test_large_metadata_of_a_jpeg_is_skipped() -> None:
    content = written(quarters(), "JPEG", icc_profile=bytes(2_000_000), comment=b"x" * 60_000)
    segment = b"\xff\xe1\xff\xffhttp://ns.adobe.com/xmp/extension/\0".ljust(65537, b"x")
    content = content[:2] + segment * 50 + content[2:]
    photo = open_photo(io.BytesIO(content))
    np.testing.assert_allclose(corners(photo), [RED, GREEN, BLUE, WHITE], atol=10)


# Formats that are not photos

UNSUPPORTED = {
    "PostScript": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n",
    "PDF": b"%PDF-1.7\n",
    "SVG": b'<?xml version="1.0"?>\n<!DOCTYPE svg>\n<svg xmlns="http://www.w3.org/2000/svg"/>',
    "HTML": b"\n<!doctype html><title>404</title>",
    "XML": b'<?xml version="1.0"?><annotation/>',
    "Photoshop (PSD)": b"8BPS\0\1",
    "icon (ICO)": b"\0\0\1\0\1\0\x10\x10",
    "JPEG XL": b"\xff\x0a\xfa\x1f",
    "camera raw": b"\0\0\0\x18ftypcrx \0\0\0\1crx isom",
    "video": b"\0\0\0\x18ftypmp42\0\0\0\0mp42isom",
    "zip archive": b"PK\3\4\x14\0",
    "archive": b"7z\xbc\xaf\x27\x1c",
    "compressed file": b"\x1f\x8b\x08\0",
    "program": b"\x7fELF\2\1\1",
    "text": b"no pixels here\n",
    "pointer of Git LFS, without the photo": b"version https://git-lfs.github.com/spec/v1\n",
}


@pytest.mark.parametrize("name", UNSUPPORTED)
def test_an_unsupported_format_is_named(name: str) -> None:
    content = UNSUPPORTED[name].ljust(80, b"\n")
    with pytest.raises(PhotoError) as refused:
        open_photo(io.BytesIO(content))
    assert str(refused.value) == f"unsupported format: {name}"
    assert sniff(content) is None


def test_an_unknown_format_is_refused_as_such() -> None:
    for content, reason in {
        bytes(range(7, 90)): "unknown file format",
        bytes(900): "damaged: only zero bytes",
        b"\x89PNG\r\n\x1a\n nothing": "damaged: invalid PNG header, or a variant that",
    }.items():
        with pytest.raises(PhotoError, match=f"^{reason}"):
            open_photo(io.BytesIO(content))


@pytest.mark.parametrize(
    "tags",
    [{50706: (LONG, [1])}, {254: (LONG, [1]), 330: (LONG, [8])}],
    ids=["DNG", "a preview and a sub-IFD, as in NEF and ARW"],
)
def test_camera_raw_is_refused_instead_of_using_its_preview(tags: dict[int, Any]) -> None:
    content = tiff(bytes(12), 2, 2, (8, 8, 8), 2, tags)
    with pytest.raises(PhotoError, match=r"^unsupported format: camera raw$"):
        open_photo(io.BytesIO(content))
    open_photo(io.BytesIO(tiff(bytes(12), 2, 2, (8, 8, 8), 2, {274: (SHORT, [1])})))


def test_no_file_reaches_another_plugin_or_program(tmp_path: Path) -> None:
    """Pillow imports its other plugins if a format of the list is not registered."""
    (tmp_path / "gs").write_text(f"#!/bin/sh\ntouch {tmp_path / 'called'}\n")
    (tmp_path / "gs").chmod(0o755)
    code = """
import io, sys
from catdog.errors import PhotoError
from catdog.preparation.photos import open_photo
for content in (b"%!PS-Adobe-3.0 EPSF-3.0\\n%%BoundingBox: 0 0 9 9\\n", b"unknown"):
    try:
        open_photo(io.BytesIO(content))
    except PhotoError as error:
        print(error)
print([name for name in sys.modules if name in ("PIL.EpsImagePlugin", "PIL.PsdImagePlugin")])
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env={"PATH": str(tmp_path), "PYTHONPATH": ":".join(sys.path)},
        check=True,
    )
    assert done.stdout.splitlines() == [
        "unsupported format: PostScript",
        "unsupported format: text",
        "[]",
    ]
    assert not (tmp_path / "called").exists()
