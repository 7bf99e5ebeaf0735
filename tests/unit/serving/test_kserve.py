"""`capnet deploy`: which versions it refuses, where KServe fetches them, and that equal versions give equal bytes."""

from __future__ import annotations

import json
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result
from contract import kserve_rules
from mlflow.tracking import MlflowClient

from capnet.cli import main
from capnet.errors import CapnetError, ConfigError, GateError
from capnet.serving.kserve import (
    Deployment,
    check_form,
    manifest,
    render,
    serve_image,
    storage_address,
)

IMAGE = f"registry.example.org/team/capnet-serve@sha256:{'a' * 64}"
SOURCE = "s3://models/1/models/m-1/artifacts"


@pytest.fixture
def client(database: Path) -> MlflowClient:
    """A store with version 1 of `capnet demo`, as registered at a server with S3, without a verdict; it is the
    champion.
    """
    result = MlflowClient(os.environ["MLFLOW_TRACKING_URI"])
    result.create_registered_model("capnet demo")
    tags = {
        "content_hash": "0123456789abcdef" * 4,
        "backbone": "packed",
        "provenance": json.dumps({"git_revision": "1" * 40}),
    }
    result.create_model_version("capnet demo", SOURCE, tags=tags)
    result.set_registered_model_alias("capnet demo", "champion", "1")
    Path("params.yaml").write_text("register: {name: capnet demo}\n")
    return result


def verdict(client: MlflowClient, **tags: str) -> None:
    for key, value in (
        {"verdict": "green", "verdict_of": "capnet demo version 1", "verdict_against": "no champion"} | tags
    ).items():
        client.set_model_version_tag("capnet demo", "1", key, value)


def deploy(*arguments: str) -> Result:
    image = [] if "--image" in arguments else ["--image", IMAGE]
    return CliRunner().invoke(main, ["deploy", *image, *arguments])


def error(result: Result) -> str:
    assert isinstance(result.exception, CapnetError), result
    return str(result.exception)


def test_the_manifest_names_version_content_and_address(client: MlflowClient) -> None:
    verdict(client)
    result = deploy()
    assert result.exit_code == 0, result.exception
    path = Path("deploy/kserve/capnet-demo.yaml")
    account = "deploy/kserve/service-account.yaml"
    assert result.stdout == (
        f"deploy: capnet demo version 1 from {SOURCE}, in {path}\n"
        f"next: kubectl apply --filename {account} --filename {path}\n"
        "it serves, in KServe's Standard mode, when this ends:"
        " kubectl rollout status --timeout=10m deployment/capnet-demo-predictor\n"
    )
    actual: dict[str, Any] = yaml.safe_load(path.read_text())
    assert actual["metadata"]["annotations"] == {
        "capnet/model": "capnet demo version 1",
        "capnet/content-hash": "0123456789abcdef" * 4,
        "capnet/verdict": "green",
        "capnet/verdict-against": "no champion",
        "capnet/backbone": "packed",
        "capnet/git-revision": "1" * 40,
    }
    labels = actual["metadata"]["labels"]
    assert (labels["app.kubernetes.io/version"], labels["capnet/model"], labels["capnet/content"]) == (
        "1",
        "capnet-demo",
        "0123456789abcdef",
    )
    (container,) = actual["spec"]["predictor"]["containers"]
    assert (container["name"], container["image"]) == ("kserve-container", IMAGE)
    assert {"name": "STORAGE_URI", "value": SOURCE} in container["env"]
    assert "--model=/mnt/models" in container["args"]
    first = path.read_bytes()
    assert deploy("--out", "-").stdout.encode() == first, "equal versions give equal bytes"
    more = yaml.safe_load(
        deploy(
            "--out",
            "-",
            "--gpus",
            "1",
            "--cpu",
            "3",
            "--memory",
            "4Gi",
            "--namespace",
            "wildlife",
            "--name",
            "traps",
            "--replicas",
            "0",
        ).stdout
    )
    limits = {"cpu": "3", "memory": "4Gi", "nvidia.com/gpu": "1"}
    assert more["spec"]["predictor"]["containers"][0]["resources"]["limits"] == limits
    assert kserve_rules.problems(more) == kserve_rules.knative_problems(more) == []
    assert (more["metadata"]["namespace"], more["metadata"]["name"], more["spec"]["predictor"]["minReplicas"]) == (
        "wildlife",
        "traps",
        0,
    )


