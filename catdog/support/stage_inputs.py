"""Refuse the result of a stage whose params, code or photos have changed while it ran.

DVC reads them after the stage, so it would record the result of the old ones under the new ones,
and not run the stage again (treeverse/dvc#11058).
"""

import hashlib
from collections.abc import Callable, Iterable
from pathlib import Path

from catdog.errors import CatdogError
from catdog.paths import PARAMS

PACKAGE = Path(__file__).parents[1]


class StageInputs:
    """The inputs of a stage at its start: the params it depends on, its code, and its photos."""

    def __init__(
        self,
        stage: str,
        read_params: Callable[[], object],
        code: Iterable[str],
        photos: Path | None = None,
    ) -> None:
        """Remember the inputs.

        `read_params` returns the params; `code` are folders of this package; the photos are all
        files in the folder `photos`.
        """
        self._stage, self._read_params = stage, read_params
        self._code, self._photos = tuple(code), photos
        self._before = self._read()

    def check(self) -> None:
        """Raise CatdogError if an input has changed since the start; the message names which."""
        now = self._read()
        changed = [name for name, value in self._before.items() if now[name] != value]
        if changed:
            raise CatdogError(
                f"{self._stage}: {' and '.join(changed)} changed while the stage ran, so its "
                "result is not used; run `dvc repro` again"
            )

    def _read(self) -> dict[str, object]:
        try:
            params = self._read_params()
        except CatdogError:  # incomplete while it is being edited
            params = None
        found: dict[str, object] = {str(PARAMS): params, "code": _hash_code(self._code)}
        if self._photos is not None:
            found[str(self._photos)] = _list_files(self._photos)
        return found


def _hash_code(folders: Iterable[str]) -> str:
    digest = hashlib.sha256()
    files = (file for folder in folders for file in (PACKAGE / folder).rglob("*"))
    for file in sorted(files):
        if file.is_file() and file.parent.name != "__pycache__":
            digest.update(file.as_posix().encode() + b"\0" + file.read_bytes() + b"\0")
    return digest.hexdigest()


def _list_files(folder: Path) -> list[tuple[str, int, int]]:
    """Return path, size and modification time of all files in a folder."""
    files = [(file.as_posix(), file.stat()) for file in folder.rglob("*") if file.is_file()]
    return sorted((path, found.st_size, found.st_mtime_ns) for path, found in files)
