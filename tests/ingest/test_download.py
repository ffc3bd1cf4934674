"""Downloads from a real HTTP server: complete, resumed, verified, or a one-line error."""

import hashlib
import ssl
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256 as SHA256_HASH
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from catdog.errors import CatdogError
from catdog.ingest.download import ATTEMPTS, download

CONTENT = np.random.default_rng(0).bytes(1_000_000)
SHA256 = hashlib.sha256(CONTENT).hexdigest()


class Server(ThreadingHTTPServer):
    """Serves one file at any URL and records the requested ranges."""

    content = CONTENT
    etag: str | None = '"one"'
    ranges = True
    breaks = 0  # number of responses to cut off in the middle

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.ranges_requested: list[str | None] = []  # the Range header of each request
        self.failures: list[int] = []  # status codes of the next responses
        self.url = f"http://127.0.0.1:{self.server_address[1]}/set/photos.zip?key=1"


class Handler(BaseHTTPRequestHandler):
    """Implements GET with Range and If-Range (RFC 9110, sections 13.1.5 and 14.2)."""

    server: Server

    def do_GET(self) -> None:
        asked = self.headers["Range"]
        self.server.ranges_requested.append(asked)
        if self.server.failures:
            return self.send_error(self.server.failures.pop(0))
        same = self.headers["If-Range"] in (None, self.server.etag)
        start = int(asked.removeprefix("bytes=").removesuffix("-")) if asked else 0
        if not (self.server.ranges and same):
            start = 0
        if start >= len(self.server.content):
            return self.send_error(416)
        self._send(self.server.content[start:], 206 if start else 200)

    def _send(self, rest: bytes, code: int) -> None:
        self.send_response(code)
        self.send_header("Content-Length", str(len(rest)))
        if self.server.etag:
            self.send_header("ETag", self.server.etag)
        self.end_headers()
        if self.server.breaks:
            self.server.breaks -= 1
            rest = rest[: len(rest) // 2]
        self.wfile.write(rest)

    def log_message(self, format: str, *arguments: object) -> None:
        """Print nothing."""


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def fetch(server: Server, folder: Path, sha256: str | None = SHA256) -> Path:
    return download(server.url, folder, sha256, pause=0.01)


def leave_part(folder: Path, content: bytes, etag: str | None = '"one"') -> None:
    """Write the files that a killed download leaves."""
    folder.mkdir(exist_ok=True)
    (folder / "photos.zip.part").write_bytes(content)
    if etag:
        (folder / "photos.zip.part.etag").write_text(etag)


def test_a_complete_download_leaves_only_the_file(server: Server, tmp_path: Path) -> None:
    path = fetch(server, tmp_path / "new/folder", SHA256.upper())
    assert path == tmp_path / "new/folder/photos.zip"
    assert path.read_bytes() == CONTENT
    assert list(path.parent.iterdir()) == [path]
    assert server.ranges_requested == [None]


def test_an_interrupted_download_is_resumed(server: Server, tmp_path: Path) -> None:
    server.breaks = 2
    assert fetch(server, tmp_path).read_bytes() == CONTENT
    first, *others = server.ranges_requested
    assert first is None
    starts = [int(str(asked)[len("bytes=") : -1]) for asked in others]
    assert 0 < starts[0] < starts[1] < len(CONTENT)


def test_a_later_call_resumes_an_earlier_one(server: Server, tmp_path: Path) -> None:
    server.breaks = ATTEMPTS
    with pytest.raises(
        CatdogError,
        match=r"download failed \(.*\); check the network .* run the command again to resume it$",
    ):
        fetch(server, tmp_path)
    assert len(server.ranges_requested) == ATTEMPTS
    have = (tmp_path / "photos.zip.part").stat().st_size
    assert fetch(server, tmp_path).read_bytes() == CONTENT
    assert server.ranges_requested[ATTEMPTS:] == [f"bytes={have}-"]


def test_after_a_kill_at_the_last_byte_nothing_is_downloaded_again(
    server: Server, tmp_path: Path
) -> None:
    leave_part(tmp_path, CONTENT)
    assert fetch(server, tmp_path).read_bytes() == CONTENT
    assert server.ranges_requested == [f"bytes={len(CONTENT)}-"]


def test_without_support_for_ranges_the_download_starts_over(
    server: Server, tmp_path: Path
) -> None:
    server.ranges, server.breaks = False, 1
    assert fetch(server, tmp_path).read_bytes() == CONTENT
    assert len(server.ranges_requested) == 2
    assert server.ranges_requested[1]


def test_a_file_that_changed_on_the_server_is_downloaded_from_the_start(
    server: Server, tmp_path: Path
) -> None:
    leave_part(tmp_path, b"part of the older file", '"older"')
    assert fetch(server, tmp_path).read_bytes() == CONTENT


@pytest.mark.parametrize("etag", [None, 'W/"one"'])
def test_without_a_strong_etag_an_interrupted_download_starts_over(
    server: Server, tmp_path: Path, etag: str | None
) -> None:
    """Nothing guarantees that both parts belong to the same file."""
    server.etag, server.breaks = etag, 1
    assert fetch(server, tmp_path).read_bytes() == CONTENT
    assert server.ranges_requested == [None, None]


def test_a_wrong_checksum_is_reported_and_the_file_removed(server: Server, tmp_path: Path) -> None:
    with pytest.raises(
        CatdogError, match=f"SHA-256 is {SHA256}, expected {'0' * 64}; the file was deleted"
    ):
        fetch(server, tmp_path, "0" * 64)
    assert list(tmp_path.iterdir()) == []


def test_an_existing_file_with_the_right_checksum_is_not_downloaded(
    server: Server, tmp_path: Path
) -> None:
    (tmp_path / "photos.zip").write_bytes(CONTENT)
    for sha256 in (SHA256, SHA256.upper()):
        assert fetch(server, tmp_path, sha256) == tmp_path / "photos.zip"
    assert server.ranges_requested == []


def test_an_existing_file_with_a_wrong_checksum_is_downloaded(
    server: Server, tmp_path: Path
) -> None:
    (tmp_path / "photos.zip").write_bytes(b"something else")
    assert fetch(server, tmp_path).read_bytes() == CONTENT


def test_a_client_error_is_not_retried(server: Server, tmp_path: Path) -> None:
    server.failures = [404, 404]
    with pytest.raises(
        CatdogError,
        match=r"photos\.zip\?key=1: the server responded with 404 Not Found; check the URL",
    ):
        fetch(server, tmp_path)
    assert len(server.ranges_requested) == 1


def test_a_server_error_is_retried(server: Server, tmp_path: Path) -> None:
    server.failures = [503, 500]
    assert fetch(server, tmp_path).read_bytes() == CONTENT
    assert len(server.ranges_requested) == 3


def test_a_refused_connection_is_reported(server: Server, tmp_path: Path) -> None:
    url = server.url
    server.server_close()
    with pytest.raises(CatdogError, match=r"download failed \(Connection refused\); check the"):
        download(url, tmp_path, SHA256, pause=0.01)


def test_an_unknown_host_is_reported(tmp_path: Path) -> None:
    message = r"download failed \(Failed to resolve 'host\.invalid' \(.*\)\); check the network"
    with pytest.raises(CatdogError, match=message):
        download("http://host.invalid/a.zip", tmp_path, SHA256, pause=0.01)


def test_an_invalid_certificate_is_reported_without_retries(server: Server, tmp_path: Path) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(self_signed(tmp_path / "certificate.pem"))
    server.socket = context.wrap_socket(server.socket, server_side=True)
    message = r"certificate of the server is not valid \(self-signed certificate\); check the URL"
    with pytest.raises(CatdogError, match=message):
        download(server.url.replace("http:", "https:"), tmp_path, SHA256, pause=60)


def self_signed(path: Path) -> Path:
    """Write a key and a certificate that no authority has signed."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now)
        .not_valid_after(now + timedelta(days=1))
        .sign(key, SHA256_HASH())
    )
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    path.write_bytes(private + certificate.public_bytes(Encoding.PEM))
    return path


@pytest.mark.parametrize("url", ["ftp://host/photos.zip", "host/photos.zip", "http:///photos.zip"])
def test_an_invalid_url_is_reported_without_retries(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses: list[float] = []
    monkeypatch.setattr("catdog.ingest.download.time.sleep", pauses.append)
    with pytest.raises(CatdogError, match="invalid URL; it must start with https:// or http://"):
        download(url, tmp_path)
    assert pauses == []
