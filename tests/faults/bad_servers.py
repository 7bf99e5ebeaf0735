"""Servers on loopback that fail as servers fail: in front of S3 objects that are here, or of a real MLflow server."""

from __future__ import annotations

import hashlib
import http.client
import re
import socket
import struct
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, quote, unquote, urlsplit

RST = struct.pack("ii", 1, 0)  # SO_LINGER: closing tears the connection down
PAGE = b"<!DOCTYPE html><html><body>Please log in to the guests' network</body></html>"


@dataclass
class Answer:
    """Status, body and headers."""

    status: int
    body: bytes = b""
    kind: str = "application/json"
    headers: Mapping[str, str] | None = None


Origin = Callable[[str, str, Mapping[str, str], bytes], Answer]


@dataclass
class Fault:
    """What happens to the first ``times`` requests whose method and path match ``on``.

    ``how``: a status, with an S3 ``code`` and what the client sent as credentials in its body; or one of reset, stall
    and short (before the answer, or ``inside`` it), noise (no HTTP), page (of a login, status 200), other (bytes
    changed), drop (what the pattern ``code`` matches is left out).
    """

    how: int | str = 200
    code: str = ""
    on: str = ""
    inside: bool = False
    times: int = 10**6

    def strikes(self, request: str) -> bool:
        if self.how == 200 or self.times < 1 or not re.search(self.on, request):
            return False
        self.times -= 1
        return True


class _Handler(BaseHTTPRequestHandler):
    server: BadServer
    protocol_version = "HTTP/1.1"
    wbufsize = 1 << 16

    def _do(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        headers = dict(self.headers.items())
        fault = self.server.fault
        with self.server.lock:
            strikes = fault.strikes(f"{self.command} {self.path}")
        if not strikes:
            self._write(self.server.origin(self.command, self.path, headers, body))
        elif isinstance(fault.how, int):
            output, kind = f"you sent {self.headers.get('Authorization', '')}", "text/plain"
            if fault.code:
                output, kind = f"<Error><Code>{fault.code}</Code><Message>{output}</Message></Error>", "application/xml"
            elif fault.how == 500:  # as MLflow does; 401 and 503 come from what is in front of it
                output, kind = f'{{"error_code": "INTERNAL_ERROR", "message": "{output}"}}', "application/json"
            self._write(Answer(fault.how, output.encode(), kind))
        elif fault.how == "page":
            self._write(Answer(200, PAGE, "text/html"))
        elif fault.how == "noise":
            self.wfile.write(b"\x16\x03\x01\x02\x00SSH-2.0-nobody\r\n\r\n")
            self.close_connection = True
        else:
            answer = self.server.origin(self.command, self.path, headers, body) if fault.inside else Answer(0)
            if fault.how == "other":
                answer.body = answer.body[:-9] + bytes(255 - byte for byte in answer.body[-9:])
                self._write(answer)
                return
            if fault.how == "drop":
                answer.body = re.sub(fault.code.encode(), b"", answer.body)
                self._write(answer)
                return
            if fault.inside:
                self._write(answer, half=True)
            if fault.how == "stall":
                self.server.over.wait(60)
            elif fault.how == "reset":
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RST)
                self.connection.close()
            self.close_connection = True

    def _write(self, answer: Answer, half: bool = False) -> None:
        self.send_response(answer.status)
        self.send_header("Content-Type", answer.kind)
        self.send_header("Content-Length", str(len(answer.body)))
        for name, value in (answer.headers or {}).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(answer.body[: len(answer.body) // 2] if half else answer.body)
        self.wfile.flush()

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = do_HEAD = _do

    def log_message(self, format: str, *args: object) -> None:
        """Nothing is shown."""


class BadServer(ThreadingHTTPServer):
    """Answers as ``origin`` does, but for its ``fault``."""

    daemon_threads = True

    def __init__(self, origin: Origin) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.origin, self.fault = origin, Fault()
        self.over, self.lock = threading.Event(), threading.Lock()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Connections that broke are what this is for."""

    @property
    def port(self) -> int:
        return self.server_port


@contextmanager
def serving(origin: Origin) -> Iterator[BadServer]:
    """The server while it runs."""
    server = BadServer(origin)
    thread = threading.Thread(target=server.serve_forever, daemon=True, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield server
    finally:
        server.over.set()
        server.shutdown()
        server.server_close()
        thread.join()


def forwarded(target: str) -> Origin:
    """What a real server answers."""

    def ask(method: str, path: str, headers: Mapping[str, str], body: bytes) -> Answer:
        connection = http.client.HTTPConnection(urlsplit(target).netloc, timeout=60)
        own = ("host", "connection", "accept-encoding", "authorization")
        kept = {name: value for name, value in headers.items() if name.lower() not in own}
        connection.request(method, path, body, kept)
        answer = connection.getresponse()
        content = answer.read()
        connection.close()
        more = {"Content-Disposition": result} if (result := answer.getheader("Content-Disposition")) else {}
        return Answer(answer.status, content, answer.getheader("Content-Type") or "application/json", more)

    return ask


def objects(bucket: str, files: Mapping[str, bytes]) -> Origin:
    """What S3 answers to a list and to a GET, with ranges, of the objects of one bucket."""

    def ask(method: str, path: str, headers: Mapping[str, str], body: bytes) -> Answer:
        parts = urlsplit(path)
        key = unquote(parts.path).removeprefix(f"/{bucket}").removeprefix("/")
        if not key:
            query = parse_qs(parts.query)
            prefix = query.get("prefix", [""])[0]
            rows = "".join(
                f"<Contents><Key>{quote(name)}</Key><LastModified>2026-01-01T00:00:00.000Z</LastModified>"
                f"<ETag>&quot;{md5(data)}&quot;</ETag><Size>{len(data)}</Size></Contents>"
                for name, data in sorted(files.items())
                if name.startswith(prefix)
            )
            head = f"<Name>{bucket}</Name><IsTruncated>false</IsTruncated><EncodingType>url</EncodingType>"
            listing = f"<ListBucketResult>{head}<KeyCount>{len(files)}</KeyCount>{rows}</ListBucketResult>"
            return Answer(200, listing.encode(), "application/xml")
        if key not in files:
            return Answer(404, b"<Error><Code>NoSuchKey</Code><Message>none</Message></Error>", "application/xml")
        data, more = files[key], {"ETag": f'"{md5(files[key])}"', "Accept-Ranges": "bytes"}
        if (wish := headers.get("Range", "")) and method == "GET":
            first, _, last = wish.removeprefix("bytes=").partition("-")
            end = min(int(last) if last else len(data) - 1, len(data) - 1)
            more["Content-Range"] = f"bytes {first}-{end}/{len(data)}"
            return Answer(206, data[int(first) : end + 1], "binary/octet-stream", more)
        return Answer(200, data, "binary/octet-stream", more)

    return ask


def md5(data: bytes) -> str:
    return hashlib.md5(data, usedforsecurity=False).hexdigest()


def no_names() -> None:
    """From now on no name of a machine can be resolved in this process; addresses can."""
    usual = socket.getaddrinfo

    def resolve(host: Any, *arguments: Any, **more: Any) -> Any:
        with suppress(OSError):
            socket.inet_aton(host)
            return usual(host, *arguments, **more)
        raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")

    socket.getaddrinfo = resolve
