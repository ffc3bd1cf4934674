"""What protects a run: devices, child processes, signals, a server that is away.

device_slots.py      which device a training may use
many_runs.py         many runs of a deployment at once
child_processes.py   a command whose processes all end with the flow
supervisor.py        the process between a flow and its command
flow_command.py      a flow as a command in a terminal
outages.py           wait for a server that is away
temporary_server.py  end the temporary server of a flow that was killed
"""
