"""Prefect runs the DVC pipeline: these modules call `dvc` and `git`, and nothing of catdog.

pipeline.py    prepare → train → evaluate as tasks, in a clone; request.py, workspace.py, stages.py
sweep.py       a study's points as runs of the pipeline, at once
placed.py      one stage on another machine
server.py, deploy.py, agent.py    what `make server`, `make deploy` and `make agent` start
runs.py        what runs leave on a machine, and a command to list and remove it
supervise.py   the small process between a task and dvc that leaves nothing running behind
"""
