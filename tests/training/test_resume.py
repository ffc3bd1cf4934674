"""Training that is stopped or killed at any time resumes with byte-identical results.

Each training is a separate process, and each signal a real one. Processes are forked from a server
that has imported torch (multiprocessing's forkserver), which takes a tenth of a second instead of
seconds. The slow test starts the real command each time.
"""

import csv
import importlib
import itertools
import json
import multiprocessing
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing import util
from pathlib import Path
from types import FrameType

import numpy as np
import pytest
import torch
import yaml

from catdog import cli
from catdog.dataset.prepared import COLUMNS
from catdog.errors import Stopped
from catdog.support.progress import Progress
from catdog.training import resume
from tests.helpers.prepared_data import settings, write_prepared

ROOT = Path(__file__).resolve().parents[2]
EPOCHS, PHOTOS, BATCH = 12, 24, 4
STEPS = PHOTOS // BATCH  # per epoch
KILLS = 24
OUTS = ("models/model.safetensors", "models/model.json", "reports/train/history.csv")
ENVIRONMENT = {"CATDOG_DEVICE": "cpu", "CATDOG_LOCKS": "", "OMP_NUM_THREADS": "1"}
CONTEXT = multiprocessing.get_context("forkserver")
# torch imports torch._dynamo lazily, which takes a second.
CONTEXT.set_forkserver_preload(["pytest", "catdog.cli", "catdog.training.train", "torch._dynamo"])


@dataclass(frozen=True)
class ScheduledSignal:
    """A signal that a training process sends itself, and when."""

    number: int
    at: str = ""
    """`module:name` of a called function; empty for any Python function"""
    call: int = 1
    """number of the call, from 1"""
    times: int = 1
    """number of signals"""

    def send(self) -> None:
        for _ in range(self.times):
            os.kill(os.getpid(), self.number)


STEP = "catdog.support.progress:Progress.update"
MIDDLE = STEPS + 4  # the fourth step of epoch 2


class Folder:
    """A folder in which `catdog train` runs."""

    def __init__(self, path: Path, **changes: object) -> None:
        self.path = path
        self.log = path / "log"
        write_prepared(path / "data/prepared", ["cat", "dog"], PHOTOS)
        self.set(**changes)

    def set(self, **changes: object) -> None:
        """Write params.yaml, so that a checkpoint has every kind of state."""
        small = {
            "train__epochs": EPOCHS,
            "train__batch_size": BATCH,
            "train__ema": 0.8,
            "train__precision": "float32",
            "optimizer__name": "muon",
            "optimizer__lr": 0.01,
        }
        values = settings(**{**small, **changes}).model_dump()
        values["model"]["residual"] |= {"blocks": 0, "dropout": 0.1}
        (self.path / "params.yaml").write_text(yaml.safe_dump(values))

    def run(
        self,
        scheduled: ScheduledSignal | None = None,
        *,
        save_every: float | None = None,
        package: Path | None = None,
    ) -> int:
        """Train until the end or the scheduled signal; return the exit code, negative if killed."""
        arguments = (self.path, scheduled, save_every, package)
        process = CONTEXT.Process(target=train_here, args=arguments)
        process.start()
        process.join()
        assert process.exitcode is not None
        return process.exitcode

    def lines(self) -> list[str]:
        """Return the lines that the processes have printed, and clear them."""
        lines = self.log.read_text().splitlines()
        self.log.unlink()
        return lines

    def outs(self) -> dict[str, bytes]:
        """Return the bytes of all DVC outputs of training."""
        return {name: (self.path / name).read_bytes() for name in OUTS}

    def checkpoints(self) -> list[str]:
        """Return the names of all files in the folder of checkpoints."""
        return sorted(file.name for file in (self.path / ".catdog/checkpoints").glob("*"))

    def made(self) -> list[str]:
        """Return the names of all files under models and reports."""
        made = (self.path / "models", self.path / "reports")
        files = [file for folder in made for file in folder.rglob("*") if file.is_file()]
        return sorted(str(file.relative_to(self.path)) for file in files)


def train_here(
    folder: Path, scheduled: ScheduledSignal | None, save_every: float | None, package: Path | None
) -> None:
    """Run `catdog train` in this forked process."""
    os.chdir(folder)
    os.environ.update(ENVIRONMENT)
    torch.set_num_threads(1)
    sys.argv = ["catdog", "train"]
    if save_every is not None:
        resume.SAVE_EVERY = save_every
    if package is not None:  # the name of the checkpoint is a hash that includes this code
        resume.PACKAGE = package
    sys.stdout = sys.stderr = (folder / "log").open("a", buffering=1, encoding="utf-8")
    if scheduled is not None and scheduled.at:
        signal_at_call(scheduled)
    elif scheduled is not None:
        signal_at_event(scheduled, folder / "events")
    cli.main()


