"""What a training writes down after each epoch: how well it does, and how fast it goes."""

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
    pflop: float
    """operations of training in this epoch, in units of 10¹⁵"""


@dataclass(frozen=True)
class Timing:
    """One row of timing.csv, which is no DVC out: times differ, while outs repeat to the byte."""

    epoch: int
    train_loss: float
    """as in history.csv: it tells of which training the times are"""
    seconds: float
    images_per_second: float
    waiting_share: float


def write(path: Path, rows: Sequence[Epoch] | Sequence[Timing], kind: type) -> None:
    """Write rows of one kind to a CSV file with its columns, whole or not at all."""
    write_rows(path, [field.name for field in fields(kind)], map(astuple, rows))


def epoch_line(row: Epoch, timing: Timing, epochs: int) -> str:
    """Return the line of log of an epoch; a star marks the best so far."""
    return (
        f"epoch {row.epoch:>{len(str(epochs))}}/{epochs}  {row.image_size} px  "
        f"loss {row.train_loss:.4f}  val loss {row.val_loss:.4f}  "
        f"val accuracy {row.val_accuracy:.2%}{' *' if row.best else '  '}  "
        f"{timing.seconds:.1f} s, {timing.images_per_second:.0f} photos/s, "
        f"{timing.waiting_share:.1%} waiting for data"
    )


def cost_line(rows: Sequence[Epoch], timings: Sequence[Timing]) -> str:
    """Return what the whole training took."""
    minutes = sum(timing.seconds for timing in timings) / 60
    return f"cost: {total_pflop(rows):.4g} PFLOP of training, {minutes:.1f} minutes"


def total_pflop(rows: Sequence[Epoch]) -> float:
    """Return the operations of all epochs, in units of 10¹⁵, to six digits."""
    return float(f"{sum(row.pflop for row in rows):.6g}")