def test_the_committed_example_is_what_is_written(repository: Path) -> None:
    text = (repository / "deploy/kserve/capnet.yaml.example").read_text()
    notes = yaml.safe_load(text)["metadata"]["annotations"]
    names = ("content_hash", "verdict_against", "verdict", "backbone", "data_md5", "git_revision")
    tags = {name: notes[f"capnet/{name.replace('_', '-')}"] for name in names}
    tags["provenance"] = json.dumps({name: tags.pop(name) for name in ("data_md5", "git_revision")})
    version: Any = SimpleNamespace(name="capnet", version="7", tags=tags)
    image = f"registry.example.com/team/capnet-serve@sha256:{'0' * 64}"
    assert (
        render(manifest(version, "s3://mlflow/1/models/m-5f1d7a84db00d2fc/artifacts", Deployment("capnet", image)))
        == text
    )


@pytest.mark.parametrize("tag", ["{", "[]", "null", "[" * 4999])
def test_a_damaged_tag_is_named(client: MlflowClient, tag: str) -> None:
    verdict(client, provenance=tag)
    assert "the tag provenance of capnet demo version 1 is damaged" in error(deploy())


def test_a_version_that_the_gate_refuses_is_not_deployed(client: MlflowClient) -> None:
    assert "champion is capnet demo version 1, which has no verdict of the promotion gate" in error(deploy())
    verdict(client, verdict="red", verdict_rules="fail mAP: -0.1")
    assert "a red verdict of the promotion gate: fail mAP: -0.1" in error(deploy())
    assert not Path("deploy").exists()
    client.delete_registered_model_alias("capnet demo", "champion")
    result = deploy("--model", "models:/capnet demo/1")
    assert isinstance(result.exception, GateError), "nor by its number, past the alias"
    verdict(client, verdict="green", verdict_of="capnet production version 1")
    assert "no verdict of the promotion gate" in error(deploy("--model", "models:/capnet demo/1"))
    verdict(client, verdict="red", gate_override="the cameras changed\nkind: Secret")
    result = deploy("--model", "models:/capnet demo/1", "--out", "-")
    assert result.exit_code == 0, result.exception
    (actual,) = yaml.safe_load_all(result.stdout)
    assert actual["metadata"]["annotations"]["capnet/gate-override"] == "the cameras changed\nkind: Secret"
    assert actual["metadata"]["annotations"]["capnet/verdict"] == "red"


def test_the_account_goes_where_the_service_goes(client: MlflowClient) -> None:
    verdict(client)
    assert deploy("--namespace", "wildlife", "--name", "traps").stdout.endswith(
        "next: kubectl apply --namespace wildlife --filename deploy/kserve/service-account.yaml"
        " --filename deploy/kserve/traps.yaml\n"
        "it serves, in KServe's Standard mode, when this ends:"
        " kubectl rollout status --namespace wildlife --timeout=10m deployment/traps-predictor\n"
    )
    own = deploy("--namespace", "wildlife", "--service-account", "default-editor", "--out", "my file.yaml")
    assert "next: kubectl apply --namespace wildlife --filename 'my file.yaml'\n" in own.stdout


def test_the_namespace_that_kserve_leaves_alone_is_warned_of(client: MlflowClient) -> None:
    verdict(client)
    result = deploy("--namespace", "kubeflow")
    assert result.exit_code == 0
    assert result.stderr.count("\n") == 1
    assert "KServe fetches no model in namespace kubeflow" in result.stderr
    assert "kubeflow" not in deploy("--namespace", "wildlife").stderr


def test_what_kubernetes_would_refuse(client: MlflowClient) -> None:
    verdict(client)
    words = "--name 7x --namespace Wild_Life --service-account me! --image https://r.example.org/serve --memory 2GB"
    result = deploy(*words.split(), "--cpu", "two")
    assert isinstance(result.exception, ConfigError), result
    options = "--cpu --image --memory --name --namespace --service-account"
    assert sorted(problem.where for problem in result.exception.problems) == options.split()
    assert not Path("deploy").exists()
    for account in ("wild..life", "wild-.life", "wild.-life", "a" * 254):
        with pytest.raises(ConfigError, match="a letter or digit before and after each dot"):
            check_form(Deployment("capnet", IMAGE, "", account))


def test_a_host_name_that_the_standard_mode_would_not_make(client: MlflowClient) -> None:
    verdict(client)
    assert "longer than 63 letters" in deploy("--name", "a" * 40, "--namespace", "b" * 13).stderr
    assert "longer than" not in deploy("--name", "a" * 40, "--namespace", "b" * 12).stderr