def signal_at_call(scheduled: ScheduledSignal) -> None:
    """Make this process send itself signals when a function is called."""
    module, _, name = scheduled.at.partition(":")
    *owners, last = name.split(".")
    owner = importlib.import_module(module)
    for part in owners:
        owner = getattr(owner, part)
    original, calls = getattr(owner, last), itertools.count(1)

    def watched(*arguments: object, **named: object) -> object:
        if next(calls) == scheduled.call:
            scheduled.send()
        return original(*arguments, **named)

    setattr(owner, last, watched)


def signal_at_event(scheduled: ScheduledSignal, file: Path) -> None:
    """Make this process send itself signals at an event; at exit it writes the number of events.

    An event is a call of a function in Python or C, or a return.
    """
    events, first_step = itertools.count(1), Progress.update.__code__
    before_first_step = 0

    def watch(frame: FrameType, event: str, argument: object) -> None:
        nonlocal before_first_step
        number = next(events)
        if number == scheduled.call:
            sys.setprofile(None)
            scheduled.send()
        if before_first_step == 0 and frame.f_code is first_step:
            before_first_step = number

    def write() -> None:
        sys.setprofile(None)
        file.write_text(json.dumps([before_first_step, next(events)]))

    util.Finalize(None, write, exitpriority=0)
    sys.setprofile(watch)


@dataclass(frozen=True)
class UninterruptedRun:
    """The results of an uninterrupted training run."""

    outs: dict[str, bytes]
    start: int
    """events until its first step, as counted by `signal_at_event`"""
    events: int
    """all its events"""


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> UninterruptedRun:
    folder = Folder(tmp_path_factory.mktemp("whole"))
    assert folder.run(ScheduledSignal(0, call=0)) == 0
    return UninterruptedRun(folder.outs(), *json.loads((folder.path / "events").read_text()))


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path)


def assert_resumes_with_results_of(whole: UninterruptedRun, folder: Folder) -> None:
    """Resume training; the results must be those of an uninterrupted run."""
    assert folder.run() == 0
    assert folder.outs() == whole.outs
    assert folder.made() == sorted([*OUTS, "reports/train/timing.csv"])
    assert folder.checkpoints() == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_saves_in_mid_epoch_and_the_next_run_resumes_there(
    number: int, folder: Folder, whole: UninterruptedRun
) -> None:
    assert folder.run(ScheduledSignal(number, STEP, MIDDLE)) == Stopped.exit_code == 75
    assert folder.lines()[-1] == (
        "catdog: stopped after step 4 of 6 in epoch 2; checkpoint saved; "
        "run the same command to resume"
    )
    assert folder.made() == []
    (saved,) = folder.checkpoints()
    assert saved.endswith(".safetensors")
    assert_resumes_with_results_of(whole, folder)
    resumed = [line for line in folder.lines() if line.startswith("resuming")]
    place = "step 4 of 6 in epoch 2"
    assert resumed == [f"resuming after {place}, from .catdog/checkpoints/{saved}"]


@pytest.mark.parametrize(
    ("at", "call", "place"),
    [
        ("catdog.training.train:Trainer", 1, "step 1 of 6 in epoch 1"),
        (STEP, STEPS, "epoch 1"),
        ("catdog.training.validation:Validation.evaluate", 2, "epoch 2"),
        ("catdog.training.checkpoint:save", 3, "epoch 3"),
        ("catdog.training.checkpoint:save", EPOCHS, f"epoch {EPOCHS}"),
    ],
    ids=["begin", "last step", "validation", "save", "last save"],
)
def test_a_stop_outside_of_the_steps_saves_at_the_next_consistent_state(
    at: str, call: int, place: str, folder: Folder, whole: UninterruptedRun
) -> None:
    assert folder.run(ScheduledSignal(signal.SIGTERM, at, call)) == Stopped.exit_code
    assert folder.lines()[-1].startswith(f"catdog: stopped after {place}; checkpoint saved")
    assert_resumes_with_results_of(whole, folder)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_kills_it_immediately(
    number: int, folder: Folder, whole: UninterruptedRun
) -> None:
    assert folder.run(ScheduledSignal(number, STEP, MIDDLE, times=2)) == -number
    assert folder.lines()[-1].startswith("epoch  1/12")
    assert_resumes_with_results_of(whole, folder)
    assert any(line.startswith("resuming after epoch 1, ") for line in folder.lines())


