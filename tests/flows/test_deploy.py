"""What `make deploy` puts on a server, and what the server then does by itself."""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from prefect import flow, tags
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import FlowRun
from prefect.client.schemas.responses import DeploymentResponse
from prefect.exceptions import PrefectHTTPStatusError
from prefect.settings import PREFECT_API_URL, PREFECT_CLIENT_MAX_RETRIES, temporary_settings
from prefect.variables import Variable

from flows.deploy import BEAT_SECONDS, MISSED_BEATS, POOLS, main, wait_for_server
from flows.errors import FlowError
from flows.on_new_photos import PHOTOS, VARIABLE, on_new_photos
from flows.runs import artifacts
from tests.helpers.flow_commands import ROOT
from tests.helpers.prefect_server import (
    Server,
    deploy,
    pause_schedules,
    run_deployment_now,
    wait_for,
)
from tests.helpers.tiny_project import commit, create

PLACES = {
    "pipeline/pipeline": "gpu",
    "pipeline/placed": "cpu",
    "stage/cpu": "cpu",
    "stage/gpu": "gpu",
    "sweep/sweep": "cpu",
    "on-new-photos/on-new-photos": "cpu",
}


def deployments() -> dict[str, DeploymentResponse]:
    with get_client(sync_client=True) as client:
        return {name: client.read_deployment_by_name(name) for name in PLACES}


def automation_names() -> list[str]:
    with get_client(sync_client=True) as client:
        return sorted(automation.name for automation in client.read_automations())


def delete_run(run: UUID) -> None:
    """Take it away before a worker of another test finds it."""
    with get_client(sync_client=True) as client:
        client.delete_flow_run(run)


def test_each_deployment_lies_in_a_pool_whose_workers_start_processes(deployed: Server) -> None:
    found = deployments()
    assert {name: deployment.work_pool_name for name, deployment in found.items()} == PLACES
    with get_client(sync_client=True) as client:
        assert [client.read_work_pool(name).type for name in POOLS] == ["process", "process"]


def test_runs_beat_often_enough_and_have_the_tag_that_the_automation_looks_for(
    deployed: Server,
) -> None:
    """A deployment without them would be taken for dead, or never."""
    for deployment in deployments().values():
        variables: Any = deployment.job_variables
        environment = variables["env"]
        assert environment["PREFECT_FLOWS_HEARTBEAT_FREQUENCY"] == str(BEAT_SECONDS)
        assert deployment.tags == ["catdog"]


def test_commands_in_the_repository_use_the_settings_of_prefect_toml() -> None:
    show = (
        "from prefect.settings import get_current_settings; s = get_current_settings();"
        " print(s.flows.heartbeat_frequency, s.server.analytics_enabled,"
        " s.server.concurrency.lease_storage)"
    )
    kept = {name: value for name, value in os.environ.items() if "PREFECT_" not in name}
    printed = subprocess.run(
        [sys.executable, "-c", show], cwd=ROOT, env=kept, check=True, stdout=subprocess.PIPE
    ).stdout.split()
    assert printed == [
        str(BEAT_SECONDS).encode(),
        b"False",
        b"prefect.server.concurrency.lease_storage.filesystem",
    ]


@pytest.mark.parametrize("name", ["pipeline", "remote_stage", "sweep", "on_new_photos"])
def test_entrypoint_loads_after_the_pull_step(name: str, tmp_path: Path) -> None:
    """A worker starts a run in a folder of its own, and knows no PYTHONPATH."""
    flow = "stage" if name == "remote_stage" else name
    load = (
        "import os; from prefect.flows import load_flow_from_entrypoint as load;"
        f" os.chdir({str(ROOT)!r}); print(load('flows/{name}.py:{flow}').fn.__name__)"
    )
    kept = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    printed = subprocess.run(
        [sys.executable, "-P", "-c", load],
        cwd=tmp_path,
        env=kept,
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    ).stdout.strip()
    assert printed == flow


def test_each_machine_takes_the_flows_from_its_own_checkout(deployed: Server) -> None:
    """Had the folder been filled in while deploying, no other machine could run them."""
    for deployment in deployments().values():
        (step,) = deployment.pull_steps or []
        assert list(step.values()) == [{"directory": "{{ $CATDOG_ROOT }}"}]


