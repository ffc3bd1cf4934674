"""What Prefect costs beside DVC, and how many runs a minute this machine gets through.

python -m benchmarks.orchestration [--projects tiny sample] [--workers 1 4 16] [--runs 32]

First the seconds of `dvc repro`, and of the flow that does the same, with nothing to do (no-op) and
with all three stages to run (full). A flow does more: it copies the revision, brings the result
home as an experiment and fills the run's page. Then pipelines of the tiny project, whose stages do
next to nothing, through a server and process workers of one place each. The workers believe in a
GPU each, so that no run waits for a device. --database URL puts the server on PostgreSQL.
"""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from itertools import count
from pathlib import Path
from typing import NamedTuple

import psutil
from dvc.utils.hydra import apply_overrides
from httpx import HTTPStatusError
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import FlowRun
from prefect.deployments import run_deployment

from benchmarks import measure
from catdog.errors import CatdogError
from tests.helpers import tiny_project
from tests.helpers.prefect_server import Agent, Server, running_server

ROOT = Path(__file__).resolve().parents[1]
DVC, NO_SERVER, WITH_SERVER = "dvc repro", "flow, no server", "flow, server"
NO_OP, FULL = "no-op", "full"
QUIET = {"DVC_NO_ANALYTICS": "1", "PREFECT_LOGGING_LEVEL": "ERROR", "GIT_TERMINAL_PROMPT": "0"}


class Project(NamedTuple):
    """A repository to run, and a param on which all of its stages depend."""

    folder: Path
    param: str


def tiny(folder: Path) -> Project:
    """Make the project of three stages that each write a line."""
    tiny_project.create(folder)
    deps = "deps: [prepare.py]"
    text = tiny_project.DVC_YAML.replace(deps, f"{deps}\n    params: [optimizer]")
    (folder / "dvc.yaml").write_text(text, encoding="utf-8")
    tiny_project.commit(folder, "All stages depend on a param")
    return Project(folder, "optimizer.lr")


def sample(folder: Path) -> Project:
    """Clone this repository, and bring the sample's photos."""
    for command in (
        ["git", "clone", "--quiet", str(ROOT), str(folder)],
        ["git", "-C", str(folder), "config", "user.name", "benchmark"],
        ["git", "-C", str(folder), "config", "user.email", "benchmark@example.com"],
        [sys.executable, "-m", "dvc", "--cd", str(folder), "pull", "--quiet", "data/raw.dvc"],
    ):
        _run(command, ROOT, {})
    return Project(folder, "prepare.val_share")


PROJECTS: dict[str, Callable[[Path], Project]] = {"tiny": tiny, "sample": sample}


