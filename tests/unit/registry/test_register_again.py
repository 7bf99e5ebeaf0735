"""Registration against real stores that hold something already, or fail: once, and nothing by half."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import subprocess
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository
from mlflow.tracking import MlflowClient
from unit.registry.registering import is_registered, new_client, record_of, register_outputs, versions_of
from unit.stores import GOOD, WORSE_TAIL, Make

from capnet.config import Register
from capnet.errors import ContractError
from capnet.promotion.measure import scores_of
from capnet.registry.candidate import read_candidate
from capnet.registry.register import find_version, register_version
from capnet.serving.fetch import fetch_version
from capnet.tracking.faults import StoreError
from capnet.tracking.store import local_path


def test_the_same_content_is_registered_once_and_gets_its_alias_back(database: Path, make_outputs: Make) -> None:
    paths = make_outputs()
    assert [register_outputs(paths), register_outputs(paths)] == ["1", "1"]
    client = new_client()
    assert versions_of(client) == ["1"]
    assert len(client.search_runs([client.get_experiment_by_name("capnet").experiment_id])) == 1
    client.delete_registered_model_alias("capnet", "challenger")
    assert not is_registered(paths)
    assert register_outputs(paths) == "1"
    assert is_registered(paths)


def test_a_model_with_a_worse_tail_is_named_when_it_is_registered(
    database: Path, make_outputs: Make, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A pipeline ends well and nobody opens the version's page: its log says what `capnet promote` will say."""
    register_outputs(make_outputs(skill=GOOD))
    new_client().set_registered_model_alias("capnet", "champion", "1")
    assert not [line for line in caplog.messages if "is red" in line]
    assert register_outputs(make_outputs(tmp_path / "worse", mAP=0.6, skill=WORSE_TAIL)) == "2"
    (warning,) = [line for line in caplog.messages if "is red" in line]
    assert warning.startswith("capnet version 2 is red against version 1, so `capnet promote` refuses it: fail: tail ")


def test_other_content_is_a_new_version_and_takes_the_alias(database: Path, make_outputs: Make, tmp_path: Path) -> None:
    first, second = make_outputs(), make_outputs(tmp_path / "second", mAP=0.6)
    assert [register_outputs(first), register_outputs(second)] == ["1", "2"]
    assert str(new_client().get_model_version_by_alias("capnet", "challenger").version) == "2"
    assert is_registered(second)
    assert not is_registered(first), "the alias is elsewhere"
    assert register_outputs(first) == "1"
    assert is_registered(first)
    assert versions_of(new_client()) == ["1", "2"]


def test_duplicates_resolve_to_the_lowest_version(database: Path, make_outputs: Make) -> None:
    paths = make_outputs()
    register_outputs(paths)
    client = new_client()
    first = client.get_model_version("capnet", "1")
    for _ in range(10):
        client.create_model_version("capnet", first.source, run_id=first.run_id, tags=first.tags)
    client.delete_registered_model_alias("capnet", "challenger")
    assert register_outputs(paths) == "1"


@pytest.mark.parametrize(("deleted", "expected"), [(("1",), "2"), (("2",), "1"), (("1", "2"), None)])
def test_versions_deleted_behind_the_search_are_passed_over(
    database: Path, make_outputs: Make, deleted: tuple[str, ...], expected: str | None
) -> None:
    """Two registrations at once: the other one takes its duplicate back just after this one's search has found it."""

    class Behind(MlflowClient):
        def search_model_versions(self, *arguments: Any, **named: Any) -> Any:
            page = super().search_model_versions(*arguments, **named)
            for version in deleted:
                self.delete_model_version("capnet", version)
            return page

    candidate, report = read_candidate(**(paths := make_outputs())), paths["evaluation"] / "report.html"
    first = register_version(Register(), candidate, report)
    client = Behind(os.environ["MLFLOW_TRACKING_URI"])
    client.create_model_version(
        "capnet", first.source, run_id=first.run_id, tags={"content_hash": candidate.content_hash}
    )
    result = find_version(client, Register(), candidate.content_hash)
    assert (None if result is None else str(result.version)) == expected


