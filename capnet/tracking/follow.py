"""The process that sends while a stage works: `python -m capnet.tracking.follow SPOOL WRITER`. It must start cheaply;
see rest_store.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from capnet.errors import CapnetError
from capnet.tracking.rest_store import RestStore, serves
from capnet.tracking.sender import Store, send
from capnet.tracking.spool import Spool

LOOK = 0.5  # seconds between two looks at a spool that is written
PAUSE = 5.0  # seconds after a failure


@contextmanager
def _opened(address: str) -> Iterator[Store]:
    if serves(address):
        yield RestStore(address)
        return
    from capnet.config import Register
    from capnet.tracking.client_store import ClientStore
    from capnet.tracking.store import store

    settings = Register(tracking_uri=address)
    with store(settings, "send") as client:
        yield ClientStore(client, settings)


def follow(folder: Path, writer: int, address: str) -> None:
    """Send while the process ``writer`` writes; after its end record try once more and leave the rest to `capnet
    sync`.
    """
    spool = Spool(folder)
    while True:
        ended = _over(spool, writer)
        try:
            with _opened(address) as store:
                while True:
                    ended = ended or _over(spool, writer)
                    send(store, spool)
                    if ended:
                        return
                    time.sleep(LOOK)
        except (CapnetError, OSError):
            if ended:
                return
            time.sleep(PAUSE)


def _over(spool: Spool, writer: int) -> bool:
    """True where nothing more will be written; a writer that died without a word gets its end written here."""
    records = spool.records(0)
    if records and records[-1]["kind"] == "end":
        return True
    try:
        os.kill(writer, 0)
    except ProcessLookupError:
        spool.add({"kind": "end", "status": "KILLED"})
        return True
    return False


if __name__ == "__main__":
    follow(Path(sys.argv[1]), int(sys.argv[2]), os.environ["MLFLOW_TRACKING_URI"])
