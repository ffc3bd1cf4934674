"""Install work pools, deployments and automations on a Prefect server.

    python -m flows.deploy

It can be repeated at any time and updates what exists under the same name. With CATDOG_NOTIFY_URL
the server posts {"text": "..."} to that URL, as Slack and Mattermost accept it, when a run fails or
the metric drops.
"""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from http import HTTPStatus
from uuid import UUID

from prefect.blocks.webhook import Webhook
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.client.schemas.objects import StateType
from prefect.events.actions import CallWebhook, ChangeFlowRunState
from prefect.events.schemas.automations import AutomationCore, EventTrigger, Posture
from prefect.exceptions import ObjectNotFound, PrefectHTTPStatusError
from prefect.settings import PREFECT_API_URL, PREFECT_UI_URL
from prefect.types import SecretDict
from prefect.workers.process import ProcessWorker
from pydantic import SecretStr

from flows.errors import FlowError
from flows.guards.heartbeats import SILENCE, SILENT_IS_DEAD
from flows.paths import CHECKOUT

POOLS = ("cpu", "gpu")
WAIT_SECONDS = 120.0  # the first start creates the database
WEBHOOK = "catdog-notify"
OURS: dict[str, str | list[str]] = {
    "prefect.resource.id": "prefect.tag.catdog",
    "prefect.resource.role": "tag",
}
ENDS = {f"prefect.flow-run.{end}" for end in ("Completed", "Failed", "Cancelled", "Crashed")}
FAILED = (
    '{"text": {{ ("run " ~ flow_run.name ~ " of " ~ flow.name ~ " is " ~ flow_run.state.name'
    ' ~ ": " ~ ((flow_run.state.message or "-").splitlines() | first)) | tojson }}}'
)
DROPPED = (
    '{"text": {{ (event.payload.metric ~ " of run " ~ flow_run.name ~ " fell from "'
    ' ~ event.payload.before ~ " to " ~ event.payload.after) | tojson }}}'
)


def main() -> int:
    """Install everything on the server at PREFECT_API_URL; return the exit code.

    0: installed; 1: failed, with a line that says why.
    """
    try:
        if not PREFECT_API_URL.value():  # Prefect would start a temporary server
            raise FlowError("PREFECT_API_URL: not set; `make deploy` sets it")
        with get_client(sync_client=True) as client:
            wait_for_server(client)
            create_pools(client)
            deploy()
            for automation in automations(os.environ.get("CATDOG_NOTIFY_URL")):
                install(client, automation)
                print(f"installed automation '{automation.name}'")
    except FlowError as error:
        print(f"deploy failed: {error}", file=sys.stderr)
        return 1
    except PrefectHTTPStatusError as error:
        print(f"deploy failed: {refusal(error)}", file=sys.stderr)
        return 1
    return 0


def refusal(error: PrefectHTTPStatusError) -> str:
    """Return a line about the response of a server that refused a request."""
    if error.response.status_code == HTTPStatus.UNAUTHORIZED:
        return (
            f"the server at {PREFECT_API_URL.value()} requires a password; set"
            " PREFECT_API_AUTH_STRING to the server's PREFECT_SERVER_API_AUTH_STRING"
        )
    return f"{error.request.url}: {error.response.status_code} {error.response.reason_phrase}"


def wait_for_server(client: SyncPrefectClient, seconds: float = WAIT_SECONDS) -> None:
    """Return once the server answers; FlowError if it does not within `seconds`."""
    address = PREFECT_API_URL.value()
    deadline = time.monotonic() + seconds
    while client.api_healthcheck() is not None:
        if time.monotonic() > deadline:
            raise FlowError(f"no Prefect server answers at {address}; start one with make server")
        time.sleep(1)


