"""An HTTP server on loopback that behaves badly: it breaks off, ignores ranges, answers errors first, or serves other
bytes.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Manners:
    """How the server treats requests. ``cut``: bytes after which an answer breaks off, for the first ``cuts``
    answers.
    """

    files: dict[str, bytes]
    cut: int = 0
    cuts: int = 0
    ranges: bool = True
    errors: int = 0  # answers 503 at first
    requests: list[tuple[str, str]] = field(default_factory=list)  # path, Range
    sent: int = 0


@contextmanager
def serving(manners: Manners) -> Iterator[str]:
    """The server's address while it runs."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            byte_range = self.headers.get("Range", "")
            manners.requests.append((self.path, byte_range))
            body = manners.files.get(self.path)
            if manners.errors > 0:
                manners.errors -= 1
                self.answer(503, b"", {})
            elif body is None:
                self.answer(404, b"", {})
            elif manners.ranges and byte_range:
                first = int(byte_range.removeprefix("bytes=").rstrip("-"))
                if first >= len(body):
                    self.answer(416, b"", {"Content-Range": f"bytes */{len(body)}"})
                else:
                    self.answer(206, body[first:], {"Content-Range": f"bytes {first}-{len(body) - 1}/{len(body)}"})
            else:
                self.answer(200, body, {})

        def answer(self, status: int, body: bytes, headers: dict[str, str]) -> None:
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(body))}.items():
                self.send_header(name, value)
            self.end_headers()
            if manners.cuts > 0 and status in (200, 206) and len(body) > manners.cut:
                manners.cuts -= 1
                body = body[: manners.cut]
                self.close_connection = True
            manners.sent += len(body)
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """Requests are in ``manners``."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