def test_a_version_whose_run_was_permanently_deleted_is_registered_anew(database: Path, make_outputs: Make) -> None:
    register_outputs(paths := make_outputs())
    client = new_client()
    client._tracking_client.store._hard_delete_run(client.get_model_version("capnet", "1").run_id)  # as `mlflow gc`
    assert [is_registered(paths), register_outputs(paths), is_registered(paths)] == [False, "2", True]


def test_another_name_or_alias_or_edited_outputs_are_not_registered(database: Path, make_outputs: Make) -> None:
    paths = make_outputs()
    register_outputs(paths)
    assert not is_registered(paths, Register(name="birds"))
    assert not is_registered(paths, Register(alias="candidate"))
    config = paths["model"] / "config.json"
    before = config.read_bytes()
    config.write_bytes(before + b"\n")
    assert not is_registered(paths)
    config.write_bytes(before)
    assert is_registered(paths)
    (paths["evaluation"] / "evaluation.json").unlink()
    assert not is_registered(paths)


def test_a_missing_or_broken_record_is_not_registered(database: Path, make_outputs: Make) -> None:
    paths = make_outputs()
    register_outputs(paths)
    for content in ("", "[]", "{}", '{"schema": 1, "name": "capnet", "alias": "challenger"}'):
        record_of(paths).write_text(content)
        assert not is_registered(paths), content
    record_of(paths).unlink()
    assert not is_registered(paths)


def test_asking_a_store_that_is_gone_makes_no_empty_one(no_database: Path, make_outputs: Make) -> None:
    paths = make_outputs()
    record = {
        "schema": 1,
        "name": "capnet",
        "alias": "challenger",
        "content_hash": read_candidate(**paths).content_hash,
    }
    record_of(paths).write_text(json.dumps(record))
    assert not is_registered(paths)
    assert not no_database.exists()


def test_a_version_whose_artifacts_are_gone_is_registered_again(database: Path, make_outputs: Make) -> None:
    paths = make_outputs()
    register_outputs(paths)
    shutil.rmtree(database.parent / "mlruns")
    assert not is_registered(paths)
    assert register_outputs(paths) == "2"
    assert is_registered(paths)


def test_a_version_whose_artifacts_are_gone_from_a_server_is_registered_again(
    server: str, make_outputs: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server)
    settings, paths = Register(name="lost files"), make_outputs()
    assert register_outputs(paths, settings) == "1"
    assert is_registered(paths, settings)
    location = new_client().get_model_version_download_uri("lost files", "1")
    get_artifact_repository(location, tracking_uri=server).delete_artifacts()
    assert not is_registered(paths, settings)
    assert register_outputs(paths, settings) == "2"
    assert is_registered(paths, settings)


