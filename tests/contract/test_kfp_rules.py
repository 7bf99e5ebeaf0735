"""The stand-in of KFP refuses what its API server, its compiler and its driver refuse: one wrong document a line, with
the rule's source, which is in full in the stand-in itself.
"""

from __future__ import annotations

import copy
from typing import Any

import pytest
import yaml
from contract import kfp_driver, kfp_pod, kfp_rules
from contract.test_pipeline_types import PARAMS
from contract.wrong_documents import Change, drop, params, put

from pipelines import compiling
from pipelines.arguments import training_arguments

pytestmark = pytest.mark.slow

TEMPLATE, DAG, VISITOR = "template/v2_template.go", "argocompiler/dag.go", "compiler/visitor.go"
DRIVER, K8S, RESOLVE = "driver/driver.go", "driver/k8s.go", "driver/resolve.go"


# ---------------------------------------------------------------- a pipeline that is uploaded

HANDLER = ("components", "comp-exit-handler-1", "dag", "tasks")
PIPELINES = [
    (put("schemaVersion", value="2.0.0"), "only supports schema version 2.1.0", TEMPLATE),
    (put("pipelineInfo", value={}), "no pipeline spec is provided", TEMPLATE),
    (put("pipelineInfo", "name", value="Capnet_Training"), "only lowercase alphanumeric", "common/utils.go"),
    (put("pipelineInfo", "name", value="a" * 129), "at most 128", "common/utils.go"),
    (drop("root"), "no pipeline spec is provided", TEMPLATE),
    (put("shm", value="2Gi"), "no pipeline spec is provided", TEMPLATE),
    (put("root", "dag", "tasks", "outcome", "retries", value=2), "no pipeline spec is provided", TEMPLATE),
    (put("components", "comp-fetch", "executorLabel", value="exec-none"), "not found in deployment config", VISITOR),
    (drop("deploymentSpec", "executors", "exec-fetch", "container"), "executor not implemented", VISITOR),
    (put("components", "comp-fetch", value={}), "unknown component implementation", VISITOR),
    (put(*HANDLER, "fetch", "componentRef", value={}), "component ref name is empty", VISITOR),
    (put(*HANDLER, "fetch", "componentRef", "name", value="comp-none"), "cannot find component ref", VISITOR),
    (drop("root", "dag", "tasks", "exit-handler-1"), "one or more non-exit tasks", DAG),
    (
        put(*HANDLER, "split", "inputs", "artifacts", "manifest", "taskOutputArtifact", "producerTask", value="x"),
        'unknown producer task "x"',
        DAG,
    ),
    (put(*HANDLER, "split", "dependentTasks", value=["x"]), "dependency 'x' not defined", "argo validate/validate.go"),
    (
        put(*HANDLER, "fetch", "artifactIterator", value={"itemInput": "x", "items": {"inputArtifact": "y"}}),
        "artifact iterator not implemented",
        DAG,
    ),
    (put(*HANDLER, "2nd", value={"componentRef": {"name": "comp-fetch"}}), "begin with a digit", "argo validate.go"),
    (put(*HANDLER, "a b", value={"componentRef": {"name": "comp-fetch"}}), "is invalid", "argo validate.go"),
]


@pytest.fixture(scope="module")
def golden() -> tuple[dict[str, Any], dict[str, Any]]:
    spec, platform = yaml.safe_load_all(compiling.golden("training"))
    return spec, platform


def text_of(*documents: Any) -> str:
    return yaml.safe_dump_all(documents)


@params(PIPELINES)
def test_a_wrong_pipeline_is_refused(
    golden: tuple[dict[str, Any], dict[str, Any]], change: Change, words: str, source: str
) -> None:
    spec, platform = copy.deepcopy(golden)
    kfp_rules.read(text_of(spec, platform))
    change(spec)
    with pytest.raises(kfp_rules.Refused, match=words.replace("(", r"\(")):
        kfp_rules.read(text_of(spec, platform))


def test_a_wrong_file_is_refused(golden: tuple[dict[str, Any], dict[str, Any]]) -> None:
    spec, platform = golden
    unknown = copy.deepcopy(platform)
    unknown["platforms"]["kubernetes"]["deploymentSpec"]["executors"]["exec-fetch"]["shm"] = "2Gi"
    for text, words in (
        ("", "no pipeline spec is provided"),
        ("{", "unable to decode yaml document"),
        (text_of(platform), "no pipeline spec is provided"),
        (text_of(spec, spec), "multiple pipeline specs"),
        (text_of(spec, platform, platform), "multiple platform specs"),
        (text_of(spec, unknown), "failed to unmarshal kubernetes config"),
        (text_of(spec) + " " * kfp_rules.MOST, "file size too large"),
    ):
        with pytest.raises(kfp_rules.Refused, match=words):
            kfp_rules.read(text)


