"""A TCP relay on loopback that breaks connections off: what a bad network does to a server that is well."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass


@dataclass
class Weather:
    """``cuts`` answers break off after ``cut`` bytes; all others pass."""

    cut: int
    cuts: int
    passed: int = 0  # bytes of answers


@contextmanager
def relaying(port: int, weather: Weather) -> Iterator[str]:
    """The address of a relay to 127.0.0.1:``port`` while it runs."""
    lock = threading.Lock()
    listener = socket.create_server(("127.0.0.1", 0))

    def copy(source: socket.socket, target: socket.socket, answer: bool) -> None:
        sent = 0
        with suppress(OSError):
            while data := source.recv(1 << 14):
                with lock:
                    broken = answer and weather.cuts > 0 and sent + len(data) > weather.cut
                    if broken:
                        weather.cuts -= 1
                        data = data[: weather.cut - sent]
                    weather.passed += len(data) if answer else 0
                target.sendall(data)
                sent += len(data)
                if broken:
                    break
        for end in (source, target):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def serve(client: socket.socket) -> None:
        with client, suppress(OSError), socket.create_connection(("127.0.0.1", port)) as server:
            back = threading.Thread(target=copy, args=(server, client, True), daemon=True)
            back.start()
            copy(client, server, False)
            back.join()

    def accept() -> None:
        with suppress(OSError):
            while True:
                client, _ = listener.accept()
                threading.Thread(target=serve, args=(client,), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        listener.close()
