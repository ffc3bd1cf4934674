"""An SSH server with SFTP on the loopback address: OpenSSH's if it is installed, else asyncssh's.

Both are real servers. asyncssh comes with DVC, so that the tests run on any machine; OpenSSH is
what people have: `apt-get install openssh-server` (it need not be started).

    python tests/helpers/ssh_server.py PORT FOLDER

is asyncssh's, with the host's and the user's key in FOLDER.
"""

import asyncio
import contextlib
import getpass
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import asyncssh

HOST = "127.0.0.1"
SSHD_CONFIG = """\
Port {port}
ListenAddress {host}
HostKey {folder}/host
AuthorizedKeysFile {folder}/user.pub
PasswordAuthentication no
KbdInteractiveAuthentication no
StrictModes no
PidFile none
UsePAM yes
Subsystem sftp internal-sftp
"""


class SshServer(NamedTuple):
    """Where a running server is to be reached, and with what key."""

    port: int
    key: Path
    log: Path

    def url(self, path: Path) -> str:
        """Return the address of a folder, as DVC and git take it."""
        return f"ssh://{getpass.getuser()}@{HOST}:{self.port}{path}"


def openssh() -> str | None:
    """Return the path of OpenSSH's server, or None where it is not installed."""
    return shutil.which("sshd", path=os.pathsep.join([os.environ["PATH"], "/usr/sbin"]))


@contextlib.contextmanager
def serve(folder: Path, sshd: str | None) -> Iterator[SshServer]:
    """Run a server for the block: the program `sshd`, or asyncssh's. Its files are in `folder`."""
    for name in ("host", "user"):
        key = asyncssh.generate_private_key("ssh-ed25519")
        key.write_private_key(folder / name)
        key.write_public_key(folder / f"{name}.pub")
    for name in ("host", "user"):
        (folder / name).chmod(0o600)
    with socket.socket() as free:
        free.bind((HOST, 0))
        port = free.getsockname()[1]
    command = [sys.executable, __file__, str(port), str(folder)]
    if sshd:
        config = folder / "sshd_config"
        config.write_text(SSHD_CONFIG.format(port=port, host=HOST, folder=folder), encoding="utf-8")
        command = [sshd, "-D", "-e", "-f", str(config)]
        if os.geteuid() == 0:  # which its service would make
            Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
    server = SshServer(port, folder / "user", folder / "log.txt")
    with server.log.open("w") as log, subprocess.Popen(command, stdout=log, stderr=log) as process:
        try:
            _wait_until_it_answers(server, process)
            yield server
        finally:
            process.terminate()


def _wait_until_it_answers(server: SshServer, process: "subprocess.Popen[bytes]") -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        assert process.poll() is None, server.log.read_text()
        with contextlib.suppress(OSError), socket.create_connection((HOST, server.port), 5):
            return
        time.sleep(0.1)
    raise AssertionError(f"no answer: {server.log.read_text()}")


async def _serve_with_asyncssh(port: int, folder: Path) -> None:
    server = await asyncssh.listen(
        HOST,
        port,
        server_host_keys=[str(folder / "host")],
        authorized_client_keys=str(folder / "user.pub"),
        sftp_factory=True,
    )
    await server.wait_closed()


if __name__ == "__main__":
    asyncio.run(_serve_with_asyncssh(int(sys.argv[1]), Path(sys.argv[2])))
