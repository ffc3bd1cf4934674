"""Programs and helpers for developers; the package `catdog` does not need them.

draw_sample/         the pictures of the embedded sample
tiny_project.py      a git and DVC project with three tiny stages
prefect_services.py  a Prefect server and workers as child processes
measure.py           trials, their costs, and tables of them
photo_folder.py      a temporary folder of photos to measure with
command_line.py      argument parser and one-line errors
code_map.py          the list of modules in docs/code.md
"""
