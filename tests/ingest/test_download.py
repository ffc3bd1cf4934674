"""Downloads from a real server: whole, resumed, checked, or a sentence."""

import hashlib
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from catdog.errors import CatdogError
from catdog.ingest.download import TRIES, download

CONTENT = np.random.default_rng(0).bytes(1_000_000)
SHA256 = hashlib.sha256(CONTENT).hexdigest()


class Server(ThreadingHTTPServer):
    """Serves one file at any address, and remembers what it was asked."""

    content = CONTENT
    etag: str | None = '"one"'
    ranges = True
    breaks = 0  # how many more answers stop in the middle

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked: list[str | None] = []  # the Range of each request
        self.failures: list[int] = []  # codes of the next answers
        self.url = f"http://127.0.0.1:{self.server_address[1]}/set/photos.zip?key=1"


class Handler(BaseHTTPRequestHandler):
    """Answers GET with Range and If-Range as RFC 9110 (sections 13.1.5 and 14.2) has it."""

    server: Server

    def do_GET(self) -> None:
        asked = self.headers["Range"]
        self.server.asked.append(asked)
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
        """Stay silent."""


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
    """Make the folder look as an earlier call left it that was killed."""
    folder.mkdir(exist_ok=True)
    (folder / "photos.zip.part").write_bytes(content)
    if etag:
        (folder / "photos.zip.part.etag").write_text(etag)


def test_a_whole_download_leaves_the_file_and_nothing_else(server: Server, tmp_path: Path) -> None:
    path = fetch(server, tmp_path / "new/folder", SHA256.upper())
    assert path == tmp_path / "new/folder/photos.zip"
    assert path.read_bytes() == CONTENT
    assert list(path.parent.iterdir()) == [path]
    assert server.asked == [None]


def test_a_download_that_breaks_off_goes_on_where_it_stopped(
    server: Server, tmp_path: Path
) -> None:
    server.breaks = 2
    assert fetch(server, tmp_path).read_bytes() == CONTENT
    first, *others = server.asked
    assert first is None
    starts = [int(str(asked)[len("bytes=") : -1]) for asked in others]
    assert 0 < starts[0] < starts[1] < len(CONTENT)


def test_a_later_call_goes_on_from_an_earlier_one(server: Server, tmp_path: Path) -> None:
    server.breaks = TRIES
    with pytest.raises(CatdogError, match=r"cannot be downloaded \(.*\); call it again to go on$"):
        fetch(server, tmp_path)
    assert len(server.asked) == TRIES
    have = (tmp_path / "photos.zip.part").stat().st_size
    assert fetch(server, tmp_path).read_bytes() == CONTENT
    assert server.asked[TRIES:] == [f"bytes={have}-"]


def test_a_kill_after_the_last_byte_fetches_nothing_twice(server: Server, tmp_path: Path) -> None:
    leave_part(tmp_path, CONTENT)
    assert fetch(server, tmp_path).read_bytes() == CONTENT
    assert server.asked == [f"bytes={len(CONTENT)}-"]


def test_a_server_that_ignores_ranges_is_asked_for_everything(
    server: Server, tmp_path: Path
) -> None:
    server.ranges, server.breaks = False, 1
    assert fetch(server, tmp_path).read_bytes() == CONTENT
    assert len(server.asked) == 2
    assert server.asked[1]


def test_a_file_that_changed_meanwhile_is_fetched_from_the_start(
    server: Server, tmp_path: Path
) -> None:
    leave_part(tmp_path, b"of the older file", '"older"')
    assert fetch(server, tmp_path).read_bytes() == CONTENT


@pytest.mark.parametrize("etag", [None, 'W/"one"'])
def test_without_a_strong_etag_a_broken_download_starts_over(
    server: Server, tmp_path: Path, etag: str | None
) -> None:
    """Nothing would show that both parts are of the same file."""
    server.etag, server.breaks = etag, 1
    assert fetch(server, tmp_path).read_bytes() == CONTENT
    assert server.asked == [None, None]


def test_a_wrong_checksum_is_told_and_leaves_nothing(server: Server, tmp_path: Path) -> None:
    with pytest.raises(CatdogError, match=f"sha256 is {SHA256}, not {'0' * 64}; removed"):
        fetch(server, tmp_path, "0" * 64)
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_present_and_right_is_not_fetched(server: Server, tmp_path: Path) -> None:
    (tmp_path / "photos.zip").write_bytes(CONTENT)
    for sha256 in (SHA256, SHA256.upper()):
        assert fetch(server, tmp_path, sha256) == tmp_path / "photos.zip"
    assert server.asked == []


def test_a_file_that_is_present_and_wrong_is_fetched(server: Server, tmp_path: Path) -> None:
    (tmp_path / "photos.zip").write_bytes(b"something else")
    assert fetch(server, tmp_path).read_bytes() == CONTENT


def test_a_wrong_address_is_told_at_once(server: Server, tmp_path: Path) -> None:
    server.failures = [404, 404]
    with pytest.raises(CatdogError, match=r"photos\.zip\?key=1: the server answers 404 Not Found"):
        fetch(server, tmp_path)
    assert len(server.asked) == 1


def test_a_server_that_is_busy_is_asked_again(server: Server, tmp_path: Path) -> None:
    server.failures = [503, 500]
    assert fetch(server, tmp_path).read_bytes() == CONTENT
    assert len(server.asked) == 3


def test_a_refused_connection_is_told(server: Server, tmp_path: Path) -> None:
    url = server.url
    server.server_close()
    with pytest.raises(CatdogError, match=r"cannot be downloaded .*refused.*call it again"):
        download(url, tmp_path, SHA256, pause=0.01)


@pytest.mark.parametrize("url", ["ftp://host/photos.zip", "host/photos.zip", "http:///photos.zip"])
def test_what_is_no_web_address_is_told_without_retries(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses: list[float] = []
    monkeypatch.setattr("catdog.ingest.download.time.sleep", pauses.append)
    with pytest.raises(CatdogError, match="not an address that starts with https:// or http://"):
        download(url, tmp_path)
    assert pauses == []
