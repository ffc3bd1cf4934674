"""Files are decoded to upright RGB images or refused with a reason."""

import io
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image, ImageOps

from catdog.errors import PhotoError
from catdog.preparation.photos import open_photo, resize_to_square
from tests.helpers.oriented_photos import BLUE, GREEN, ORIENTED, RED, WHITE, corners, quarters

ORIENTATION = 0x0112


def jpeg(image: Image.Image, orientation: int = 1) -> bytes:
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=95, subsampling=0, exif=exif)
    return stream.getvalue()


def noise(width: int, height: int) -> Image.Image:
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def opened(image: Image.Image, path: Path, **options: object) -> npt.NDArray[np.uint8]:
    """Save an image as `path` and return the pixels that `open_photo` reads."""
    image.save(path, **options)  # type: ignore[arg-type]
    photo = open_photo(path)
    assert photo.mode == "RGB"
    return np.asarray(photo)


@pytest.mark.parametrize("max_side", [None, 32])
def test_a_truncated_jpeg_is_refused(tmp_path: Path, max_side: int | None) -> None:
    content = jpeg(noise(256, 256))
    path = tmp_path / "photo.jpg"
    path.write_bytes(content[: len(content) * 9 // 10])
    with pytest.raises(PhotoError, match=r"damaged: .*truncated"):
        open_photo(path, max_side)


def test_a_truncated_png_is_refused(tmp_path: Path) -> None:
    stream = io.BytesIO()
    noise(64, 64).save(stream, "PNG")
    path = tmp_path / "photo.png"
    path.write_bytes(stream.getvalue()[:-2000])
    with pytest.raises(PhotoError, match="damaged"):
        open_photo(path)


def test_an_empty_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "666.jpg").touch()
    with pytest.raises(PhotoError, match=r"^empty file$"):
        open_photo(tmp_path / "666.jpg")


@pytest.mark.parametrize("as_stream", [False, True])
def test_text_with_the_extension_of_a_photo_is_refused(tmp_path: Path, as_stream: bool) -> None:
    path = tmp_path / "photo.jpg"
    path.write_text("no pixels here")
    with pytest.raises(PhotoError, match=r"^unsupported format: text$"):
        open_photo(io.BytesIO(path.read_bytes()) if as_stream else path)


def test_a_folder_and_a_missing_file_are_refused(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "gone.jpg"):
        with pytest.raises(PhotoError, match=r"^not a file$"):
            open_photo(path)


@pytest.mark.parametrize("orientation", ORIENTED)
@pytest.mark.parametrize("max_side", [None, 32])
def test_exif_orientation_is_applied(orientation: int, max_side: int | None) -> None:
    photo = open_photo(io.BytesIO(jpeg(quarters(192, 128), orientation)), max_side)
    np.testing.assert_allclose(corners(photo), ORIENTED[orientation], atol=6)
    assert (photo.width < photo.height) == (orientation >= 5)


@pytest.mark.parametrize("orientation", ORIENTED)
@pytest.mark.parametrize("size", [(640, 416), (1001, 1007)])  # square in draft mode
def test_width_and_height_are_the_original_ones_also_in_draft_mode(
    orientation: int, size: tuple[int, int]
) -> None:
    content = jpeg(Image.new("RGB", size, RED), orientation)
    expected = size[::-1] if orientation >= 5 else size
    for max_side in (None, 64):
        photo = open_photo(io.BytesIO(content), max_side)
        assert (photo.info["width"], photo.info["height"]) == expected


def test_draft_mode_keeps_both_sides_at_least_max_side() -> None:
    photo = open_photo(io.BytesIO(jpeg(noise(640, 400))), 64)
    assert photo.width < 640
    assert min(photo.size) >= 64


# pytest resets the warning filter that catdog.preparation.photos sets
@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
def test_a_photo_with_damaged_metadata_is_accepted(tmp_path: Path) -> None:
    path = tmp_path / "photo.jpg"
    quarters(32, 32).save(path, exif=b"Exif\x00\x00II*\x00\xff\xff\xff\x7fbroken", quality=95)
    assert np.asarray(open_photo(path))[4, 4] == pytest.approx(RED, abs=8)


def test_a_cmyk_jpeg_is_converted_to_rgb(tmp_path: Path) -> None:
    image = quarters(64, 64)
    photo = opened(image.convert("CMYK"), tmp_path / "photo.jpg", quality=95)
    difference = np.abs(photo.astype(int) - np.asarray(image).astype(int))
    assert difference[4:28, 4:28].max() < 12
    assert difference.mean() < 4


def test_palette_colours_are_converted_to_rgb(tmp_path: Path) -> None:
    image = quarters(8, 8)
    np.testing.assert_array_equal(
        opened(image.quantize(4), tmp_path / "photo.png"), np.asarray(image)
    )


def test_a_transparent_palette_colour_becomes_white(tmp_path: Path) -> None:
    image = Image.new("P", (4, 4), 1)
    image.putpalette([*RED, *BLUE])
    image.putpixel((0, 0), 0)
    photo = opened(image, tmp_path / "photo.png", transparency=1)
    assert tuple(photo[0, 0]) == RED
    assert tuple(photo[3, 3]) == WHITE


def test_half_transparent_colours_are_composited_over_white(tmp_path: Path) -> None:
    image = Image.new("RGBA", (2, 1), (255, 0, 0, 128))
    image.putpixel((1, 0), (0, 0, 0, 0))
    photo = opened(image, tmp_path / "photo.png")
    np.testing.assert_allclose(photo[0], [(255, 127, 127), WHITE], atol=1)


def test_half_transparent_grey_is_composited_over_white(tmp_path: Path) -> None:
    image = Image.new("LA", (2, 1), (0, 128))
    image.putpixel((1, 0), (100, 255))
    photo = opened(image, tmp_path / "photo.png")
    np.testing.assert_allclose(photo[0], [(127, 127, 127), (100, 100, 100)], atol=1)


def test_16_bit_grey_is_scaled_not_clipped(tmp_path: Path) -> None:
    levels = np.array([[0, 257, 257 * 100, 65535]], dtype=np.uint16)
    photo = opened(Image.fromarray(levels), tmp_path / "photo.png")
    np.testing.assert_array_equal(photo[0], [[v] * 3 for v in (0, 1, 100, 255)])


def test_1_bit_and_8_bit_grey_are_converted_to_rgb(tmp_path: Path) -> None:
    bits = Image.fromarray(np.array([[True, False]]))
    assert bits.mode == "1"
    np.testing.assert_array_equal(opened(bits, tmp_path / "bits.png")[0], [[255] * 3, [0] * 3])
    grey = Image.new("L", (1, 1), 90)
    np.testing.assert_array_equal(opened(grey, tmp_path / "grey.png")[0], [[90] * 3])


def test_the_first_frame_of_an_animation_is_used(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (4, 4), colour) for colour in (GREEN, RED)]
    path = tmp_path / "photo.gif"
    photo = opened(frames[0], path, save_all=True, append_images=frames[1:])
    with Image.open(path) as image:
        assert getattr(image, "n_frames", 1) == 2
    assert (photo == GREEN).all()


def test_resizing_to_a_square_does_not_crop() -> None:
    square = resize_to_square(quarters(200, 60), 24)
    assert square.shape == (24, 24, 3)
    assert square.dtype == np.uint8
    corners = [square[y, x] for y in (0, -1) for x in (0, -1)]
    np.testing.assert_array_equal(corners, [RED, GREEN, BLUE, WHITE])


def test_resizing_to_a_square_does_not_alias() -> None:
    stripes = np.zeros((64, 64, 3), np.uint8)
    stripes[:, ::2] = 255
    np.testing.assert_allclose(resize_to_square(Image.fromarray(stripes), 8), 127, atol=12)


def test_orientation_agrees_with_pillow_on_random_pixels() -> None:
    content = jpeg(noise(48, 32), 6)
    with Image.open(io.BytesIO(content)) as image:
        expected = np.asarray(ImageOps.exif_transpose(image))
    np.testing.assert_array_equal(np.asarray(open_photo(io.BytesIO(content))), expected)
