"""Decoding of 12-megapixel phone photos to 128 px, in photos per second and core, by format.

python -m benchmarks.decoding [--photos FOLDER] [--count 4] [--trials 3] [--formats JPEG HEIC]

The photos are enlarged to 4032 × 3024 pixels, with noise as of a camera.
"""

import io
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pillow_heif
from PIL import Image

from catdog.preparation.photos import open_photo, resize_to_square
from tools import command_line, measure, photo_files

SIZE = (4032, 3024)
IMAGE_SIZE = 128
NOISE = 4  # standard deviation, of 255 levels
P3 = photo_files.rgb_profile(photo_files.DISPLAY_P3, 2.2)


def phone_photo(file: Path, seed: int) -> Image.Image:
    """Return a photo enlarged to SIZE, with noise."""
    large = open_photo(file).resize(SIZE, Image.Resampling.BICUBIC)
    noise = np.random.default_rng(seed).normal(0, NOISE, (*SIZE[::-1], 1)).astype(np.float32)
    return Image.fromarray((np.asarray(large) + noise).clip(0, 255).astype(np.uint8))


def pillow(photo: Image.Image, format: str, **options: Any) -> bytes:
    """Return a photo in a format of Pillow."""
    stream = io.BytesIO()
    photo.save(stream, format, **options)
    return stream.getvalue()


def heic(photo: Image.Image, profile: bytes | None = None) -> bytes:
    """Return a photo as HEIC; phones use hardware encoders, the decoder is the same."""
    stream = io.BytesIO()
    file = pillow_heif.from_pillow(photo)
    if profile:
        file.info["icc_profile"] = profile
    file.save(stream, quality=55)
    return stream.getvalue()


FORMATS: dict[str, Callable[[Image.Image], bytes]] = {
    "JPEG": lambda photo: pillow(photo, "JPEG", quality=90),
    "JPEG, Display P3": lambda photo: pillow(photo, "JPEG", quality=90, icc_profile=P3),
    "JPEG, progressive": lambda photo: pillow(photo, "JPEG", quality=90, progressive=True),
    "HEIC": heic,
    "HEIC, Display P3": partial(heic, profile=P3),
    "WebP": lambda photo: pillow(photo, "WEBP", quality=90),
    "AVIF": lambda photo: pillow(photo, "AVIF", quality=80, speed=10),
    "JPEG 2000": lambda photo: pillow(photo, "JPEG2000", quality_layers=[10]),
    "PNG": lambda photo: pillow(photo, "PNG", compress_level=1),
}


def decode(contents: list[bytes]) -> None:
    """Decode photos as `prepare` does."""
    for content in contents:
        resize_to_square(open_photo(io.BytesIO(content), IMAGE_SIZE), IMAGE_SIZE)


def main() -> None:
    """Write the photos in each format and measure how fast they are decoded."""
    parser = command_line.parser(__doc__)
    add = parser.add_argument
    add(
        "--photos", type=Path, default=Path("data/raw"), help="folder of photos (default: data/raw)"
    )
    add("--count", type=int, default=4, help="photos per format (default: 4)")
    add("--trials", type=int, default=3, help="trials, interleaved (default: 3)")
    add("--formats", nargs="+", choices=FORMATS, default=list(FORMATS), help="(default: all)")
    arguments = parser.parse_args()
    files = sorted(arguments.photos.rglob("*.jpg"))[: arguments.count]
    if not files:
        print(f"{arguments.photos}: no photos; run `dvc pull data/raw.dvc` or pass --photos FOLDER")
        return
    print(measure.hardware())
    photos = [phone_photo(file, seed) for seed, file in enumerate(files)]
    contents = {name: [FORMATS[name](photo) for photo in photos] for name in arguments.formats}
    del photos
    runs = {name: partial(decode, values) for name, values in contents.items()}
    costs = measure.interleaved(runs, arguments.trials)
    measure.show(
        f"{len(files)} photos of {SIZE[0]} × {SIZE[1]} pixels to {IMAGE_SIZE} px, on one core, "
        f"{arguments.trials} trials",
        ("format", "MB per photo", "CPU seconds per photo", "photos per second and core"),
        [
            (
                name,
                f"{sum(map(len, values)) / len(values) / 1e6:.1f}",
                f"{(seconds := measure.median_of(costs[name]).cpu_seconds / len(values)):.3f}",
                f"{1 / seconds:.1f}",
            )
            for name, values in contents.items()
        ],
    )


if __name__ == "__main__":
    command_line.run(main)
