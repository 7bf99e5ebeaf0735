"""The pipeline says what the stage table says, and the compiled documents hold what was asked for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from contract.compiled_pipeline import LOCK, containers, documents, tasks
from google.protobuf import json_format
from kfp.kubernetes import kubernetes_executor_config_pb2
from kfp.pipeline_spec import pipeline_spec_pb2

from capnet.config import Data, parse
from capnet.errors import ConfigError
from capnet.stages import STAGES
from components import readme
from pipelines import compiling
from pipelines.arguments import SECTIONS, data_version, training_arguments
from pipelines.options import Options
from pipelines.training import ORDER, training

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
    result = {key: item["taskOutputArtifact"] for key, item in inputs["artifacts"].items()}
    assert {key: (item["producerTask"], item["outputArtifactKey"]) for key, item in result.items()} == {
        key: (producers[key], key) for key in STAGES[name].inputs
    }
    assert inputs["parameters"]["params"]["componentInputParameter"].removeprefix("pipelinechannel--") == name


def test_a_red_gate_stops_everything_after_it(compiled: tuple[dict[str, Any], Any]) -> None:
    dag = tasks(compiled[0])
    assert not any("triggerPolicy" in task for task in dag.values()), "a condition that is false ends in SUCCESS"
    # KFP hands a limit of 0 to Argo (argocompiler/container.go, getTaskRetryParametersWithValues), where it wins over
    # the defaults of all templates; an exit code would not, as the launcher makes 1 of each (cmd/launcher-v2/main.go)
    assert dag["validate"]["retryPolicy"].get("maxRetryCount", 0) == 0
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


def test_another_seed_changes_nothing_that_the_first_ones_tasks_are_cached_by() -> None:
    first, more = (training_arguments(parse({"train": {"seeds": seeds}}), "v1") for seeds in ([5], [5, 3]))
    different = {name for name, value in first.items() if value != more[name]}
    assert different == {"seeds", "further_seeds"}, "train gets its seed, and of the settings nothing of the others"


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


def test_lists_of_a_loop_are_looked_at_before_anything_is_prepared(several: tuple[dict[str, Any], Any]) -> None:
    dag = tasks(several[0])
    arguments = {key: item["componentInputParameter"] for key, item in dag["plan"]["inputs"]["parameters"].items()}
    assert arguments == {name: f"pipelinechannel--{name}" for name in ("seeds", "first_seed", "further_seeds")}
    after = {"plan"}
    for _ in dag:
        after |= {name for name, task in dag.items() if after & set(task.get("dependentTasks", ()))}
    assert after == set(dag)
    assert not dag["plan"]["cachingOptions"].get("enableCache")
    dag = tasks(documents("prediction")[0])
    arguments = {key: item["componentInputParameter"] for key, item in dag["champion"]["inputs"]["parameters"].items()}
    assert arguments["shards"] == "pipelinechannel--shards"
    (loop,) = [task for name, task in dag.items() if name.startswith("for-loop")]
    assert "champion" in loop["dependentTasks"]


def test_retries_wait_longer_each_time(several: tuple[dict[str, Any], Any]) -> None:
    dag = tasks(several[0])
    retried = {
        name: task["retryPolicy"] for name, task in dag.items() if task.get("retryPolicy", {}).get("maxRetryCount")
    }
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


def test_a_run_that_is_started_again_reads_images_without_a_version_again() -> None:
    """kubeflow/pipelines 2.16.0 and 2.17.0, backend/src: apiserver/template/v2_template.go (RunWorkflow) writes the run
    into every parameter that is text, by common/util/parameter_formatter.go; the run's page keeps what was submitted.
    """
    submitted = data_version(Data(root="/mnt/data/birds"))
    first, again = (submitted.replace("[[RunUUID]]", run) for run in ("6f2f", "9a1c"))
    assert first != again
    assert data_version(Data(root="/mnt/data/birds")) != submitted


def test_a_wrong_stage_or_number_is_refused() -> None:
    with pytest.raises(ConfigError, match="no stage 'trian'"):
        training(Options(LOCK, no_cache_from="trian"))
    with pytest.raises(ConfigError, match="time-outs of 0 and"):
        Options(LOCK, hours=0)


def test_here_nothing_of_a_cluster_is_left() -> None:
    spec, platform = documents("training", images=None, cluster=False)
    assert platform == {}
    assert not any("resources" in item for item in containers(spec).values())