def test_a_moved_store_keeps_working_and_writes_nothing_to_the_old_place(
    database: Path, make_outputs: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = make_outputs()
    register_outputs(paths)
    old, new = database.parent, tmp_path / "moved"
    shutil.move(old, new)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{new / 'mlflow.db'}")
    assert not is_registered(paths)
    assert register_outputs(paths) == "2"
    assert is_registered(paths)
    assert not old.exists()
    client = new_client()
    workspace = local_path(client.get_model_version_download_uri("capnet", "2"))
    assert workspace is not None
    assert workspace.is_relative_to(new / "mlruns")
    assert (workspace / "MLmodel").is_file()
    assert {item.name for item in client.search_experiments()} >= {
        "capnet",
        f"capnet (artifacts were in {old / 'mlruns' / 'capnet'})",
    }


def test_a_version_of_a_moved_store_says_where_its_files_are_and_a_link_mends_it(
    database: Path, make_outputs: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = make_outputs()
    register_outputs(paths)
    old, new = database.parent, tmp_path / "moved to" / "mlruns"  # a name that is the artifacts' own, too
    new.parent.mkdir()
    shutil.move(old, new)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{new / 'mlflow.db'}")
    with pytest.raises(ContractError) as caught:
        fetch_version(Register(), "models:/capnet/1", tmp_path / "fetched")
    problem = caught.value.problems[0]
    assert f"are in {new / 'mlruns'}, but the store names {old / 'mlruns'}" in problem.what
    client = new_client()
    with pytest.raises(ContractError) as gate:
        scores_of(client, client.get_model_version("capnet", "1"))
    assert gate.value.problems[0] == problem
    link = problem.todo.split("`")[1]
    subprocess.run(link, shell=True, check=True)
    (tmp_path / "fetched").mkdir()
    artifacts, _ = fetch_version(Register(), "models:/capnet/1", tmp_path / "fetched")
    assert (artifacts / "model").is_dir()


def test_a_copied_store_writes_nothing_to_the_folder_that_it_was_copied_from(
    database: Path, make_outputs: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever deletes the original would delete the copy's models."""
    paths = make_outputs()
    register_outputs(paths)
    old, new = database.parent, tmp_path / "copied"
    shutil.copytree(old, new)
    before = sorted(old.rglob("*"))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{new / 'mlflow.db'}")
    assert register_outputs(paths, Register(name="another")) == "1"
    location = local_path(new_client().get_model_version_download_uri("another", "1"))
    assert location is not None
    assert location.is_relative_to(new / "mlruns")
    assert sorted(old.rglob("*")) == before


def test_an_error_while_storing_artifacts_leaves_a_failed_run_and_no_version(
    database: Path, make_outputs: Make
) -> None:
    (database.parent / "mlruns").write_text("a file where the folder of artifacts should be")
    with pytest.raises(StoreError, match="could not register the model"):
        register_outputs(make_outputs())
    _nothing_half_registered()


def test_an_error_while_setting_the_alias_leaves_a_failed_run_and_no_version(
    database: Path, make_outputs: Make
) -> None:
    with closing(sqlite3.connect(database)) as connection, connection:
        connection.execute(
            "create trigger refuse before insert on registered_model_aliases begin select raise(abort, 'no room"
            " left'); end"
        )
    with pytest.raises(StoreError) as caught:
        register_outputs(make_outputs())
    assert "could not register the model" in str(caught.value)
    assert "no room left" in str(caught.value)
    _nothing_half_registered()


def test_ctrl_c_just_after_a_model_was_begun_leaves_none_pending(
    database: Path, make_outputs: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths, create = make_outputs(), MlflowClient.create_logged_model

    def interrupted(client: MlflowClient, *arguments: Any, **more: Any) -> None:
        create(client, *arguments, **more)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(MlflowClient, "create_logged_model", interrupted)
        with pytest.raises(KeyboardInterrupt):
            register_outputs(paths)
    client = new_client()
    experiment = client.get_experiment_by_name("capnet").experiment_id
    assert [run.info.status for run in client.search_runs([experiment])] == ["KILLED"]
    assert [str(model.status) for model in client.search_logged_models([experiment])] == ["FAILED"]
    assert register_outputs(paths) == "1"
    assert {str(model.status) for model in client.search_logged_models([experiment])} == {"FAILED", "READY"}


def _nothing_half_registered() -> None:
    client = new_client()
    result = client.get_experiment_by_name("capnet").experiment_id
    assert [run.info.status for run in client.search_runs([result])] == ["FAILED"]
    assert client.search_registered_models() == []
    assert client.search_model_versions("") == []


def test_whoever_loads_from_a_copy_of_a_store_learns_whose_files_these_are(
    database: Path,
    make_outputs: Make,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    register_outputs(make_outputs())
    (tmp_path / "fetched").mkdir()
    fetch_version(Register(), "models:/capnet/1", tmp_path / "fetched")
    assert "this store is a copy" not in caplog.text
    copy = tmp_path / "copy"
    shutil.copytree(database.parent, copy)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{copy / database.name}")
    (tmp_path / "again").mkdir()
    fetch_version(Register(), "models:/capnet/1", tmp_path / "again")
    assert f"capnet version 1 are read from {database.parent / 'mlruns'}: this store is a copy" in caplog.text
