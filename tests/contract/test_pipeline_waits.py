"""`--wait` lasts longer than a pod's token, and longer than a server that is away for minutes."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from contract.kfp_server import State, serving

from pipelines.errors import RunFailed, ServerError
from pipelines.server import Server
from pipelines.ways import Way, choose

pytestmark = pytest.mark.slow

RUNNING = {"state": "RUNNING"}


@pytest.fixture
def state() -> State:
    held = State(token="first")
    held.runs["r"] = {"run_id": "r", **RUNNING}
    return held


@pytest.fixture
def host(state: State) -> Iterator[str]:
    with serving(state) as address:
        yield address


def way(kind: str, host: str, path: Path) -> Way:
    path.write_text("first\n")
    if kind == "token":
        return choose("token", host, "team", str(path), {})
    inside = {"KUBERNETES_SERVICE_HOST": "10.0.0.1", "KF_PIPELINES_SA_TOKEN_PATH": str(path)}
    return choose("in-cluster", host, "team", "", inside)


@pytest.mark.parametrize("kind", ["in-cluster", "token"])
def test_a_token_that_was_renewed_is_read_again(
    kind: str, state: State, host: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = Server(way(kind, host, tmp_path / "token"))
    polls = 0

    def sleep(_: float) -> None:
        nonlocal polls
        polls += 1
        if polls == 2:  # two hours later
            state.token = "second"
            (tmp_path / "token").write_text("second\n")
        if polls == 100:
            state.story = [{"state": "SUCCEEDED"}]

    monkeypatch.setattr(time, "sleep", sleep)
    state.story = [RUNNING]
    messages: list[str] = []
    server.wait("r", {}, messages.append)
    assert polls == 100
    assert messages == []


@pytest.mark.parametrize("status", [401, 404, 500, 502, 503])  # 404: of a gateway that has no server
def test_minutes_without_an_answer_are_borne_and_told(
    status: int, state: State, host: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    server = Server(way("in-cluster", host, tmp_path / "token"))
    away = [{"status": status}] * 50  # of ten seconds
    state.story = [RUNNING, *away, RUNNING, *away, {"state": "SUCCEEDED"}]
    messages: list[str] = []
    server.wait("r", {}, messages.append)
    assert len(messages) == 2
    assert all("asking again" in line and str(status) in line for line in messages)


def test_a_token_that_nobody_renews_ends_the_wait(
    state: State, host: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    server = Server(way("in-cluster", host, tmp_path / "token"))
    state.token = "second"
    with pytest.raises(ServerError, match="does not know us"):
        server.wait("r", {}, lambda line: None)


def test_a_run_that_is_deleted_ends_the_wait_at_once(
    state: State, host: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server answers with a message of its own; a gateway's 404 is borne like any other silence."""
    server = Server(way("in-cluster", host, tmp_path / "token"))
    polls = 0

    def sleep(_: float) -> None:
        nonlocal polls
        polls += 1
        if polls == 3:
            state.runs.clear()

    monkeypatch.setattr(time, "sleep", sleep)
    state.story = [RUNNING]
    messages: list[str] = []
    with pytest.raises(RunFailed, match="deleted"):
        server.wait("r", {}, messages.append)
    assert polls == 3
    assert messages == []


def test_a_pod_that_does_not_start_is_told_once(
    state: State, host: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    server = Server(way("token", host, tmp_path / "token"))
    task = {
        "task_id": "a",
        "display_name": "train",
        "state": "RUNNING",
        "child_tasks": [{"pod_name": "capnet-training-nvb96-38"}],
    }
    pods = [
        {"task_id": "b", "display_name": "executor(0)", "state": name} for name in ("PENDING", "RUNNING", "SUCCEEDED")
    ]
    polls = [{"state": "RUNNING", "run_details": {"task_details": [task, pod]}} for pod in pods]
    pending, running, _ = polls
    state.story = [*[pending] * 11, running, *[pending] * 30, running, {"state": "SUCCEEDED"}]
    messages: list[str] = []
    server.wait("r", {"train": "train"}, messages.append)
    assert messages[0] == "train: running"
    assert len(messages) == 2
    assert "a pod has not started for 2 min" in messages[1]
    assert "kubectl -n team describe workflow capnet-training-nvb96" in messages[1]
