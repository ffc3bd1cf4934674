"""One run of the pipeline: its request, its clone of the repository and its results.

__main__.py           the command `python -m flows.runs`: list and remove runs
request.py            a run's revision, recipe, overrides and name, checked
revisions.py          commits, branches, tags and experiments of the repository
run_params.py         the params file of a run, with its overrides applied
repository.py         the git repository that runs come from
git.py                run git, independently of the settings of the user
workspace.py          a clone for one run
export.py             the result of a run as a DVC experiment
stages.py             a DVC stage as a Prefect task, and the push of the run cache after it
stage_output.py       the log file of a stage, and the outcomes and errors that DVC prints
placement.py          run a stage of a pipeline on another machine
stage_lock.py         a lock per stage and input files: identical runs do not run concurrently
records.py            records of the runs on this machine, and their clean-up
artifacts.py          the Prefect artifacts of a finished run
training_progress.py  the progress artifact of a training run
missing_outputs.py    remove stages from dvc.lock whose outputs exist on other machines only
dvc_lock.py           compare the dvc.lock of two results
push_uncached.py      push outputs with `cache: false`, which `dvc push` skips
"""
