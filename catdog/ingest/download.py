"""Download one large file: resumed when it breaks off, counted only when its checksum is right."""

import hashlib
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

from catdog.errors import CatdogError

MICROSOFT_URL = (
    "https://download.microsoft.com/download/3/E/1/"
    "3E1C3F21-ECDB-4869-8368-6DEBA77B919F/kagglecatsanddogs_5340.zip"
)
MICROSOFT_SHA256 = "b7974bd00a84a99921f36ee4403f089853777b5ae8d151c76a86e64900334af9"
TRIES = 5
NO_ADDRESS = (
    requests.exceptions.InvalidSchema,
    requests.exceptions.InvalidURL,
    requests.exceptions.MissingSchema,
)
TIMEOUT = 30.0  # seconds without a byte
BLOCK = 1 << 18
OUT_OF_RANGE = 416


def download(url: str, folder: Path, sha256: str | None = None, pause: float = 1.0) -> Path:
    """Return the file that `url` names, in `folder`; one that is there and right is not fetched.

    A connection that breaks is taken up where it stopped, also by a later call, up to five times
    with growing pauses (`pause` seconds at first). Raises CatdogError if the server or the network
    fails, or if the file does not hash to `sha256` (it is then removed).
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
        _tag_file(part).unlink(missing_ok=True)
        raise CatdogError(f"{url}: sha256 is {found}, not {sha256}; removed what was downloaded")
    _tag_file(part).unlink(missing_ok=True)
    return part.replace(target)


def _fetch(url: str, part: Path, pause: float) -> None:
    for attempt in range(TRIES):
        try:
            return _fetch_rest(url, part)
        except requests.HTTPError as error:
            code = error.response.status_code
            if code < 500:
                raise CatdogError(
                    f"{url}: the server answers {code} {error.response.reason}"
                ) from None
            problem: Exception = error
        except NO_ADDRESS:
            raise CatdogError(
                f"{url}: not an address that starts with https:// or http://"
            ) from None
        except (requests.RequestException, OSError) as error:
            problem = error
        if attempt + 1 < TRIES:
            time.sleep(pause * 2**attempt)
    reason = str(problem).splitlines()[0]
    raise CatdogError(f"{url}: cannot be downloaded ({reason}); call it again to go on")


def _fetch_rest(url: str, part: Path) -> None:
    """Append to `part` what it lacks; start over if the server has another file by now."""
    have = part.stat().st_size if part.is_file() else 0
    tag = _tag_file(part)
    headers = {"Accept-Encoding": "identity"}
    if have and tag.is_file():
        headers |= {"Range": f"bytes={have}-", "If-Range": tag.read_text(encoding="utf-8")}
    with requests.get(url, headers=headers, stream=True, timeout=TIMEOUT) as response:
        if response.status_code == OUT_OF_RANGE:
            return  # nothing is lacking; the checksum will say whether it is right
        response.raise_for_status()
        if response.status_code != requests.codes.partial_content:
            have = 0
        # A weak ETag ("W/…") does not promise the same bytes, so such a file is not resumed.
        if (etag := response.headers.get("ETag", "")) and not etag.startswith("W/"):
            tag.write_text(etag, encoding="utf-8")
        length = response.headers.get("Content-Length")
        _save(response, part, have, have + int(length) if length else None)


def _save(response: requests.Response, part: Path, have: int, total: int | None) -> None:
    console = Console(stderr=True)
    columns = (BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    with (
        Progress(*columns, console=console, disable=not console.is_terminal) as bar,
        part.open("ab" if have else "wb") as stream,
    ):
        task = bar.add_task("download", total=total, completed=have)
        for block in response.iter_content(BLOCK):
            stream.write(block)
            bar.update(task, advance=len(block))
        end = stream.tell()
    if total is not None and end < total:
        raise requests.ConnectionError(f"broke off after {end:,} of {total:,} bytes")


def _tag_file(part: Path) -> Path:
    return part.with_name(f"{part.name}.etag")


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
