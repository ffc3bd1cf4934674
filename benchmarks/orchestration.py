"""The overhead of Prefect over DVC, and how many flow runs per minute this machine completes.

python -m benchmarks.orchestration [--projects tiny sample] [--workers 1 4 16] [--runs 32]

First the seconds of `dvc repro` and of the equivalent flow, with nothing to do (no-op) and with all
three stages to run (full). The flow does more: it clones the revision, stores the result as an
experiment and writes artifacts. Then the throughput of pipelines of the tiny project, whose stages
do almost nothing, with a server and process workers that take one run at a time. Each worker sees
one (non-existent) GPU, so no run waits for a device. --database URL selects PostgreSQL.
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

from catdog.errors import CatdogError
from tools import command_line, measure, tiny_project
from tools.prefect_services import Agent, Server, running_server

ROOT = Path(__file__).resolve().parents[1]
DVC, NO_SERVER, WITH_SERVER = "dvc repro", "flow, no server", "flow, server"
NO_OP, FULL = "no-op", "full"
QUIET = {"DVC_NO_ANALYTICS": "1", "PREFECT_LOGGING_LEVEL": "ERROR", "GIT_TERMINAL_PROMPT": "0"}


class Project(NamedTuple):
    """A repository to run, and a param on which all its stages depend."""

    folder: Path
    param: str


def tiny(folder: Path) -> Project:
    """Create the project with three stages that each write a line."""
    tiny_project.create(folder)
    deps = "deps: [prepare.py]"
    text = tiny_project.DVC_YAML.replace(deps, f"{deps}\n    params: [optimizer]")
    (folder / "dvc.yaml").write_text(text, encoding="utf-8")
    tiny_project.commit(folder, "All stages depend on a param")
    return Project(folder, "optimizer.lr")


def sample(folder: Path) -> Project:
    """Clone this repository and pull the photos of the sample."""
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
    """Run a command; CatdogError with the last line of its output if it fails."""
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
        output = (done.stderr or done.stdout).strip().splitlines()
        reason = output[-1] if output else "no output"
        raise CatdogError(f"{' '.join(command[:4])}: exit code {done.returncode}: {reason}")


def commands_to_compare(
    project: Project, server: Server, home: Path
) -> dict[tuple[str, str], Callable[[], None]]:
    """Return the commands to compare, by the work to do (no-op or full) and the method.

    Each full run sets the param to a new value.
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
        # To start without a server the variable must be unset: Prefect takes "" for a URL.
        _run([*flow, *change], ROOT, {**variables, "PREFECT_API_URL": url} if url else variables)

    commands: dict[tuple[str, str], Callable[[], None]] = {}
    for work, full in ((NO_OP, False), (FULL, True)):
        commands[work, DVC] = partial(repro, full)
        for name, url in servers.items():
            commands[work, name] = partial(run_flow, url, full)
    return commands


def compare(name: str, project: Project, server: Server, home: Path, trials: int) -> None:
    """Print the seconds of `dvc repro` and of the flows, and the difference."""
    # The flow runs the commit, so a no-op requires the results to be committed.
    code = {"PYTHONPATH": str(project.folder)}
    _run([sys.executable, "-m", "dvc", "repro"], project.folder, code)
    _run(["git", "add", "--all"], project.folder, {})  # dvc.lock may be new
    commit = ["git", "commit", "--quiet", "--allow-empty", "--message", "Results"]
    _run(commit, project.folder, {})
    costs = measure.interleaved(commands_to_compare(project, server, home), trials)
    rows = []
    for (work, method), values in costs.items():
        beyond = measure.median_of(values).seconds - measure.median_of(costs[work, DVC]).seconds
        cpu = f"{measure.median_of(values).cpu_seconds:.1f}"
        rows.append((work, method, measure.min_median_max(values, 1), cpu, f"{beyond:+.1f}"))
    columns = ("work", "method", "seconds min/median/max", "CPU seconds", "overhead")
    measure.show(f"{name} project, {trials} trials", columns, rows)


