"""benchmarks/orchestration.py: its commands, its tables and its errors."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks import orchestration
from catdog.errors import CatdogError
from tools.prefect_services import Server
from tools.tiny_project import dvc, git

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def project(tmp_path: Path) -> orchestration.Project:
    return orchestration.tiny(tmp_path / "project")


@pytest.mark.slow
def test_it_prints_the_overhead_and_the_throughput() -> None:
    command = [sys.executable, "-m", "benchmarks.orchestration"]
    settings = ["--trials", "1", "--workers", "2", "--runs", "3"]
    done = subprocess.run(
        [*command, *settings], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "cores; torch" in done.stdout.splitlines()[0]
    words = ("tiny project, 1 trials", "flow, no server", "flow, server", "full", "no-op")
    more = ("pipelines with trivial stages, 3 runs per row", "runs/minute", "server CPU s/run")
    assert [word for word in (*words, *more) if word not in done.stdout] == []


def test_a_full_run_runs_all_stages_and_a_no_op_runs_no_stage(
    project: orchestration.Project, tmp_path: Path
) -> None:
    server = Server(tmp_path / "server")  # not started: `dvc repro` does not need it
    commands = orchestration.commands_to_compare(project, server, tmp_path / "home")
    log = project.folder / "runs.log"
    for _ in range(2):
        log.unlink(missing_ok=True)
        commands[orchestration.FULL, orchestration.DVC]()
        assert log.read_text().split() == ["prepare", "train", "evaluate"]
    log.unlink()
    commands[orchestration.NO_OP, orchestration.DVC]()
    assert not log.exists()


def test_the_error_of_a_failed_command_is_one_line(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "print('first'); raise SystemExit('no photos')"]
    with pytest.raises(CatdogError, match=r"^[^\n]*exit code 1: no photos$"):
        orchestration._run(command, tmp_path, {})


def test_the_sample_is_a_clone_with_its_photos(tmp_path: Path) -> None:
    project = orchestration.sample(tmp_path / "sample")
    assert (project.folder / "data" / "raw").is_dir()
    assert git(project.folder, "status", "--porcelain") == ""
    assert dvc(project.folder, "status", "--quiet", "data/raw.dvc") == 0


def test_failed_runs_are_an_error_after_the_other_rows_are_printed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def throughput(project: Any, server: Any, home: Any, workers: int, *more: Any) -> Any:
        if workers == 4:
            raise CatdogError("run odd-owl ended Failed: no memory")
        return orchestration.Throughput(7.5 + workers, 1.5, 2.0)

    monkeypatch.setattr(orchestration, "throughput", throughput)
    server = Server(tmp_path / "server")
    with pytest.raises(CatdogError, match=r"^with 4 workers: run odd-owl ended Failed: no memory$"):
        orchestration.show_throughput(server, tmp_path, [1, 4, 16], runs=2)
    shown = capsys.readouterr().out
    assert "8.5" in shown and "23.5" in shown
