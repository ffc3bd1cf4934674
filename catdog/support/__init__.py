"""Utilities shared by several packages; they do not affect results.

atomic_files.py  write a file completely or not at all
device_lock.py   one training run per device
git.py           run git, independently of the settings of the user
process_pool.py  worker processes that exit with their parent process
progress.py      a progress bar on a terminal, plain log lines elsewhere
stop_signals.py  set a flag on SIGTERM and Ctrl-C
yaml_files.py    parse YAML as DVC does, with one-line errors
"""
