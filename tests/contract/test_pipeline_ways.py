"""How `python -m pipelines.submit` reaches a server: tokens, namespaces, silence, and the ways that are tried."""

from __future__ import annotations

import socket
import threading
import time
from pathlib import Path

import pytest
from contract import submit_command
from contract.submit_command import SubmitCommand

from capnet.errors import ConfigError
from pipelines import compiling
from pipelines.errors import ServerError
from pipelines.server import Server
from pipelines.ways import Way, check_server, choose, refused

server = submit_command.server


def test_a_token_from_a_file_or_the_environment_lets_in(
    server: SubmitCommand, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.state.token, server.state.namespace = "secret-word", "team"
    path = tmp_path / "token"
    path.write_text("secret-word\n")
    server.good("--token-file", str(path), "--namespace", "team")
    monkeypatch.setenv("KF_PIPELINES_TOKEN", "secret-word")
    server.good("--namespace", "team")
    assert len(server.state.runs) == 2


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], ["way port-forward", "does not know us (401)", "--token-file"]),
        (["--token-file", "TOKEN"], ["way token", "does not know us (401)", "new token"]),
    ],
)
def test_a_wrong_token_is_said_with_the_way_and_never_shown(
    server: SubmitCommand, tmp_path: Path, arguments: list[str], words: list[str]
) -> None:
    server.state.token = "right"
    path = tmp_path / "token"
    path.write_text("wrong-word")
    error = server.run(*[str(path) if item == "TOKEN" else item for item in arguments]).exception
    assert isinstance(error, ServerError)
    assert all(word in str(error) for word in words), str(error)
    assert "wrong-word" not in str(error)
    assert "wrong-word" not in repr(choose("token", "http://x", "", str(path), {}))


def test_a_token_file_for_a_way_that_reads_none_is_refused(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("secret-word")
    for kind in ("port-forward", "in-cluster"):
        with pytest.raises(ConfigError, match=f"the way {kind} reads no token file"):
            choose(kind, "http://x", "", str(tmp_path / "token"), {})


@pytest.mark.parametrize(
    "content", ["secret-word".encode("utf-16"), "secret-word".encode("utf-8-sig"), b"secret-word\nsecond", b"\xff"]
)
def test_a_file_with_something_else_than_a_token_is_refused_unshown(tmp_path: Path, content: bytes) -> None:
    """PowerShell's `>` writes UTF-16, and an editor may begin a file with a byte order mark: no header may have it."""
    path = tmp_path / "token"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match="a token has no blanks") as refusal:
        choose("token", "http://x", "", str(path), {})
    assert str(path) in str(refusal.value)
    assert "secret" not in str(refusal.value)
    with pytest.raises(ConfigError, match="KF_PIPELINES_TOKEN"):
        choose("token", "http://x", "", "", {"KF_PIPELINES_TOKEN": "secret-word second"})


def test_another_namespace_is_refused_by_name(server: SubmitCommand) -> None:
    server.state.namespace = "team"
    error = str(server.run("--namespace", "others").exception)
    assert "does not allow it (403)" in error
    assert "namespace others" in error


def test_where_there_are_profiles_one_must_be_named(server: SubmitCommand) -> None:
    """A server of 2.17.0 with MULTIUSER=true took an administrator's pipeline for all teams, then refused to run it."""
    server.state.namespace = "team"
    error = server.run().exception
    assert isinstance(error, ServerError)
    assert "has profiles" in str(error)
    assert "name your profile: --namespace" in str(error)
    assert not server.state.pipelines


def test_the_end_of_a_long_message_is_shown_because_it_has_the_cause(server: SubmitCommand) -> None:
    """The message of a server of 2.17.0, to a token that `kubectl create token` made without an audience."""
    calls = "Failed to list pipelines in namespace team. Check error stack: " + "Failed to authorize with API: " * 20
    cause = 'token audiences ["https://kubernetes.default.svc"] is invalid for the target audiences ["pipelines"]'
    server.state.broken["/pipelines"] = 401
    server.state.message = f"{calls}{cause}: Failed to authenticate token review"
    error = str(server.run().exception)
    assert "Failed to list pipelines in namespace team" in error
    assert cause in error
    assert calls not in error


