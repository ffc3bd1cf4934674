"""The pool templates and deployments for Docker and Kubernetes, with a real server.

No container is started: that would require a Docker daemon and a cluster.
"""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.exceptions import ObjectNotFound
from prefect.utilities.templating import apply_values

from tools.prefect_services import REPOSITORY, Server

FOLDER = REPOSITORY / "flows" / "infrastructure"
KINDS = ("docker", "kubernetes")


def template(kind: str) -> dict[str, Any]:
    """Return the base job template of a type of pool."""
    value = json.loads((FOLDER / f"{kind}-pool.json").read_text(encoding="utf-8"))
    assert isinstance(value, dict)
    return value


def job(kind: str, **variables: Any) -> Any:
    """Return the job that a pool's template gives with its defaults and these variables."""
    base = template(kind)
    defaults = {
        name: about["default"]
        for name, about in base["variables"]["properties"].items()
        if "default" in about
    }
    return apply_values(base["job_configuration"], {**defaults, **variables})


def test_docker_runs_get_all_gpus_of_their_machine() -> None:
    settings = job("docker")["container_create_kwargs"]
    all_gpus = {"Driver": "nvidia", "Count": -1, "Capabilities": [["gpu"]]}
    assert settings["device_requests"] == [all_gpus]


def test_kubernetes_runs_get_one_gpu() -> None:
    pod = job("kubernetes")["job_manifest"]["spec"]["template"]["spec"]
    assert pod["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] == "1"
    volumes = {volume["name"] for volume in pod["volumes"]}
    assert {mount["name"] for mount in pod["containers"][0]["volumeMounts"]} <= volumes


def test_kubernetes_runs_are_one_pod_without_retries() -> None:
    """The fields are those of a job; Prefect's own template has them in the pod instead."""
    spec = job("kubernetes")["job_manifest"]["spec"]
    once = {"parallelism": 1, "completions": 1, "backoffLimit": 0}
    assert {name: spec.get(name) for name in once} == once
    pod = spec["template"]["spec"]
    assert not once.keys() & pod.keys()
    assert pod["restartPolicy"] == "Never"


@pytest.mark.parametrize("kind", KINDS)
def test_files_that_outlive_a_run_are_in_a_volume(kind: str) -> None:
    dockerfile = (FOLDER / "Dockerfile").read_text(encoding="utf-8")
    assert "CATDOG_HOME=/var/lib/catdog " in dockerfile
    assert "/var/lib/catdog" in json.dumps(job(kind))


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_the_server_accepts_the_pool_and_its_deployments(
    prefect_server: Server, kind: str, tmp_path: Path
) -> None:
    with get_client(sync_client=True) as client:
        try:
            client.read_work_pool(kind)
        except ObjectNotFound:
            pool = WorkPoolCreate(name=kind, type=kind, base_job_template=template(kind))
            client.create_work_pool(pool)
    environment = {**prefect_server.environment, "PREFECT_API_URL": prefect_server.url}
    environment["CATDOG_REPOSITORY"] = "https://example.com/catdog.git"
    command = [sys.executable, "-m", "prefect", "--no-prompt", "deploy", "--all", "--prefect-file"]
    done = subprocess.run(
        [*command, f"flows/infrastructure/{kind}.yaml"],
        cwd=REPOSITORY,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    with get_client(sync_client=True) as client:
        for flow in ("pipeline", "stage"):
            deployment = client.read_deployment_by_name(f"{flow}/{kind}")
            assert deployment.work_pool_name == kind
            url = deployment.job_variables["env"]["CATDOG_REPOSITORY"]
            assert url == "https://example.com/catdog.git"
            assert deployment.pull_steps == PULL


PULL = [{"prefect.deployments.steps.set_working_directory": {"directory": "/catdog"}}]


def test_kubernetes_runs_use_no_device_slots() -> None:
    text = (FOLDER / "kubernetes.yaml").read_text(encoding="utf-8")
    variables = yaml.safe_load(text)["definitions"]["kubernetes"]["job_variables"]
    assert variables["env"]["CATDOG_DEVICE_SLOTS"] == "off"


def test_the_compose_file_puts_the_server_on_postgresql() -> None:
    services = yaml.safe_load((FOLDER / "compose.yaml").read_text(encoding="utf-8"))["services"]
    variables = services["server"]["environment"]
    assert variables["PREFECT_SERVER_DATABASE_CONNECTION_URL"].startswith("postgresql+asyncpg://")
    assert services["server"]["depends_on"]["database"] == {"condition": "service_healthy"}
    # Prefect asks for no password by default, so only this machine may connect by default.
    assert services["server"]["ports"] == ["${LISTEN:-127.0.0.1}:4200:4200"]
