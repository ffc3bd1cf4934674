"""Start the pipeline when the photos have changed in git, that is, the file data/raw.dvc.

It looks at the HEAD of the repository (see flows/runs/repository.py), not at uncommitted changes. A
Prefect variable remembers which photos the last run was started for: a run that fails is not
started again and again.
"""

from typing import Any

from prefect import State, flow
from prefect.client.schemas.objects import FlowRun
from prefect.deployments import run_deployment
from prefect.states import Completed
from prefect.variables import Variable

from flows.guards.many_runs import Deployment
from flows.runs.repository import git, repository

PHOTOS = "data/raw.dvc"
VARIABLE = "catdog_photos"


@flow
def on_new_photos(deployment: Deployment = "pipeline/pipeline") -> State[None]:
    """Start a run if data/raw.dvc at the repository's HEAD is not what the last run was for.

    Returns a Completed state that says what was done, at once: the run that it starts goes on by
    itself. Raises FlowError if HEAD has no data/raw.dvc.

    Args:
        deployment: The deployment to start, as FLOW/DEPLOYMENT.
    """
    folder = repository().folder
    commit = git(folder, "rev-parse", "HEAD").strip()
    found = git(folder, "rev-parse", f"{commit}:{PHOTOS}").strip()
    last: Any = Variable.get(VARIABLE, default=None)
    if last and last.get("blob") == found:
        said = f"{PHOTOS} has not changed since {last['commit'][:7]}: nothing to do"
        return Completed(message=said)
    run = run_deployment(deployment, parameters={"revision": commit}, timeout=0, as_subflow=False)
    assert isinstance(run, FlowRun)  # and no coroutine: this is no async code
    remembered = {"blob": found, "commit": commit, "run": str(run.id)}
    Variable.set(VARIABLE, remembered, overwrite=True)
    return Completed(message=f"{PHOTOS} is new in {commit[:7]}: run {run.name} started")
