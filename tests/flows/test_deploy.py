"""What `make deploy` installs on a server, and what the automations do."""

import json
import os
import re
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

from flows.deploy import POOLS, main, wait_for_server
from flows.errors import FlowError
from flows.guards.heartbeats import BEAT_SECONDS, MISSED_BEATS
from flows.on_new_photos import VARIABLE, on_new_photos
from flows.paths import RAW_POINTER
from flows.runs import artifacts
from tests.helpers.flow_commands import ROOT
from tests.helpers.prefect_runs import run_deployment_now
from tools.prefect_services import Server, deploy, pause_schedules, wait_for
from tools.tiny_project import commit, create

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
    """Delete a run before a worker of another test takes it."""
    with get_client(sync_client=True) as client:
        client.delete_flow_run(run)


def test_each_deployment_is_in_a_pool_of_processes(deployed: Server) -> None:
    found = deployments()
    assert {name: deployment.work_pool_name for name, deployment in found.items()} == PLACES
    with get_client(sync_client=True) as client:
        assert [client.read_work_pool(name).type for name in POOLS] == ["process", "process"]


def test_runs_send_heartbeats_often_enough_and_have_the_tag_of_the_automation(
    deployed: Server,
) -> None:
    """Otherwise its runs would be marked as crashed while they are alive, or never."""
    for deployment in deployments().values():
        variables: Any = deployment.job_variables
        environment = variables["env"]
        assert environment["PREFECT_FLOWS_HEARTBEAT_FREQUENCY"] == str(BEAT_SECONDS)
        assert deployment.tags == ["catdog"]


