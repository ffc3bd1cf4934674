"""Download one large file: resumed after an interruption, verified by its checksum."""

import hashlib
import re
import time
from pathlib import Path

import requests
from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from catdog.errors import CatdogError, first_line

MICROSOFT_URL = (
    "https://download.microsoft.com/download/3/E/1/"
    "3E1C3F21-ECDB-4869-8368-6DEBA77B919F/kagglecatsanddogs_5340.zip"
)
MICROSOFT_SHA256 = "b7974bd00a84a99921f36ee4403f089853777b5ae8d151c76a86e64900334af9"
ATTEMPTS = 5
INVALID_URL_ERRORS = (
    requests.exceptions.InvalidSchema,
    requests.exceptions.InvalidURL,
    requests.exceptions.MissingSchema,
)
TIMEOUT = 30.0  # read timeout, in seconds
CHUNK_BYTES = 1 << 18
RANGE_NOT_SATISFIABLE = 416


def download(url: str, folder: Path, sha256: str | None = None, pause: float = 1.0) -> Path:
    """Download `url` into `folder` and return the file.

    A file that already exists with the right checksum is not downloaded again. An interrupted
    download is resumed, in this call or a later one, with up to five attempts and exponentially
    growing pauses (`pause` seconds at first). Raises CatdogError if the server or the network
    fails, or if the checksum is not `sha256`; the file is then removed.
    """
    target = folder / (url.rstrip("/").rsplit("/", 1)[-1].split("?")[0] or "download")
    sha256 = sha256 and sha256.lower()
    if target.is_file() and sha256 and _sha256(target) == sha256:
        return target
    folder.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f"{target.name}.part")
    _fetch(url, part, pause)
    found = _sha256(part)
    if sha256 and found != sha256:
        part.unlink()
        _etag_file(part).unlink(missing_ok=True)
        raise CatdogError(
            f"{url}: SHA-256 is {found}, expected {sha256}; the file was deleted: check the "
            "expected checksum, or download it again"
        )
    _etag_file(part).unlink(missing_ok=True)
    return part.replace(target)


def _fetch(url: str, part: Path, pause: float) -> None:
    for attempt in range(ATTEMPTS):
        try:
            return _fetch_rest(url, part)
        except requests.HTTPError as error:
            code = error.response.status_code
            if code < 500:
                raise CatdogError(
                    f"{url}: the server responded with {code} {error.response.reason}; check the "
                    "URL"
                ) from None
            problem: Exception = error
        except INVALID_URL_ERRORS:
            raise CatdogError(
                f"{url}: invalid URL; it must start with https:// or http://"
            ) from None
        except requests.exceptions.SSLError as error:
            raise CatdogError(
                f"{url}: the certificate of the server is not valid ({_reason(error)}); check the "
                "URL and the clock of this machine"
            ) from None
        except (requests.RequestException, OSError) as error:
            problem = error
        if attempt + 1 < ATTEMPTS:
            time.sleep(pause * 2**attempt)
    raise CatdogError(
        f"{url}: download failed ({_reason(problem)}); check the network connection, and run the "
        "command again to resume it"
    )


def _reason(error: Exception) -> str:
    """Return the cause of an error, without the names and numbers that urllib3 puts around it.

    The cause is the `reason` of urllib3's MaxRetryError, which is the argument of requests' error.
    """
    if isinstance(error, requests.Timeout):
        return f"no response for {TIMEOUT:.0f} seconds"
    cause = first_line(getattr(error.args[0], "reason", error) if error.args else error)
    return re.sub(r"\[Errno -?\d+\] | ?\(_ssl\.c:\d+\)", "", cause.rpartition(": ")[2])


def _fetch_rest(url: str, part: Path) -> None:
    """Append the missing bytes to `part`; start over if the file on the server has changed."""
    size = part.stat().st_size if part.is_file() else 0
    etag_file = _etag_file(part)
    headers = {"Accept-Encoding": "identity"}
    if size and etag_file.is_file():
        headers |= {"Range": f"bytes={size}-", "If-Range": etag_file.read_text(encoding="utf-8")}
    with requests.get(url, headers=headers, stream=True, timeout=TIMEOUT) as response:
        if response.status_code == RANGE_NOT_SATISFIABLE:
            return  # no bytes are missing; the caller verifies the checksum
        response.raise_for_status()
        if response.status_code != requests.codes.partial_content:
            size = 0
        # A weak ETag ("W/…") does not guarantee equal bytes, so such a download is not resumed.
        if (etag := response.headers.get("ETag", "")) and not etag.startswith("W/"):
            etag_file.write_text(etag, encoding="utf-8")
        length = response.headers.get("Content-Length")
        _save(response, part, size, size + int(length) if length else None)


def _save(response: requests.Response, part: Path, size: int, total: int | None) -> None:
    console = Console(stderr=True)
    columns = (BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    with (
        Progress(*columns, console=console, disable=not console.is_terminal) as bar,
        part.open("ab" if size else "wb") as stream,
    ):
        task = bar.add_task("download", total=total, completed=size)
        for chunk in response.iter_content(CHUNK_BYTES):
            stream.write(chunk)
            bar.update(task, advance=len(chunk))
        end = stream.tell()
    if total is not None and end < total:
        raise requests.ConnectionError(f"connection closed after {end:,} of {total:,} bytes")


def _etag_file(part: Path) -> Path:
    return part.with_name(f"{part.name}.etag")


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
