"""The pipeline says what the stage table says, and the compiled documents hold what was asked for."""

from __future__ import annotations

import ast
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner
from google.protobuf import json_format
from kfp.kubernetes import kubernetes_executor_config_pb2
from kfp.pipeline_spec import pipeline_spec_pb2

from capnet.cluster.names import DATA, POD, STATE
from capnet.config import parse
from capnet.errors import ConfigError, ContractError
from capnet.stages import STAGES
from components import readme
from components.images import Images, read_lock
from pipelines import compiling, submit
from pipelines.arguments import SECTIONS, training_arguments
from pipelines.options import CLUSTER, Options
from pipelines.training import ORDER, training

LOCK = read_lock(compiling.GOLDEN_LOCK)
READ_PICTURES = {"fetch", "ingest", "validate", "train", "evaluate"}
HEAVY = {"train", "evaluate"}


@cache
def documents(name: str, **options: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """Specification, and settings per executor (without the prefix exec-)."""
    text = compiling.compile_text(compiling.PIPELINES[name](Options(**{"images": LOCK, **options})))
    spec, *platform = yaml.load_all(text, yaml.CSafeLoader)
    executors = platform[0]["platforms"]["kubernetes"]["deploymentSpec"]["executors"] if platform else {}
    return spec, {name.removeprefix("exec-"): settings for name, settings in executors.items()}


@pytest.fixture(scope="module")
def compiled() -> tuple[dict[str, Any], dict[str, Any]]:
    return documents("training")


@pytest.fixture(scope="module")
def several() -> tuple[dict[str, Any], dict[str, Any]]:
    return documents("training", further_seeds=True, data_volume=True)


def tasks(spec: dict[str, Any]) -> dict[str, Any]:
    """The tasks inside the exit handler."""
    found: dict[str, Any] = spec["components"]["comp-exit-handler-1"]["dag"]["tasks"]
    return found


def containers(spec: dict[str, Any]) -> dict[str, Any]:
    return {name.removeprefix("exec-"): item["container"] for name, item in spec["deploymentSpec"]["executors"].items()}


# ---------------------------------------------------------------- stage table = pipeline


def test_the_pipeline_runs_the_stages_in_order() -> None:
    assert [name for name in ORDER if name in STAGES] == list(STAGES)
    assert [name for name in ORDER if name not in STAGES] == ["fetch", "report"]
    assert set(readme.names()) >= {*ORDER, "outcome"}


@pytest.mark.parametrize("name", STAGES)
def test_a_component_takes_and_gives_what_its_stage_does(name: str) -> None:
    spec, stage = readme.component(name).component_spec, STAGES[name]
    artifacts = {key for key, item in spec.inputs.items() if "@" in item.type}
    assert artifacts == set(stage.inputs)
    assert {key for key, item in spec.outputs.items() if "@" in item.type} - {"metrics"} == set(stage.outputs)
    assert spec.description == stage.summary
    sections = ", ".join(stage.sections[:-1]) + (" and " if len(stage.sections) > 1 else "") + stage.sections[-1]
    assert f"Settings of section{'s' if len(stage.sections) > 1 else ''} {sections}." in readme.tables(name)
    assert SECTIONS[name] == stage.sections


@pytest.mark.parametrize("name", STAGES)
def test_edges_of_the_pipeline_are_those_of_the_stage_table(compiled: tuple[dict[str, Any], Any], name: str) -> None:
    producers = {output: stage.name for stage in STAGES.values() for output in stage.outputs} | {"data": "fetch"}
    inputs = tasks(compiled[0])[name]["inputs"]
    found = {key: item["taskOutputArtifact"] for key, item in inputs["artifacts"].items()}
    assert {key: (item["producerTask"], item["outputArtifactKey"]) for key, item in found.items()} == {
        key: (producers[key], key) for key in STAGES[name].inputs
    }
    assert inputs["parameters"]["params"]["componentInputParameter"].removeprefix("pipelinechannel--") == name


def test_a_red_gate_stops_everything_after_it(compiled: tuple[dict[str, Any], Any]) -> None:
    dag = tasks(compiled[0])
    assert not any("triggerPolicy" in task for task in dag.values()), "a condition that is false ends in SUCCESS"
    assert "retryPolicy" not in dag["validate"]
    after = {"validate"}
    for _ in dag:
        after |= {name for name, task in dag.items() if after & set(task.get("dependentTasks", ()))}
    assert after == {"validate", "graph", "train", "evaluate", "report", "register"}
    assert "report" in dag["register"]["dependentTasks"]


def test_the_exit_handler_runs_whatever_happened(compiled: tuple[dict[str, Any], Any]) -> None:
    root = compiled[0]["root"]["dag"]["tasks"]
    assert root["outcome"]["triggerPolicy"]["strategy"] == "ALL_UPSTREAM_TASKS_COMPLETED"
    assert root["outcome"]["dependentTasks"] == ["exit-handler-1"]


def test_every_pipeline_argument_is_an_input_and_the_other_way_round(compiled: tuple[dict[str, Any], Any]) -> None:
    inputs = compiled[0]["root"]["inputDefinitions"]["parameters"]
    required = {name for name, item in inputs.items() if not item.get("isOptional")}
    assert set(training_arguments(parse({}), "v1")) == required
    assert set(inputs) - required == {
        "accelerator_type",
        "accelerator_count",
        "cpu",
        "memory",
        "node_selector",
        "tolerations",
        "s3_secret",
        "mlflow_secret",
        "git_secret",
        "state_claim",
        "data_claim",
        "pull_secret",
    }


def test_train_learns_where_its_curves_go_and_no_more_of_register(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, points in (("a.yaml", 0.01), ("b.yaml", 0.05)):
        Path(name).write_text(f"may_fall: {{mAP: {points}}}\n")
    one, other = (
        training_arguments(parse({"register": {"policy": policy, "experiment": "birds"}}), "v1")
        for policy in ("a.yaml", "b.yaml")
    )
    assert one["train"]["register"]["experiment"] == "birds"
    assert one["train"] == other["train"], "another policy would train again"
    assert one["register"] != other["register"]
    assert parse(one["evaluate"]).register_.experiment == "birds"


def test_no_argument_is_null() -> None:
    def nulls(value: Any) -> bool:
        return (
            value is None
            or (isinstance(value, dict) and any(map(nulls, value.values())))
            or (isinstance(value, list) and any(map(nulls, value)))
        )

    for preset in ("demo", "own", "coco-mini", "voc-lt", "coco-lt", "nus-wide"):
        from capnet.commands.preset import read

        assert not nulls(training_arguments(read(preset), "v1")), preset


def test_the_first_seed_is_registered_and_the_others_only_reported(several: tuple[dict[str, Any], Any]) -> None:
    spec = several[0]
    dag = tasks(spec)
    assert dag["train"]["inputs"]["parameters"]["seed"]["componentInputParameter"] == "pipelinechannel--first_seed"
    assert dag["register"]["inputs"]["artifacts"]["model"]["taskOutputArtifact"]["producerTask"] == "train"
    loop = next(task for name, task in dag.items() if name.startswith("for-loop"))
    assert loop["parameterIterator"]["items"]["inputParameter"] == "pipelinechannel--further_seeds"
    inner = spec["components"][loop["componentRef"]["name"]]["dag"]["tasks"]
    assert {name.rpartition("-")[0] for name in inner} == {"train", "evaluate"}
    assert dag["report"]["inputs"]["parameters"]["others"]["taskOutputParameter"]["producerTask"].startswith("for-loop")
    arguments = training_arguments(parse({"train": {"seeds": [5, 3, 9]}}), "v1")
    assert (arguments["first_seed"], arguments["further_seeds"], arguments["seeds"]) == (5, [3, 9], [5, 3, 9])


# ---------------------------------------------------------------- golden files and protos


@pytest.mark.parametrize("name", compiling.GOLDEN_PIPELINES)
def test_golden_files_are_what_the_code_compiles_to(name: str) -> None:
    text = (compiling.GOLDEN / f"{name}.yaml").read_text()
    assert text == compiling.golden(name), "look at the difference; if it is wanted: python -m pipelines.compiling"


@pytest.mark.parametrize("name", compiling.GOLDEN_PIPELINES)
def test_compiled_documents_parse_without_unknown_fields(name: str) -> None:
    spec, platform = yaml.safe_load_all((compiling.GOLDEN / f"{name}.yaml").read_text())
    json_format.ParseDict(spec, pipeline_spec_pb2.PipelineSpec(), ignore_unknown_fields=False)
    executors = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    for settings in executors.values():
        json_format.ParseDict(
            settings, kubernetes_executor_config_pb2.KubernetesExecutorConfig(), ignore_unknown_fields=False
        )
    assert set(executors) == set(spec["deploymentSpec"]["executors"])


def test_the_parser_refuses_an_unknown_field() -> None:
    with pytest.raises(json_format.ParseError):
        json_format.ParseDict(
            {"shm": "2Gi"}, kubernetes_executor_config_pb2.KubernetesExecutorConfig(), ignore_unknown_fields=False
        )


def test_nothing_is_installed_in_a_pod(compiled: tuple[dict[str, Any], Any]) -> None:
    text = yaml.safe_dump(compiled[0])
    assert "pip install" not in text
    assert "pip3 install" not in text


# ---------------------------------------------------------------- what tasks get


def claims(settings: dict[str, Any]) -> dict[str, str]:
    found = {}
    for item in settings.get("pvcMount", ()):
        found[item["mountPath"]] = item["pvcNameParameter"]["componentInputParameter"].removeprefix("pipelinechannel--")
    return found


def secrets(settings: dict[str, Any]) -> dict[str, set[str]]:
    found = {}
    for item in settings.get("secretAsEnv", ()):
        assert item["optional"], "a key that a secret lacks must not keep the pod from starting"
        name = item["secretNameParameter"]["componentInputParameter"].removeprefix("pipelinechannel--")
        found[name] = {key["envVar"] for key in item["keyToEnv"]}
        assert all(key["envVar"] == key["secretKey"] for key in item["keyToEnv"])
    return found


def base(name: str) -> str:
    return name.removesuffix("-2")


def test_images_are_digests_and_torch_is_where_it_is_needed(compiled: tuple[dict[str, Any], Any]) -> None:
    found = {name: item["image"] for name, item in containers(compiled[0]).items()}
    assert all("@sha256:" in image for image in found.values())
    assert {name for name, image in found.items() if image == LOCK.train} == {"graph", "train", "evaluate", "register"}
    assert {name for name, image in found.items() if image == LOCK.data} == {
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
        expected |= {DATA: "data_claim"} if stage in READ_PICTURES else {}
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


def test_lists_of_a_loop_are_looked_at_before_anything_is_prepared(several: tuple[dict[str, Any], Any]) -> None:
    dag = tasks(several[0])
    given = {key: item["componentInputParameter"] for key, item in dag["plan"]["inputs"]["parameters"].items()}
    assert given == {name: f"pipelinechannel--{name}" for name in ("seeds", "first_seed", "further_seeds")}
    after = {"plan"}
    for _ in dag:
        after |= {name for name, task in dag.items() if after & set(task.get("dependentTasks", ()))}
    assert after == set(dag)
    assert not dag["plan"]["cachingOptions"].get("enableCache")
    dag = tasks(documents("prediction")[0])
    given = {key: item["componentInputParameter"] for key, item in dag["champion"]["inputs"]["parameters"].items()}
    assert given["shards"] == "pipelinechannel--shards"
    (loop,) = [task for name, task in dag.items() if name.startswith("for-loop")]
    assert "champion" in loop["dependentTasks"]


def test_retries_wait_longer_each_time(several: tuple[dict[str, Any], Any]) -> None:
    dag = tasks(several[0])
    retried = {name: task["retryPolicy"] for name, task in dag.items() if "retryPolicy" in task}
    assert set(retried) == {"fetch", "ingest", "train", "evaluate", "register"}
    policy = dict(retried["train"])
    longest = int(policy.pop("backoffMaxDuration").removesuffix("s"))
    assert policy == {"backoffDuration": "30s", "backoffFactor": 2.0, "maxRetryCount": 2}
    most = Options(LOCK, retries=10, train_hours=720)
    assert longest >= 3600 * (most.retries + 1) * most.train_hours, (
        "Argo counts all tries together, and would not try a long training again"
    )


@pytest.mark.parametrize(
    ("options", "uncached"),
    [
        ({}, {"register"}),
        ({"cache": False}, set(ORDER)),
        ({"no_cache_from": "train"}, {"train", "evaluate", "report", "register"}),
    ],
)
def test_what_is_taken_from_the_cache(options: dict[str, Any], uncached: set[str]) -> None:
    spec, _ = documents("training", **options)
    assert {name for name, task in tasks(spec).items() if not task["cachingOptions"].get("enableCache")} == uncached
    assert not spec["root"]["dag"]["tasks"]["outcome"]["cachingOptions"].get("enableCache")


def test_the_pictures_version_is_part_of_the_cache_key(compiled: tuple[dict[str, Any], Any]) -> None:
    assert (
        tasks(compiled[0])["fetch"]["inputs"]["parameters"]["version"]["componentInputParameter"]
        == "pipelinechannel--data_version"
    )


def test_a_wrong_stage_or_number_is_refused() -> None:
    with pytest.raises(ConfigError, match="no stage 'trian'"):
        training(Options(LOCK, no_cache_from="trian"))
    with pytest.raises(ConfigError, match="time-outs of 0 and"):
        Options(LOCK, hours=0)


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
    given = {
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
    assert {name: given.pop(name) for name in [*fixed, "runtime"]} == {**fixed, "runtime": "torch-distributed"}
    named = {"params": "train", "seed": "first_seed"}
    assert given.pop("pull_secret") == "", "no secret unless one is named"
    assert given == {name: f"pipelinechannel--{named.get(name, name)}" for name in given}
    assert set(given) | {"pull_secret"} == {"params", "seed", *CLUSTER}
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


def test_here_nothing_of_a_cluster_is_left() -> None:
    spec, platform = documents("training", images=None, cluster=False)
    assert platform == {}
    assert not any("resources" in item for item in containers(spec).values())


# ---------------------------------------------------------------- images


def test_a_lock_without_digests_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "images.lock.yaml"
    with pytest.raises(ConfigError, match="make images push"):
        read_lock(path)
    content = yaml.safe_load(compiling.GOLDEN_LOCK.read_text())
    content["images"]["train"]["digest"] = ""
    path.write_text(yaml.safe_dump(content))
    with pytest.raises(ContractError, match="train has no digest"):
        read_lock(path)
    assert read_lock(path, allow_tags=True) == replace(LOCK, train="registry.example.com/capnet-train:test")


@pytest.mark.parametrize("text", ["", "schema: 2", "schema: 1\nimages: 3", "schema: 1\nimages: {}"])
def test_a_broken_lock_is_no_traceback(tmp_path: Path, text: str) -> None:
    path = tmp_path / "images.lock.yaml"
    path.write_text(text)
    with pytest.raises(ContractError):
        read_lock(path)


def test_a_lock_survives_writing_and_reading(tmp_path: Path) -> None:
    from components.images import write_lock

    path, digest = tmp_path / "images.lock.yaml", "sha256:" + "a" * 64
    write_lock(
        path, "abc", {"data": ("localhost:5000/team/capnet-data:abc", digest), "train": ("capnet-train:abc", digest)}
    )
    assert read_lock(path) == Images(f"localhost:5000/team/capnet-data@{digest}", f"capnet-train@{digest}")
    with pytest.raises(ContractError, match="no digest"):
        write_lock(path, "abc", {"data": ("x:1", "")})


# ---------------------------------------------------------------- components


@pytest.mark.parametrize("name", readme.names())
def test_readme_tables_are_written_from_the_signature(name: str) -> None:
    text = (readme.FOLDER / name / "README.md").read_text()
    assert readme.rewritten(name, text) == text, "run: python -m components.readme"
    assert text.startswith(f"# {name}\n")


@pytest.mark.parametrize("name", readme.names())
def test_a_shim_is_thin(name: str) -> None:
    folder = readme.FOLDER / name
    assert {path.name for path in folder.iterdir()} - {"__pycache__"} == {"__init__.py", "component.py", "README.md"}
    function = next(
        node for node in ast.parse((folder / "component.py").read_text()).body if isinstance(node, ast.FunctionDef)
    )
    statements = [node for node in ast.walk(function) if isinstance(node, ast.stmt)]
    assert len(statements) <= 14, "logic belongs into capnet/, where it can be tested"
    assert not any(
        isinstance(node, ast.If | ast.While | ast.Try | ast.FunctionDef)
        for node in ast.walk(function)
        if node is not function
    )
    modules = {str(node.module) for node in ast.walk(function) if isinstance(node, ast.ImportFrom)}
    assert modules <= {"pathlib"} | {module for module in modules if module.startswith("capnet.")}
    if name in STAGES:
        assert "capnet.stages" in modules


@pytest.mark.parametrize("folder", ["components", "pipelines"])
def test_only_these_folders_import_kfp_and_neither_the_inside_of_a_stage(folder: str, repository: Path) -> None:
    allowed = {
        "components": (
            "capnet.errors",
            "capnet.stages",
            "capnet.tasks",
            "capnet.data.sources.source",
            "capnet.evaluation.seeds",
            "capnet.registry",
            "capnet.promotion",
            "capnet.serving",
            "capnet.tracking",
            "capnet.cluster",
            "components",
        ),
        "pipelines": (
            "capnet.cluster.names",
            "capnet.commands.options",
            "capnet.config",
            "capnet.contracts",
            "capnet.errors",
            "capnet.stages",
            "capnet.tasks",
            "capnet.cluster.trainjob_spec",
            "capnet.data",
            "capnet.tracking.database",
            "capnet.tracking.store",
            "components",
            "pipelines",
        ),
    }[folder]
    for path in sorted((repository / folder).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            names = (
                [alias.name for alias in node.names]
                if isinstance(node, ast.Import)
                else [str(node.module)]
                if isinstance(node, ast.ImportFrom)
                else []
            )
            for name in names:
                if name.split(".")[0] in ("capnet", "components", "pipelines", "tests"):
                    assert name.startswith(allowed), f"{path.relative_to(repository)} imports {name}"
                assert name.split(".")[0] not in ("torch", "mlflow", "dvc", "boto3", "great_expectations"), path
