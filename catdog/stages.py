"""The stages of dvc.yaml as commands, which read and write the project in the current folder.

A stage runs once at a time, stops when the DVC that started it is killed, and refuses its result if
its inputs have changed meanwhile. Its code is imported when it is its turn, so that the code that
runs is the code that `StageInputs` and DVC hash; torch and numpy after params.yaml has been read,
because precision `portable` sets environment variables that they read.
"""

import json
import os
import sys
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any

from catdog import params
from catdog.errors import CatdogError
from catdog.model import portable
from catdog.paths import (
    EVALUATE_CODE,
    HISTORY,
    METRICS,
    MODELS,
    PREPARE_CODE,
    PREPARED,
    RAW,
    REPORTS,
    TRAIN_CODE,
)
from catdog.support.stage_inputs import StageInputs
from catdog.support.stage_process import only_process, stop_with_dvc

PORTABLE = "portable"  # of params.Precision


def prepare(workers: int | None) -> dict[str, dict[str, int]]:
    """Run the stage `prepare`; return the photo counts by split and class."""
    stop_with_dvc()
    with only_process("prepare", _log):
        inputs = StageInputs("prepare", lambda: params.load().prepare, PREPARE_CODE, RAW)
        settings = load_params().prepare
        from catdog.preparation.prepare import prepare as run

        counts = run(settings, RAW, PREPARED, workers, warn)
        inputs.check()
    return counts


def train(devices: int | None) -> None:
    """Run the stage `train` on a number of devices, or as a process that a launcher has started."""
    if "RANK" in os.environ:
        _train_as_rank()
        return
    stop_with_dvc()
    with only_process("train", _log):
        inputs = StageInputs("train", _train_params, TRAIN_CODE)
        settings = load_params()
        from catdog.model.devices import device_count

        if (count := device_count(devices, settings.train.precision)) > 1:
            from catdog.training.launch import launch

            launch(count)
        else:
            _train(settings, inputs)


def _train_as_rank() -> None:
    inputs = StageInputs("train", _train_params, TRAIN_CODE)
    with suppress(CatdogError):  # reported later, once; the import below imports torch
        _read_params()
    from catdog.training.launch import LAUNCHER, run_as_rank

    # With our own launcher, `train` above holds the lock; with torchrun, rank 0 does.
    needs_lock = LAUNCHER not in os.environ and os.environ["RANK"] == "0"

    def run() -> None:
        with only_process("train", _log) if needs_lock else nullcontext():
            _train(load_params(), inputs)

    run_as_rank(run)


def _train(settings: params.Params, inputs: StageInputs) -> None:
    from catdog.training.train import train as run

    run(settings, PREPARED, MODELS, HISTORY, inputs.check)


def _train_params() -> object:
    return params.load().model_dump(exclude={"evaluate"})


def evaluate() -> dict[str, Any]:
    """Run the stage `evaluate`; return the metrics."""
    stop_with_dvc()
    with only_process("evaluate", _log):
        inputs = StageInputs("evaluate", params.load, EVALUATE_CODE)
        settings = load_params()
        # The plots are files. With an invalid value, matplotlib cannot be imported.
        os.environ["MPLBACKEND"] = "agg"
        from catdog.evaluation.evaluate import evaluate as run

        metrics = run(settings, PREPARED, MODELS, METRICS, REPORTS, HISTORY, warn)
        inputs.check()
    return metrics


def load_params() -> params.Params:
    """Return params.yaml, with values that refer to torchvision's weights resolved."""
    settings = _read_params()
    if not settings.model.from_torchvision:
        return settings
    from catdog.model import pretrained

    return pretrained.resolve_weights_references(settings)


def check_params() -> params.Params:
    """Return params.yaml as `load_params`; CatdogError if the network cannot take its sizes."""
    settings = load_params()
    if settings.model.from_torchvision:
        from catdog.model import pretrained

        pretrained.check_image_sizes(settings)
    return settings


def _read_params() -> params.Params:
    """Return params.yaml; with precision portable, compute in portable arithmetic from now on."""
    settings = params.load()
    if settings.train.precision == PORTABLE:
        portable.fix_code_paths()
    return settings


def compute_as(model: Path) -> None:
    """Compute in portable arithmetic from now on if the model in a folder was trained in it."""
    # `saved.load` reports what is wrong with the file.
    with suppress(OSError, ValueError, KeyError, TypeError, RecursionError):
        if json.loads((model / "model.json").read_text(encoding="utf-8"))["precision"] == PORTABLE:
            portable.fix_code_paths()


def warn(line: str) -> None:
    """Print a warning of one line to standard error."""
    print(f"catdog: warning: {line}", file=sys.stderr, flush=True)


def _log(line: str) -> None:
    """Print a line without buffering, so that it is in the log of a queued experiment at once."""
    print(line, flush=True)
