"""The history of training: history.csv, timing.csv and the log, each with one line per epoch."""

import math
from collections.abc import Sequence
from dataclasses import astuple, dataclass, fields
from pathlib import Path

from catdog.support.atomic_files import write_rows


@dataclass(frozen=True)
class Epoch:
    """One row of history.csv."""

    epoch: int
    image_size: int
    lr: float
    train_loss: float
    train_accuracy: float
    val_loss: float
    val_accuracy: float
    best: int
    """1 if it was the best epoch so far"""
    pflop: float
    """floating-point operations of training in this epoch, in units of 10¹⁵"""


@dataclass(frozen=True)
class Timing:
    """One row of timing.csv, which is not a DVC output, because times are not reproducible."""

    epoch: int
    train_loss: float
    """as in history.csv: it identifies the training run that was timed"""
    seconds: float
    images_per_second: float
    waiting_share: float


def write(path: Path, rows: Sequence[Epoch] | Sequence[Timing], kind: type) -> None:
    """Write rows of the dataclass `kind` to a CSV file, its fields as columns; atomic."""
    write_rows(path, [field.name for field in fields(kind)], map(astuple, rows))


def epoch_line(row: Epoch, timing: Timing, epochs: int) -> str:
    """Return the log line of an epoch; an asterisk marks the best so far."""
    return (
        f"epoch {row.epoch:>{len(str(epochs))}}/{epochs}  {row.image_size} px  "
        f"loss {row.train_loss:.4f}  val loss {row.val_loss:.4f}  "
        f"val accuracy {row.val_accuracy:.2%}{' *' if row.best else '  '}  "
        f"{timing.seconds:.1f} s, {timing.images_per_second:.0f} photos/s, "
        f"{timing.waiting_share:.1%} waiting for data"
    )


def cost_line(rows: Sequence[Epoch], timings: Sequence[Timing]) -> str:
    """Return the log line with the operations and the time of the whole training."""
    minutes = sum(timing.seconds for timing in timings) / 60
    return f"training took {minutes:.1f} minutes and {total_pflop(rows):.4g} PFLOP"


def total_pflop(rows: Sequence[Epoch]) -> float:
    """Return the operations of all epochs, in units of 10¹⁵, to six digits."""
    # Not sum: since Python 3.12 it rounds differently.
    return float(f"{math.fsum(row.pflop for row in rows):.6g}")
