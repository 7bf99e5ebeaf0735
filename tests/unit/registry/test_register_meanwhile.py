"""A model that another training replaces while it is registered, and a store that is soon deleted."""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from unit.registry.registering import new_client, register_outputs, versions_of
from unit.stores import Make

from capnet.config import Params
from capnet.errors import ContractError
from capnet.registry import register as registration
from capnet.stages import run
from capnet.tracking.database import sqlite_uri


def _train_again(paths: dict[str, Path]) -> None:
    with open(paths["model"] / "history.csv", "a") as file:
        file.write("\n")


def _begin_evaluation(paths: dict[str, Path]) -> None:
    shutil.rmtree(paths["evaluation"])  # as DVC does


@pytest.mark.parametrize("replace", [_train_again, _begin_evaluation])
def test_what_is_replaced_meanwhile_is_not_registered_under_the_hash_of_before(
    replace: Callable[[dict[str, Path]], None],
    database: Path,
    make_outputs: Make,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    paths, log_artifacts = make_outputs(), registration.log_artifacts
    paths["split"].mkdir(exist_ok=True)
    shutil.copytree(paths["evaluation"], tmp_path / "evaluation")

    def meanwhile(*arguments: Any) -> None:
        replace(paths)
        log_artifacts(*arguments)

    monkeypatch.setattr(registration, "log_artifacts", meanwhile)
    with pytest.raises(ContractError, match="replaced while it was registered"):
        register_outputs(paths)
    assert versions_of(new_client()) == []
    (run_,) = new_client().search_runs(["0", new_client().get_experiment_by_name("capnet").experiment_id])
    assert run_.info.status == "FAILED"
    monkeypatch.setattr(registration, "log_artifacts", log_artifacts)
    shutil.copytree(tmp_path / "evaluation", paths["evaluation"], dirs_exist_ok=True)
    if replace is _begin_evaluation:
        assert register_outputs(paths) == "1"


@pytest.mark.parametrize("is_temporary", [True, False])
def test_a_store_in_the_temporary_folder_of_an_experiment_is_named(
    is_temporary: bool,
    database: Path,
    make_outputs: Make,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    folder = tmp_path / ".dvc" / "tmp" / ("exps" if is_temporary else "other") / "tmp1"
    folder.mkdir(parents=True)
    shutil.copyfile(database, folder / "mlflow.db")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", sqlite_uri(folder / "mlflow.db"))
    paths = make_outputs()
    with caplog.at_level(logging.WARNING):
        run("register", Params(), paths, {"registration": tmp_path / "registration.json"})
    warnings = [text for text in caplog.messages if "temporary folder" in text]
    assert len(warnings) == is_temporary
    assert all(str(folder / "mlflow.db") in text and "dvc exp apply" in text for text in warnings)
    assert os.path.isfile(tmp_path / "registration.json")


def test_an_error_is_raised_although_the_files_are_back_by_then(monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise a version without files would be registered."""
    answers = iter([False, True])
    monkeypatch.setattr(registration, "_is_there", lambda candidate: next(answers))
    candidate: Any = SimpleNamespace(model="outputs/model", evaluation="outputs/evaluation")
    with pytest.raises(ContractError, match="replaced while it was registered"), registration._unchanged(candidate):
        raise FileNotFoundError("model.safetensors")
