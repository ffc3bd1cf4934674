"""Utilities that several packages share and that change no result.

atomic_files.py  write a file completely or not at all
device_lock.py   one training per device
process_pool.py  worker processes that end with their parent process
progress.py      a progress bar on a terminal, plain log lines elsewhere
stop_signals.py  SIGTERM and Ctrl-C as a flag
yaml_files.py    YAML as DVC parses it, one-line errors
"""