def test_pipeline_runs_each_night_and_photos_are_looked_at_every_ten_minutes(
    deployed: Server,
) -> None:
    crons = {
        name: [getattr(schedule.schedule, "cron", None) for schedule in deployment.schedules]
        for name, deployment in deployments().items()
        if deployment.schedules
    }
    assert crons == {
        "pipeline/pipeline": ["0 3 * * *"],
        "on-new-photos/on-new-photos": ["*/10 * * * *"],
    }


def test_each_parameter_has_a_type_and_a_description_in_the_form(deployed: Server) -> None:
    for name, deployment in deployments().items():
        form: Any = deployment.parameter_openapi_schema
        for parameter, schema in form["properties"].items():
            assert {"type", "anyOf", "allOf", "$ref", "enum"} & schema.keys(), (name, parameter)
            assert schema.get("description"), (name, parameter)


@pytest.mark.parametrize(
    ("deployment", "wrong"),
    [
        ("pipeline/pipeline", {"revision": "a b"}),
        ("pipeline/pipeline", {"overrides": ["optimizer.lr"]}),
        ("pipeline/pipeline", {"overrides": "optimizer.lr=0.1"}),
        ("pipeline/pipeline", {"recipe": "../secret"}),
        ("pipeline/pipeline", {"experiment": "a b"}),
        ("pipeline/placed", {"placement": {"no stage": "gpu"}}),
        ("pipeline/pipeline", {"alert_drop": 2}),
        ("pipeline/pipeline", {"keep_workspace": "perhaps"}),
        ("stage/gpu", {"stage": "no stage", "revision": "HEAD"}),
        ("sweep/sweep", {"study": "no study"}),
        ("sweep/sweep", {"deployment": "pipeline"}),
        ("sweep/sweep", {"at_once": 0}),
        ("on-new-photos/on-new-photos", {"deployment": "pipeline"}),
    ],
)
def test_wrong_parameter_is_refused_before_there_is_a_run(
    deployed: Server, deployment: str, wrong: dict[str, Any]
) -> None:
    with pytest.raises(PrefectHTTPStatusError) as error:
        run = run_deployment_now(deployment, **wrong)
        delete_run(run.id)
    assert next(iter(wrong)) in error.value.response.text


def test_one_sweep_at_a_time_and_no_look_at_the_photos_queues_behind_one_that_hangs(
    deployed: Server,
) -> None:
    limits = {}
    for name, deployment in deployments().items():
        if limit := deployment.global_concurrency_limit:
            assert deployment.concurrency_options
            limits[name] = (limit.limit, deployment.concurrency_options.collision_strategy.value)
    assert limits == {
        "sweep/sweep": (1, "ENQUEUE"),
        "on-new-photos/on-new-photos": (1, "CANCEL_NEW"),
    }


def test_deploying_again_changes_nothing(deployed: Server) -> None:
    before = automation_names()
    ids = {name: deployment.id for name, deployment in deployments().items()}
    deploy(deployed)
    pause_schedules()
    assert automation_names() == before == ["catdog: a run that has gone silent is dead"]
    assert {name: deployment.id for name, deployment in deployments().items()} == ids


def test_dead_is_who_misses_three_beats(deployed: Server) -> None:
    with get_client(sync_client=True) as client:
        (automation,) = client.read_automations()
    trigger: Any = automation.trigger
    assert trigger.within.total_seconds() == BEAT_SECONDS * MISSED_BEATS == 90


def test_missing_server_is_named_in_one_line() -> None:
    nowhere = {PREFECT_API_URL: "http://127.0.0.1:9/api", PREFECT_CLIENT_MAX_RETRIES: 0}
    with (
        temporary_settings(nowhere),
        get_client(sync_client=True) as client,
        pytest.raises(FlowError, match=r"^no Prefect server answers at http://127\.0\.0\.1:9/api;"),
    ):
        wait_for_server(client, seconds=0)


