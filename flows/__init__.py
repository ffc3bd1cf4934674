"""Prefect runs the DVC pipeline, without importing catdog.

Stages run as `dvc` child processes, and git as `git`. Configuration, experiments and params are
read with DVC's own library.

pipeline.py       prepare, train and evaluate of one revision
sweep.py          every point of a study
remote_stage.py   one stage, for a pipeline on another machine
on_new_photos.py  start the pipeline when the photos have changed
agent.py          a worker on this machine (make agent)
server.py         the Prefect server (make server)
deploy.py         pools, deployments and automations (make deploy)
runs/             one run: request, clone, stages, records, artifacts
sweeps/           studies: file, plan, results
guards/           what protects a run: devices, child processes, signals, outages
paths.py          where things are in the repository
errors.py         errors that a user can fix
log.py            the type of a log function; errors as one line in Prefect's log
"""
