"""Command lines of the scripts in benchmarks/, studies/ and tools/."""

import argparse
import sys
from collections.abc import Callable

from catdog.errors import CatdogError


def parser(description: str | None) -> argparse.ArgumentParser:
    """Return a parser whose --help shows a module's docstring with its line breaks."""
    spec = sys.modules["__main__"].__spec__  # None unless started with python -m
    return argparse.ArgumentParser(
        prog=f"python -m {spec.name.removesuffix('.__main__')}" if spec else None,
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def run(main: Callable[[], None]) -> None:
    """Run `main`; a CatdogError becomes one line on stderr and exit code 1."""
    try:
        main()
    except CatdogError as error:
        raise SystemExit(f"catdog: {error}") from None
