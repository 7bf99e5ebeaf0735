"""Data versions on a git server that cannot be reached."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from capnet.data.sources import dvc_versions
from capnet.data.sources.dvc_versions import DvcSource
from capnet.errors import DataError


@pytest.fixture
def dropping() -> Iterator[str]:
    """Address of a port whose packets get lost, as behind a network policy: nobody takes the connections that fill its
    queue, so that Linux drops all further ones.
    """
    with ExitStack() as stack:
        listening = stack.enter_context(socket.socket())
        listening.bind(("127.0.0.1", 0))
        listening.listen(0)
        address = f"127.0.0.1:{listening.getsockname()[1]}"
        for _ in range(4):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(listening.getsockname())
        yield address


@pytest.mark.slow
@pytest.mark.parametrize("through", ["directly", "proxy"])
def test_lost_packets_are_no_quarter_of_an_hour_of_silence(
    dropping: str, through: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a time-out of its own urllib3 waits until Linux gives up: 2 min 15 s, eight times."""
    monkeypatch.setattr(dvc_versions, "CONNECT", 0.2, raising=False)
    monkeypatch.setattr(dvc_versions, "pause", lambda failed: None)
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    host = dropping
    if through == "proxy":
        host = "git.example.org"
        monkeypatch.setenv("http_proxy", f"http://{dropping}")
    source = DvcSource(f"git+http://me:secret@{host}/team/pictures", "main")
    before = time.monotonic()
    with pytest.raises(DataError, match=r"no connection within 0\.2 seconds, 4 times") as raised:
        source.entries()
    assert time.monotonic() - before < 10
    assert "network policy" in str(raised.value)
    assert "secret" not in str(raised.value)


def test_a_server_that_answers_is_cloned_whatever_it_says() -> None:
    """A port that nobody listens on answers at once, and what DVC says of it stays."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        source = DvcSource(f"git+http://{address}/team/pictures", "main")
        with pytest.raises(DataError, match=r"DVC: .*refused"):
            source.entries()