class Throughput(NamedTuple):
    """The throughput with a number of workers."""

    runs_per_minute: float
    busy_cores: float
    server_seconds: float
    """CPU seconds of the server per run"""


def throughput(
    project: Project, server: Server, home: Path, workers: int, runs: int, values: Iterator[str]
) -> Throughput:
    """Return the throughput of `workers` workers for `runs` runs, created once all have started.

    Raises CatdogError if a run fails.
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
    """Start workers with limit 1, and wait until all are registered on the server."""
    with ExitStack() as stack, get_client(sync_client=True) as client:
        before = len(client.read_workers_for_work_pool("gpu"))
        devices = ",".join(str(device) for device in range(number))
        for _ in range(number):
            folder = home / f"worker{len(list(home.glob('worker*')))}"
            agent = Agent(
                server.url, "gpu", project.folder, folder, limit=1, CUDA_VISIBLE_DEVICES=devices
            )
            stack.callback(agent.kill)
            agent.start()
        while len(client.read_workers_for_work_pool("gpu")) < before + number:
            time.sleep(0.5)
        yield


def _wait_for(runs: Sequence[FlowRun]) -> None:
    """Wait until all runs have ended; CatdogError if one of them did not complete."""
    with get_client(sync_client=True) as client:
        for run in runs:
            while not (state := client.read_flow_run(run.id).state) or not state.is_final():
                time.sleep(0.5)
            if not state.is_completed():
                raise CatdogError(f"run {run.name} ended in state {state.name}: {state.message}")


def _busy_seconds() -> float:
    """Return the CPU seconds of all processes on this machine since its start."""
    times = psutil.cpu_times()
    return float(sum(times) - times.idle - getattr(times, "iowait", 0))


def _seconds_of(server: Server) -> float:
    """Return the CPU seconds of the server so far."""
    return sum(sum(process.cpu_times()[:2]) for process in server.processes())


def main() -> None:
    """Parse the command line, measure and print."""
    parser = command_line.parser(__doc__)
    add = parser.add_argument
    add(
        "--projects",
        nargs="*",
        choices=PROJECTS,
        default=["tiny"],
        help="projects for the overhead measurement (default: tiny)",
    )
    add("--trials", type=int, default=3, help="trials of the overhead (default: 3)")
    add("--workers", type=int, nargs="*", default=[1, 4, 16], help="numbers of workers")
    add("--runs", type=int, default=32, help="runs per number of workers (default: 32)")
    add("--database", metavar="URL", help="PostgreSQL URL, as for `make server`")
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
    """Print the runs per minute for each number of workers.

    Raises CatdogError if runs failed, after the other rows are printed.
    """
    project = tiny(folder / "throughput")
    values = (f"{project.param}={0.5 + step / 1e6}" for step in count(1))
    rows, failed = [], []
    for number in workers:
        try:
            found = throughput(project, server, folder, number, runs, values)
        except (CatdogError, HTTPStatusError) as error:  # the other rows are still measured
            failed.append(f"with {number} workers: {str(error).partition(chr(10))[0]}")
            continue
        server_minute = 60 / found.server_seconds if found.server_seconds else float("inf")
        rows.append(
            (
                str(number),
                f"{found.runs_per_minute:.1f}",
                f"{found.busy_cores:.1f} of {psutil.cpu_count()}",
                f"{found.server_seconds:.2f}",
                f"{server_minute:.0f}",
            )
        )
        print(*rows[-1], flush=True)  # later rows may take long
    columns = ("workers", "runs/minute", "busy cores", "server CPU s/run", "limit of one server")
    measure.show(f"pipelines with trivial stages, {runs} runs per row", columns, rows)
    if failed:
        raise CatdogError("; ".join(failed))


if __name__ == "__main__":
    command_line.run(main)
