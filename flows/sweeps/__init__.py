"""A study: a grid of settings and seeds, run as one experiment each.

study.py      the study file
plan.py       which experiments are missing
results.py    params and metrics of experiments
artifacts.py  the table and the plot of a sweep
"""
