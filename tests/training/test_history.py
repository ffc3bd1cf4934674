"""The training history: CSV rows and log lines."""

from pathlib import Path

import pytest

from catdog.training import history
from catdog.training.history import Epoch, Timing


def row(number: int = 3, best: int = 1, pflop: float = 0.000123) -> Epoch:
    return Epoch(number, 64, 0.05, 0.41, 0.8125, 0.38, 0.84, best, pflop)


TIMING = Timing(3, 0.41, 12.34, 512.4, 0.0123)


def test_history_has_one_column_per_field(tmp_path: Path) -> None:
    file = tmp_path / "new folder/history.csv"
    history.write(file, [row(1, 0), row(2)], Epoch)
    assert file.read_text() == (
        "epoch,image_size,lr,train_loss,train_accuracy,val_loss,val_accuracy,best,pflop\n"
        "1,64,0.05,0.41,0.8125,0.38,0.84,0,0.000123\n"
        "2,64,0.05,0.41,0.8125,0.38,0.84,1,0.000123\n"
    )
    assert list(file.parent.iterdir()) == [file]


def test_timing_has_one_column_per_field(tmp_path: Path) -> None:
    history.write(tmp_path / "timing.csv", [TIMING], Timing)
    assert (tmp_path / "timing.csv").read_text() == (
        "epoch,train_loss,seconds,images_per_second,waiting_share\n3,0.41,12.34,512.4,0.0123\n"
    )


def test_an_empty_history_has_a_header(tmp_path: Path) -> None:
    history.write(tmp_path / "timing.csv", [], Timing)
    assert (tmp_path / "timing.csv").read_text().startswith("epoch,train_loss,seconds,")


def test_the_epoch_line_has_losses_and_speed() -> None:
    assert history.epoch_line(row(), TIMING, 12) == (
        "epoch  3/12  64 px  loss 0.4100  val loss 0.3800  val accuracy 84.00% *  "
        "12.3 s, 512 photos/s, 1.2% waiting for data"
    )


def test_only_the_best_epoch_so_far_has_an_asterisk() -> None:
    star, none = (history.epoch_line(row(best=best), TIMING, 12) for best in (1, 0))
    assert star.replace(" *", "  ") == none


def test_the_cost_is_the_sum_over_the_epochs() -> None:
    rows = [row(pflop=0.1), row(pflop=0.025)]
    timings = [Timing(1, 0.4, 90, 1, 0), Timing(2, 0.3, 45, 1, 0)]
    assert history.cost_line(rows, timings) == "training took 2.2 minutes and 0.125 PFLOP"
    assert history.total_pflop([]) == 0


def test_the_total_is_rounded_to_six_digits() -> None:
    rows = [row(pflop=0.1), row(pflop=0.2), row(pflop=1.23456789e-7)]
    assert sum(r.pflop for r in rows) != pytest.approx(0.3, abs=1e-9)
    assert history.total_pflop(rows) == 0.3
