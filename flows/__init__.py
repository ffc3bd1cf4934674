"""Prefect flows over the DVC pipeline: they call the `dvc` command and nothing of catdog.

pipeline.py    prepare → train → evaluate, and the metrics as a table
stages.py      one task: run one DVC stage as a child, stream its lines, stop it cleanly
supervise.py   the small process between a task and dvc that leaves nothing running behind
"""
