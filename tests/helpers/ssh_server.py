"""An SSH server with SFTP on the loopback address: OpenSSH's if it is installed, else asyncssh's.

Both are real servers. asyncssh is a dependency of dvc[ssh], so the tests run on any machine;
OpenSSH is what users have (`apt-get install openssh-server`; the service need not run).

    python tests/helpers/ssh_server.py PORT FOLDER

runs the server of asyncssh, with the keys of host and user in FOLDER.
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
    """Port, user key and log of a running server."""

    port: int
    key: Path
    log: Path

    def url(self, path: Path) -> str:
        """Return the URL of a folder, for DVC and git."""
        return f"ssh://{getpass.getuser()}@{HOST}:{self.port}{path}"


def openssh() -> str | None:
    """Return the path of OpenSSH's server, or None if it is not installed."""
    return shutil.which("sshd", path=os.pathsep.join([os.environ["PATH"], "/usr/sbin"]))


@contextlib.contextmanager
def serve(folder: Path, sshd: str | None) -> Iterator[SshServer]:
    """Run a server during the block: `sshd`, or asyncssh's if None. Its files are in `folder`."""
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
        if os.geteuid() == 0:  # which the system service would create
            Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
    server = SshServer(port, folder / "user", folder / "log.txt")
    with server.log.open("w") as log, subprocess.Popen(command, stdout=log, stderr=log) as process:
        try:
            _wait_for_connection(server, process)
            yield server
        finally:
            process.terminate()


def _wait_for_connection(server: SshServer, process: "subprocess.Popen[bytes]") -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        assert process.poll() is None, server.log.read_text()
        with contextlib.suppress(OSError), socket.create_connection((HOST, server.port), 5):
            return
        time.sleep(0.1)
    raise AssertionError(f"no connection: {server.log.read_text()}")


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
