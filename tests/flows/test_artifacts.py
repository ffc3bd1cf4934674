"""The artifacts of a run, as the server stores them."""

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest
from prefect import flow
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterFlowRunId
from prefect.client.schemas.objects import State
from prefect.settings import PREFECT_CLIENT_MAX_RETRIES

from flows.pipeline import pipeline
from flows.runs import artifacts, training_progress
from flows.runs.artifacts import Difference, as_text
from flows.runs.training_progress import EpochProgress
from tools import tiny_project
from tools.prefect_services import wait_for

# A picture of one pixel
PIXEL = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)

TRAIN = """
from pathlib import Path

for epoch in (1, 2):
    print(f"epoch {epoch}/2  64 px  loss 0.{epoch}")
Path("model.txt").write_text(Path("params.yaml").read_text())
"""

EVALUATE = """
import json
from pathlib import Path

folder = Path("reports/evaluate")
folder.mkdir(parents=True, exist_ok=True)
folder.joinpath("confusion.png").write_bytes(Path("pixel.png").read_bytes())
accuracy = 0.5 if "seed: 2" in Path("model.txt").read_text() else 0.75
Path("metrics.json").write_text(json.dumps({"accuracy": accuracy, "photos": 8}))
"""


class Page(NamedTuple):
    """A finished run and its artifacts by key."""

    state: State[Any]
    artifacts: dict[str, Any]