def test_server_that_wants_a_password_says_which_setting_has_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    server = Server(tmp_path / "server", PREFECT_SERVER_API_AUTH_STRING="ann:secret")
    try:
        server.start()
        with temporary_settings({PREFECT_API_URL: server.url}):
            assert main() == 1
    finally:
        server.kill()
    assert capsys.readouterr().err == (
        f"deploy failed: the server at {server.url} wants a password: set PREFECT_API_AUTH_STRING"
        " to what its PREFECT_SERVER_API_AUTH_STRING is\n"
    )


class Receiver(HTTPServer):
    """Takes notifications as Slack would, on a free port."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        super().__init__(("127.0.0.1", 0), Notification)
        self.url = f"http://127.0.0.1:{self.server_port}/hook"


class Notification(BaseHTTPRequestHandler):
    """One of them."""

    def do_POST(self) -> None:
        assert isinstance(self.server, Receiver)
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.texts.append(json.loads(body)["text"])
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def receiver(deployed: Server) -> Iterator[Receiver]:
    """A receiver whose address the server has been given."""
    with Receiver() as receiver:
        threading.Thread(target=receiver.serve_forever, daemon=True).start()
        deploy(deployed, CATDOG_NOTIFY_URL=receiver.url)
        pause_schedules()
        yield receiver
        receiver.shutdown()
    with get_client(sync_client=True) as client:
        for automation in client.read_automations():
            if automation.name.startswith("catdog: tell"):
                client.delete_automation(automation.id)


def test_failure_and_a_worse_model_are_told_to_the_address(receiver: Receiver) -> None:
    @flow(name="told", flow_run_name="unlucky")
    def told() -> None:
        artifacts.tell_of_a_drop(artifacts.Difference("HEAD", {}, {"accuracy": (0.95, 0.9)}), 0.02)
        raise ValueError('no "photos"')

    with tags("catdog"):
        told(return_state=True)
    wait_for(lambda: len(receiver.texts) >= 2)
    assert sorted(receiver.texts) == [
        "accuracy of run unlucky fell from 0.95 to 0.9",
        'run unlucky of told is Failed: Flow run encountered an exception: ValueError: no "photos"',
    ]


def test_other_flows_of_the_server_are_none_of_our_business(receiver: Receiver) -> None:
    @flow(name="other", flow_run_name="somebody's")
    def other() -> None:
        raise ValueError("not ours")

    @flow(name="told", flow_run_name="ours")
    def ours() -> None:
        raise ValueError("ours")

    other(return_state=True)
    with tags("catdog"):
        ours(return_state=True)
    wait_for(lambda: receiver.texts)
    assert not any("somebody's" in text for text in receiver.texts)


def runs_of_the_pipeline(revision: str) -> list[FlowRun]:
    """The runs of a commit: other tests leave theirs on the same server."""
    with get_client(sync_client=True) as client:
        runs = client.read_flow_runs()
    return [run for run in runs if run.parameters.get("revision") == revision]


def test_new_photos_start_one_run_of_their_commit(
    deployed: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = create(tmp_path / "project")
    monkeypatch.setenv("CATDOG_REPOSITORY", str(project))
    monkeypatch.setenv("CATDOG_HOME", str(tmp_path / "home"))
    Variable.unset(VARIABLE)

    missing = on_new_photos(return_state=True)
    assert missing.is_failed()
    assert PHOTOS in str(missing.message)

    for photos in ("first", "second"):
        (project / "data").mkdir(exist_ok=True)
        (project / PHOTOS).write_text(f"outs: [] # {photos}\n")
        head = commit(project, photos)
        new = on_new_photos(return_state=True)
        (run,) = runs_of_the_pipeline(head)
        delete_run(run.id)
        assert new.is_completed()
        assert new.message == f"{PHOTOS} is new in {head[:7]}: run {run.name} started"

    (project / "other.txt").touch()
    last = commit(project, "Something else")
    old = on_new_photos(return_state=True)
    assert old.is_completed()
    assert old.message == f"{PHOTOS} has not changed since {head[:7]}: nothing to do"
    assert runs_of_the_pipeline(head) == runs_of_the_pipeline(last) == []


def test_without_an_address_it_asks_for_one_and_starts_no_server(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("flows.deploy.get_client", lambda **_: pytest.fail("asked a server"))
    with temporary_settings({PREFECT_API_URL: None}):
        assert main() == 1
    assert "PREFECT_API_URL is not set" in capsys.readouterr().err