# ---------------------------------------------------------------- parameters of a run, and what a driver makes of them

ARGUMENTS = training_arguments(PARAMS, "today")
PARAMETERS = [
    (drop("split"), "parameter split is not optional", TEMPLATE),
    (put("colour", value="red"), "not required by pipeline: colour", TEMPLATE),
    (put("first_seed", value="7"), "first_seed requires type double or integer", TEMPLATE),
    (put("first_seed", value=True), "first_seed requires type double or integer", TEMPLATE),
    (put("cpu", value=2), "cpu requires type string", TEMPLATE),
    (put("seeds", value="[1]"), "seeds requires type list", TEMPLATE),
    (put("train", value=[]), "train requires type struct", TEMPLATE),
    (put("data_version", value=None), "data_version requires type string", TEMPLATE),
    (put("train", value={"text": "{{inputs.parameters.x}}"}), "failed to resolve", "argo validate/validate.go"),
    (put("train", value={"text": "x" * 131_072}), "argument list too long", "Linux: MAX_ARG_STRLEN"),
    (put("train", value={"text": '"' * 40_000}), "configmaps is forbidden", "argo controller/workflowpod.go"),
]


@params(PARAMETERS)
def test_wrong_parameters_are_refused(
    golden: tuple[dict[str, Any], dict[str, Any]], change: Change, words: str, source: str
) -> None:
    arguments = copy.deepcopy(ARGUMENTS)
    kfp_rules.check_parameters(golden[0], arguments)
    change(arguments)
    with pytest.raises(kfp_rules.Refused, match=words):
        kfp_rules.check_parameters(golden[0], arguments)


TRAIN = ("platform", "exec-train")
DRIVERS = [
    (put("given", "s3_secret", value=""), "Expected a non-empty string", RESOLVE),
    (put("given", "state_claim", value=""), "Expected a non-empty string", RESOLVE),
    (
        put(*TRAIN, "pvcMount", 0, "pvcNameParameter", value={"runtimeValue": {"constant": 7}}),
        "Expected a string",
        RESOLVE,
    ),
    (
        put(*TRAIN, "secretAsEnv", 0, "secretNameParameter", value={"componentInputParameter": "x"}),
        "parent DAG",
        RESOLVE,
    ),
    (drop(*TRAIN, "secretAsEnv", 0, "secretNameParameter"), "missing either SecretName", K8S),
    (put(*TRAIN, "pvcMount", 0, "mountPath", value=""), "missing mountpath or pvc name", K8S),
    (put("given", "node_selector", value={"gpu": 1}), "failed to unmarshal k8s Resource json", K8S),
    (
        put(*TRAIN, "tolerations", 0, "tolerationJson", value={"runtimeValue": {"constant": "[]"}}),
        "unexpected toleration proto value",
        K8S,
    ),
    (put(*TRAIN, "imagePullPolicy", value="Sometimes"), "ImagePullPolicy should be one of", K8S),
]


@params(DRIVERS)
def test_a_driver_refuses_a_pod_that_it_cannot_make(
    golden: tuple[dict[str, Any], dict[str, Any]], change: Change, words: str, source: str
) -> None:
    spec, platform = copy.deepcopy(golden)
    parts = {
        "spec": spec,
        "platform": platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"],
        "given": copy.deepcopy(ARGUMENTS),
    }
    assert list(kfp_pod.pods(spec, parts["platform"], parts["given"]))
    change(parts)
    with pytest.raises(kfp_driver.Refused, match=words):
        list(kfp_pod.pods(spec, parts["platform"], parts["given"]))


def test_an_artifact_outside_of_the_stores_that_the_launcher_knows_is_refused() -> None:
    """launcher_v2.go: LocalPathForURI."""
    assert kfp_pod.local_path("minio://mlpipeline/v2/a") == "/minio/mlpipeline/v2/a"
    with pytest.raises(kfp_driver.Refused, match="unsupported storage scheme"):
        kfp_pod.local_path("https://example.com/a")
