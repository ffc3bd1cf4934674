"""Fuzz the readers of untrusted files, with fixed seeds, and print a table.

    python -m tools.fuzz --minutes 5 --seed 1 [--target images] [--replay NUMBER]

Inputs that violate an invariant are saved below --save, with the command that repeats them.
"""

import argparse
import random
import shutil
import sys
import time
from itertools import count
from pathlib import Path

from rich.box import MARKDOWN
from rich.console import Console
from rich.table import Table

from tools import command_line
from tools.fuzz import runner
from tools.fuzz.runner import KINDS, Result, Target

SAVE = Path(".catdog/fuzz")
INPUTS_PER_SEED = 1_000_000  # so that two seeds have no input in common


def targets() -> dict[str, Target]:
    """Return all targets by name."""
    # Each imports what it reads with; the workers of images and archives do not need torch.
    from tools.fuzz.archives import Archives  # noqa: PLC0415
    from tools.fuzz.images import Images  # noqa: PLC0415
    from tools.fuzz.models import Models  # noqa: PLC0415
    from tools.fuzz.prepared import Prepared  # noqa: PLC0415
    from tools.fuzz.settings import Settings  # noqa: PLC0415

    return {
        "archives": Archives(),
        "images": Images(),
        "models": Models(),
        "params": Settings(),
        "prepared": Prepared(),
    }


def main() -> None:
    """Fuzz, print the table, save the inputs that failed; exit code 1 if there are any."""
    arguments = _arguments()
    known = targets()
    chosen = arguments.target or sorted(known)
    if arguments.replay is not None:
        _replay(chosen[0], known[chosen[0]], arguments.replay)
        return
    results = []
    for name in chosen:
        deadline = time.monotonic() + 60 * arguments.minutes / len(chosen)
        results.append(
            runner.fuzz(name, known[name], count(arguments.seed * INPUTS_PER_SEED), deadline)
        )
        for number, kind, text in results[-1].failures:
            _save(name, known[name], number, kind, text, arguments.save)
    Console(width=200).print(table(results))
    if any(result.failures for result in results):
        sys.exit(1)


def _arguments() -> argparse.Namespace:
    parser = command_line.parser(__doc__)
    parser.add_argument("--minutes", type=float, default=5.0, help="for all targets together")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--target", action="append", choices=sorted(targets()))
    parser.add_argument("--replay", type=int, metavar="NUMBER", help="read this input again")
    parser.add_argument("--save", type=Path, default=SAVE, help="folder for failed inputs")
    return parser.parse_args()


def _replay(name: str, target: Target, number: int) -> None:
    """Read one input in this process, so that a debugger can be used."""
    folder = SAVE / f"replay-{name}-{number}"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    kind, text = runner.read(target, number, folder.resolve())
    print(f"{name} {number}: {kind or 'accepted'} {text}\ninput: {folder / 'input'}")


def _save(name: str, target: Target, number: int, kind: str, text: str, save: Path) -> None:
    folder = save / f"{name}-{number}"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    target.make(random.Random(number), folder)
    last = text.strip().splitlines()[-1:]
    print(
        f"{name} {number}: {kind}: {''.join(last)}\n  saved as {folder}; to repeat it: "
        f"python -m tools.fuzz --target {name} --replay {number}"
    )


def table(results: list[Result]) -> Table:
    """Return a table of the results, with one row per target."""
    rows = Table("target", "inputs", "refused", *KINDS, "peak memory", "inputs/s", box=MARKDOWN)
    for result in results:
        rows.add_row(
            result.target,
            f"{result.inputs:,}",
            f"{result.refused:,}",
            *(str(result.count(kind)) for kind in KINDS),
            f"{result.peak / 1e6:,.0f} MB",
            f"{result.inputs / max(result.seconds, 1e-9):.1f}",
        )
    return rows


if __name__ == "__main__":
    command_line.run(main)