@pytest.mark.parametrize(
    "file",
    ["prefect.yaml", "flows/infrastructure/docker.yaml", "flows/infrastructure/kubernetes.yaml"],
)
def test_each_file_of_deployments_has_the_interval_of_the_heartbeats(file: str) -> None:
    text = (ROOT / file).read_text(encoding="utf-8")
    assert re.findall(r'PREFECT_FLOWS_HEARTBEAT_FREQUENCY: "(\d+)"', text) == [str(BEAT_SECONDS)]


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
    """A worker starts a run in another folder, without PYTHONPATH."""
    load = (
        "import os; from prefect.flows import load_flow_from_entrypoint as load;"
        f" os.chdir({str(ROOT)!r}); print(load('flows/{name}.py:{name}').fn.__name__)"
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
    assert printed == name


def test_each_machine_uses_the_flows_of_its_own_checkout(deployed: Server) -> None:
    """With the folder of the deploying machine, no other machine could run them."""
    for deployment in deployments().values():
        (step,) = deployment.pull_steps or []
        assert list(step.values()) == [{"directory": "{{ $CATDOG_ROOT }}"}]


def test_schedules_are_nightly_and_every_ten_minutes(
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


def test_each_parameter_has_a_type_and_a_description(deployed: Server) -> None:
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
def test_invalid_parameter_is_refused_before_a_run_is_created(
    deployed: Server, deployment: str, wrong: dict[str, Any]
) -> None:
    with pytest.raises(PrefectHTTPStatusError) as error:
        run = run_deployment_now(deployment, **wrong)
        delete_run(run.id)
    assert next(iter(wrong)) in error.value.response.text


def test_concurrency_limits_of_sweep_and_on_new_photos(
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


def test_run_is_dead_after_three_missed_heartbeats(deployed: Server) -> None:
    with get_client(sync_client=True) as client:
        (automation,) = client.read_automations()
    trigger: Any = automation.trigger
    assert trigger.within.total_seconds() == BEAT_SECONDS * MISSED_BEATS == 90


def test_missing_server_is_one_line() -> None:
    nowhere = {PREFECT_API_URL: "http://127.0.0.1:9/api", PREFECT_CLIENT_MAX_RETRIES: 0}
    with (
        temporary_settings(nowhere),
        get_client(sync_client=True) as client,
        pytest.raises(FlowError, match=r"^no Prefect server answers at http://127\.0\.0\.1:9/api;"),
    ):
        wait_for_server(client, seconds=0)


def test_missing_password_names_the_setting(
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
        f"deploy failed: the server at {server.url} requires a password; set"
        " PREFECT_API_AUTH_STRING to the server's PREFECT_SERVER_API_AUTH_STRING\n"
    )


class Receiver(HTTPServer):
    """A server on a free port that accepts notifications as Slack does."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        super().__init__(("127.0.0.1", 0), Notification)
        self.url = f"http://127.0.0.1:{self.server_port}/hook"


class Notification(BaseHTTPRequestHandler):
    """The handler of a notification."""

    def do_POST(self) -> None:
        assert isinstance(self.server, Receiver)
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.texts.append(json.loads(body)["text"])
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Log nothing."""


@pytest.fixture
def receiver(deployed: Server) -> Iterator[Receiver]:
    """A receiver; its URL is CATDOG_NOTIFY_URL of the server."""
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


def test_failure_and_a_worse_model_are_notified(receiver: Receiver) -> None:
    @flow(name="bad", flow_run_name="unlucky")
    def bad() -> None:
        artifacts.report_drop(artifacts.Difference("HEAD", {}, {"accuracy": (0.95, 0.9)}), 0.02)
        raise ValueError('no "photos"')

    with tags("catdog"):
        bad(return_state=True)
    wait_for(lambda: len(receiver.texts) >= 2)
    assert sorted(receiver.texts) == [
        "accuracy of run unlucky fell from 0.95 to 0.9",
        'run unlucky of bad is Failed: Flow run encountered an exception: ValueError: no "photos"',
    ]


def test_other_flows_of_the_server_are_not_notified(receiver: Receiver) -> None:
    @flow(name="other", flow_run_name="not ours")
    def other() -> None:
        raise ValueError("not ours")

    @flow(name="bad", flow_run_name="ours")
    def ours() -> None:
        raise ValueError("ours")

    other(return_state=True)
    with tags("catdog"):
        ours(return_state=True)
    wait_for(lambda: receiver.texts)
    assert not any("not ours" in text for text in receiver.texts)


def runs_of_the_pipeline(revision: str) -> list[FlowRun]:
    """Return the runs of a commit; other tests have runs on the same server."""
    with get_client(sync_client=True) as client:
        runs = client.read_flow_runs()
    return [run for run in runs if run.parameters.get("revision") == revision]


def test_changed_photos_start_one_run_of_their_commit(
    deployed: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = create(tmp_path / "project")
    monkeypatch.setenv("CATDOG_REPOSITORY", str(project))
    monkeypatch.setenv("CATDOG_HOME", str(tmp_path / "home"))
    Variable.unset(VARIABLE)

    missing = on_new_photos(return_state=True)
    assert missing.is_failed()
    assert RAW_POINTER in str(missing.message)

    for photos in ("first", "second"):
        (project / "data").mkdir(exist_ok=True)
        (project / RAW_POINTER).write_text(f"outs: [] # {photos}\n")
        head = commit(project, photos)
        new = on_new_photos(return_state=True)
        (run,) = runs_of_the_pipeline(head)
        delete_run(run.id)
        assert new.is_completed()
        assert new.message == f"{RAW_POINTER} has changed in {head[:7]}; started run {run.name}"

    (project / "other.txt").touch()
    last = commit(project, "Something else")
    old = on_new_photos(return_state=True)
    assert old.is_completed()
    assert old.message == f"{RAW_POINTER} has not changed since {head[:7]}; no run started"
    assert runs_of_the_pipeline(head) == runs_of_the_pipeline(last) == []


def test_without_a_server_url_no_temporary_server_is_started(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("flows.deploy.get_client", lambda **_: pytest.fail("called a server"))
    with temporary_settings({PREFECT_API_URL: None}):
        assert main() == 1
    assert "PREFECT_API_URL: not set" in capsys.readouterr().err
