"""The stand-ins of KFP, Argo, Kubernetes and KServe refuse what these servers refuse: one wrong document a line, with
the rule's source, which is in full in the stand-in itself. Kubeflow Trainer's are in test_trainjob_rules.py.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import yaml
from contract import argo_rules, kfp_driver, kfp_pod, kfp_rules, kserve_rules, kubernetes_rules
from contract.test_pipeline_types import PARAMS

from pipelines import compiling
from pipelines.arguments import training_arguments

pytestmark = pytest.mark.slow

Change = Callable[[Any], Any]
TEMPLATE, DAG, VISITOR = "template/v2_template.go", "argocompiler/dag.go", "compiler/visitor.go"
DRIVER, K8S, RESOLVE = "driver/driver.go", "driver/k8s.go", "driver/resolve.go"
CORE, NAMES, PSA = "core/validation/validation.go", "util/validation/validation.go", "pod-security-admission/policy"
ISVC = "inference_service_validation.go"


def put(*path: Any, value: Any) -> Change:
    """A change that writes ``value`` at a path of keys and numbers."""

    def change(document: Any) -> None:
        for key in path[:-1]:
            document = document[key]
        document[path[-1]] = value

    return change


def drop(*path: Any) -> Change:
    def change(document: Any) -> None:
        for key in path[:-1]:
            document = document[key]
        del document[path[-1]]

    return change


def add(*path: Any, value: Any) -> Change:
    def change(document: Any) -> None:
        for key in path:
            document = document[key]
        document.append(value)

    return change


def params(cases: list[tuple[Change, str, str]]) -> Any:
    """Cases named by what is said against them and by whom."""
    ids = [f"{words[:40]} ({source})" for _, words, source in cases]
    return pytest.mark.parametrize(("change", "words", "source"), cases, ids=ids)


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
    (put("train", value={"text": "x" * 131_072}), "argument list too long", "Linux: MAX_ARG_STRLEN"),
]


@params(PARAMETERS)
def test_wrong_parameters_are_refused(
    golden: tuple[dict[str, Any], dict[str, Any]], change: Change, words: str, source: str
) -> None:
    given = copy.deepcopy(ARGUMENTS)
    kfp_rules.check_parameters(golden[0], given)
    change(given)
    with pytest.raises(kfp_rules.Refused, match=words):
        kfp_rules.check_parameters(golden[0], given)


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


# ---------------------------------------------------------------- Kubernetes

MAIN = ("spec", "containers", 0)
PODS = [
    (put("metadata", "name", value="Capnet_1"), "metadata.name", NAMES),
    (put("metadata", "name", value="a" * 254), "metadata.name", NAMES),
    (put("metadata", "labels", "capnet role", value="task"), "no qualified name", NAMES),
    (put("metadata", "labels", "Capnet/role", value="task"), "no qualified name", NAMES),
    (put("metadata", "labels", "capnet/role", value="a task"), "no value of a label", NAMES),
    (put("metadata", "labels", "capnet/role", value="a" * 64), "no value of a label", NAMES),
    (put("metadata", "annotations", value={"a": "x" * 262_144}), "at most 262144 bytes", CORE),
    (put(*MAIN, "resources", "requests", "cpu", value="two"), "quantities must match", "resource/quantity.go"),
    (put(*MAIN, "resources", "requests", "memory", value="8GB"), "quantities must match", "resource/quantity.go"),
    (put(*MAIN, "resources", "requests", "memory", value=""), "quantities must match", "resource/quantity.go"),
    (put(*MAIN, "resources", "requests", "memory", value="-1Gi"), "greater than or equal to 0", CORE),
    (put(*MAIN, "resources", "limits", "memory", value="1Gi"), "less than or equal to limit", CORE),
    (put(*MAIN, "resources", "limits", "gpu", value="1"), "must be a standard resource", CORE),
    (put(*MAIN, "resources", "limits", "nvidia.com/gpu", value="500m"), "must be an integer", CORE),
    (put(*MAIN, "resources", "requests", "nvidia.com/gpu", value="1"), "must be equal to limit", CORE),
    (put(*MAIN, "resources", "requests", "amd.com/gpu", value="1"), "limit must be set", CORE),
    (put(*MAIN, "name", value="Main"), ".name", CORE),
    (put(*MAIN, "image", value=""), ".image: required", CORE),
    (add(*MAIN, "env", value={"name": "1ST"}), "no name of a variable", NAMES),
    (put(*MAIN, "env", 0, "value", value="x"), "may not be specified when `value`", CORE),
    (put(*MAIN, "env", 0, "valueFrom", "secretKeyRef", "name", value="My_Secret"), "secret 'My_Secret'", CORE),
    (add(*MAIN, "volumeMounts", value={"name": "tmp", "mountPath": "/dev/shm"}), "must be unique", CORE),
    (add(*MAIN, "volumeMounts", value={"name": "none", "mountPath": "/x"}), "not found: 'none'", CORE),
    (add(*MAIN, "volumeMounts", value={"name": "tmp", "mountPath": ""}), "mountPath is required", CORE),
    (add("spec", "volumes", value={"name": "tmp", "emptyDir": {}}), "duplicate 'tmp'", CORE),
    (add("spec", "volumes", value={"name": "a.b", "emptyDir": {}}), "a volume's name must be one", CORE),
    (add("spec", "volumes", value={"name": "x", "emptyDir": {}, "secret": {}}), "exactly one kind", CORE),
    (add("spec", "volumes", value={"name": "x", "emptyDir": {"sizeLimit": "2 Gi"}}), "quantities must match", CORE),
    (put("spec", "containers", value=[]), "spec.containers: required", CORE),
    (put("spec", "initContainers", 0, "name", value="main"), "duplicate 'main'", CORE),
    (put("spec", "activeDeadlineSeconds", value=0), "must be between 1", CORE),
    (put("spec", "nodeSelector", value={"pool": "a b"}), "no value of a label", CORE),
    (put("spec", "tolerations", value=[{"operator": "Equal"}]), "must be Exists when `key` is empty", CORE),
    (put("spec", "tolerations", value=[{"key": "a", "operator": "In"}]), "unsupported value", CORE),
    (
        put("spec", "tolerations", value=[{"key": "a", "operator": "Exists", "value": "b"}]),
        "value must be empty when `operator` is 'Exists'",
        CORE,
    ),
    (put("spec", "tolerations", value=[{"key": "a", "tolerationSeconds": 3}]), "must be 'NoExecute'", CORE),
]
RESTRICTED = [
    (put("spec", "hostNetwork", value=True), "hostNetwork", f"{PSA}/check_hostNamespaces.go"),
    (
        add("spec", "volumes", value={"name": "x", "hostPath": {}}),
        "restricted type",
        f"{PSA}/check_restrictedVolumes.go",
    ),
    (
        drop(*MAIN, "securityContext", "allowPrivilegeEscalation"),
        "allowPrivilege",
        f"{PSA}/check_allowPrivilegeEsc*.go",
    ),
    (put(*MAIN, "securityContext", "privileged", value=True), "privileged", f"{PSA}/check_privileged.go"),
    (
        put(*MAIN, "securityContext", "capabilities", value={}),
        "capabilities",
        f"{PSA}/check_capabilities_restricted.go",
    ),
    (
        put(*MAIN, "securityContext", "capabilities", "add", value=["SYS_PTRACE"]),
        "capabilities",
        f"{PSA}/check_capabilities_restricted.go",
    ),
    (drop(*MAIN, "securityContext", "runAsNonRoot"), "runAsNonRoot", f"{PSA}/check_runAsNonRoot.go"),
    (put(*MAIN, "securityContext", "runAsUser", value=0), "runAsUser=0", f"{PSA}/check_runAsUser.go"),
    (
        put(*MAIN, "securityContext", "seccompProfile", value={"type": "Unconfined"}),
        "seccompProfile",
        f"{PSA}/check_seccompProfile_restricted.go",
    ),
    (put(*MAIN, "ports", value=[{"hostPort": 80}]), "hostPort", f"{PSA}/check_hostPorts.go"),
]


@pytest.fixture(scope="module")
def pod(golden: tuple[dict[str, Any], dict[str, Any]]) -> dict[str, Any]:
    spec, platform = golden
    executors = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    given = ARGUMENTS | {"accelerator_count": "2"}
    return next(item for where, item in kfp_pod.pods(spec, executors, given) if where.endswith("/train"))


def told(items: Iterator[str] | list[str], words: str) -> None:
    assert any(words in item for item in items), words


@params(PODS)
def test_a_wrong_pod_is_refused(pod: dict[str, Any], change: Change, words: str, source: str) -> None:
    wrong = copy.deepcopy(pod)
    assert kubernetes_rules.problems(wrong) == []
    change(wrong)
    told(kubernetes_rules.problems(wrong), words)


@params(RESTRICTED)
def test_pod_security_refuses(pod: dict[str, Any], change: Change, words: str, source: str) -> None:
    wrong = copy.deepcopy(pod)
    assert list(kubernetes_rules.restricted(wrong)) == []
    change(wrong)
    told(list(kubernetes_rules.restricted(wrong)), words)


OBJECTS: dict[str, dict[str, Any]] = {
    "claim": {
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": "capnet-state"},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "5Gi"}}},
    },
    "binding": {
        "kind": "RoleBinding",
        "metadata": {"name": "capnet-nodes"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "capnet-nodes"},
        "subjects": [{"kind": "ServiceAccount", "name": "default-editor"}],
    },
    "policy": {
        "kind": "NetworkPolicy",
        "metadata": {"name": "capnet-tasks"},
        "spec": {
            "podSelector": {"matchLabels": {"capnet/role": "task"}},
            "egress": [{"to": [{"ipBlock": {"cidr": "0.0.0.0/0"}}], "ports": [{"port": 53, "protocol": "UDP"}]}],
        },
    },
}
RBAC, NETWORKING = "rbac/validation/validation.go", "networking/validation/validation.go"
WRONG_OBJECTS = [
    (put("claim", "spec", "accessModes", value=[]), "at least 1 access mode", CORE),
    (put("claim", "spec", "accessModes", value=["ReadWrite"]), "unsupported value 'ReadWrite'", CORE),
    (put("claim", "spec", "accessModes", value=["ReadWriteOncePod", "ReadWriteMany"]), "with other access modes", CORE),
    (drop("claim", "spec", "resources", "requests", "storage"), "storage is required", CORE),
    (put("claim", "spec", "resources", "requests", "storage", value="0"), "greater than zero", CORE),
    (put("claim", "metadata", "name", value="capnet_state"), "metadata.name", NAMES),
    (put("binding", "kind", value="ClusterRoleBinding"), "namespace of 'default-editor' is required", RBAC),
    (put("binding", "subjects", 0, value={"kind": "User", "name": "me"}), "apiGroup of User", RBAC),
    (put("binding", "roleRef", "kind", value="Account"), "roleRef.kind", RBAC),
    (drop("binding", "roleRef", "apiGroup"), "roleRef.apiGroup", RBAC),
    (put("policy", "spec", "egress", 0, "ports", 0, "port", value=70000), "between 1 and 65535", NETWORKING),
    (put("policy", "spec", "egress", 0, "ports", 0, "protocol", value="ICMP"), "protocol 'ICMP'", NETWORKING),
    (put("policy", "spec", "egress", 0, "to", value=[{}]), "must specify a peer", NETWORKING),
    (put("policy", "spec", "egress", 0, "to", 0, "podSelector", value={}), "both ipBlock and", NETWORKING),
]


@params(WRONG_OBJECTS)
def test_a_wrong_object_is_refused(change: Change, words: str, source: str) -> None:
    wrong = copy.deepcopy(OBJECTS)
    assert [problem for item in wrong.values() for problem in kubernetes_rules.problems(item)] == []
    change(wrong)
    told([problem for item in wrong.values() for problem in kubernetes_rules.problems(item)], words)


def test_argo_cannot_start_a_process_with_an_argument_that_is_too_long(pod: dict[str, Any]) -> None:
    """Linux: MAX_ARG_STRLEN."""
    assert list(argo_rules.argument_problems(pod)) == []
    for change in (
        put(*MAIN, "args", 0, value="x" * 131_072),
        add(*MAIN, "env", value={"name": "LONG", "value": "x" * 131_072}),
    ):
        wrong = copy.deepcopy(pod)
        change(wrong)
        assert len(list(argo_rules.argument_problems(wrong))) == 1


# ---------------------------------------------------------------- KServe

PREDICTOR = ("spec", "predictor")
SERVICES = [
    (put("metadata", "name", value="7birds"), "is invalid: a InferenceService name", ISVC),
    (put("metadata", "name", value="birds.red"), "is invalid: a InferenceService name", ISVC),
    (put("metadata", "labels", "capnet/model", value="my birds"), "no value of a label", NAMES),
    (put("metadata", "annotations", "serving.kserve.io/autoscalerClass", value="x"), "[x] is not a supported", ISVC),
    (add(*PREDICTOR, "containers", 0, "env", value={"name": "PYTHONPATH", "value": "/x"}), "security reasons", ISVC),
    (put(*PREDICTOR, "sklearn", value={}), "Exactly one of", "component.go"),
    (put(*PREDICTOR, "containers", value=[]), "Exactly one of", "component.go"),
    (put(*PREDICTOR, value={"model": {"name": "x"}}), "'name' field is not allowed", ISVC),
    (put(*PREDICTOR, "minReplicas", value=-1), "cannot be less than 0", "component.go"),
    (put(*PREDICTOR, "maxReplicas", value=-1), "cannot be less than 0", "component.go"),
    (lambda item: item["spec"]["predictor"].update(minReplicas=3, maxReplicas=2), "greater than Max", "component.go"),
    (put(*PREDICTOR, "containerConcurrency", value=-1), "Parallelism cannot be", "component.go"),
    (
        add(*PREDICTOR, "containers", 0, "env", value={"name": "PROTOCOL", "value": "v3"}),
        "Invalid protocol v3",
        "predictor_custom.go",
    ),
    (put(*PREDICTOR, "containers", 0, "resources", "requests", "cpu", value="one"), "quantities must match", CORE),
]


@params(SERVICES)
def test_a_wrong_inference_service_is_refused(repository: Any, change: Change, words: str, source: str) -> None:
    service = yaml.safe_load((repository / "deploy" / "kserve" / "capnet.yaml.example").read_text())
    assert kserve_rules.problems(service) == []
    change(service)
    told(kserve_rules.problems(service), words)


def test_there_are_enough_wrong_documents() -> None:
    every = (PIPELINES, PARAMETERS, DRIVERS, PODS, RESTRICTED, WRONG_OBJECTS, SERVICES)
    assert sum(map(len, every)) >= 100
    assert all(source for cases in every for _, _, source in cases)
