"""Write the arrays of data/prepared, with one photo in memory at a time."""

from collections.abc import Iterable
from contextlib import closing
from pathlib import Path

import numpy as np
import numpy.typing as npt

from catdog.dataset.prepared import SPLITS


class ArrayWriter:
    """Appends photos to train.npy, val.npy and test.npy without holding the arrays in memory.

    NumPy pads the header of an .npy file so that the length of the first axis can be overwritten in
    place (up to 21 digits); `close` writes the final lengths.
    """

    def __init__(self, folder: Path, side: int) -> None:
        self.moments = np.zeros((2, 3), dtype=np.int64)
        """sums, and sums of squares, of the pixels of the training photos per channel"""
        self._side = side
        self._streams = {split: (folder / f"{split}.npy").open("wb") for split in SPLITS}
        self._lengths = dict.fromkeys(SPLITS, 0)
        for split in SPLITS:
            self._write_header(split)

    def append(self, split: str, pixels: npt.NDArray[np.uint8]) -> None:
        """Append one photo (side, side, 3) to a split."""
        self._streams[split].write(pixels.tobytes())
        self._lengths[split] += 1
        if split == "train":
            wide = pixels.reshape(-1, 3).astype(np.int64)
            self.moments += np.stack([wide.sum(0), (wide**2).sum(0)])

    def close(self) -> None:
        """Write the final lengths and close the files."""
        for split, stream in self._streams.items():
            stream.seek(0)
            self._write_header(split)
            stream.close()

    def _write_header(self, split: str) -> None:
        shape = (self._lengths[split], self._side, self._side, 3)
        header = {"descr": "|u1", "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(self._streams[split], header)


def move_photos(folder: Path, side: int, moves: Iterable[tuple[str, str]]) -> npt.NDArray[np.int64]:
    """Write the arrays in `folder` again, with photos in other splits; return the new moments.

    `moves` has the old and the new split of each photo, in the order in which they were appended,
    which the new arrays keep.
    """
    new = folder / "moved"
    new.mkdir()
    photos = {split: iter(np.load(folder / f"{split}.npy", mmap_mode="r")) for split in SPLITS}
    with closing(ArrayWriter(new, side)) as arrays:
        for old_split, new_split in moves:
            arrays.append(new_split, next(photos[old_split]))
    for split in SPLITS:
        (new / f"{split}.npy").replace(folder / f"{split}.npy")
    new.rmdir()
    return arrays.moments
