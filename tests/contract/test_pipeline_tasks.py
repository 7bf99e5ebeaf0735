"""What each task of a compiled pipeline gets: image, memory, GPU, volumes, secrets and time."""

from __future__ import annotations

from typing import Any

import pytest
from click.testing import CliRunner
from contract.compiled_pipeline import LOCK, containers, documents, tasks

from capnet.cluster.names import DATA, POD, STATE
from capnet.config import parse
from capnet.errors import ConfigError
from capnet.stages import STAGES
from pipelines import submit
from pipelines.arguments import stage_arguments
from pipelines.options import Options
from pipelines.task_setup import CLUSTER
from pipelines.training import ORDER

READ_PICTURES = {"fetch", "ingest", "validate", "train", "evaluate"}
ON_VOLUME = {"fetch", *(name for name, stage in STAGES.items() if "data" in stage.sections)}
HEAVY = {"train", "evaluate"}


def claims(settings: dict[str, Any]) -> dict[str, str]:
    result = {}
    for item in settings.get("pvcMount", ()):
        result[item["mountPath"]] = item["pvcNameParameter"]["componentInputParameter"].removeprefix(
            "pipelinechannel--"
        )
    return result


def secrets(settings: dict[str, Any]) -> dict[str, set[str]]:
    result = {}
    for item in settings.get("secretAsEnv", ()):
        assert item["optional"], "a key that a secret lacks must not keep the pod from starting"
        name = item["secretNameParameter"]["componentInputParameter"].removeprefix("pipelinechannel--")
        result[name] = {key["envVar"] for key in item["keyToEnv"]}
        assert all(key["envVar"] == key["secretKey"] for key in item["keyToEnv"])
    return result


def base(name: str) -> str:
    return name.removesuffix("-2")


def test_images_are_digests_and_torch_is_where_it_is_needed(compiled: tuple[dict[str, Any], Any]) -> None:
    result = {name: item["image"] for name, item in containers(compiled[0]).items()}
    assert all("@sha256:" in image for image in result.values())
    assert {name for name, image in result.items() if image == LOCK.train} == {"graph", "train", "evaluate", "register"}
    assert {name for name, image in result.items() if image == LOCK.data} == {
        "fetch",
        "ingest",
        "split",
        "validate",
        "report",
        "outcome",
    }


def test_gpu_memory_and_nodes_are_parameters_of_train_and_evaluate_only(several: tuple[dict[str, Any], Any]) -> None:
    spec, platform = several
    for name, container in containers(spec).items():
        accelerator = container.get("resources", {}).get("accelerator")
        if base(name) not in HEAVY:
            assert accelerator is None, name
            assert not {"nodeSelector", "tolerations"} & platform[name].keys(), name
            continue
        assert "accelerator_type" in accelerator["resourceType"], name
        assert "accelerator_count" in accelerator["resourceCount"], name
        assert "memory" in container["resources"]["resourceMemoryLimit"], name
        assert "memory" in container["resources"]["resourceMemoryRequest"], name
        assert "cpu" in container["resources"]["resourceCpuRequest"], name
        assert "node_selector" in platform[name]["nodeSelector"]["nodeSelectorJson"]["componentInputParameter"]
        assert "tolerations" in platform[name]["tolerations"][0]["tolerationJson"]["componentInputParameter"]


def test_shared_memory_lies_in_memory(compiled: tuple[dict[str, Any], Any]) -> None:
    for name, settings in compiled[1].items():
        mounts = {item["mountPath"]: item for item in settings.get("emptyDirMounts", ())}
        assert ("/dev/shm" in mounts) == (name in HEAVY), name
        if name in HEAVY:
            assert (mounts["/dev/shm"]["medium"], mounts["/dev/shm"]["sizeLimit"]) == ("Memory", "2Gi")
        assert "/tmp" in mounts, f"{name} needs a writable /tmp where the root file system is read only"


def test_volumes_and_secrets_reach_the_tasks_that_need_them(several: tuple[dict[str, Any], Any]) -> None:
    for name, settings in several[1].items():
        stage = base(name)
        expected = {STATE: "state_claim"} if stage in READ_PICTURES | {"graph", "register"} else {}
        expected |= {DATA: "data_claim"} if stage in ON_VOLUME else {}
        assert claims(settings) == expected, name
        named = set(secrets(settings))
        store = {"mlflow_secret"} if stage in HEAVY else set()
        assert named == (
            {"s3_secret", "git_secret"} | store
            if stage in READ_PICTURES
            else {"mlflow_secret", "s3_secret"}
            if stage == "register"
            else set()
        ), name
    assert {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_ENDPOINT_URL"} <= secrets(several[1]["ingest"])[
        "s3_secret"
    ]
    assert {"MLFLOW_TRACKING_URI", "MLFLOW_TRACKING_PASSWORD"} <= secrets(several[1]["register"])["mlflow_secret"]