def _run(command: Sequence[str], folder: Path, variables: Mapping[str, str]) -> None:
    """Run a command; CatdogError with the end of what it printed if it fails."""
    ours = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
    done = subprocess.run(
        command,
        cwd=folder,
        env={**ours, "PATH": path, **QUIET, **variables},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        said = (done.stderr or done.stdout).strip().splitlines()
        reason = said[-1] if said else "it said nothing"
        raise CatdogError(f"{' '.join(command[:4])}: exit code {done.returncode}: {reason}")


def contenders(
    project: Project, server: Server, home: Path
) -> dict[tuple[str, str], Callable[[], None]]:
    """Return what is compared, by what there is to do and what does it.

    Each full run changes the param to a value that no run has had.
    """
    values = (f"{project.param}={0.15 + step / 1e6}" for step in count(1))
    flow = [sys.executable, "-m", "flows.pipeline"]
    common = {"CATDOG_REPOSITORY": str(project.folder)}
    servers = {NO_SERVER: "", WITH_SERVER: server.url}

    def repro(full: bool) -> None:
        if full:
            apply_overrides(str(project.folder / "params.yaml"), [next(values)])
        code = {"PYTHONPATH": str(project.folder)}
        _run([sys.executable, "-m", "dvc", "repro"], project.folder, code)

    def run_flow(url: str, full: bool) -> None:
        change = ["-S", next(values)] if full else []
        variables = {**common, "PREFECT_HOME": str(home)}
        # Without a server the variable must not be there at all: Prefect takes "" for one.
        _run([*flow, *change], ROOT, {**variables, "PREFECT_API_URL": url} if url else variables)

    ways: dict[tuple[str, str], Callable[[], None]] = {}
    for what, full in ((NO_OP, False), (FULL, True)):
        ways[what, DVC] = partial(repro, full)
        for name, url in servers.items():
            ways[what, name] = partial(run_flow, url, full)
    return ways


def compare(name: str, project: Project, server: Server, home: Path, trials: int) -> None:
    """Print what `dvc repro` takes and what the flows take, in seconds and as a difference."""
    # The flow runs what is committed: a no-op there is one in the checkout once it has results.
    code = {"PYTHONPATH": str(project.folder)}
    _run([sys.executable, "-m", "dvc", "repro"], project.folder, code)
    _run(["git", "add", "--all"], project.folder, {})  # dvc.lock may be new
    commit = ["git", "commit", "--quiet", "--allow-empty", "--message", "Results"]
    _run(commit, project.folder, {})
    costs = measure.interleaved(contenders(project, server, home), trials)
    rows = []
    for (what, way), values in costs.items():
        beyond = measure.median_of(values).seconds - measure.median_of(costs[what, DVC]).seconds
        cpu = f"{measure.median_of(values).cpu_seconds:.1f}"
        rows.append((what, way, measure.spread(values, 1), cpu, f"{beyond:+.1f}"))
    columns = ("", "", "seconds min/median/max", "CPU seconds", "beyond dvc repro")
    measure.show(f"{name} project, {trials} trials", columns, rows)


class Throughput(NamedTuple):
    """What a number of workers got through."""

    runs_a_minute: float
    busy_cores: float
    server_seconds: float
    """CPU seconds of the server for each run"""


def throughput(
    project: Project, server: Server, home: Path, workers: int, runs: int, values: Iterator[str]
) -> Throughput:
    """Return how fast `workers` workers do `runs` runs that wait for them when they are all there.

    Raises CatdogError if one does not end well.
    """
    with _workers(project, server, home, workers):
        started, busy, used = time.perf_counter(), _busy_seconds(), _seconds_of(server)
        made = [
            run_deployment("pipeline/pipeline", parameters={"overrides": [next(values)]}, timeout=0)
            for _ in range(runs)
        ]
        _wait_for([run for run in made if isinstance(run, FlowRun)])
        seconds = time.perf_counter() - started
        cores = (_busy_seconds() - busy) / seconds
        return Throughput(60 * runs / seconds, cores, (_seconds_of(server) - used) / runs)


@contextmanager
def _workers(project: Project, server: Server, home: Path, number: int) -> Iterator[None]:
    """Start workers, each for one run at a time, and wait until the server knows them all."""
    with ExitStack() as stack, get_client(sync_client=True) as client:
        before = len(client.read_workers_for_work_pool("gpu"))
        devices = ",".join(str(device) for device in range(number))
        for _ in range(number):
            place = home / f"worker{len(list(home.glob('worker*')))}"
            agent = Agent(
                server.url, "gpu", project.folder, place, limit=1, CUDA_VISIBLE_DEVICES=devices
            )
            stack.callback(agent.kill)
            agent.start()
        while len(client.read_workers_for_work_pool("gpu")) < before + number:
            time.sleep(0.5)
        yield


def _wait_for(runs: Sequence[FlowRun]) -> None:
    """Return when all runs have ended; CatdogError if one has not ended well."""
    with get_client(sync_client=True) as client:
        for run in runs:
            while not (state := client.read_flow_run(run.id).state) or not state.is_final():
                time.sleep(0.5)
            if not state.is_completed():
                raise CatdogError(f"run {run.name} ended {state.name}: {state.message}")


def _busy_seconds() -> float:
    """Return the CPU seconds that the cores of this machine have worked so far."""
    times = psutil.cpu_times()
    return float(sum(times) - times.idle - getattr(times, "iowait", 0))


def _seconds_of(server: Server) -> float:
    """Return the CPU seconds of the server so far."""
    return sum(sum(process.cpu_times()[:2]) for process in server.processes())


def main() -> None:
    """Parse the command line, measure and print."""
    parser = measure.parser(__doc__)
    add = parser.add_argument
    add("--projects", nargs="*", choices=PROJECTS, default=["tiny"], help="for the overhead")
    add("--trials", type=int, default=3, help="of the overhead")
    add("--workers", type=int, nargs="*", default=[1, 4, 16])
    add("--runs", type=int, default=32, help="for each number of workers")
    add("--database", metavar="URL", help="of PostgreSQL, as make server takes it; else SQLite")
    options = parser.parse_args()
    print(measure.hardware())
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with running_server(folder / "server", options.database) as server:
            for kind in options.projects:
                project = PROJECTS[kind](folder / kind)
                compare(kind, project, server, folder / "prefect", options.trials)
            if options.workers:
                show_throughput(server, folder, options.workers, options.runs)


def show_throughput(server: Server, folder: Path, workers: Sequence[int], runs: int) -> None:
    """Print the runs a minute for each number of workers.

    Raises CatdogError, after the other rows are printed, if some workers' runs did not end well.
    """
    project = tiny(folder / "throughput")
    values = (f"{project.param}={0.5 + step / 1e6}" for step in count(1))
    rows, failed = [], []
    for number in workers:
        try:
            found = throughput(project, server, folder, number, runs, values)
        except (CatdogError, HTTPStatusError) as error:  # must not take the other figures with it
            failed.append(f"with {number} workers: {str(error).partition(chr(10))[0]}")
            continue
        server_minute = 60 / found.server_seconds if found.server_seconds else float("inf")
        rows.append(
            (
                str(number),
                f"{found.runs_a_minute:.1f}",
                f"{found.busy_cores:.1f} of {psutil.cpu_count()}",
                f"{found.server_seconds:.2f}",
                f"{server_minute:.0f}",
            )
        )
        print(*rows[-1], flush=True)  # a later row may take for ever
    columns = ("workers", "runs/minute", "cores busy", "server's CPU s/run", "at most, one server")
    measure.show(f"pipelines of empty stages, {runs} for each row", columns, rows)
    if failed:
        raise CatdogError("; ".join(failed))


if __name__ == "__main__":
    measure.start(main)
