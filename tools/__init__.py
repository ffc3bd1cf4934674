"""Developer tools and helpers; the package `catdog` does not need them.

draw_sample/         draw the photos of the sample
fuzz/                run the readers of untrusted files on mutated inputs
tiny_project.py      a git and DVC project with three minimal stages
prefect_services.py  a Prefect server and workers as child processes
measure.py           hardware, interleaved trials, tables of their costs
photo_files.py       image files and ICC profiles, byte by byte
photo_folder.py      a temporary folder of photos for benchmarks
command_line.py      argument parser and one-line errors
portability.py       check that precision portable gives the same bytes on other processors
code_map.py          the list of modules in docs/code.md
"""