def test_a_version_without_files_is_not_deployed(client: MlflowClient, tmp_path: Path) -> None:
    verdict(client)
    client.create_model_version("capnet demo", (tmp_path / "gone").as_uri(), tags={"verdict": "green"})
    client.set_model_version_tag("capnet demo", "2", "verdict_of", "capnet demo version 2")
    assert "the store has no files of capnet demo version 2" in error(deploy("--model", "models:/capnet demo/2"))


def test_an_unpacked_version_is_deployed_with_a_note(client: MlflowClient) -> None:
    verdict(client, backbone="referenced")
    result = deploy()
    assert result.exit_code == 0
    assert "the image must have them" in result.stderr


@pytest.mark.parametrize(
    ("source", "behind", "expected"),
    [
        ("s3://models/1/m", "", "s3://models/1/m"),
        ("gs://models/1/m", "s3://ignored", "gs://models/1/m"),
        ("mlflow-artifacts:/1/m", "https://a.blob.core.windows.net/c", "https://a.blob.core.windows.net/c/1/m"),
        ("mlflow-artifacts:/1/models/m-1/artifacts", "s3://mlflow", "s3://mlflow/1/models/m-1/artifacts"),
        ("mlflow-artifacts:/1/models/m-1/artifacts", "s3://mlflow/deep/", "s3://mlflow/deep/1/models/m-1/artifacts"),
        ("mlflow-artifacts://mlflow.example.org:5000/1/models/m-1", "s3://mlflow", "s3://mlflow/1/models/m-1"),
        ("mlflow-artifacts:///1/models/m-1", "s3://mlflow", "s3://mlflow/1/models/m-1"),
    ],
)
def test_where_kserve_fetches(client: MlflowClient, source: str, behind: str, expected: str) -> None:
    version = client.create_model_version("capnet demo", source)
    assert storage_address(client, version, behind) == expected


def test_addresses_that_kserve_cannot_read(client: MlflowClient) -> None:
    for source, behind, reason in (
        ("mlflow-artifacts:/1/m", "", "come through the MLflow server"),
        ("file:///data/mlruns/1/m", "", "KServe cannot read a folder from file:///data"),
        ("mlflow-artifacts:/1/m", "/srv/artifacts", "KServe cannot read a folder from /srv/artifacts/1/m"),
        ("https://example.org/models/1/m", "", "KServe cannot read a folder from https://example.org/models/1/m"),
        ("http://example.org/models/1/m", "", "give a store of s3://, gs://, "),
        ("mlflow-artifacts:/1/m", "https://mlflow.example.org", "KServe cannot read a folder from https://mlflow.exa"),
    ):
        with pytest.raises(ConfigError, match=reason):
            storage_address(client, client.create_model_version("capnet demo", source), behind)


def test_the_image_comes_from_the_lock_by_digest(tmp_path: Path) -> None:
    lock = tmp_path / "images.lock.yaml"
    for content in (
        None,
        "",
        "[]",
        "images: {}",
        "images: 3",
        "images: {serve: text}",
        "<<<<<<< HEAD\nschema: 1\n",
        "images:\n  serve: {tag: 'r/capnet-serve:1'}\n",
        "images:\n  serve: {digest: 'sha256:abc', tag: 'r/s:1'}\n",
    ):
        if content is not None:
            lock.write_text(content)
        with pytest.raises(ConfigError, match="no digest of the image `serve`"):
            serve_image(lock)
    lock.write_text(
        f"schema: 1\nimages:\n  serve: {{tag: 'registry:5000/capnet-serve:1', digest: 'sha256:{'b' * 64}'}}\n"
    )
    assert serve_image(lock) == f"registry:5000/capnet-serve@sha256:{'b' * 64}"


def test_a_file_that_is_no_manifest_of_the_model_stays(client: MlflowClient) -> None:
    verdict(client)
    assert deploy().exit_code == 0
    file = Path("deploy/kserve/capnet-demo.yaml")
    assert deploy().exit_code == 0, "its own manifest is replaced"
    # another model's, whose service has the same name
    file.write_text(text := file.read_text().replace("capnet demo version", "capnet-demo version"))
    for out in (str(file), "params.yaml"):
        before = Path(out).read_text()
        assert "there is a file that is no manifest of capnet demo" in error(deploy("--out", out))
        assert Path(out).read_text() == before
    assert "no manifest of capnet demo" in error(deploy())
    assert file.read_text() == text
    assert deploy("--name", "other").exit_code == 0
