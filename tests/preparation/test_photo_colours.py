"""Pixels of every kind become the sRGB colours that the definition of their format gives."""

import io
from typing import Any

import numpy as np
import numpy.typing as npt
import pillow_heif
import pytest
from PIL import Image, ImageCms

from catdog.errors import PhotoError
from catdog.preparation.photos import open_photo
from tools import photo_files
from tools.photo_files import png, png_chunk, tiff

Pixels = npt.NDArray[np.uint8]
LEVELS = np.array([0, 1, 255, 256, 4095, 21845, 32767, 32768, 65534, 65535])


def read(content: bytes, **options: Any) -> Pixels:
    photo = open_photo(io.BytesIO(content), **options)
    assert photo.mode == "RGB"
    return np.asarray(photo)


def saved(image: Image.Image, format: str, **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, format, **options)
    return stream.getvalue()


def grey(levels: Any) -> Pixels:
    """Return a row of grey pixels (1, N, 3)."""
    return np.repeat(np.asarray(levels)[None, :, None], 3, axis=2).astype(np.uint8)


def over_white(colour: Any, alpha: Any) -> npt.NDArray[np.float64]:
    """Return colours (N, 3) with alpha (N,), both 0 to 255, composited over white."""
    share = np.asarray(alpha)[:, None] / 255
    return np.asarray(colour) * share + 255 * (1 - share)


def test_16_bit_grey_png_is_reduced_to_its_upper_8_bits() -> None:
    content = png([LEVELS.astype(">u2").tobytes()], len(LEVELS), 16, 0)
    np.testing.assert_array_equal(read(content), grey(LEVELS >> 8))


@pytest.mark.parametrize("order", ["<", ">"])
def test_16_bit_grey_tiff_is_reduced_to_its_upper_8_bits(order: str) -> None:
    content = tiff(LEVELS.astype(f"{order}u2").tobytes(), len(LEVELS), 1, (16,), 1, order=order)
    np.testing.assert_array_equal(read(content), grey(LEVELS >> 8))


def test_12_bit_grey_tiff_uses_the_whole_range() -> None:
    levels = np.array([0, 15, 16, 2048, 4080, 4095])
    packed = b"".join(
        bytes([a >> 4, (a & 15) << 4 | b >> 8, b & 255]) for a, b in levels.reshape(-1, 2).tolist()
    )
    content = tiff(packed, len(levels), 1, (12,), 1)
    np.testing.assert_array_equal(read(content), grey(levels >> 4))


@pytest.mark.parametrize("compression", [None, "tiff_lzw", "tiff_adobe_deflate"])
def test_white_is_zero_tiff_of_16_bits_is_inverted(compression: str | None) -> None:
    if compression is None:
        content = tiff(LEVELS.astype("<u2").tobytes(), len(LEVELS), 1, (16,), 0)
    else:
        content = saved(
            Image.fromarray(LEVELS.astype(np.uint16)[None]), "TIFF", compression=compression
        )
        content = with_photometric_0(content)
    np.testing.assert_array_equal(read(content), 255 - grey(LEVELS >> 8))


def with_photometric_0(content: bytes) -> bytes:
    """Return a little-endian TIFF whose tag PhotometricInterpretation says white is zero."""
    tag = b"\x06\x01\x03\x00\x01\x00\x00\x00"
    assert content.count(tag + b"\1\0") == 1
    return content.replace(tag + b"\1\0", tag + b"\0\0")


@pytest.mark.parametrize("compression", [None, "tiff_lzw"])
def test_white_is_zero_tiff_of_8_bits_is_inverted(compression: str | None) -> None:
    levels = np.array([[0, 1, 100, 255]], np.uint8)
    content = with_photometric_0(
        saved(Image.fromarray(levels), "TIFF", compression=compression)
        if compression
        else tiff(levels.tobytes(), 4, 1, (8,), 1)
    )
    np.testing.assert_array_equal(read(content), 255 - grey(levels[0]))


@pytest.mark.parametrize("compression", [None, "group4", "tiff_lzw"])
def test_white_is_zero_tiff_of_1_bit_is_inverted(compression: str | None) -> None:
    bits = np.arange(16) % 3 == 0
    if compression == "group4":  # written by Pillow with 1 for black
        content = saved(
            Image.fromarray(bits[None]), "TIFF", compression=compression, tiffinfo={262: 0}
        )
        expected = bits
    elif compression:
        content = with_photometric_0(
            saved(Image.fromarray(bits[None]), "TIFF", compression=compression)
        )
        expected = ~bits
    else:
        content, expected = tiff(np.packbits(bits).tobytes(), 16, 1, (1,), 0), ~bits
    np.testing.assert_array_equal(read(content), grey(expected * 255))


