"""One file from the network: resumed where it was cut off, checked before it gets its name, never taken half.

The bytes go to `NAME.part`, and `NAME.part.json` says which version of which file they are of: only the same version is
continued. A lock keeps two processes from one part file; the second waits, then finds the file there.
"""

import fcntl
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from email.message import Message
from http.client import HTTPException, HTTPResponse
from ipaddress import ip_address
from pathlib import Path
from typing import IO, Any
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import HTTPRedirectHandler, Request, build_opener

from magbench import __version__
from magbench.errors import DownloadError, MagbenchError

ATTEMPTS = 5
"""Tries in a row that bring no new byte before giving up."""
PAUSE = 1.0
"""Seconds before the second try; doubled for each further one."""
TIMEOUT = 30.0
"""Seconds without a byte after which a connection counts as broken."""
REDIRECTS = 5
BLOCK = 2**20
_PASSING = frozenset({408, 425, 429, 500, 502, 503, 504})
"""Answers that another try may change."""

Progress = Callable[[int, int], None]
"""Gets bytes here and bytes in all."""


def download(
    url: str,
    target: Path,
    check: Callable[[int], None],
    accept: Callable[[Path], None],
    progress: Progress,
    waiting: Callable[[], None],
) -> None:
    """Fetch a file, or leave it alone where it is there already.

    Args:
        url: https; http only on this machine itself.
        target: Where the file goes; its folder is made.
        check: Gets the announced size in bytes before the first byte is fetched; raises what speaks against it.
        accept: Gets the complete file under its temporary name; raises what speaks against it, and the file is deleted.
        progress: Called now and then.
        waiting: Called when another process is at this file, before waiting for it.

    Raises:
        DownloadError: the address isn't allowed, the server refuses or can't be reached, the disk is full or can't be
            written to. What has been fetched stays and is continued next time.
    """
    _refuse_insecure(url, url)
    with _telling(target), _lock(target, waiting):
        if target.exists():
            return
        part = _Part(target, url)
        idle, furthest = 0, part.size
        while True:
            try:
                _fetch(url, part, check, progress)
                break
            except _Interrupted as error:
                idle = 0 if part.size > furthest else idle + 1
                furthest = max(furthest, part.size)
                if idle >= ATTEMPTS:
                    raise DownloadError(
                        f"{url}: {error}, {ATTEMPTS} times in a row",
                        "check the network, then repeat the command: it goes on where it stopped",
                    ) from error
                time.sleep(PAUSE * 2**idle)
        try:
            accept(part.path)
        except MagbenchError:
            part.discard()
            raise
        part.path.replace(target)
        part.discard()


class _Interrupted(Exception):
    """The connection broke, or the server is busy: worth another try."""


class _Part:
    """What has been fetched so far, and of which version of the file."""

    def __init__(self, target: Path, url: str) -> None:
        self.path = target.with_name(target.name + ".part")
        self._note = target.with_name(target.name + ".part.json")
        self._url = url
        self.validator, self.total = self._read()
        if not self.validator:
            self.restart("", 0)

    def _read(self) -> tuple[str, int]:
        try:
            note = json.loads(self._note.read_bytes())
            if note["url"] == self._url and self.path.is_file():
                return str(note["validator"]), int(note["total"])
        except (OSError, ValueError, KeyError, TypeError):
            pass
        return "", 0

    @property
    def size(self) -> int:
        return self.path.stat().st_size if self.path.is_file() else 0

    def restart(self, validator: str, total: int) -> None:
        """Begin anew; without a validator the bytes can't be continued later, for nobody knows of what they are."""
        self.discard()
        self.validator, self.total = validator, total
        if validator:
            self._note.write_text(json.dumps({"url": self._url, "validator": validator, "total": total}))

    def discard(self) -> None:
        self.path.unlink(missing_ok=True)
        self._note.unlink(missing_ok=True)


def _fetch(url: str, part: _Part, check: Callable[[int], None], progress: Progress) -> None:
    """Bring the part file one connection further.

    Raises:
        _Interrupted: it isn't complete yet.
    """
    offset = part.size if part.validator else 0
    if part.total and offset == part.total:
        return
    with _open(url, part, offset) as response:
        if response.status != 206:  # the file from its start: nothing was here, it has changed, or ranges are ignored
            total = _length(url, response)
            check(total)
            part.restart(_validator(response.headers), total)
        elif (*_continued(response.headers), _validator(response.headers)) != (offset, part.total, part.validator):
            part.restart("", 0)
            raise _Interrupted("the server sends another part than asked for")
        _room(part)
        _copy(response, part, progress)


