"""What a container of `serve` runs, as process 1 of its own: SIGTERM ends it, and answers come before the end."""

from __future__ import annotations

import base64
import io
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

import numpy as np
import pandas as pd
import pytest
from mlflow.tracking import MlflowClient
from PIL import Image

from capnet.config import Register
from capnet.registry.candidate import read_candidate
from capnet.registry.register import register_version
from capnet.serving.kserve import Deployment, manifest

pytestmark = pytest.mark.slow

APART = ["unshare", "--fork", "--pid", "--mount-proc", "--kill-child"]
APART += [] if os.getuid() == 0 else ["--user", "--map-root-user"]


@pytest.fixture
def model(database: Path, make_outputs: Callable[..., dict[str, Path]]) -> str:
    paths = make_outputs()
    settings = Register(pack_backbone=True)  # no other process knows the small backbone
    register_version(settings, read_candidate(**paths), paths["evaluation"] / "report.html")
    return "models:/capnet/1"


@pytest.fixture
def port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@contextmanager
def process_one(command: list[str], folder: Path, port: int) -> Iterator[int]:
    """The number, as this test sees it, of a server that is process 1 where it runs, once it answers."""
    if subprocess.run([*APART, "true"], check=False, capture_output=True).returncode:
        pytest.skip("unshare may not make a process number 1 here: run as root")
    log = folder / "serve.log"
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    with open(log, "wb") as file:
        outer = subprocess.Popen([*APART, *command], cwd=folder, env=environment, stdout=file, stderr=file)
    try:
        end = time.monotonic() + 120
        while True:
            with suppress(URLError, OSError), urlopen(f"http://127.0.0.1:{port}/ping", timeout=2):
                break
            assert outer.poll() is None, log.read_text()[-3000:]
            assert time.monotonic() < end, log.read_text()[-3000:]
            time.sleep(0.2)
        yield int(Path(f"/proc/{outer.pid}/task/{outer.pid}/children").read_text())
        outer.wait(timeout=20)
        assert outer.returncode == 0, log.read_text()[-3000:]
    finally:
        outer.kill()
        outer.wait()


def ask(port: int, images: int) -> int:
    """How many rows come back for images that take some time."""
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (1500, 1500, 3), dtype=np.uint8)).save(buffer, "JPEG")
    record = {"image": base64.b64encode(buffer.getvalue()).decode()}
    body = json.dumps({"dataframe_records": [record] * images}).encode()
    request = Request(f"http://127.0.0.1:{port}/invocations", body, {"Content-Type": "application/json"})
    with urlopen(request, timeout=60) as answer:
        return len({row["picture"] for row in json.load(answer)["predictions"]})


def test_sigterm_ends_the_container_of_the_manifest_after_its_answers(model: str, port: int, tmp_path: Path) -> None:
    version: Any = SimpleNamespace(name="capnet", version="1", tags={})
    (container,) = manifest(version, "s3://m/1", Deployment("capnet", "image"))["spec"]["predictor"]["containers"]
    words = [*container["command"], *container["args"]]
    for old, new in {"/mnt/models": model, "8080": str(port), "0.0.0.0": "127.0.0.1"}.items():
        words = [word.replace(old, new) for word in words]
    with process_one(words, tmp_path, port) as number, ThreadPoolExecutor(1) as pool:
        answer = pool.submit(ask, port, 32)
        time.sleep(1)
        assert not answer.done(), "send more images"
        os.kill(number, signal.SIGTERM)
        time.sleep(2)
        assert ask(port, 1) == 1, "a router sends some more, until it hears that the pod is gone"
        assert answer.result() == 32


