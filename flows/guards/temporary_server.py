"""Prefect's temporary server ends with the command that it serves, also when that is killed.

    python temporary_server.py MARK

Prefect stops it as the command's process ends, which one that is killed cannot do. So this process
waits until the command is gone, however it went, and ends what it left of that kind.
"""

import os
import subprocess
import sys
import uuid
from contextlib import suppress
from functools import cache

MARK = "CATDOG_COMMAND"  # in the environment of what a command starts: which command
SECONDS = 5.0  # from SIGTERM to SIGKILL, as Prefect has it


@cache  # a process is one command; and our end of the pipe must last as long as it does
def end_with_us() -> "subprocess.Popen[bytes]":
    """Let a temporary server that this process starts from now on end when it does.

    Returns the process that sees to it.
    """
    os.environ[MARK] = uuid.uuid4().hex
    return subprocess.Popen(
        [sys.executable, "-I", __file__, os.environ[MARK]],
        stdin=subprocess.PIPE,  # nobody else has our end of it: it closes when we are gone
        stdout=subprocess.DEVNULL,  # whoever reads what the command prints waits for none but that
        stderr=subprocess.DEVNULL,
        start_new_session=True,  # Ctrl-C, or the end of a terminal, is for the command
    )


def main() -> None:
    """Wait for the end of the command that started us, then end its temporary server."""
    sys.stdin.buffer.read()
    _end_servers(sys.argv[1])


def _end_servers(mark: str) -> None:
    """End the temporary servers that the command with this mark has left; it ended most itself."""
    import psutil  # noqa: PLC0415 # until now we wait without it: it takes as much as all the rest

    def is_left(process: psutil.Process) -> bool:
        with suppress(psutil.Error):  # it is gone by now, or somebody else's
            return "uvicorn" in process.cmdline() and process.environ().get(MARK) == mark
        return False

    servers = [process for process in psutil.process_iter() if is_left(process)]
    for server in servers:
        with suppress(psutil.Error):
            server.terminate()
    for server in psutil.wait_procs(servers, timeout=SECONDS)[1]:
        with suppress(psutil.Error):
            server.kill()


if __name__ == "__main__":
    main()
