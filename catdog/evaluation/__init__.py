"""Stage 3: a model and the test split become metrics and a report.

evaluate.py  the stage
metrics.py   accuracy, loss, ROC, calibration
report.py    plots, report.html and the results table
"""
