"""A temporary folder of photos for benchmarks: copies of given photos, or drawn ones."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from catdog.errors import CatdogError, PhotoError
from catdog.preparation.class_folders import list_classes
from catdog.preparation.photos import open_photo
from catdog.support.process_pool import process_pool, usable_cores
from tools.draw_sample import KINDS, draw

DRAWN_SIDE = 180  # pixels, as the real photos of benchmarks/README.md


@contextmanager
def photo_folder(given: Path | None, number: int) -> Iterator[Path]:
    """Yield a temporary folder with `number` photos, in a folder per class; print their source.

    They are copies of the first readable photos of each class in `given`, or drawn if it is None.
    All classes have the same number. Raises CatdogError if `given` has fewer readable photos.
    """
    with TemporaryDirectory() as temporary:
        folder = Path(temporary)
        if given is None:
            _draw_photos(folder, number)
        else:
            _copy_photos(given, folder, number)
        source = f"drawn, {DRAWN_SIDE} px" if given is None else f"from {given}"
        print(f"{number:,} photos {source}")
        yield folder


def _draw_photos(folder: Path, number: int) -> None:
    jobs = [(folder, name, index) for name in KINDS for index in range(number // len(KINDS))]
    for name in KINDS:
        (folder / name).mkdir()
    with process_pool(usable_cores()) as pool:
        list(pool.map(_draw_photo, *zip(*jobs, strict=True), chunksize=8))


def _draw_photo(folder: Path, class_name: str, index: int) -> None:
    draw(class_name, index, DRAWN_SIDE).save(folder / class_name / f"{index}.jpg", quality=90)


def _copy_photos(given: Path, folder: Path, number: int) -> None:
    classes = list_classes(given.resolve())  # a link would be refused
    wanted = number // len(classes)
    for name, files in classes.items():
        (folder / name).mkdir()
        readable = (file for file in files if _is_readable(file))
        copied = [shutil.copy(f, folder / name) for f, _ in zip(readable, range(wanted))]  # noqa: B905
        if len(copied) < wanted:
            raise CatdogError(
                f"{given / name}: only {len(copied)} of {wanted} photos are readable; pass a "
                f"smaller --number"
            )


def _is_readable(file: Path) -> bool:
    try:
        open_photo(file)
    except PhotoError:
        return False
    return True
