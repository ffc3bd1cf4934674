"""Stage 3: evaluate a model on the test split, and report its metrics.

evaluate.py     the stage
metrics.py      accuracy, loss, ROC, calibration
plots.py        the PNG files
fonts.py        fonts for class names in any script
report.py       report.html and the metrics as text
report.html.j2  the template of report.html
"""
