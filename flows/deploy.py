"""Tell a Prefect server all that it must know: pools, deployments, and what it does by itself.

    python -m flows.deploy

It may be run again at any time: what is there by name is brought up to date. With CATDOG_NOTIFY_URL
the server posts a line to that address when a run fails or the metric drops: {"text": "..."}, as
Slack and Mattermost take it.
"""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import timedelta
from http import HTTPStatus
from pathlib import Path
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

CHECKOUT = Path(__file__).resolve().parents[1]
POOLS = ("cpu", "gpu")
BEAT_SECONDS = 30  # PREFECT_FLOWS_HEARTBEAT_FREQUENCY in prefect.yaml; the shortest there is
MISSED_BEATS = 3
SILENCE = timedelta(seconds=BEAT_SECONDS * MISSED_BEATS)
SILENT_IS_DEAD = "catdog: a run that has gone silent is dead"
WAIT_SECONDS = 120.0  # a first start makes the database
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
    """Install everything on the server of PREFECT_API_URL; return the exit code, 1 with one line.

    0: the server has it all.
    """
    try:
        if not PREFECT_API_URL.value():  # Prefect would start a server for the time of this command
            raise FlowError("PREFECT_API_URL is not set: which server? make deploy sets it")
        with get_client(sync_client=True) as client:
            wait_for_server(client)
            create_pools(client)
            deploy()
            for automation in automations(os.environ.get("CATDOG_NOTIFY_URL")):
                install(client, automation)
                print(f"automation '{automation.name}' is installed")
    except FlowError as error:
        print(f"deploy failed: {error}", file=sys.stderr)
        return 1
    except PrefectHTTPStatusError as error:
        print(f"deploy failed: {refusal(error)}", file=sys.stderr)
        return 1
    return 0


def refusal(error: PrefectHTTPStatusError) -> str:
    """Return in a line what a server has refused."""
    if error.response.status_code == HTTPStatus.UNAUTHORIZED:
        return (
            f"the server at {PREFECT_API_URL.value()} wants a password: set PREFECT_API_AUTH_STRING"
            " to what its PREFECT_SERVER_API_AUTH_STRING is"
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
    """Create the pools that are not there yet, for workers that start runs as processes.

    A pool of another type (Docker, Kubernetes) that somebody made under the same name stays.
    """
    for name in POOLS:
        try:
            pool = client.read_work_pool(name)
        except ObjectNotFound:
            template = ProcessWorker.get_default_base_job_template()
            new = WorkPoolCreate(name=name, type="process", base_job_template=template)
            pool = client.create_work_pool(new)
        print(f"pool '{pool.name}' ({pool.type}) is there")


def deploy() -> None:
    """Install the deployments of prefect.yaml; FlowError with Prefect's reason if it cannot.

    CATDOG_ROOT is taken out of the environment: what is set now would be written into them, and
    each machine must fill in its own.
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
        raise FlowError(f"prefect.yaml: not deployed: {_reason(done.stderr or done.stdout)}")
    print(f"the deployments of prefect.yaml are there: {PREFECT_UI_URL.value()}/deployments")


def _reason(output: str) -> str:
    """Return the last line of what a command printed: of a traceback, that is the error."""
    return next((line.strip() for line in reversed(output.splitlines()) if line.strip()), "")


def automations(notify_url: str | None) -> Iterator[AutomationCore]:
    """Yield what the server does by itself: end dead runs and, with a URL, tell of bad ones."""
    yield AutomationCore(
        name=SILENT_IS_DEAD,
        description="A machine that dies cannot say so: its runs would stay Running for ever.",
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
                message=f"no sign of life for {SILENCE.seconds} s: its machine or its "
                "process is dead; run it again to go on from the last checkpoint",
            )
        ],
    )
    if notify_url:
        webhook = _webhook(notify_url)
        yield _told(
            "catdog: tell of failed runs",
            webhook,
            FAILED,
            {"prefect.flow-run.Failed", "prefect.flow-run.Crashed"},
        )
        yield _told("catdog: tell of a worse model", webhook, DROPPED, {"catdog.metric.dropped"})


def _told(name: str, webhook: CallWebhook, payload: str, events: set[str]) -> AutomationCore:
    """Return the automation that posts `payload` for each of `events` in a run of ours."""
    trigger = EventTrigger(posture=Posture.Reactive, expect=events, match_related=OURS, threshold=1)
    action = webhook.model_copy(update={"payload": payload})
    return AutomationCore(name=name, trigger=trigger, actions=[action])


def _webhook(url: str) -> CallWebhook:
    """Keep `url` on the server as the webhook block, where it is secret; return its action."""
    headers = SecretDict({"Content-Type": "application/json"})
    block = Webhook(method="POST", url=SecretStr(url), headers=headers)
    kept = block.save(WEBHOOK, overwrite=True)
    assert isinstance(kept, UUID)  # and no coroutine: this is no async code
    return CallWebhook(block_document_id=kept)


def install(client: SyncPrefectClient, automation: AutomationCore) -> None:
    """Create `automation` on the server, or bring the one of its name up to date."""
    # An update leaves out the fields that were not set, even the types of triggers and actions: now
    # all are, but for the one that the server does not take.
    whole = AutomationCore.model_validate(automation.model_dump(exclude={"owner_resource"}))
    there = client.read_automations_by_name(whole.name)
    if there:
        client.update_automation(there[0].id, whole)
    else:
        client.create_automation(whole)


if __name__ == "__main__":
    sys.exit(main())
