"""What protects a run: device slots, child processes, signals, an unreachable server.

device_slots.py     which device a training may use
many_runs.py        many runs of one deployment at the same time
child_processes.py  run a command whose processes all end with the flow
supervisor.py       the process between a flow and its command
flow_command.py     run a flow as a command in a terminal
heartbeats.py       how often a run reports, and when it counts as dead
outages.py          wait for a server that does not answer

docs/guarantees.md lists what they guarantee, with the test for each guarantee.
"""
