"""prepare → train → evaluate as three Prefect tasks, and the metrics as a table at the end.

    python -m flows.pipeline [--root FOLDER]

runs it at once: without a server unless PREFECT_API_URL names one.
"""

import argparse
import json
import os
import signal
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

# As a script, and as an entrypoint of Prefect, this file is loaded without its package.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
# Prefect reads these two when it is imported, and reports usage unless they are set.
os.environ.setdefault("DO_NOT_TRACK", "1")
os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")

from prefect import flow, get_run_logger
from prefect.artifacts import create_table_artifact
from prefect.settings import PREFECT_API_URL, PREFECT_CLIENT_MAX_RETRIES, temporary_settings

from flows.stages import FlowError, run_stage

REPOSITORY = Path(__file__).resolve().parents[1]


@flow
def pipeline(root: Path | None = None) -> dict[str, Any]:
    """Bring the DVC project in `root` (default: the repository of this file) up to date.

    Returns what metrics.json holds, and shows it as the table artifact `metrics`. Raises FlowError
    if `root` is no DVC project or a stage fails; the stages after that one do not run.
    """
    folder = (root or REPOSITORY).resolve()
    if not (folder / "dvc.yaml").is_file():
        raise FlowError(f"{folder}: holds no dvc.yaml; give the top folder of the repository")
    run_stage("prepare", folder)
    run_stage("train", folder)
    run_stage("evaluate", folder)
    metrics = _read_metrics(folder / "metrics.json")
    table = [{"metric": name, "value": value} for name, value in flatten(metrics)]
    create_table_artifact(table, key="metrics", description=f"metrics.json of {folder}")
    get_run_logger().info("%d metrics are in the artifact 'metrics'", len(table))
    return metrics


def _read_metrics(path: Path) -> dict[str, Any]:
    """Return the object that a JSON file holds; FlowError if there is none."""
    try:
        metrics = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise FlowError(f"{path}: cannot be read after evaluate ({error})") from None
    if not isinstance(metrics, dict):
        raise FlowError(f"{path}: must hold a JSON object, not {type(metrics).__name__}")
    return metrics


def flatten(metrics: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Yield each leaf of nested metrics as its dotted name and its text; floats with 4 decimals."""
    for key, value in metrics.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            yield from flatten(value, f"{name}.")
        elif isinstance(value, list):
            yield from flatten({str(place): item for place, item in enumerate(value)}, f"{name}.")
        else:
            yield name, f"{value:.4f}" if isinstance(value, float) else str(value)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the pipeline from the command line and print the metrics; return the exit code.

    0: done; 1: failed, with one line that says why; 130: stopped by Ctrl-C or SIGTERM.
    """
    parser = argparse.ArgumentParser(prog="python -m flows.pipeline", description=__doc__)
    parser.add_argument("--root", type=Path, help="the DVC project (default: this repository)")
    root = parser.parse_args(arguments).root
    stopped: list[int] = []

    def stop(number: int, frame: FrameType | None) -> None:
        stopped.append(number)
        raise KeyboardInterrupt

    # Prefect ends the process right after its own handling of SIGTERM, unless the handler that it
    # found raises. Then the temporary server is stopped on the way out, as after Ctrl-C.
    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    try:
        with temporary_settings(_settings()):
            metrics = pipeline(root)
    except (Exception, KeyboardInterrupt) as error:
        # Where Python cannot raise (while it collects garbage, say) the interrupt is lost, and
        # what arrives is the stage that the same Ctrl-C has ended: hence the list.
        if stopped or isinstance(error, KeyboardInterrupt):
            print("stopped; run it again to go on", file=sys.stderr)
            return 130
        # Prefect has logged what is no FlowError with its traceback
        reason = str(error).partition("\n")[0] or type(error).__name__
        print(f"pipeline failed: {reason}", file=sys.stderr)
        return 1
    for name, value in flatten(metrics):
        print(f"{name:<40} {value}")
    return 0


def _settings() -> dict[Any, Any]:
    """Return Prefect's settings for a run from the command line.

    Ctrl-C in a terminal also ends the temporary server. Without a server that can come back there
    is nothing to retry for, and retries would keep the command alive for another 40 s.
    """
    return {} if PREFECT_API_URL.value() else {PREFECT_CLIENT_MAX_RETRIES: 0}


if __name__ == "__main__":
    sys.exit(main())