@pytest.mark.parametrize(
    ("save_every", "place"),
    [(None, "epoch 1"), (0.0, "step 3 of 6 in epoch 2")],
    ids=["epochs shorter than a minute", "epochs longer than that"],
)
def test_sigkill_loses_at_most_one_epoch_or_one_checkpoint_interval(
    save_every: float | None, place: str, folder: Folder, whole: UninterruptedRun
) -> None:
    """The kill comes during the fourth step."""
    assert folder.run(ScheduledSignal(signal.SIGKILL, STEP, MIDDLE), save_every=save_every) == -9
    assert folder.made() == []
    assert_resumes_with_results_of(whole, folder)
    assert any(line.startswith(f"resuming after {place}, from ") for line in folder.lines())


def test_long_epochs_save_a_checkpoint_every_minute() -> None:
    assert resume.SAVE_EVERY <= 60


@pytest.mark.parametrize(
    ("at", "call"),
    [
        ("catdog.training.checkpoint:save_file", 3),
        ("catdog.model.saved:serialize", 1),
        ("catdog.model.saved:write_text", 1),
        ("catdog.training.history:write_rows", 1),
        ("catdog.training.history:write_rows", 2),
        ("catdog.training.checkpoint:remove", 1),
    ],
    ids=["checkpoint", "model.safetensors", "model.json", "history.csv", "timing.csv", "removal"],
)
def test_a_kill_while_files_are_written_changes_nothing(
    at: str, call: int, folder: Folder, whole: UninterruptedRun
) -> None:
    assert folder.run(ScheduledSignal(signal.SIGKILL, at, call)) == -signal.SIGKILL
    assert_resumes_with_results_of(whole, folder)


def test_partial_files_of_a_kill_are_deleted_after_success(
    folder: Folder, whole: UninterruptedRun
) -> None:
    assert (
        folder.run(ScheduledSignal(signal.SIGKILL, "catdog.training.checkpoint:save_file", 3)) == -9
    )
    leftover, saved = folder.checkpoints()
    assert leftover.startswith(f".{saved}.")
    assert_resumes_with_results_of(whole, folder)


def test_kills_at_random_moments_change_nothing(folder: Folder, whole: UninterruptedRun) -> None:
    """Moments are numbers of events since the start, which do not depend on the machine's speed.

    A kill comes at most a sixteenth of the training after the first step, so that it is not
    over before the last of them.
    """
    dice, longest = random.Random(4), whole.start + (whole.events - whole.start) // 16
    codes = []
    for _ in range(KILLS):
        number = dice.choice((signal.SIGTERM, signal.SIGKILL))
        before_first_step = dice.random() < 0.2
        event = (
            dice.randrange(whole.start)
            if before_first_step
            else dice.randrange(whole.start, longest)
        )
        codes.append(folder.run(ScheduledSignal(number, call=event)))
    # SIGTERM terminates a process immediately that has not started to train.
    assert set(codes) <= {75, -signal.SIGTERM, -signal.SIGKILL}
    assert min(codes.count(75), codes.count(-signal.SIGKILL)) > KILLS // 4
    assert_resumes_with_results_of(whole, folder)
    places = [line.split(", from")[0] for line in folder.lines() if line.startswith("resuming")]
    assert len(places) > KILLS // 2  # so many found a checkpoint


def stop_in_epoch_2(folder: Folder) -> None:
    assert folder.run(ScheduledSignal(signal.SIGTERM, STEP, MIDDLE)) == Stopped.exit_code
    folder.lines()


def assert_starts_over(folder: Folder, fresh: Folder, package: Path | None = None) -> None:
    """Both training runs give the same results, although one folder has an old checkpoint."""
    (old,) = folder.checkpoints()
    assert folder.run(package=package) == fresh.run(package=package) == 0
    assert not any(line.startswith("resuming") for line in folder.lines())
    assert folder.outs() == fresh.outs()
    assert folder.checkpoints() == [old]


def test_changed_params_do_not_resume_from_an_old_checkpoint(
    folder: Folder, tmp_path: Path, whole: UninterruptedRun
) -> None:
    stop_in_epoch_2(folder)
    folder.set(optimizer__rest_lr=0.02)
    fresh = Folder(tmp_path / "fresh", optimizer__rest_lr=0.02)
    assert_starts_over(folder, fresh)
    assert folder.outs() != whole.outs


def test_changed_params_of_evaluate_still_resume(folder: Folder, whole: UninterruptedRun) -> None:
    stop_in_epoch_2(folder)
    folder.set(evaluate__worst_mistakes=3)
    assert_resumes_with_results_of(whole, folder)
    assert any(line.startswith("resuming after step 4 of 6 in epoch 2") for line in folder.lines())