def test_without_a_state_volume_the_folder_goes_with_the_pod() -> None:
    _, platform = documents("training", state_volume=False)
    assert not any(settings.get("pvcMount") for settings in platform.values())
    assert STATE in {item["mountPath"] for item in platform["train"]["emptyDirMounts"]}


def test_no_task_runs_as_root_or_without_an_end(compiled: tuple[dict[str, Any], Any]) -> None:
    assert set(compiled[1]) == {*ORDER, "outcome"}
    for name, settings in compiled[1].items():
        assert settings["securityContext"] == {"runAsNonRoot": True}, name
        assert settings["podMetadata"]["labels"] == {"capnet/role": "task"}, name
        assert int(settings["activeDeadlineSeconds"]) == (86400 if name in HEAVY else 7200), name


@pytest.mark.slow
def test_a_pull_secret_reaches_every_pod_that_runs_our_images() -> None:
    seeds, on_nodes = ({"further_seeds": True}, {"nodes": 2})
    for kind, options in (("training", seeds), ("prediction", seeds), ("training", on_nodes)):
        spec, platform = documents(kind, pull_secret=True, **options)
        assert set(platform) == set(containers(spec))
        for name, settings in platform.items():
            (secret,) = settings["imagePullSecret"]
            named = secret["secretNameParameter"]["componentInputParameter"].removeprefix("pipelinechannel--")
            assert named == "pull_secret", name
    nodes = tasks(spec)["train-nodes"]["inputs"]["parameters"]["pull_secret"]
    assert nodes == {"componentInputParameter": "pipelinechannel--pull_secret"}
    assert not any("imagePullSecret" in settings for settings in documents("training")[1].values())


def test_on_several_nodes_train_starts_pods_that_get_what_it_would_get() -> None:
    spec, platform = documents(
        "training", nodes=3, processes_per_node=2, data_volume=True, shared_memory="4Gi", train_hours=5
    )
    dag = tasks(spec)
    assert "train" not in dag
    task, settings = dag["train-nodes"], platform["train-nodes"]
    assert task["taskInfo"]["name"] == "train"
    assert {name for name, item in dag.items() if "train-nodes" in item.get("dependentTasks", ())} == {
        "evaluate",
        "register",
    }
    assert {key: item["taskOutputArtifact"]["producerTask"] for key, item in task["inputs"]["artifacts"].items()} == {
        key: {"data": "fetch", "validation": "validate"}.get(key, key) for key in STAGES["train"].inputs
    }
    arguments = {
        name: item.get("componentInputParameter") or item["runtimeValue"]["constant"]
        for name, item in task["inputs"]["parameters"].items()
    }
    fixed = {
        "nodes": 3.0,
        "processes_per_node": 2.0,
        "image": LOCK.train,
        "shared_memory": "4Gi",
        "hours": 5.0,
        "start_minutes": 30.0,
    }
    assert {name: arguments.pop(name) for name in [*fixed, "runtime"]} == {**fixed, "runtime": "torch-distributed"}
    named = {"params": "train", "seed": "first_seed"}
    assert arguments.pop("pull_secret") == "", "no secret unless one is named"
    assert arguments == {name: f"pipelinechannel--{named.get(name, name)}" for name in arguments}
    assert set(arguments) | {"pull_secret"} == {"params", "seed", *CLUSTER}
    container = containers(spec)["train-nodes"]
    assert container["image"] == LOCK.train
    assert "accelerator" not in container["resources"], "it only waits"
    assert claims(settings) == {STATE: "state_claim"}
    assert not settings.get("secretAsEnv"), "its pods get secrets by reference"
    assert {item["name"]: item["fieldPath"] for item in settings["fieldPathAsEnv"]} == POD
    assert int(settings["activeDeadlineSeconds"]) == 5 * 3600
    assert "accelerator" in containers(spec)["evaluate"]["resources"]
    assert task["retryPolicy"]["maxRetryCount"] == 2


def test_several_nodes_take_a_cluster_with_a_state_volume() -> None:
    for wrong in ({"cluster": False}, {"state_volume": False}):
        with pytest.raises(ConfigError, match="nodes = 2"):
            Options(LOCK, nodes=2, **wrong)
    result = CliRunner().invoke(submit.command, ["prediction", "--nodes", "2", "--dry-run"])
    assert "--shards" in str(result.exception)
    result = CliRunner().invoke(
        submit.command,
        ["training", "--nodes", "8", "--accelerator-count", "8", "--set", "train.batch_size=32", "--dry-run"],
    )
    assert "64 processes (8 nodes with 8 each) for batches of 32 images" in str(result.exception)


def test_the_graph_insists_on_no_gpu_because_its_task_gets_none(compiled: tuple[dict[str, Any], Any]) -> None:
    specification, _ = compiled
    assert "accelerator" not in containers(specification)["graph"].get("resources", {})
    for device, sent in (("cuda", "auto"), ("auto", "auto"), ("cpu", "cpu")):
        stages = stage_arguments(parse({"runtime": {"device": device}}))
        assert stages["graph"]["runtime"]["device"] == sent
        assert {stages[name]["runtime"]["device"] for name in HEAVY} == {device}
