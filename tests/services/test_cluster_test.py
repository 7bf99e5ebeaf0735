"""What `make cluster-test` needs beside the cluster: the upload of pictures, and the figures of a registered model."""

from __future__ import annotations

import json
from pathlib import Path

import boto3
import mlflow
import pytest
from cluster import compare, upload
from services.s3_server import S3Server


def test_a_folder_is_in_a_new_bucket_and_a_second_time_too(
    s3: S3Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "data" / "images").mkdir(parents=True)
    (tmp_path / "data" / "labels.csv").write_text("path,labels\n")
    (tmp_path / "data" / "images" / "1.png").write_bytes(b"1")
    for _ in range(2):
        upload.main(str(tmp_path / "data"), "cluster-test", "demo")
    assert "2 files in s3://cluster-test/demo" in capsys.readouterr().out
    assert {item["Key"] for item in boto3.client("s3").list_objects_v2(Bucket="cluster-test")["Contents"]} == {
        "demo/labels.csv",
        "demo/images/1.png",
    }


def test_the_figures_of_a_registered_version_are_those_of_its_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    figures = {"capnet": {"mAP": 0.5}}
    client = mlflow.MlflowClient()
    run = client.create_run(client.create_experiment("birds", artifact_location=(tmp_path / "artifacts").as_uri()))
    (tmp_path / "evaluation.json").write_text(json.dumps(figures))
    client.log_artifact(run.info.run_id, str(tmp_path / "evaluation.json"))
    client.create_registered_model("birds")
    version = client.create_model_version("birds", f"{run.info.artifact_uri}/model", run.info.run_id)
    client.set_registered_model_alias("birds", "challenger", version.version)
    assert compare.registered("birds", "challenger") == figures
