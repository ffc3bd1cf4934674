"""Zip and tar archives of given files, and small photos to put into them."""

import io
import tarfile
import warnings
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
from PIL import Image

Files = Mapping[str, bytes] | Iterable[tuple[str, bytes]]
"""content by name; pairs can have equal names"""


def jpeg(seed: int) -> bytes:
    """Return a small JPEG photo, different for each seed."""
    pixels = np.random.default_rng(seed).integers(0, 256, (12, 16, 3), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "JPEG")
    return stream.getvalue()


def write_zip(path: Path, files: Files, method: int = zipfile.ZIP_STORED) -> Path:
    """Write a zip archive; return its path."""
    # zipfile warns of equal names
    with zipfile.ZipFile(path, "w") as archive, warnings.catch_warnings(action="ignore"):
        for name, content in _pairs(files):
            archive.writestr(zipfile.ZipInfo(name), content, method)
    return path


def write_tar(path: Path, files: Files, mode: str = "w") -> Path:
    """Write a tar archive, compressed as in the modes of tarfile; return its path."""
    with tarfile.open(path, mode) as archive:  # type: ignore[call-overload]
        for name, content in _pairs(files):
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


def _pairs(files: Files) -> Iterable[tuple[str, bytes]]:
    return files.items() if isinstance(files, Mapping) else files
