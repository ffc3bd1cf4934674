"""Studies: a grid of configurations × seeds; each point runs as one DVC experiment.

study.py      the study file, and the points it defines
plan.py       the run request of each point, and which points are not finished
results.py    params and metrics of the experiments of a commit
artifacts.py  the table and the plot that a sweep shows in Prefect
"""
