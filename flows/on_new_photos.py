"""The flow `on_new_photos`: start the pipeline when data/raw.dvc has changed in git.

It compares data/raw.dvc at HEAD of the repository with the version of the last run that it started,
which a Prefect variable stores. So a failed run is not repeated.
"""

from typing import Any

from prefect import State, flow
from prefect.client.schemas.objects import FlowRun
from prefect.deployments import run_deployment
from prefect.states import Completed
from prefect.variables import Variable

from flows.guards.many_runs import Deployment
from flows.log import shorten_errors
from flows.paths import RAW_POINTER
from flows.runs.git import git
from flows.runs.repository import repository

VARIABLE = "catdog_photos"

shorten_errors()


@flow
def on_new_photos(deployment: Deployment = "pipeline/pipeline") -> State[None]:
    """Start a pipeline run if data/raw.dvc at HEAD differs from that of the last started run.

    Returns a Completed state whose message says what was done, without waiting for the started run.
    Raises FlowError if HEAD has no data/raw.dvc.

    Args:
        deployment: The deployment to start, as FLOW/DEPLOYMENT.
    """
    ours = repository()
    commit = git(ours.folder, "rev-parse", "HEAD")
    blob = git(ours.folder, "rev-parse", f"{commit}:{ours.path(RAW_POINTER)}")
    last: Any = Variable.get(VARIABLE, default=None)
    if last and last.get("blob") == blob:
        return Completed(
            message=f"{RAW_POINTER} has not changed since {last['commit'][:7]}; no run started"
        )
    run = run_deployment(deployment, parameters={"revision": commit}, timeout=0, as_subflow=False)
    assert isinstance(run, FlowRun)  # in async code it is a coroutine
    started = {"blob": blob, "commit": commit, "run": str(run.id)}
    Variable.set(VARIABLE, started, overwrite=True)
    return Completed(message=f"{RAW_POINTER} has changed in {commit[:7]}; started run {run.name}")
