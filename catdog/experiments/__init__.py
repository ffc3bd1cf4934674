"""Revisions side by side: what differs, whether a difference is real, and which model is in use.

revisions.py          a commit by any name, and what DVC keeps of it
run_results.py        params, metrics and predictions of a revision's run
compare.py            compare revisions, or settings with several seeds
significance.py       the statistical tests
comparison_report.py  a comparison as table, markdown or JSON
champion.py           promote a model, if it is better
registry.py           the champion in git tags (GTO)
"""