def create_pools(client: SyncPrefectClient) -> None:
    """Create the missing pools, for workers that start runs as processes.

    An existing pool of another type (Docker, Kubernetes) is not changed.
    """
    for name in POOLS:
        try:
            pool = client.read_work_pool(name)
        except ObjectNotFound:
            template = ProcessWorker.get_default_base_job_template()
            new = WorkPoolCreate(name=name, type="process", base_job_template=template)
            pool = client.create_work_pool(new)
        print(f"installed pool '{pool.name}' ({pool.type})")


def deploy() -> None:
    """Install the deployments of prefect.yaml; FlowError with Prefect's reason if that fails.

    CATDOG_ROOT is removed from the environment, since Prefect would write its value into the
    deployments; each machine must use its own.
    """
    environment = {name: value for name, value in os.environ.items() if name != "CATDOG_ROOT"}
    done = subprocess.run(
        [sys.executable, "-m", "prefect", "--no-prompt", "deploy", "--all"],
        cwd=CHECKOUT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise FlowError(f"prefect.yaml: cannot be deployed: {_reason(done.stderr or done.stdout)}")
    print(f"installed the deployments of prefect.yaml: {PREFECT_UI_URL.value()}/deployments")


def _reason(output: str) -> str:
    """Return the last line of a command's output, which in a traceback is the error."""
    return next((line.strip() for line in reversed(output.splitlines()) if line.strip()), "")


def automations(notify_url: str | None) -> Iterator[AutomationCore]:
    """Yield the automations: mark dead runs as crashed and, with a URL, send notifications."""
    yield AutomationCore(
        name=SILENT_IS_DEAD,
        # PrefectHQ/prefect#16746
        description="A machine that dies cannot report it, so its runs would stay Running.",
        trigger=EventTrigger(
            posture=Posture.Proactive,
            after={"prefect.flow-run.heartbeat"},
            expect={"prefect.flow-run.heartbeat", *ENDS},
            match={"prefect.resource.id": ["prefect.flow-run.*"]},
            match_related=OURS,
            for_each={"prefect.resource.id"},
            threshold=1,
            within=SILENCE,
        ),
        actions=[
            ChangeFlowRunState(
                name=None,
                force=False,
                state=StateType.CRASHED,
                message=f"no heartbeat for {SILENCE.seconds} s: the process or its machine has "
                "died; run it again to resume from the last checkpoint",
            )
        ],
    )
    if notify_url:
        webhook = _webhook(notify_url)
        yield _notification(
            "catdog: tell of failed runs",
            webhook,
            FAILED,
            {"prefect.flow-run.Failed", "prefect.flow-run.Crashed"},
        )
        yield _notification(
            "catdog: tell of a worse model", webhook, DROPPED, {"catdog.metric.dropped"}
        )


def _notification(
    name: str, webhook: CallWebhook, payload: str, events: set[str]
) -> AutomationCore:
    """Return the automation that posts `payload` for each of `events` of a catdog run."""
    trigger = EventTrigger(posture=Posture.Reactive, expect=events, match_related=OURS, threshold=1)
    action = webhook.model_copy(update={"payload": payload})
    return AutomationCore(name=name, trigger=trigger, actions=[action])


def _webhook(url: str) -> CallWebhook:
    """Store `url` on the server in a block, which keeps it secret; return the action to call it."""
    headers = SecretDict({"Content-Type": "application/json"})
    block = Webhook(method="POST", url=SecretStr(url), headers=headers)
    block_id = block.save(WEBHOOK, overwrite=True)
    assert isinstance(block_id, UUID)  # in async code it is a coroutine
    return CallWebhook(block_document_id=block_id)


def install(client: SyncPrefectClient, automation: AutomationCore) -> None:
    """Create `automation` on the server, or update the one with its name."""
    # The client sends only fields that were set explicitly, without even the types of triggers and
    # actions. Now all are set, except for one that the server rejects.
    complete = AutomationCore.model_validate(automation.model_dump(exclude={"owner_resource"}))
    existing = client.read_automations_by_name(complete.name)
    if existing:
        client.update_automation(existing[0].id, complete)
    else:
        client.create_automation(complete)


if __name__ == "__main__":
    sys.exit(main())
