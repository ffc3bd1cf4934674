"""A fuzz target that breaks a promise; a module of its own, which imports no torch."""

import os
import random
import time
from pathlib import Path

from catdog.errors import CatdogError
from tools.fuzz.runner import GIGABYTE, InvariantError


class Planted:
    """A target that breaks a promise; the input is the kind."""

    max_bytes = GIGABYTE

    def __init__(self, kind: str) -> None:
        self.kind = kind

    def make(self, rng: random.Random, folder: Path) -> None:
        """Write nothing."""

    def check(self, folder: Path) -> None:
        """Break the promise."""
        match self.kind:
            case "traceback":
                raise ZeroDivisionError
            case "two lines":
                raise CatdogError("one\ntwo")
            case "death":
                os._exit(7)
            case "escape":
                (folder.parent / "escaped").touch()
            case "overwritten":
                (folder.parent / "outside").write_text("changed")
            case "memory":
                print(len(b"x" * 1_100_000_000))
            case "time":
                time.sleep(600)
            case "data loss":
                raise InvariantError("data loss", "one photo")
