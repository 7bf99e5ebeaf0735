"""`capnet doctor` on the state folder and MLflow's store: where they are, and whether they can be used."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from contextlib import closing, nullcontext
from pathlib import Path
from types import SimpleNamespace

import pytest
from click.testing import CliRunner

from capnet.cli import main
from capnet.commands.doctor.findings import Finding, examine
from capnet.commands.doctor.machine import machine_checks
from capnet.config import Register
from capnet.errors import CapnetError, DataError


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working folder whose state goes to .capnet."""
    monkeypatch.chdir(tmp_path)
    for name in ("CAPNET_STATE", "MLFLOW_TRACKING_URI"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def found(uri: str = "sqlite:///mlflow.db") -> Mapping[str, Finding]:
    return {finding.about: finding for finding in examine(machine_checks(Register(tracking_uri=uri)), 30.0)}


def test_it_says_where_both_are_and_makes_nothing(project: Path) -> None:
    findings = found()
    assert findings["state"].message.startswith(f"{project}/.capnet, does not exist yet, can be written to, ")
    assert findings["mlflow"].message == f"{project}/mlflow.db does not exist yet: the first `capnet register` makes it"
    assert list(project.iterdir()) == []
    (project / ".capnet").mkdir()
    with closing(sqlite3.connect(project / "mlflow.db")) as connection:
        connection.execute("create table registered_models (name text)")
    findings = found()
    assert findings["state"].message.startswith(f"{project}/.capnet, can be written to, ")
    assert findings["mlflow"].message == f"{project}/mlflow.db can be written to, 0 registered models"


def test_what_cannot_be_written_to_is_named(project: Path) -> None:
    (project / ".capnet").write_text("x")
    (project / "mlflow.db").mkdir()
    state, store = (found()[name].problem for name in ("state", "mlflow"))
    assert state is not None
    assert store is not None
    assert (state.where, store.where) == (f"{project}/.capnet", f"{project}/mlflow.db")
    assert state.what == "the state folder cannot be used (CAPNET_STATE names another): Not a directory"
    assert store.what == "the MLflow store cannot be written to: Is a directory"


@pytest.mark.parametrize("content", [b"", b"no database" * 100])
def test_a_file_that_is_no_store_is_named(project: Path, content: bytes) -> None:
    (project / "mlflow.db").write_bytes(content)
    problem = found()["mlflow"].problem
    assert problem is not None
    assert problem.what.startswith("the MLflow store cannot be read: ")
    assert problem.where == f"{project}/mlflow.db"


@pytest.mark.slow
def test_a_server_that_does_not_answer_is_named(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")  # nobody listens
    problem = found()["mlflow"].problem
    assert problem is not None
    assert (problem.what[:33], problem.where) == ("could not reach the MLflow store:", "http://127.0.0.1:9")


def test_of_a_server_it_says_what_it_did_not_ask(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    locations = ["s3://bucket/0"]

    class Client:
        def search_experiments(self, max_results: int) -> list[SimpleNamespace]:
            return [SimpleNamespace(artifact_location=location) for location in locations]

    monkeypatch.setattr("capnet.tracking.store.store", lambda *arguments, **named: nullcontext(Client()))
    message = found("http://127.0.0.1:5000")["mlflow"].message
    assert message == "http://127.0.0.1:5000 answers; its artifact store was not asked: s3://bucket/0"
    locations.clear()
    assert found("http://127.0.0.1:5000")["mlflow"].message.endswith("not asked: no experiment names it")


def test_the_command_reports_both(project: Path) -> None:
    (project / "data").mkdir()
    (project / "params.yaml").write_text("data:\n  root: data\n")
    (project / ".capnet").write_text("x")
    result = CliRunner().invoke(main, ["doctor"])
    assert type(result.exception) is CapnetError, "the machine's fault ends with exit code 1, and the data's with 3"
    assert [problem.where for problem in result.exception.problems] == [f"{project}/.capnet"]
    assert f"ok     mlflow: {project}/mlflow.db does not exist yet" in result.output
    (project / "data").rmdir()
    result = CliRunner().invoke(main, ["doctor"])
    assert isinstance(result.exception, DataError)
    assert [problem.where for problem in result.exception.problems] == ["data.root", f"{project}/.capnet"]