def _open(url: str, part: _Part, offset: int) -> HTTPResponse:
    headers = {"User-Agent": f"magbench/{__version__}", "Accept-Encoding": "identity"}
    if offset:
        headers |= {"Range": f"bytes={offset}-", "If-Range": part.validator}
    try:
        response: HTTPResponse = _opener.open(Request(url, headers=headers), timeout=TIMEOUT)
    except HTTPError as error:
        error.close()
        if error.code == 416:
            part.restart("", 0)
        elif error.code not in _PASSING:
            raise DownloadError(f"{url}: the server says {error.code} {error.reason}", _meaning(error.code)) from error
        raise _Interrupted(f"the server says {error.code} {error.reason}") from error
    except URLError as error:
        raise _Interrupted(f"no connection ({error.reason})") from error
    except (HTTPException, OSError) as error:
        raise _Interrupted(f"no answer ({str(error) or type(error).__name__})") from error
    return response


def _copy(response: HTTPResponse, part: _Part, progress: Progress) -> None:
    done = part.size
    with part.path.open("ab") as file:
        while done < part.total:
            try:
                block = response.read(min(BLOCK, part.total - done))
            except (HTTPException, OSError):
                block = b""
            if not block:
                raise _Interrupted(f"the connection broke after {done} of {part.total} bytes")
            file.write(block)
            done += len(block)
            progress(done, part.total)
        file.flush()
        os.fsync(file.fileno())


def _length(url: str, response: HTTPResponse) -> int:
    length = response.headers.get("Content-Length", "")
    if not length.isdecimal() or not int(length):
        raise DownloadError(f"{url}: the server doesn't say how large the file is", "get it by hand")
    if response.headers.get_content_type() == "text/html":
        raise DownloadError(f"{url}: the server sends a web page instead of the file", "look at it in a browser")
    return int(length)


def _validator(headers: Message) -> str:
    """What names this version of the file: a strong ETag, else its date."""
    etag = headers.get("ETag", "")
    return etag if etag and not etag.startswith("W/") else headers.get("Last-Modified", "")


def _continued(headers: Message) -> tuple[int, int]:
    """First byte and size in all, from `Content-Range: bytes 100-299/300`."""
    span, _, total = headers.get("Content-Range", "").removeprefix("bytes ").partition("/")
    first = span.partition("-")[0]
    return (int(first), int(total)) if first.isdecimal() and total.isdecimal() else (0, 0)


def _room(part: _Part) -> None:
    free, needed = shutil.disk_usage(part.path.parent).free, part.total - part.size
    if needed > free:
        raise DownloadError(
            f"{part.path.parent}: {needed / 1e6:.0f} MB are needed and {free / 1e6:.0f} MB are free",
            "free some space, or choose another folder with MAGBENCH_CACHE",
        )


def _meaning(code: int) -> str:
    if code in (401, 403):
        return "the file may need an account, or this network may block its host: get it by hand"
    return "the file has moved: look for a newer magbench, or get it by hand"


class _Redirects(HTTPRedirectHandler):
    """Follows a few redirects, none of them to a less safe place."""

    max_redirections = REDIRECTS

    def redirect_request(
        self, req: Request, fp: IO[bytes], code: int, msg: str, headers: Any, newurl: str
    ) -> Request | None:
        _refuse_insecure(newurl, req.full_url)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


_opener = build_opener(_Redirects)


def _refuse_insecure(url: str, origin: str) -> None:
    """Refuse what isn't https, but for a server on this machine that was asked for by name."""
    parts = urlsplit(url)
    if parts.scheme == "https" or (parts.scheme == "http" and _is_here(url) and _is_here(origin)):
        return
    raise DownloadError(f"{url}: only https is allowed", "get the file by hand")


def _is_here(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


@contextmanager
def _lock(target: Path, waiting: Callable[[], None]) -> Iterator[None]:
    """Hold `NAME.lock`; the system lets go of it when the process ends, however it ends."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with target.with_name(target.name + ".lock").open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            waiting()
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextmanager
def _telling(target: Path) -> Iterator[None]:
    """Turn a folder that can't be written to into one clear sentence."""
    try:
        yield
    except OSError as error:
        raise DownloadError(
            f"cannot write to {target.parent}: {os.strerror(error.errno or 0)}",
            "make room or rights there, or choose another folder with MAGBENCH_CACHE",
        ) from error
