"""What several stages need, and what changes no result.

atomic_files.py  write a file as a whole or not at all
process_pool.py  worker processes that end with this one
stop_signals.py  SIGTERM and Ctrl-C
device_lock.py   one training per device
progress.py      a progress bar, or lines of log
"""