def test_an_address_without_a_pipeline_server_is_said(server: SubmitCommand) -> None:
    server.state.broken["/healthz"] = 404
    error = str(server.run().exception)
    assert "404" in error
    assert "healthz" in error


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (b"SSH-2.0-OpenSSH_9\r\n", "something else than Kubeflow Pipelines answers there"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{}", "the connection broke: IncompleteRead"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", "the connection broke: IncompleteRead"),
        (b"", "the connection broke: Remote end closed connection"),
    ],
)
def test_what_is_no_whole_answer_is_said(answer: bytes, words: str) -> None:
    def give() -> None:
        connection, _ = listener.accept()
        with connection:
            connection.recv(65_536)
            connection.sendall(answer)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=give)
        thread.start()
        with pytest.raises(ServerError, match=words):
            check_server(Way("port-forward", f"http://127.0.0.1:{listener.getsockname()[1]}"))
        thread.join()


@pytest.mark.parametrize("host", ["http://local host:8080", "http://[::1", "http://127.0.0.1:port"])
def test_an_address_that_is_none_is_said(host: str) -> None:
    with pytest.raises(ServerError, match=r"this is no address: .*\n.*\n  to do: correct --host"):
        check_server(Way("port-forward", host))


def test_a_server_that_is_too_old_is_refused_before_anything_is_uploaded(server: SubmitCommand) -> None:
    """kubeflow/pipelines 2.15.0, backend/src/v2/compiler/argocompiler/container.go, containerExecutorTask: a setting of
    a task that the server does not know, as securityContext, ends the start of every run.
    """
    server.state.tag = "2.15.0"
    error = server.run().exception
    assert isinstance(error, ServerError)
    assert "Kubeflow Pipelines 2.15.0 does not know" in str(error)
    assert not server.state.pipelines
    server.state.tag = "unknown"  # as images call theirs that were built without a tag
    server.good()
    message = 'failed to unmarshal kubernetes config: proto: (line 1:7): unknown field "securityContext"'
    assert "the server is too old: install 2.17" in str(refused(Way("port-forward", server.host), 500, message))


def test_a_login_page_is_said(server: SubmitCommand) -> None:
    server.state.login = True
    assert "login page" in str(server.run().exception)


def test_nothing_listens(server: SubmitCommand) -> None:
    start = time.monotonic()
    with pytest.raises(ServerError, match="cannot be reached") as error:
        check_server(Way("port-forward", "http://127.0.0.1:9"))
    assert "kubectl -n kubeflow port-forward" in str(error.value)
    assert time.monotonic() - start < 5


@pytest.mark.parametrize("silent", ["/healthz", "/pipelines", "/runs"])
def test_a_server_that_never_answers_is_left_after_the_time_limit(server: SubmitCommand, silent: str) -> None:
    server.state.silent.add(silent)
    start = time.monotonic()

    def submitted() -> None:
        result = Server(Way("port-forward", server.host), seconds=0.5)
        result.start(result.upload("capnet-training", compiling.golden("training"), "v1", ""), "r", "e", {})

    with pytest.raises(ServerError, match=r"answer|connection"):
        submitted()
    assert time.monotonic() - start < 20


def test_a_new_pipeline_is_described_by_what_it_does(server: SubmitCommand) -> None:
    Server(Way("port-forward", server.host)).upload("capnet-training", compiling.golden("training"), "v1", "git 1234")
    (pipeline,) = server.state.pipelines.values()
    assert pipeline["description"].startswith("From images to a registered model")


def test_what_the_server_says_reaches_the_user(server: SubmitCommand) -> None:
    result = Server(Way("port-forward", server.host))
    version = result.upload("capnet-training", compiling.golden("training"), "v1", "")
    with pytest.raises(
        ServerError, match=r"parameter \w+ is not optional, yet has neither default value nor user provided value"
    ):
        result.start(version, "r", "e", {"data_version": "v1"})
    with pytest.raises(ServerError, match="invalid pipeline"):
        result.upload(
            "capnet-training", compiling.golden("training").replace("executorLabel", "executorLable"), "v2", ""
        )


def test_ways_are_chosen_by_what_is_there(tmp_path: Path) -> None:
    assert choose("auto", "", "", "", {}) == Way("port-forward", "http://localhost:8080")
    assert choose("auto", "https://kf/", "team", "", {"KF_PIPELINES_TOKEN": "t"}) == Way(
        "token", "https://kf", "team", "t"
    )
    pod = tmp_path / "token"
    pod.write_text("pod-token")
    inside = choose(
        "auto", "", "team", "", {"KUBERNETES_SERVICE_HOST": "10.0.0.1", "KF_PIPELINES_SA_TOKEN_PATH": str(pod)}
    )
    assert inside == Way("in-cluster", "http://ml-pipeline.kubeflow:8888", "team", "pod-token")
    for kind, host, file in (
        ("token", "https://kf", ""),
        ("token", "", str(pod)),
        ("token", "https://kf", str(tmp_path / "none")),
    ):
        with pytest.raises(ConfigError):
            choose(kind, host, "", file, {})
