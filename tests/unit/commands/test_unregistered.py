"""What commands that read say where nothing is registered, or where the address names no model."""

from __future__ import annotations

from pathlib import Path

import pytest
from mlflow.exceptions import MlflowException

from capnet.cli import main
from capnet.errors import CapnetError, ContractError
from capnet.tracking.faults import StoreError, explain

READERS = (["predict", "--input", "new"], ["promote"], ["promote", "--audit"], ["deploy"])


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("MLFLOW_TRACKING_URI", "CAPNET_STATE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "params.yaml").write_text("{}\n")
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / "a.jpg").write_bytes(b"x")
    return tmp_path


def _refused(*arguments: str) -> CapnetError:
    with pytest.raises(CapnetError) as caught:
        main(list(arguments), standalone_mode=False)
    return caught.value


@pytest.mark.slow
@pytest.mark.parametrize("arguments", READERS)
def test_a_store_that_is_not_there_has_nothing_registered_and_is_not_made(project: Path, arguments: list[str]) -> None:
    before = sorted(project.rglob("*"))
    error = _refused(*arguments)
    assert isinstance(error, StoreError)
    (problem,) = error.problems
    assert problem.what.endswith(": nothing is registered yet")
    assert problem.where == "sqlite:///mlflow.db"
    assert "capnet register" in problem.todo
    assert ("`--model outputs`" in problem.todo) == (arguments[0] == "predict")
    assert sorted(project.rglob("*")) == before


def test_what_was_trained_last_is_named_only_where_a_model_is_wanted() -> None:
    error = MlflowException("Model Version (name=capnet, version=99) not found")
    todo = "`--model outputs`"
    assert todo in str(explain(error, "sqlite:///mlflow.db", "get the model"))
    assert todo not in str(explain(error, "sqlite:///mlflow.db", "move the champion"))


@pytest.mark.parametrize("address", ["capnet", "new", "nowhere"])
def test_a_folder_without_a_model_says_how_a_registered_one_is_named(project: Path, address: str) -> None:
    (project / "capnet" / "model").mkdir(parents=True)  # the library's own, in a clone
    error = _refused("predict", "--input", "new", "--model", address)
    assert isinstance(error, ContractError)
    (problem,) = error.problems
    assert "no model" in problem.what
    assert problem.where == address
    assert "models:/NAME@champion" in problem.todo


def test_the_folder_of_a_model_itself_says_which_one_has_its_thresholds_too(project: Path) -> None:
    (project / "outputs" / "model").mkdir(parents=True)
    (project / "outputs" / "model" / "config.json").write_text("{}")
    (problem,) = _refused("predict", "--input", "new", "--model", "outputs/model").problems
    assert problem.todo.endswith(": outputs")
