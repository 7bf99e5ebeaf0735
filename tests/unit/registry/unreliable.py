"""A proxy in front of a real server that can be told to fail in the ways in which servers fail."""

from __future__ import annotations

import http.client
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit


class Unreliable(ThreadingHTTPServer):
    """``mode``: ok, error (500), stall (no answer for ``stall`` seconds), lost (done, but the answer gets lost) or gone
    (hangs up).
    """

    daemon_threads = True

    def __init__(self, target: str) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.target = urlsplit(target).netloc
        self.mode, self.stall, self.requests = "ok", 30.0, 0
        self.lost_path = ""  # answers to this path get lost, whatever the mode
        self.seen: list[tuple[str, bytes]] = []  # path and body of every request

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    server: Unreliable
    protocol_version = "HTTP/1.1"
    wbufsize = 1 << 16  # header and body in one packet: two wait for each other

    def _answer(self) -> None:
        self.server.requests += 1
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.server.seen.append((self.path, body))
        mode = self.server.mode
        if mode == "stall":
            time.sleep(self.server.stall)
        if mode in ("gone", "stall"):
            self.close_connection = True
            return
        if mode == "error":
            self._write(
                500, b'{"error_code": "INTERNAL_ERROR", "message": "no space left on device"}', "application/json"
            )
            return
        connection = http.client.HTTPConnection(self.server.target, timeout=60)
        headers = {name: value for name, value in self.headers.items() if name.lower() not in ("host", "connection")}
        connection.request(self.command, self.path, body, headers)
        answer = connection.getresponse()
        content = answer.read()
        connection.close()
        lost = self.server.lost_path
        if (mode == "lost" and self.command == "POST") or (lost and self.path.endswith(lost)):
            self.close_connection = True
            return
        self._write(answer.status, content, answer.getheader("Content-Type") or "application/json")

    def _write(self, status: int, content: bytes, kind: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = _answer

    def log_message(self, format: str, *args: object) -> None:
        pass


@contextmanager
def unreliable(target: str) -> Iterator[Unreliable]:
    with Unreliable(target) as proxy:
        thread = threading.Thread(target=proxy.serve_forever, daemon=True)
        thread.start()
        yield proxy
        proxy.shutdown()
        thread.join()