@pytest.mark.parametrize("alpha", [False, True])
@pytest.mark.parametrize("format", ["PNG", "TIFF"])
def test_16_bit_rgb_is_reduced_to_its_upper_8_bits(format: str, alpha: bool) -> None:
    values = np.random.default_rng(0).integers(0, 1 << 16, (7, 4 if alpha else 3))
    if format == "PNG":
        content = png([values.astype(">u2").tobytes()], 7, 16, 6 if alpha else 2)
    else:
        bits = (16,) * values.shape[1]
        more = {338: (photo_files.SHORT, [2])} if alpha else None
        content = tiff(values.astype("<u2").tobytes(), 7, 1, bits, 2, more)
    eight = values >> 8
    expected = over_white(eight[:, :3], eight[:, 3]) if alpha else eight
    np.testing.assert_allclose(read(content)[0], expected, atol=1 if alpha else 0)


@pytest.mark.parametrize("bits", [1, 2, 4, 8, 16])
def test_the_transparent_grey_level_of_a_png_becomes_white(bits: int) -> None:
    """Also where its level is 0, or differs from others in the low bits only."""
    top = 2**bits - 1
    levels = np.array([0, 1, top - 1, top] * 2)
    packed = "".join(f"{level:0{bits}b}" for level in levels)
    row = int(packed, 2).to_bytes(len(packed) // 8, "big")
    for transparent in (0, top - 1 if bits > 1 else 1):
        chunk = png_chunk(b"tRNS", transparent.to_bytes(2, "big"))
        eight = levels >> 8 if bits == 16 else levels * 255 // top
        expected = grey(np.where(levels == transparent, 255, eight))
        np.testing.assert_array_equal(read(png([row], 8, bits, 0, chunk)), expected)


@pytest.mark.parametrize("bits", [8, 16])
def test_the_transparent_colour_of_an_rgb_png_becomes_white(bits: int) -> None:
    scale = 257 if bits == 16 else 1
    colours = np.array([[10, 20, 30], [10, 20, 31], [0, 0, 0]])
    chunk = png_chunk(b"tRNS", (colours[0] * scale).astype(">u2").tobytes())
    row = (colours * scale).astype(">u2" if bits == 16 else "u1").tobytes()
    found = read(png([row], 3, bits, 2, chunk))
    np.testing.assert_array_equal(found[0], [[255, 255, 255], [10, 20, 31], [0, 0, 0]])


def test_palette_entries_have_alpha_of_their_own() -> None:
    palette = png_chunk(b"PLTE", bytes([255, 0, 0, 0, 255, 0, 0, 0, 255]))
    alpha = png_chunk(b"tRNS", bytes([255, 128, 0]))
    found = read(png([bytes([0, 1, 2])], 3, 8, 3, palette + alpha))
    expected = over_white([[255, 0, 0], [0, 255, 0], [0, 0, 255]], [255, 128, 0])
    np.testing.assert_allclose(found[0], expected, atol=1)


@pytest.mark.parametrize("format", ["PNG", "WEBP", "TIFF", "AVIF", "JPEG2000", "HEIC"])
def test_alpha_is_composited_over_white(format: str) -> None:
    colours = np.zeros((16, 16, 4), np.uint8)
    colours[:, :8] = (200, 40, 90, 128)
    colours[:, 8:] = (0, 0, 0, 0)
    image = Image.fromarray(colours)
    if format == "HEIC":
        content = heic(image, quality=-1)
    else:
        content = saved(image, format, **({"lossless": True} if format == "WEBP" else {}))
    found = read(content)
    expected = over_white(colours[0, [0, 15], :3], colours[0, [0, 15], 3])
    np.testing.assert_allclose(found[8, [2, 14]], expected, atol=4)


def heic(image: Image.Image, **options: Any) -> bytes:
    stream = io.BytesIO()
    pillow_heif.from_pillow(image).save(stream, **options)
    return stream.getvalue()


def test_premultiplied_alpha_is_composited_over_white() -> None:
    """TIFF's "associated alpha" (ExtraSamples 1): colours are stored multiplied by alpha."""
    pixels = bytes([100, 20, 45, 128, 0, 0, 0, 0])
    more = {338: (photo_files.SHORT, [1])}
    found = read(tiff(pixels, 2, 1, (8, 8, 8, 8), 2, more))
    expected = np.array([[100, 20, 45], [0, 0, 0]]) + 255 - np.array([[128], [0]])
    np.testing.assert_allclose(found[0], expected, atol=1)
    grey_alpha = tiff(bytes([60, 128]), 1, 1, (8, 8), 1, more)
    np.testing.assert_allclose(read(grey_alpha)[0, 0], 60 + 255 - 128, atol=1)


@pytest.mark.parametrize("extra", [0, 2])
def test_a_fourth_channel_is_alpha_only_if_the_tiff_says_so(extra: int) -> None:
    found = read(
        tiff(bytes([200, 100, 50, 0]), 1, 1, (8, 8, 8, 8), 2, {338: (photo_files.SHORT, [extra])})
    )
    assert found[0, 0].tolist() == ([255, 255, 255] if extra else [200, 100, 50])


def test_cmyk_and_ycck_jpegs_of_adobe_are_not_inverted() -> None:
    cmyk = Image.new("CMYK", (16, 16), (0, 255, 255, 0))
    content = saved(cmyk, "JPEG", quality=100)
    np.testing.assert_allclose(read(content)[8, 8], (255, 0, 0), atol=3)
    # The same red as YCCK. Adobe stores inverted inks, and YCC of the inverted stored inks.
    y, cb, cr = Image.new("RGB", (1, 1), (0, 255, 255)).convert("YCbCr").tobytes()
    inks = Image.new("CMYK", (16, 16), (255 - y, 255 - cb, 255 - cr, 0))
    content = saved(inks, "JPEG", quality=100)
    marker = content.index(b"Adobe\0")
    assert content[marker + 11] == 0
    content = content[: marker + 11] + b"\2" + content[marker + 12 :]
    np.testing.assert_allclose(read(content)[8, 8], (255, 0, 0), atol=3)


def test_lab_is_converted_to_srgb() -> None:
    lab = np.array([[50, 0, 0], [60, 40, 20], [70, -30, 40], [100, 0, 0]], float)
    stored = np.stack([lab[:, 0] * 2.55, lab[:, 1] % 256, lab[:, 2] % 256], axis=1).round()
    found = read(tiff(stored.astype(np.uint8).tobytes(), 4, 1, (8, 8, 8), 8))
    np.testing.assert_allclose(found[0], photo_files.lab_to_srgb(lab), atol=3)


@pytest.mark.parametrize(
    ("bits", "sample_format", "reason"),
    [(32, 3, "floating-point"), (32, 1, "signed or 32-bit"), (16, 2, "signed or 32-bit")],
)
def test_pixels_without_a_fixed_range_are_refused(
    bits: int, sample_format: int, reason: str
) -> None:
    content = tiff(bytes(bits // 8), 1, 1, (bits,), 1, {339: (photo_files.SHORT, [sample_format])})
    with pytest.raises(PhotoError, match=f"^unsupported {reason} pixels$"):
        read(content)


def test_16_bit_ppm_is_reduced_to_its_upper_8_bits() -> None:
    content = b"P5\n10 1\n65535\n" + LEVELS.astype(">u2").tobytes()
    np.testing.assert_array_equal(read(content), grey(LEVELS >> 8))


# ICC profiles

COLOURS = np.random.default_rng(1).integers(30, 226, (4, 4, 3)).astype(np.uint8)


def in_srgb(colours: Pixels, primaries: npt.NDArray[np.float64], gamma: float) -> Any:
    return photo_files.xyz_to_srgb((colours / 255) ** gamma @ primaries.T)


@pytest.mark.parametrize("format", ["PNG", "TIFF", "WEBP", "JPEG", "AVIF", "HEIC"])
def test_a_wide_gamut_profile_is_converted_to_srgb(format: str) -> None:
    flat = np.full((16, 16, 3), (180, 90, 60), np.uint8)
    profile = photo_files.rgb_profile(photo_files.DISPLAY_P3, 2.2)
    image = Image.fromarray(flat)
    if format == "HEIC":
        image.info["icc_profile"] = profile
        content = heic(image, quality=-1)
    else:
        content = saved(image, format, icc_profile=profile, quality=100, lossless=True)
    expected = in_srgb(flat, photo_files.DISPLAY_P3, 2.2)
    assert np.abs(expected - flat).max() > 10
    np.testing.assert_allclose(read(content), expected, atol=4)


def test_each_colour_of_a_wide_gamut_is_converted_and_alpha_kept() -> None:
    profile = photo_files.rgb_profile(photo_files.DISPLAY_P3, 2.2)
    expected = in_srgb(COLOURS, photo_files.DISPLAY_P3, 2.2)
    content = saved(Image.fromarray(COLOURS), "PNG", icc_profile=profile)
    np.testing.assert_allclose(read(content), expected, atol=2)
    layer = Image.fromarray(COLOURS)
    layer.putalpha(128)
    content = saved(layer, "PNG", icc_profile=profile)
    flat = over_white(expected.reshape(-1, 3), np.full(16, 128)).reshape(4, 4, 3)
    np.testing.assert_allclose(read(content), flat, atol=2)


def test_a_photo_of_a_wide_gamut_is_reduced_before_its_colours_are_converted() -> None:
    """12 million pixels would take a quarter of the time of decoding a HEIC."""
    ramp = np.linspace(40, 200, 400).astype(np.uint8)
    image = np.stack(np.broadcast_arrays(ramp, ramp[:, None], np.uint8(60)), axis=-1)
    profile = photo_files.rgb_profile(photo_files.DISPLAY_P3, 2.2)
    content = saved(Image.fromarray(image), "PNG", icc_profile=profile)
    photo = open_photo(io.BytesIO(content), 32)
    assert photo.size == (67, 67)
    whole = open_photo(io.BytesIO(content))
    found, expected = (np.asarray(one.resize((32, 32)), int) for one in (photo, whole))
    np.testing.assert_allclose(found, expected, atol=2)


def slightly_redder(profile: bytes) -> bytes:
    """Return another version of sRGB, as they exist: red is 0.0003 higher in X."""
    tag = profile.index(b"rXYZ")
    start = int.from_bytes(profile[tag + 4 : tag + 8], "big") + 8
    x = int.from_bytes(profile[start : start + 4], "big") + round(0.0003 * 65536)
    return profile[:start] + x.to_bytes(4, "big") + profile[start + 4 :]


def test_pixels_with_an_srgb_or_an_invalid_profile_are_unchanged() -> None:
    colours = np.random.default_rng(0).integers(0, 256, (64, 64, 3)).astype(np.uint8)
    builtin = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    truncated = photo_files.rgb_profile(photo_files.DISPLAY_P3, 2.2)[:200]
    for profile in (builtin, slightly_redder(builtin), b"", b"no profile", truncated):
        content = saved(Image.fromarray(colours), "PNG", icc_profile=profile)
        np.testing.assert_array_equal(read(content), colours)


def test_a_profile_of_another_colour_space_is_ignored() -> None:
    content = saved(Image.fromarray(COLOURS), "PNG", icc_profile=photo_files.grey_profile(1.0))
    np.testing.assert_array_equal(read(content), COLOURS)


def test_a_grey_profile_is_applied_to_grey() -> None:
    levels = np.array([0, 50, 128, 255], np.uint8)
    content = saved(Image.fromarray(levels[None]), "PNG", icc_profile=photo_files.grey_profile(1.0))
    linear = levels / 255
    expected = photo_files.xyz_to_srgb(linear[:, None] * np.array([0.9642, 1.0, 0.8249]))
    np.testing.assert_allclose(read(content)[0], expected, atol=2)


def test_a_cmyk_profile_is_converted_to_srgb() -> None:
    lab = np.zeros((2, 2, 2, 2, 3))
    lab[0, 0, 0, 0] = (100, 0, 0)  # paper
    lab[1, 0, 0, 0] = (60, -30, -30)  # the first ink
    image = Image.new("CMYK", (16, 16), (255, 0, 0, 0))
    content = saved(image, "TIFF", icc_profile=photo_files.cmyk_profile(lab))
    expected = photo_files.lab_to_srgb(lab[1, 0, 0, 0])
    assert np.abs(expected - np.array([0, 255, 255])).max() > 20
    np.testing.assert_allclose(read(content)[8, 8], expected, atol=4)
