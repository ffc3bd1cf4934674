"""One run of the pipeline: what it is asked, where it works, and what it leaves.

request.py            revision, recipe, overrides and name, checked
repository.py         the git repository that runs come from
workspace.py          a clone for one run, and its result as an experiment
stages.py             a DVC stage as a Prefect task
stage_lock.py         one run at a time for the same stage of the same files
records.py            the runs on this machine: list, clean up, remove
artifacts.py          what the run's page shows
training_progress.py  the progress of a training on that page
push_uncached.py      push what `dvc push` skips
"""