def test_sigterm_ends_the_container_of_the_image(
    model: str, port: int, tmp_path: Path, repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (line,) = [row for row in (repository / "components/Dockerfile").read_text().split("\n") if row.startswith("CMD")]
    MlflowClient().set_registered_model_alias("capnet", "candidate", "1")
    monkeypatch.setenv("CAPNET_MODEL", "models:/capnet@candidate")
    monkeypatch.setenv("CAPNET_PORT", str(port))
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setenv("TMPDIR", str(temporary))
    with process_one(json.loads(line.removeprefix("CMD ")), tmp_path, port) as number:
        idle = socket.create_connection(("127.0.0.1", port))
        idle.sendall(b"GET /ping HTTP/1.1\r\nHost: x\r\n\r\n")
        answer = idle.recv(1000)
        assert answer.startswith(b"HTTP/1.1 200")  # one that the server has, not one that it may yet accept
        assert b"\r\ncapnet-model: models:/capnet/1\r\n" in answer  # the alias may name another version by now
        (own,) = temporary.iterdir()  # a copy of each model that was served stayed for ever
        assert own.name.startswith("capnet-process.")  # of which the next command removes what nobody locks
        idle.sendall(b"POST /invocations HTTP/1.1\r\n")
        os.kill(number, signal.SIGTERM)
    idle.close()
    assert (
        "serves models:/capnet/1 until it ends, started as models:/capnet@candidate"
        in (tmp_path / "serve.log").read_text()
    )


def refused(port: int, kind: str, body: bytes) -> int:
    request = Request(f"http://127.0.0.1:{port}/invocations", body, {"Content-Type": kind})
    with pytest.raises(HTTPError) as caught:
        urlopen(request, timeout=60)
    return caught.value.code


def leave_half_way(port: int, megabytes: int) -> None:
    head = (
        b"POST /invocations HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 99000000\r\n\r\n"
    )
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.sendall(head + b"x" * megabytes * 10**6)


def test_no_body_takes_the_memory(model: str, port: int, tmp_path: Path) -> None:
    """Unchecked, these took up to 6.8 GB, 51 s of a processor, and 22 MB for each client that left."""
    table = io.BytesIO()
    pd.DataFrame({"image": [""] * 10**7}).to_parquet(table)
    assert len(table.getvalue()) < 10**6
    words = [sys.executable, "-m", "capnet.serving.server", "--model", model, "--port", str(port)]
    with process_one(words, tmp_path, port) as number:
        assert ask(port, 1) == 1
        Path(f"/proc/{number}/clear_refs").write_text("5")  # forget the peak
        before = megabytes(number, "VmRSS")
        assert refused(port, "application/vnd.apache.parquet", table.getvalue()) == 415
        assert refused(port, "application/json", b'{"instances": [' + b"[]," * 10**7 + b"[]]}") == 413
        square = json.dumps({"dataframe_records": [{f"{row:x}": 1} for row in range(10_000)]})
        assert refused(port, "application/json", square.encode()) == 400
        wide = json.dumps({"instances": [{"image": "A" * 2_000_000}] + [{"image": "A"}] * 100})
        assert refused(port, "application/json", wide.encode()) == 413
        for _ in range(40):
            leave_half_way(port, 20)
        assert ask(port, 1) == 1
        assert megabytes(number, "VmHWM") - before < 300
        os.kill(number, signal.SIGTERM)


def megabytes(number: int, field: str) -> int:
    lines = Path(f"/proc/{number}/status").read_text().splitlines()
    (line,) = [line for line in lines if line.startswith(field)]
    return int(line.split()[1]) // 1024


def test_what_is_scored_for_nobody_does_not_delay_the_end(model: str, port: int, tmp_path: Path) -> None:
    settings = "import capnet.serving.server as s; s.STILL_ACCEPTS = 0; s.LAST_ANSWERS = 1"
    code = f"{settings}; s.main(['--model', {model!r}, '--port', '{port}'])"
    with process_one([sys.executable, "-c", code], tmp_path, port) as number, ThreadPoolExecutor(6) as pool:
        answers = [pool.submit(ask, port, 60) for _ in range(6)]
        time.sleep(1)
        os.kill(number, signal.SIGTERM)
        started = time.monotonic()
        with suppress(FileNotFoundError):
            while Path(f"/proc/{number}/exe").exists():
                assert time.monotonic() - started < 6
                time.sleep(0.1)
        assert all(isinstance(answer.exception(), OSError) for answer in answers)


def test_ctrl_c_after_sigterm_waits_for_nobody(port: int) -> None:
    app = "async def app(scope, receive, send): raise NotImplementedError"
    code = f"{app}\nimport capnet.serving.server as s; s.STILL_ACCEPTS = 60; s._run(app, '127.0.0.1', {port})"
    with subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE, text=True) as server:
        assert server.stderr is not None
        while "Uvicorn running" not in server.stderr.readline():
            assert server.poll() is None
        server.send_signal(signal.SIGTERM)
        time.sleep(1)
        assert server.poll() is None
        server.send_signal(signal.SIGINT)
        try:
            server.wait(10)
        finally:
            server.kill()


