"""A served model under hostile and good requests at once: every good one is answered with the right scores, and memory
stays bounded.
"""

from __future__ import annotations

import http.client
import itertools
import json
import os
import random
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pytest
from e2e.model_server import serving, wait
from e2e.workspace import Workspace, draw
from faults.command import begin, end, output_of
from faults.hostile_requests import JSON, base64_of, bodies, records
from unit.conftest import _make as make_outputs

from capnet.serving.engine import Served, load_served

IS_LONG = os.environ.get("FAULTS") == "all"
GOOD, HOSTILE, STALLED = (2000, 200, 50) if IS_LONG else (200, 20, 5)
CLIENTS = 16  # that send good requests
MEGABYTES = 3000 if IS_LONG else 500  # what the server may take beyond what it had
# status 500 and nothing else; they do not reach the model
FAILED_BY_MLFLOW = {"no content type", "100,000 levels", "100,000 levels in an image", "a number of 5,000 digits"}
TRACED_BY_MLFLOW = {"an odd table", "an empty table", "no Parquet"}  # status 400

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """A small model, registered, with the first images of a user."""
    workspace = Workspace(tmp_path_factory.mktemp("served") / "workspace")
    workspace.root.mkdir()
    make_outputs(workspace.root / "outputs")
    for number in range(8):
        draw(workspace.root / f"data/{number}.jpg", ["lemon"], random.Random(number))
    workspace.settings({"register": {"pack_backbone": True}})  # no other process knows the small backbone
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        assert end(begin(workspace.root, "register")) == 0, output_of(workspace.root)
    return workspace


class Server:
    """A server's address and the memory of its processes."""

    def __init__(self, address: str, group: int) -> None:
        self.address, self.group = address, group

    def ask(self, body: bytes, kind: str | None = JSON) -> tuple[int, bytes]:
        """Status and body of the answer."""
        connection = http.client.HTTPConnection(urlsplit(self.address).netloc, timeout=120)
        try:
            connection.request("POST", "/invocations", body, {} if kind is None else {"Content-Type": kind})
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    def processes(self) -> list[Path]:
        folders = [path for path in Path("/proc").iterdir() if path.name.isdigit()]
        return [path for path in folders if os.getpgid(int(path.name)) == self.group]

    def megabytes(self, field: str) -> int:
        """VmRSS or VmHWM, of all its processes."""
        lines = itertools.chain.from_iterable((path / "status").read_text().splitlines() for path in self.processes())
        return sum(int(line.split()[1]) for line in lines if line.startswith(field)) // 1024

    def forget_peak(self) -> None:
        for path in self.processes():
            (path / "clear_refs").write_text("5")


@pytest.fixture(scope="module")
def server(workspace: Workspace) -> Iterator[Server]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with serving(workspace, port, "models:/capnet/1") as (process, address, log):
        wait(process, address, log)
        yield Server(address, process.pid)


@pytest.fixture(scope="module")
def expected(workspace: Workspace) -> list[tuple[bytes, np.ndarray]]:
    """Good requests, and the scores of the model itself."""
    served: Served = load_served(
        workspace.root / "outputs/model", workspace.root / "outputs/evaluation/thresholds.json"
    )
    paths = sorted((workspace.root / "data").iterdir())
    scores = served.scores(paths)
    return [(records({"image": base64_of(path.read_bytes())}), row) for path, row in zip(paths, scores, strict=True)]


def test_good_requests_among_hostile_ones(server: Server, expected: list[tuple[bytes, np.ndarray]]) -> None:
    wrong, statuses = [], {}

    def good(number: int) -> None:
        body, scores = expected[number % len(expected)]
        status, answer = server.ask(body)
        result = [row["score"] for row in json.loads(answer)["predictions"]] if status == 200 else []
        if status != 200 or not np.allclose(result, scores, atol=1e-5):
            wrong.append((number, status, answer[:300]))

    def hostile(case: tuple[str, str | None, bytes]) -> None:
        statuses[case[0]] = server.ask(case[2], case[1])

    for number in range(4):
        good(number)
    assert not wrong
    before = server.megabytes("VmRSS")
    server.forget_peak()
    head = b"POST /invocations HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 9999\r\n\r\n{"
    port = int(server.address.rpartition(":")[2])
    stalled = [socket.create_connection(("127.0.0.1", port)) for _ in range(STALLED)]
    for connection in stalled:
        connection.sendall(head)
    cases = list(bodies())
    step = 1 if IS_LONG else len(cases) // HOSTILE
    started = time.monotonic()
    with ThreadPoolExecutor(HOSTILE) as strangers, ThreadPoolExecutor(CLIENTS) as friends:
        sent = [strangers.submit(hostile, case) for case in itertools.islice(itertools.cycle(cases[::step]), HOSTILE)]
        asked = [friends.submit(good, number) for number in range(GOOD)]
        for item in (*asked, *sent):
            item.result()
    seconds = time.monotonic() - started
    peak, after = server.megabytes("VmHWM"), server.megabytes("VmRSS")
    for connection in stalled:
        connection.close()
    print(f"{GOOD} good, {HOSTILE} hostile, {STALLED} stalled: {seconds:.0f} s, {before} MB, {peak} MB, {after} MB")
    assert not wrong
    assert peak - before < MEGABYTES
    failed = {name for name, (status, answer) in statuses.items() if status not in (200, 400, 415, 503)}
    assert failed <= FAILED_BY_MLFLOW
    assert {name for name, (_, answer) in statuses.items() if b"Traceback" in answer} <= TRACED_BY_MLFLOW
