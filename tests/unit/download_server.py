"""A web server on this machine that holds one file and misbehaves in chosen ways."""

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Server:
    """What to send, and what has been asked for."""

    content: bytes
    etag: str = '"one"'
    ranges: bool = True
    """Whether `Range` is honoured."""
    shift: int = 0
    """Sent ranges start this many bytes too late."""
    cuts: list[int] = field(default_factory=list)
    """Bytes of body after which the connection is closed, one for each request; afterwards none is."""
    statuses: list[int] = field(default_factory=list)
    """Answers other than the file, one for each request."""
    location: str = ""
    """Where a status of 302 leads."""
    kind: str = "application/octet-stream"
    announced: str | None = None
    """Content-Length in place of the true one."""
    gate: threading.Event | None = None
    """Bodies wait for it."""
    asked: list[str] = field(default_factory=list)
    """The `Range` of each request for the file."""
    port: int = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/file"


@contextmanager
def serving(content: bytes) -> Iterator[Server]:
    """A running server."""
    server = Server(content)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if server.statuses:
                self.send_response(server.statuses.pop(0))
                self.send_header("Location", server.location)
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            asked = self.headers.get("Range", "")
            server.asked.append(asked)
            whole, total = server.content, len(server.content)
            found = re.fullmatch(r"bytes=(\d+)-", asked)
            first = int(found[1]) if found and server.ranges and self.headers.get("If-Range") == server.etag else 0
            if first >= total:
                self.send_error(416)
                return
            body = whole[first + server.shift if first else 0 :]
            self.send_response(206 if first else 200)
            if first:
                self.send_header("Content-Range", f"bytes {first + server.shift}-{total - 1}/{total}")
            if server.etag:
                self.send_header("ETag", server.etag)
            self.send_header("Content-Type", server.kind)
            self.send_header("Content-Length", server.announced or str(len(body)))
            self.end_headers()
            if server.gate:
                server.gate.wait(10)
            self.wfile.write(body[: server.cuts.pop(0)] if server.cuts else body)

        def log_message(self, format: str, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listener:
        server.port = listener.server_address[1]
        thread = threading.Thread(target=listener.serve_forever, args=(0.01,))
        thread.start()
        yield server
        listener.shutdown()
        thread.join()
