"""Whether a store has a version's files, and still has them once a person has answered."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from botocore.exceptions import NoCredentialsError
from mlflow.entities import FileInfo
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient
from unit.promotion.promoting import champion, champion_scores, moves, promote, submit
from unit.promotion.worse_tables import BAD

from capnet.errors import ContractError
from capnet.promotion.verdict import Verdict
from capnet.promotion.versions import has_files

LOCATION = "mlflow-artifacts:/1/models/m-7/artifacts"
FOLDER = FileInfo("artifacts/artifacts", True, None)


@pytest.mark.parametrize("location", [LOCATION, "s3://mlflow/1/models/m-7/artifacts"])
@pytest.mark.parametrize(
    ("listed", "there"),
    [
        ([FileInfo("artifacts/MLmodel", False, 900), FOLDER], True),
        ([FOLDER], False),  # SeaweedFS keeps the folder of files that were deleted
        ([], False),
    ],
)
def test_a_folder_without_files_is_no_model(
    listed: list[FileInfo], there: bool, location: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mlflow.artifacts.list_artifacts", lambda **_: listed)
    assert asked(location) is there
    assert asked("file:///srv/mlruns/1"), "a folder of the server's machine is empty here"


@pytest.mark.parametrize("error", [MlflowException("timed out"), NoCredentialsError()])
def test_a_store_that_does_not_answer_says_nothing(
    error: Exception, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def silent(**_: Any) -> None:
        raise error

    monkeypatch.setattr("mlflow.artifacts.list_artifacts", silent)
    assert asked()
    assert f"whether the files of birds version 7 are there: the artifact store fails: {error}" in caplog.text


def asked(location: str = LOCATION) -> bool:
    client = SimpleNamespace(
        tracking_uri="http://127.0.0.1:5000", get_model_version_download_uri=lambda name, number: location
    )
    return has_files(cast("MlflowClient", client), ModelVersion("birds", "7", 0))


def test_a_version_whose_files_go_while_a_person_is_asked_becomes_no_champion(
    client: MlflowClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def deleted_meanwhile(verdict: Verdict) -> bool:
        monkeypatch.setattr(client, "get_model_version_download_uri", lambda *_: str(tmp_path / "gone"))
        return True

    scores = champion_scores(client)
    few = replace(scores, test=scores.test.iloc[20:], classes={**scores.classes, "content_hash": BAD})
    number = submit(client, few, tmp_path / "few")
    promote(client, "1")
    before = moves(client)
    with pytest.raises(ContractError, match=f"no files of capnet version {number}: they were deleted"):
        promote(client, number, deleted_meanwhile, reason="fewer pictures have a licence")
    assert (champion(client), moves(client)) == ("1", before)
