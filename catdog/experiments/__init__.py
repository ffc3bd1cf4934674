"""Compare revisions: what differs, whether it is significant, and which model is the champion.

revisions.py           a name of a commit, branch, tag or experiment → its commit
snapshots.py           the files of a commit or of the workspace, read through DVC
dvc_lock.py            dvc.lock: the params used, the hashes of dependencies and outputs
outdated.py            whether the results are of the current params and photos
recovery.py            the commands that restore outputs which are not in the cache
outputs.py             an output of a commit as a folder on disk
run_results.py         the results of a revision's run
consistency.py         check that its metrics match its params, code, photos and predictions
replicates.py          the runs that differ only in the seed
significance.py        the statistical tests
compare.py             compare revisions, or settings with several seeds
comparison_summary.py  the verdict and sections of a comparison as text
comparison_report.py   the output formats: table, Markdown, JSON
champion.py            promote a model if it is better
registry.py            the champion in git tags (GTO)
"""
