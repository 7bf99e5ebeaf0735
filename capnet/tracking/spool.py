"""What a stage has to tell the tracking server, on disk first: one folder a run, records in order, what was sent per
store.

Nothing here talks to a server, so that no server can delay or end a training run.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from capnet.contracts import write_json
from capnet.state import state_dir

RECORDS = "records.jsonl"


@dataclass(frozen=True)
class Spool:
    """Records of one run: {"kind": "metrics", "values", "step", "at"} and {"kind": "end", "status", "at"}; times in ms
    since 1970.
    """

    folder: Path

    @property
    def key(self) -> str:
        """Names the run before a server has: a tag of it, so that a repeated request makes no second run."""
        return self.folder.name.rpartition("-")[2]

    def about(self) -> dict[str, Any]:
        """experiment, run name and, where one was given from outside, run_id."""
        content: dict[str, Any] = json.loads((self.folder / "about.json").read_text())
        return content

    def add(self, record: Mapping[str, Any]) -> None:
        """Append one record, on a line of its own behind one that a killed writer left; where the disk is full, a line
        that was begun is taken back.
        """
        line = (json.dumps({**record, "at": int(time.time() * 1000)}) + "\n").encode()
        with open(self.folder / RECORDS, "a+b", buffering=0) as file:
            before = file.seek(0, os.SEEK_END)
            if before:
                file.seek(before - 1)
                line = line if file.read(1) == b"\n" else b"\n" + line
            try:
                whole = file.write(line) == len(line)
            except OSError:
                whole = False
            if not whole:
                file.truncate(before)
                raise OSError(f"no room for a record in {self.folder}")

    def records(self, start: int) -> list[dict[str, Any]]:
        """Records from number ``start`` on; a last line without an end (a full disk, a killed writer) is left out."""
        try:
            lines = (self.folder / RECORDS).read_bytes().split(b"\n")[:-1]
        except FileNotFoundError:
            return []
        return [_record(line) for line in lines[start:]]

    def sent(self, uri: str) -> dict[str, Any]:
        """``run_id`` and number of records ``sent`` to this store."""
        try:
            content: dict[str, Any] = json.loads(self._note(uri).read_text())
            return content
        except (FileNotFoundError, ValueError):
            return {"run_id": "", "sent": 0}

    def mark(self, uri: str, run_id: str, sent: int) -> None:
        write_json(self._note(uri), {"run_id": run_id, "sent": sent})

    def _note(self, uri: str) -> Path:
        return self.folder / f"sent-{hashlib.sha256(uri.encode()).hexdigest()[:12]}.json"

    @contextmanager
    def lock(self, patience: float) -> Iterator[bool]:
        """True for the only sender; False where another one kept the lock for ``patience`` seconds."""
        with open(self.folder / "lock", "a") as file:
            end = time.monotonic() + patience
            while True:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if time.monotonic() > end:
                        yield False
                        return
                    time.sleep(0.1)
            yield True


def _record(line: bytes) -> dict[str, Any]:
    """A line that a failing disk has damaged counts, so that numbers stay, and says nothing."""
    try:
        record: dict[str, Any] = json.loads(line)
        return {"kind": record["kind"], "at": record["at"], **record}
    except (ValueError, KeyError, TypeError):
        return {"kind": "metrics", "values": {}, "step": 0, "at": 1}


def open_spool(experiment: str, name: str, run_id: str) -> Spool:
    """A new, empty spool; ``run_id`` is "" where the store is to make a run."""
    stamp = time.strftime("%Y%m%dT%H%M%S", time.gmtime())
    folder = state_dir("tracking") / f"{stamp}-{time.monotonic_ns():020d}-{uuid.uuid4().hex}"
    folder.mkdir()
    write_json(folder / "about.json", {"experiment": experiment, "name": name, "run_id": run_id})
    return Spool(folder)


def spools() -> list[Spool]:
    """All of the state folder, oldest first."""
    return [Spool(path.parent) for path in sorted(state_dir("tracking").glob("*/about.json"))]


def remember(model_hash: str, spool: Spool) -> None:
    """Which run a model file came from: evaluation and registration go on in that run."""
    write_json(state_dir("tracking") / f"model-{model_hash}.json", spool.folder.name)


def spool_of(model_hash: str) -> Spool | None:
    """The run that made this model file, where this state folder has seen it."""
    try:
        name = json.loads((state_dir("tracking") / f"model-{model_hash}.json").read_text())
    except (FileNotFoundError, ValueError):
        return None
    spool = Spool(state_dir("tracking") / str(name))
    return spool if (spool.folder / "about.json").is_file() else None
