"""Robustness of runs: device slots, child processes, signals, server outages.

device_slots.py     one training run per device; the others wait
many_runs.py        many runs of one deployment at the same time
child_processes.py  run a command and terminate all its processes with the flow
supervisor.py       the process between a flow and its command
flow_command.py     run a flow as a command in a terminal
heartbeats.py       how often a run reports, and when it counts as crashed
outages.py          wait for a server that does not respond
yaml_nesting.py     refuse deeply nested YAML, which ends the process of its parser

docs/guarantees.md lists what they guarantee, with the test for each guarantee.
"""
