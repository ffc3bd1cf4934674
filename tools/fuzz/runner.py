"""Run inputs in a worker process with limits, and say what is a failure.

An input is made from a target and a number alone, so it can be made again. The worker process is
started anew after it has died or exceeded the limit of time.
"""

import multiprocessing
import os
import random
import resource
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator
from contextlib import chdir, suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Protocol

from catdog.errors import CatdogError

MAX_SECONDS = 60.0  # per input
GIGABYTE = 1_000_000_000
KINDS = ("traceback", "escape", "data loss", "not finite", "changed on failure", "memory", "time")


class InvariantError(Exception):
    """A violated invariant; `kind` is one of KINDS."""

    def __init__(self, kind: str, text: str) -> None:
        super().__init__(text)
        self.kind = kind


class Target(Protocol):
    """A reader of untrusted files."""

    max_bytes: int
    """resident memory that the worker may use"""

    def make(self, rng: random.Random, folder: Path) -> None:
        """Write an input into an empty folder."""

    def check(self, folder: Path) -> None:
        """Read the input; CatdogError if it is refused, InvariantError if a promise is broken.

        The working folder is an empty one, `folder`/../work, the only place to write to.
        """


@dataclass
class Result:
    """What happened with the inputs of one target."""

    target: str
    inputs: int = 0
    refused: int = 0
    seconds: float = 0.0
    peak: int = 0
    """resident memory of the worker, in bytes"""
    failures: list[tuple[int, str, str]] = field(default_factory=list)
    """number of the input, kind, text"""

    def count(self, kind: str) -> int:
        """Return the number of failures of a kind."""
        return sum(found == kind for _, found, _ in self.failures)


Report = tuple[str, str, int]  # kind ("" = accepted, "refused", or a failure), text, peak in bytes


class Worker:
    """A process that reads inputs of one target."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self._process: multiprocessing.process.BaseProcess | None = None

    def run(self, number: int, limit: float = MAX_SECONDS) -> Report:
        """Make and read an input; return what happened."""
        if self._process is None:
            context = multiprocessing.get_context("spawn")
            self._connection, theirs = context.Pipe()
            self._process = context.Process(target=_serve, args=[self._target, theirs])
            self._process.start()
            theirs.close()
            self._connection.recv()  # its imports are not counted
        self._connection.send(number)
        try:
            if self._connection.poll(limit):
                report: Report = self._connection.recv()
                return report
            return self._end("time", f"more than {limit:g} seconds")
        except EOFError:
            self._process.join()
            return self._end("traceback", f"the process ended with {self._process.exitcode}")

    def _end(self, kind: str, text: str) -> Report:
        self.close()
        return kind, text, 0

    def close(self) -> None:
        """End the process."""
        if self._process is not None:
            self._process.kill()
            self._process.join()
            self._connection.close()
            self._process = None


def _serve(target: Target, connection: Connection) -> None:
    silent = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):  # libtiff and libjpeg print warnings
        os.dup2(silent, stream)
    connection.send(None)
    with suppress(EOFError, KeyboardInterrupt):
        while True:
            number = connection.recv()
            with tempfile.TemporaryDirectory(prefix="catdog-fuzz-") as name:
                kind, text = read(target, number, Path(name))
            peak = _peak_memory()
            if not kind and peak > target.max_bytes:
                kind, text = "memory", f"{peak:,} bytes"
            connection.send((kind, text, peak))


def _peak_memory() -> int:
    """Return the largest resident memory of this process or one of its children, in bytes."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    if sys.platform == "darwin":
        return max(children, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
    # Not getrusage, whose value a process inherits from the one that has started it.
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    own = next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))
    return max(children, own) * 1024


def read(target: Target, number: int, folder: Path) -> tuple[str, str]:
    """Make input `number` in `folder`, and read it; return the kind and text of what happened."""
    source, work = folder / "input", folder / "work"
    source.mkdir()
    work.mkdir()
    (folder / "outside").write_text("unchanged")
    target.make(random.Random(number), source)
    before = _content(folder, work)
    try:
        with chdir(work):
            target.check(source)
        kind, text = "", ""
    except InvariantError as failure:
        kind, text = failure.kind, str(failure)
    except CatdogError as error:
        kind, text = "refused", str(error)
        if not text.strip() or "\n" in text:
            kind, text = "traceback", f"not one line: {text!r}"
    except Exception:
        kind, text = "traceback", traceback.format_exc()
    if _content(folder, work) != before:
        kind, text = "escape", f"files outside the target folder were changed; {text}"
    return kind, text


def _content(folder: Path, without: Path) -> dict[str, bytes]:
    """Return the content of all files in a folder, apart from those in the folder `without`."""
    files = (file for file in folder.rglob("*") if file.is_file() or file.is_symlink())
    return {
        str(file): bytes(file.readlink()) if file.is_symlink() else file.read_bytes()
        for file in files
        if not file.is_relative_to(without)
    }


def fuzz(name: str, target: Target, numbers: Iterator[int], deadline: float) -> Result:
    """Read the inputs with these numbers until all are read or `deadline` (time.monotonic)."""
    result, worker = Result(name), Worker(target)
    start = time.monotonic()
    try:
        for number in numbers:
            if time.monotonic() > deadline:
                break
            kind, text, peak = worker.run(number)
            result.inputs += 1
            result.refused += kind == "refused"
            result.peak = max(result.peak, peak)
            if kind not in ("", "refused"):
                result.failures.append((number, kind, text))
                if kind == "memory":
                    worker.close()  # the peak of a process does not go down
    finally:
        worker.close()
    result.seconds = time.monotonic() - start
    return result