def refuse_last_photo(folder: Folder) -> None:
    """Change the prepared data as when a training photo becomes invalid."""
    prepared = folder.path / "data/prepared"
    np.save(prepared / "train.npy", np.load(prepared / "train.npy")[:-1])
    with (prepared / "photos.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    last = max(index for index, row in enumerate(rows) if row["split"] == "train")
    rows[last] |= {"split": "", "reason": "not a photo"}
    with (prepared / "photos.csv").open("w", newline="") as stream:
        writer = csv.DictWriter(stream, COLUMNS)
        writer.writeheader()
        writer.writerows(rows)


def other_pixels(folder: Folder) -> None:
    """Change the prepared data as when photos are decoded with other rounding."""
    prepared = folder.path / "data/prepared"
    np.save(prepared / "train.npy", np.load(prepared / "train.npy") + np.uint8(1))
    stats = json.loads((prepared / "stats.json").read_text())
    stats["mean"] = [value + 1 / 255 for value in stats["mean"]]
    (prepared / "stats.json").write_text(json.dumps(stats))


@pytest.mark.parametrize("change", [refuse_last_photo, other_pixels])
def test_changed_data_does_not_resume_from_an_old_checkpoint(
    change: Callable[[Folder], None], folder: Folder, tmp_path: Path, whole: UninterruptedRun
) -> None:
    stop_in_epoch_2(folder)
    fresh = Folder(tmp_path / "fresh")
    for each in (folder, fresh):
        change(each)
    assert_starts_over(folder, fresh)
    assert folder.outs() != whole.outs


def test_changed_code_does_not_resume_from_an_old_checkpoint(
    folder: Folder, tmp_path: Path
) -> None:
    stop_in_epoch_2(folder)
    package = shutil.copytree(resume.PACKAGE, tmp_path / "package")
    with (package / "training/optimizers.py").open("a") as stream:
        stream.write("# changed\n")
    assert_starts_over(folder, Folder(tmp_path / "fresh"), package)


class Command:
    """`python -m catdog train` as a user starts it."""

    def __init__(self, folder: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "catdog", "train"],
            cwd=folder,
            env={**os.environ, **ENVIRONMENT, "PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def wait_for(self, start: str) -> None:
        """Wait until it has printed a line that begins with `start`."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.startswith(start):
                return
        pytest.fail(f"it ended without a line {start!r}: {self.end()}")

    def end(self) -> tuple[int, list[str]]:
        """Wait until it exits; return the exit code and the lines on stderr."""
        errors = self.process.communicate()[1]
        return self.process.returncode, errors.splitlines()


def test_the_real_command_stops_with_one_line_and_resumes(
    folder: Folder, whole: UninterruptedRun
) -> None:
    command = Command(folder.path)
    command.wait_for("epoch  1/12")
    command.process.send_signal(signal.SIGTERM)
    code, errors = command.end()
    assert code == Stopped.exit_code
    (line,) = errors
    assert re.fullmatch(
        r"catdog: stopped after (step \d of 6 in )?epoch \d+; checkpoint saved; .*", line
    )
    assert len(folder.checkpoints()) == 1
    assert folder.made() == []
    assert Command(folder.path).end() == (0, [])
    assert folder.outs() == whole.outs
    assert folder.checkpoints() == []


@pytest.mark.slow
def test_kills_of_the_real_command_at_random_moments_change_nothing(
    folder: Folder, whole: UninterruptedRun
) -> None:
    """Moments are seconds after the start, most of them in the first epochs."""
    begun = time.monotonic()
    measured = Command(folder.path)
    measured.wait_for("device")
    start = time.monotonic() - begun
    assert measured.end() == (0, [])
    work, dice, kills = time.monotonic() - begun - start, random.Random(5), 0
    clear(folder)
    while kills < 20:
        command = Command(folder.path)
        time.sleep(dice.uniform(start / 2, start + work / 8))
        command.process.send_signal(dice.choice((signal.SIGTERM, signal.SIGKILL)))
        code, _ = command.end()
        if code == 0:  # it was nearly done, or the machine has become faster: another one begins
            assert folder.outs() == whole.outs
            clear(folder)
            continue
        assert code in (75, -signal.SIGTERM, -signal.SIGKILL)
        kills += 1
    assert Command(folder.path).end() == (0, [])
    assert folder.outs() == whole.outs
    assert folder.checkpoints() == []


def clear(folder: Folder) -> None:
    """Remove the outputs of training, as DVC does before it runs the stage."""
    for name in ("models", "reports"):
        shutil.rmtree(folder.path / name)
