"""How the server reads HTTP: by llhttp, whose time for a body in chunks of one byte does not stop other requests."""

from __future__ import annotations

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

LONGEST_HEADERS = 65_536  # bytes, as uvicorn's other parser has them


class BoundedHeaders(HttpToolsProtocol):
    """Ends a connection whose headers, or extensions of a chunk, do not end: httptools keeps them all."""

    _unread = 0  # bytes since the last ones of a body, or the end of a request

    def data_received(self, data: bytes) -> None:
        """Parse what a client sent."""
        self._unread += len(data)
        super().data_received(data)
        if self._unread > LONGEST_HEADERS and not self.transport.is_closing():
            self.send_400_response(f"Headers of more than {LONGEST_HEADERS} bytes.")

    def on_body(self, body: bytes) -> None:
        """Some bytes of a body are there."""
        self._unread = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        """A request is there in full."""
        self._unread = 0
        super().on_message_complete()