def failure(model: str, status: int = 1, port: int = 0, host: str = "127.0.0.1", **variables: str) -> str:
    command = [sys.executable, "-m", "capnet.serving.server", "--model", model, "--host", host, "--port", str(port)]
    environment = os.environ | variables
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == status
    assert "Traceback" not in done.stderr
    return done.stderr


def test_a_model_that_is_nowhere_or_may_not_serve_is_named(model: str, tmp_path: Path) -> None:
    gone = failure(str(tmp_path / "gone"))
    assert "No such artifact: 'gone'" in gone
    assert "label control-plane" in gone, "why it is nowhere in a pod of KServe"
    assert "MLFLOW_TRACKING_URI" not in gone
    (tmp_path / "empty").mkdir()
    assert "label control-plane" in failure(str(tmp_path / "empty"))
    MlflowClient().set_registered_model_alias("capnet", "champion", "1")
    MlflowClient().set_model_version_tag("capnet", "1", "verdict", "red")
    assert "champion is capnet version 1, which has a red verdict" in failure("models:/capnet@champion", 5)


def test_a_registry_that_is_silent_or_empty_is_named_soon(
    port: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It took four minutes, and an empty database was made in the working folder."""
    monkeypatch.chdir(tmp_path)
    address = f"http://127.0.0.1:{port}"
    assert "Connection refused\n" in failure("models:/capnet@champion", MLFLOW_TRACKING_URI=address)
    assert "nothing is registered yet" in failure("models:/capnet@champion", MLFLOW_TRACKING_URI="")
    assert not list(tmp_path.iterdir())


def test_limits_that_are_none_end_the_server_before_the_model_is_loaded(tmp_path: Path) -> None:
    limits = {"CAPNET_SERVE_SECONDS": "abc", "CAPNET_SERVE_AT_ONCE": "0"}
    text = failure(str(tmp_path / "gone"), 2, **limits)
    assert "CAPNET_SERVE_SECONDS = 'abc'" in text
    assert "CAPNET_SERVE_AT_ONCE = '0'" in text


def test_a_port_that_is_taken_is_named_before_the_model_is_loaded(port: int, tmp_path: Path) -> None:
    """It loaded the model first, and ended with 3, the code of data."""
    with socket.create_server(("127.0.0.1", port)):
        text = failure(str(tmp_path / "gone"), 1, port=port)
    assert "cannot listen: Address already in use" in text
    assert f"where: 127.0.0.1:{port}" in text


@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="no IPv6 here")
def test_a_port_that_ipv4_alone_has_is_free_for_ipv6(tmp_path: Path) -> None:
    """The server's own socket takes IPv6 alone, so it can listen there, and goes on to the model, which is nowhere."""
    with socket.create_server(("0.0.0.0", 0)) as taken:
        port = taken.getsockname()[1]
        assert "cannot listen" not in failure(str(tmp_path / "gone"), 1, host="::", port=port)
        assert "Address already in use" in failure(str(tmp_path / "gone"), 1, host="0.0.0.0", port=port)


def test_an_address_that_is_none_is_named_before_the_model_is_loaded(tmp_path: Path) -> None:
    """It loaded the model, and then ended with 3, the code of data, or with a traceback."""
    model = str(tmp_path / "gone")
    text = failure(model, 1, host="nowhere.invalid")
    assert "cannot listen: " in text
    assert "where: nowhere.invalid:0" in text
    assert "cannot listen: Cannot assign requested address" in failure(model, 1, host="192.0.2.1")
    assert "80999 is not in the range 0<=x<=65535" in failure(model, 2, port=80999)


def test_python_without_docstrings_is_named(tmp_path: Path) -> None:
    """The server, and stages graph and validate, ended with a traceback of a library."""
    assert "PYTHONOPTIMIZE unset or 1" in failure(str(tmp_path / "gone"), 2, PYTHONOPTIMIZE="2")
