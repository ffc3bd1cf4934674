"""Utilities shared by several packages; they do not affect results.

atomic_files.py   write a file or a folder completely or not at all
csv_rows.py       write rows of CSV that every reader splits in the same way
device_lock.py    one training run per GPU, and per core of the CPU
git.py            run git, independently of the settings of the user
printable.py      text without control characters
process_pool.py   worker processes that exit with their parent; a crash affects one item only
process_limits.py  limits of CPU time and memory for a worker process
progress.py       a progress bar on a terminal, plain log lines elsewhere
recorded_lock.py  a lock file with a record of its holder
stage_inputs.py   refuse a result whose params, code or photos changed meanwhile
stage_process.py  one process per stage, which stops with the DVC that started it
stop_signals.py   set a flag on SIGTERM and Ctrl-C
yaml_files.py     parse YAML as DVC does, with one-line errors
"""