@pytest.fixture(scope="module")
def project(server: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A project whose training prints epochs and is worse with seed 2, with committed results."""
    folder = tiny_project.create(tmp_path_factory.mktemp("page") / "project")
    (folder / "pixel.png").write_bytes(PIXEL)
    (folder / "train.py").write_text(TRAIN, encoding="utf-8")
    (folder / "evaluate.py").write_text(EVALUATE, encoding="utf-8")
    tiny_project.commit(folder, "A training with epochs")
    assert tiny_project.dvc(folder, "repro", "-q") == 0
    tiny_project.commit(folder, "Results")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CATDOG_REPOSITORY", str(folder))
        yield folder


@pytest.fixture(scope="module")
def worse(project: Path) -> Page:
    """A run with another seed, which is less accurate."""
    state = pipeline(overrides=("train.seed=2",), experiment="worse", return_state=True)
    return Page(state, artifacts_of(state))


def artifacts_of(state: State[Any]) -> dict[str, Any]:
    run = state.state_details.flow_run_id
    assert run is not None
    with get_client(sync_client=True) as client:
        only = ArtifactFilter(flow_run_id=ArtifactFilterFlowRunId(any_=[run]))
        return {str(found.key): found for found in client.read_artifacts(artifact_filter=only)}


def test_metrics_are_a_table(worse: Page) -> None:
    assert worse.artifacts["metrics"].type == "table"
    assert json.loads(worse.artifacts["metrics"].data) == [
        {"metric": "accuracy", "value": "0.5000"},
        {"metric": "photos", "value": "8"},
    ]


def test_progress_shows_the_last_epoch(worse: Page) -> None:
    progress = worse.artifacts["training"]
    assert (progress.type, progress.data) == ("progress", 100)
    assert progress.description == "epoch 2 of 2: 64 px  loss 0.2"


def test_comparison_shows_changed_params_and_metrics(worse: Page) -> None:
    text = worse.artifacts["comparison"].data
    assert "| train.seed | 1 | 2 |" in text
    assert "| accuracy | 0.75 | 0.5 | -0.25 |" in text
    assert "photos" not in text  # unchanged


def test_plot_is_in_the_artifact_itself(worse: Page) -> None:
    plot = worse.artifacts["confusion"]
    assert plot.type == "image"
    head, _, data = plot.data.partition(",")
    assert head == "data:image/png;base64"
    assert base64.b64decode(data) == PIXEL
    assert "curves" not in worse.artifacts  # this project has none


def test_summary_names_the_experiment_the_commit_and_what_ran(worse: Page, project: Path) -> None:
    text = worse.artifacts["summary"].data
    assert text.startswith("## Completed\n")
    assert "`dvc exp apply worse`" in text
    assert tiny_project.git(project, "rev-parse", "HEAD") in text
    assert "| prepare | restored from the cache |" in text
    assert "| train | ran |" in text


def test_drop_of_accuracy_emits_an_event(worse: Page) -> None:
    events: list[Any] = []

    def dropped() -> bool:
        with get_client(sync_client=True) as client:
            answer = client.request(
                "POST", "/events/filter", json={"filter": {"event": {"name": [artifacts.DROPPED]}}}
            )
        # All tests share the server: metrics of other runs may have dropped too.
        run = f"prefect.flow-run.{worse.state.state_details.flow_run_id}"
        events[:] = [event for event in answer.json()["events"] if run in str(event["related"])]
        return bool(events)

    wait_for(dropped)
    assert events[0]["payload"]["before"] == 0.75
    assert events[0]["payload"]["after"] == 0.5


def test_summary_of_a_failed_run_has_the_reason_and_the_clone(project: Path) -> None:
    (project / "evaluate.py").write_text("raise SystemExit('no model')", encoding="utf-8")
    tiny_project.commit(project, "An evaluation that fails")
    state = pipeline(return_state=True)
    text = artifacts_of(state)["summary"].data
    assert text.startswith("## Failed: stage evaluate failed: exit code 1")
    assert "- **clone**: " in text
    assert "| train | restored from the cache |" in text
    tiny_project.git(project, "reset", "-q", "--hard", "HEAD~1")


def test_unchanged_result_is_compared_with_the_previous_commit(project: Path) -> None:
    params = project / "params.yaml"
    params.write_text(params.read_text().replace("seed: 1", "seed: 2"), encoding="utf-8")
    assert tiny_project.dvc(project, "repro", "-q") == 0
    tiny_project.commit(project, "Seed 2")
    state = pipeline(return_state=True)
    assert "| train.seed | 1 | 2 |" in artifacts_of(state)["comparison"].data


@pytest.mark.parametrize(
    ("before", "after", "reported"),
    [(0.9, 0.85, True), (0.9, 0.89, False), (0.9, 0.95, False), (None, 0.5, False)],
)
def test_only_a_drop_by_more_than_allowed_is_reported(
    server: str, before: float | None, after: float, reported: bool
) -> None:
    @flow
    def compare() -> bool:
        return artifacts.report_drop(Difference("abc", {}, {"accuracy": (before, after)}), 0.02)

    assert compare() is reported


def test_unreachable_server_does_not_delay_training(
    server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    retries: list[int] = []

    # Instead of stopping the server, since a flow's client keeps its connection.
    def away(*_: object) -> None:
        retries.append(PREFECT_CLIENT_MAX_RETRIES.value())
        raise httpx.ConnectError("no server")

    @flow
    def train() -> str:
        progress = EpochProgress()
        with monkeypatch.context() as patch:
            patch.setattr(training_progress, "create_progress_artifact", away)
            progress.handle_line("epoch 1/2  loss 1")
        progress.handle_line("epoch 2/2  loss 0.5 *")
        return "trained"

    state = train(return_state=True)
    assert state.result() == "trained"
    assert retries == [0]  # the default of five takes a minute
    assert artifacts_of(state)["training"].data == 100


def test_rejected_artifact_does_not_fail_the_run(server: str) -> None:
    def away(*_: object, **__: object) -> None:
        raise httpx.ConnectError("no server")

    @flow
    def run() -> str:
        artifacts.show(away, "text", key="summary")
        return "done"

    assert run() == "done"


def test_as_text_numbers_list_items_and_rounds_floats() -> None:
    metrics = {"confusion": [[3, 1], [0, 4]], "best": None, "loss": 1e-9}
    assert as_text(metrics) == {
        "confusion.0.0": "3",
        "confusion.0.1": "1",
        "confusion.1.0": "0",
        "confusion.1.1": "4",
        "best": "None",
        "loss": "0.0000",
    }
