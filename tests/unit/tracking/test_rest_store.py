"""The light way to a server does what MLflow's client does, logs in as it does, and leaves to it what it does not
know.
"""

from __future__ import annotations

import subprocess
import sys
import threading
import uuid
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from mlflow.tracking import MlflowClient

from capnet.config import Register
from capnet.tracking.client_store import ClientStore
from capnet.tracking.rest_store import Refused, RestStore, serves
from capnet.tracking.sender import KEY_TAG, Point, Store

POINTS: list[Point] = [
    ("val/mAP", 0.25, 1_700_000_000_000, 1),
    ("val/mAP", 1e-300, 1_700_000_001_000, 2),
    ("ap/köln 1", -3.5, 1_700_000_001_000, 2),
]


def the_same(client: MlflowClient, run_id: str) -> dict[str, Any]:
    """All that a run says, without its own identity."""
    run = client.get_run(run_id)
    history = {
        name: [(point.step, point.value, point.timestamp) for point in client.get_metric_history(run_id, name)]
        for name in run.data.metrics
    }
    info = run.info
    return {
        "history": history,
        "tags": {name: value for name, value in run.data.tags.items() if name != KEY_TAG},
        "info": (
            info.experiment_id,
            info.run_name,
            info.status,
            info.start_time,
            info.end_time,
            info.user_id,
            info.lifecycle_stage,
        ),
    }


def test_a_run_is_the_same_by_either_way(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server)
    client, experiment = MlflowClient(server), f"köln & {uuid.uuid4()}"
    ways: list[Store] = [RestStore(server), ClientStore(client, Register())]
    found = []
    for way in ways:
        key = uuid.uuid4().hex
        assert way.find_run(experiment, key) == ""
        run_id = way.make_run(experiment, key, "capnet-train", 1_699_999_999_000)
        assert [other.find_run(experiment, key) for other in ways] == [run_id, run_id]
        for _ in range(2):  # repeated without effect
            way.log_points(run_id, POINTS)
        way.end_run(run_id, "FINISHED", 1_700_000_002_000)
        found.append(the_same(client, run_id))
    assert found[0] == found[1]
    assert found[0]["history"] == {
        "val/mAP": [(1, 0.25, 1_700_000_000_000), (2, 1e-300, 1_700_000_001_000)],
        "ap/köln 1": [(2, -3.5, 1_700_000_001_000)],
    }


def test_an_experiment_that_another_process_makes_first_is_used(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    name = str(uuid.uuid4())
    made = MlflowClient(server).create_experiment(name)
    store = RestStore(server)
    look, looks = store._experiment, iter(["", None])
    monkeypatch.setattr(store, "_experiment", lambda name: "" if next(looks) == "" else look(name))
    assert MlflowClient(server).get_run(store.make_run(name, "key", "run", 1)).info.experiment_id == made


def test_refusals_say_why(server: str) -> None:
    client, name, store = MlflowClient(server), str(uuid.uuid4()), RestStore(server)
    client.delete_experiment(client.create_experiment(name))
    with pytest.raises(Refused, match="deleted"):
        store.make_run(name, "key", "run", 1)
    with pytest.raises(Refused, match="RESOURCE_DOES_NOT_EXIST"):
        store.log_points("0" * 32, POINTS)
    with pytest.raises(OSError, match="refused"):
        RestStore("http://127.0.0.1:9").find_run("any", "key")


class Answers(BaseHTTPRequestHandler):
    """Keeps the login of each request and gives the answer that was set."""

    status, body = 200, b'{"runs": []}'
    logins: list[str] = []  # noqa: RUF012

    def do_POST(self) -> None:
        self.logins.append(self.headers.get("Authorization", ""))
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(self.status)
        self.send_header("Content-Length", str(len(self.body)))
        self.end_headers()
        self.wfile.write(self.body)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def answers() -> Iterator[tuple[type[Answers], str]]:
    kind = type("Own", (Answers,), {"logins": []})
    with HTTPServer(("127.0.0.1", 0), kind) as found:
        thread = threading.Thread(target=found.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield kind, f"127.0.0.1:{found.server_port}"
        found.shutdown()
        thread.join()


@pytest.mark.parametrize(
    ("status", "body"),
    [(502, b"<html>Bad Gateway</html>"), (200, b"<html>Sign in</html>"), (500, b"[]"), (200, b"[1]"), (403, b"{}")],
)
def test_an_answer_that_is_not_mlflows_is_an_error(
    answers: tuple[type[Answers], str], status: int, body: bytes
) -> None:
    answers[0].status, answers[0].body = status, body
    with pytest.raises(Refused, match=str(status)):
        RestStore(f"http://{answers[1]}").log_points("run", POINTS)


@pytest.mark.parametrize(
    ("variables", "user", "login"),
    [
        ({}, "", ""),
        ({"USERNAME": "ann", "PASSWORD": "söcret"}, "", "Basic YW5uOnPDtmNyZXQ="),  # as `printf ann:söcret | base64`
        ({"TOKEN": "abc"}, "", "Bearer abc"),
        ({"USERNAME": "ann", "PASSWORD": "söcret", "TOKEN": "abc"}, "", "Basic YW5uOnPDtmNyZXQ="),
        ({}, "bob:pw@", "Basic Ym9iOnB3"),
    ],
)
def test_logins_are_those_of_mlflow(
    answers: tuple[type[Answers], str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    variables: dict[str, str],
    user: str,
    login: str,
) -> None:
    kind, place = answers
    (tmp_path / ".netrc").write_text("machine elsewhere login eve password pw\n")
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("USERNAME", "PASSWORD", "TOKEN"):
        monkeypatch.setenv(f"MLFLOW_TRACKING_{name}", variables.get(name, ""))
    for store in (RestStore(f"http://{user}{place}/"), ClientStore(MlflowClient(f"http://{user}{place}"), Register())):
        store.log_points("run", POINTS)
    assert kind.logins == [login] * 2


def test_a_token_is_not_replaced_by_a_netrc(
    answers: tuple[type[Answers], str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login eve password pw\n")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "abc")
    RestStore(f"http://{answers[1]}").log_points("run", POINTS)
    assert answers[0].logins == ["Bearer abc"]


@pytest.mark.parametrize(
    ("address", "variables", "credentials", "expected"),
    [
        ("http://127.0.0.1:5000", {}, False, True),
        ("https://mlflow.example.org/team", {"MLFLOW_TRACKING_TOKEN": "abc"}, False, True),
        ("sqlite:///mlflow.db", {}, False, False),
        ("databricks", {}, False, False),
        ("http://127.0.0.1:5000", {"MLFLOW_TRACKING_AUTH": "kubernetes"}, False, False),
        ("http://127.0.0.1:5000", {"MLFLOW_TRACKING_AWS_SIGV4": "true"}, False, False),
        ("http://127.0.0.1:5000", {"MLFLOW_WORKSPACE": "team"}, False, False),
        ("http://127.0.0.1:5000", {}, True, False),
    ],
)
def test_what_only_mlflows_client_knows_is_left_to_it(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    address: str,
    variables: dict[str, str],
    credentials: bool,
    expected: bool,
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    if credentials:
        (tmp_path / ".mlflow").mkdir()
        (tmp_path / ".mlflow" / "credentials").write_text("[mlflow]\n")
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert serves(address) == expected


def test_the_process_that_sends_starts_without_what_is_heavy() -> None:
    code = (
        "import capnet.tracking.follow, sys; print(sorted({'mlflow', 'numpy', 'pandas', 'pydantic', 'torch'} &"
        " sys.modules.keys()))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
