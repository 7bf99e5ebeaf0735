"""Between this machine and a pipeline server: a proxy of the company, and an authority that only the company knows."""

from __future__ import annotations

from pathlib import Path

import pytest
from contract import submit_command
from contract.kfp_server import State, serving
from contract.submit_command import SubmitCommand
from self_signed import self_signed

from pipelines.errors import ServerError
from pipelines.server import Server
from pipelines.ways import Way

pytestmark = pytest.mark.slow

server = submit_command.server
FAR = "http://kubeflow.invalid"  # a name that only the proxy knows


@pytest.mark.parametrize("scheme", ["http://", ""])
def test_a_proxy_of_the_environment_is_used_for_every_request(
    server: SubmitCommand, monkeypatch: pytest.MonkeyPatch, scheme: str
) -> None:
    """kfp_server_api 2.17.3, rest.py: its client has a proxy only where it is given one. The stand-in is the proxy."""
    monkeypatch.setenv("http_proxy", scheme + server.host.removeprefix("http://"))
    server.host = FAR
    server.good()
    assert len(server.state.runs) == 1


def test_a_server_that_needs_no_proxy_gets_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://proxy.invalid:3128")
    monkeypatch.setenv("no_proxy", ".svc.cluster.local")
    assert Way("token", FAR).proxy == "http://proxy.invalid:3128"
    assert Way("in-cluster", "http://ml-pipeline.kubeflow:8888").proxy == ""
    assert Way("token", "http://ml-pipeline.kubeflow.svc.cluster.local:8888").proxy == ""
    for here in ("localhost", "127.0.0.1", "[::1]"):
        assert Way("port-forward", f"http://{here}:8080").proxy == ""
    assert Way("token", "https://kubeflow.invalid").proxy == ""


@pytest.mark.parametrize("variable", ["SSL_CERT_FILE", "REQUESTS_CA_BUNDLE"])
def test_an_authority_of_the_environment_is_trusted_in_every_request(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    """kfp_server_api 2.17.3, rest.py: it trusts what certifi knows, unless its client is given a file."""
    for name in ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE"):
        monkeypatch.delenv(name, raising=False)
    state, certificate = State(), self_signed(tmp_path)
    state.runs["r"] = {"run_id": "r", "state": "SUCCEEDED"}
    with serving(state, certificate) as host:
        way = Way("token", host, token="secret-word")
        with pytest.raises(ServerError, match=r"certificate is not trusted: self[- ]signed(.|\n)*SSL_CERT_FILE"):
            Server(way)
        monkeypatch.setenv(variable, str(certificate))
        trusting = Server(way)
        trusting.wait("r", {}, lambda line: None)
        (tmp_path / "certificate.pem").write_text("nothing")
        with pytest.raises(ServerError, match=r"the file of certificates cannot be read(.|\n)*SSL_CERT_FILE"):
            Server(way)
