"""Photos as files: find them, decode them completely, and make them square."""

import re
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO

import numpy as np
import numpy.typing as npt
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from catdog.errors import CatdogError

SUFFIXES = frozenset(
    {".bmp", ".gif", ".jpeg", ".jpg", ".jfif", ".png", ".ppm", ".tif", ".tiff", ".webp"}
)
JUNK = frozenset({"thumbs.db", "desktop.ini"})  # what file managers leave in folders
MAX_PIXELS = 200_000_000  # what the largest phone cameras give; more is an attack or a mistake

# Pillow's own limit lies below that: it refuses at twice this number, 179 million unless set.
Image.MAX_IMAGE_PIXELS = MAX_PIXELS

# Pillow warns of odd metadata around pixels that are fine. Once for the process: decoding happens
# in threads, and warnings.catch_warnings is not safe there.
warnings.filterwarnings("ignore", module=r"PIL\.")


class PhotoError(CatdogError):
    """Why a file is no usable photo, in a short sentence without its path."""


def open_photo(source: Path | BinaryIO, max_side: int | None = None) -> Image.Image:
    """Return a photo as an upright 8-bit RGB image, decoded to its last pixel.

    EXIF rotation is applied; transparent pixels are laid over white; of an animation the first
    frame counts. With `max_side` a large JPEG is decoded at a half, a quarter or an eighth of its
    size, no side below `max_side`: several times faster, and still the whole file is read. The
    photo's own width and height, upright, are in the image's `info` as "width" and "height".
    Raises PhotoError if the file is empty, damaged, truncated, or no photo.
    """
    try:
        return _decode(source, max_side)
    except PhotoError:
        raise
    except UnidentifiedImageError:
        raise PhotoError("not a photo") from None
    except (Image.DecompressionBombError, MemoryError):
        raise PhotoError(f"more than {MAX_PIXELS:,} pixels") from None
    except Exception as error:  # Pillow raises nearly anything for damaged files
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        # Without "(17 bytes not processed)" and the like, equal damage has equal words to count.
        raise PhotoError(f"damaged: {re.sub(r' [(].*[)]$', '', reason)}") from None


def _decode(source: Path | BinaryIO, max_side: int | None) -> Image.Image:
    if isinstance(source, Path):
        if not source.is_file():
            raise PhotoError("not a file")
        if source.stat().st_size == 0:
            raise PhotoError("empty file")
    with Image.open(source) as image:
        size = image.size
        if size[0] * size[1] > MAX_PIXELS:
            raise PhotoError(f"more than {MAX_PIXELS:,} pixels")
        if max_side is not None:
            image.draft(None, (max_side, max_side))
        image.load()
        upright, turned = _upright(image)
    photo = _to_rgb(upright)
    photo.info = dict(zip(("width", "height"), size[::-1] if turned else size, strict=True))
    return photo


def _upright(image: Image.Image) -> tuple[Image.Image, bool]:
    """Return the image as EXIF says it is seen, and whether its rows became columns."""
    try:
        turned = image.getexif().get(ExifTags.Base.Orientation) in range(5, 9)
        return ImageOps.exif_transpose(image), turned
    except Exception:  # damaged metadata: the pixels are fine, so the photo counts as it lies
        return image.copy(), False


def _to_rgb(image: Image.Image) -> Image.Image:
    """Return 8-bit RGB: transparency over white, 16-bit grey scaled instead of clipped."""
    if image.mode.startswith("I"):
        grey = np.asarray(image).astype(np.int64) // 257
        return Image.fromarray(grey.clip(0, 255).astype(np.uint8)).convert("RGB")
    if image.mode == "F":
        raise PhotoError("floating-point pixels, whose range is not known")
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        white = Image.new("RGBA", layer.size, "white")
        return Image.alpha_composite(white, layer).convert("RGB")
    return image.convert("RGB")


def squish(image: Image.Image, image_size: int) -> npt.NDArray[np.uint8]:
    """Return an RGB image as a square (image_size, image_size, 3), aspect ratio given up.

    Nothing is cut away: the face is often near an edge. Pillow's bicubic filter widens with the
    reduction, so nothing aliases.
    """
    resized = image.resize((image_size, image_size), Image.Resampling.BICUBIC)
    return np.asarray(resized, dtype=np.uint8)


def list_classes(root: Path) -> dict[str, list[Path]]:
    """Return the sorted files of each class, a class being a folder in `root`, sorted by name.

    All files below a class folder count, whatever they are called, but for hidden ones and what
    file managers leave behind. Raises CatdogError if there is nothing to learn from.
    """
    if not root.is_dir():
        raise CatdogError(
            f"{root}: no such folder; `dvc pull data/raw.dvc` brings the drawn sample, "
            f"`catdog fetch` your own photos"
        )
    folders = sorted(f for f in root.iterdir() if f.is_dir() and not f.name.startswith("."))
    classes = {folder.name: _files(folder) for folder in folders}
    if len(classes) < 2:
        raise CatdogError(
            f"{root}: needs at least two class folders, such as {root}/cat and {root}/dog, "
            f"but holds {len(classes)}"
        )
    for name, files in classes.items():
        if not files:
            raise CatdogError(f"{root / name}: the class has no photo; add some or remove it")
    return classes


def find_photos(paths: Iterable[Path]) -> list[Path]:
    """Return files as given, and the photos in folders, recursively; sorted, each once.

    In a folder only names with a suffix of photos count. Raises CatdogError for a missing path.
    """
    found: set[Path] = set()
    for path in paths:
        if path.is_dir():
            found.update(file for file in _files(path) if file.suffix.lower() in SUFFIXES)
        elif path.exists():
            found.add(path)
        else:
            raise CatdogError(f"{path}: no such file or folder")
    return sorted(found)


def _files(folder: Path) -> list[Path]:
    """Return all files below a folder, sorted by path, without hidden ones and junk."""
    return sorted(
        file
        for file in folder.rglob("*")
        if file.is_file() and not any(map(is_junk, file.relative_to(folder).parts))
    )


def is_junk(name: str) -> bool:
    """Return whether a file is hidden or left behind by a file manager."""
    return name.startswith(".") or name.lower() in JUNK
