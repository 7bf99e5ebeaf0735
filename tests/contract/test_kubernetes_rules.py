"""The stand-ins of Kubernetes, Argo and KServe refuse what these servers refuse: one wrong document a line, with the
rule's source, which is in full in the stand-in itself. KFP's are in test_kfp_rules.py, Kubeflow Trainer's in
test_trainjob_rules.py.
"""

from __future__ import annotations

import copy
from typing import Any

import pytest
import yaml
from contract import argo_rules, kfp_pod, kserve_rules, kubernetes_rules, pod_security_rules
from contract.cluster_shapes import compiled, runs
from contract.test_kfp_rules import DRIVERS, PARAMETERS, PIPELINES
from contract.test_trainjob_rules import SCHEMA, WEBHOOK
from contract.wrong_documents import Change, add, assert_named, drop, params, put

pytestmark = pytest.mark.slow

CORE, NAMES, PSA = "core/validation/validation.go", "util/validation/validation.go", "pod-security-admission/policy"
ISVC = "inference_service_validation.go"

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
    (put(*MAIN, "resources", "limits", "requests.amd.com/gpu", value="1"), "doesn't follow extended resource", CORE),
    (put(*MAIN, "resources", "limits", f"{'a' * 245}/gpu", value="1"), "doesn't follow extended resource", CORE),
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
    (add("spec", "volumes", value={"name": "x", "emptyDir": {"sizeLimit": ""}}), "quantities must match", CORE),
    (add("spec", "volumes", value={"name": "x", "persistentVolumeClaim": {}}), "claimName: required", CORE),
    (put("spec", "containers", value=[]), "spec.containers: required", CORE),
    (put(*MAIN, "image", value="capnet-train\n"), "leading or trailing whitespace", CORE),
    (put(*MAIN, "ports", value=[{"containerPort": 70_000}]), "containerPort must be between 1 and 65535", CORE),
    (put(*MAIN, "ports", value=[{"hostPort": 80}]), "containerPort must be between 1 and 65535", CORE),
    (put(*MAIN, "env", 0, "valueFrom", "secretKeyRef", value={}), "secret '', key ''", CORE),
    (drop(*MAIN, "env", 0, "valueFrom", "secretKeyRef"), "must specify one of: fieldRef", CORE),
    (drop(*MAIN, "securityContext", "seccompProfile", "type"), "seccompProfile.type: supported values", CORE),
    (put("spec", "securityContext", "seccompProfile", "type", value="Default"), "supported values are Local", CORE),
    (put("spec", "serviceAccountName", value="Capnet"), "spec.serviceAccountName: 'Capnet'", CORE),
    (put("spec", "restartPolicy", value="never"), "spec.restartPolicy: unsupported value", CORE),
    (put("spec", "initContainers", 0, "name", value="main"), "duplicate 'main'", CORE),
    (put("spec", "activeDeadlineSeconds", value=0), "must be between 1", CORE),
    (put("spec", "activeDeadlineSeconds", value=2**31), "must be between 1", CORE),
    (put("spec", "nodeSelector", value={"pool": "a b"}), "no value of a label", CORE),
    (put("spec", "tolerations", value=[{"operator": "Equal"}]), "must be Exists when `key` is empty", CORE),
    (put("spec", "tolerations", value=[{"key": "a", "operator": "In"}]), "unsupported value", CORE),
    (
        put("spec", "tolerations", value=[{"key": "a", "operator": "Exists", "value": "b"}]),
        "value must be empty when `operator` is 'Exists'",
        CORE,
    ),
    (put("spec", "tolerations", value=[{"key": "a", "value": "b c"}]), "'b c' is no value of a label", CORE),
    (put("spec", "tolerations", value=[{"key": "a", "tolerationSeconds": 3}]), "must be 'NoExecute'", CORE),
]
RESTRICTED = [
    (put("spec", "hostNetwork", value=True), "hostNetwork", f"{PSA}/check_hostNamespaces.go"),
    (
        add("spec", "volumes", value={"name": "x", "hostPath": {"path": "/"}}),
        "restricted type",
        f"{PSA}/check_restrictedVolumes.go",
    ),
    (
        drop(*MAIN, "securityContext", "allowPrivilegeEscalation"),
        "allowPrivilege",
        f"{PSA}/check_allowPrivilegeEsc*.go",
    ),
    (
        put(*MAIN, "securityContext", value={"privileged": True}),
        "privileged",
        f"{PSA}/check_privileged.go",
    ),
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
    (put(*MAIN, "ports", value=[{"containerPort": 80, "hostPort": 80}]), "hostPort", f"{PSA}/check_hostPorts.go"),
]


@pytest.fixture(scope="module")
def pod() -> dict[str, Any]:
    """The pod of task train, with GPUs."""
    spec, platform = compiled("training")
    arguments = next(runs("training")) | {"accelerator_count": "2"}
    return next(item for where, item in kfp_pod.pods(spec, platform, arguments) if where.endswith("/train"))


@params(PODS)
def test_a_wrong_pod_is_refused(pod: dict[str, Any], change: Change, words: str, source: str) -> None:
    wrong = copy.deepcopy(pod)
    assert kubernetes_rules.problems(wrong) == []
    change(wrong)
    assert_named(kubernetes_rules.problems(wrong), words)


@params(RESTRICTED)
def test_pod_security_refuses(pod: dict[str, Any], change: Change, words: str, source: str) -> None:
    wrong = copy.deepcopy(pod)
    assert list(pod_security_rules.restricted(wrong)) == []
    change(wrong)
    assert_named(list(pod_security_rules.restricted(wrong)), words)


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
    "role": {
        "kind": "Role",
        "metadata": {"name": "capnet-nodes", "labels": {"app.kubernetes.io/name": "capnet"}},
        "rules": [{"apiGroups": [""], "resources": ["pods"], "verbs": ["list"]}],
    },
    "deployment": {
        "kind": "Deployment",
        "metadata": {"name": "mlflow"},
        "spec": {
            "selector": {"matchLabels": {"app": "mlflow"}},
            "template": {
                "metadata": {"labels": {"app": "mlflow"}},
                "spec": {"containers": [{"name": "server", "image": "mlflow"}]},
            },
        },
    },
    "job": {
        "kind": "Job",
        "metadata": {"name": "capnet-volumes"},
        "spec": {"template": {"spec": {"restartPolicy": "Never", "containers": [{"name": "main", "image": "a"}]}}},
    },
    "policy": {
        "kind": "NetworkPolicy",
        "metadata": {"name": "capnet-tasks"},
        "spec": {
            "podSelector": {"matchLabels": {"capnet/role": "task"}},
            "policyTypes": ["Egress"],
            "egress": [
                {"to": [{"ipBlock": {"cidr": "0.0.0.0/0"}}], "ports": [{"port": 53, "protocol": "UDP"}]},
                {"to": [{"podSelector": {"matchExpressions": [{"key": "a", "operator": "In", "values": ["b"]}]}}]},
            ],
        },
    },
}
RBAC, NETWORKING = "rbac/validation/validation.go", "networking/validation/validation.go"
EXPRESSION = ("policy", "spec", "egress", 1, "to", 0, "podSelector", "matchExpressions", 0)
WRONG_OBJECTS = [
    (put("claim", "spec", "accessModes", value=[]), "at least 1 access mode", CORE),
    (put("claim", "spec", "accessModes", value=["ReadWrite"]), "unsupported value 'ReadWrite'", CORE),
    (put("claim", "spec", "accessModes", value=["ReadWriteOncePod", "ReadWriteMany"]), "with other access modes", CORE),
    (drop("claim", "spec", "resources", "requests", "storage"), "storage is required", CORE),
    (put("claim", "spec", "resources", "requests", "storage", value="0"), "greater than zero", CORE),
    (put("claim", "metadata", "name", value="capnet_state"), "metadata.name", NAMES),
    (put("binding", "kind", value="ClusterRoleBinding"), "namespace of 'default-editor' is required", RBAC),
    (put("binding", "subjects", 0, value={"kind": "User", "name": "me", "apiGroup": "v1"}), "apiGroup of User", RBAC),
    (put("binding", "subjects", 0, "name", value="Me"), "'Me' is no name of an account", RBAC),
    (drop("binding", "roleRef", "name"), "name of a role or binding: None", RBAC),
    (put("binding", "metadata", "labels", value={"a b": ""}), "no qualified name", NAMES),
    (put("binding", "roleRef", "kind", value="Account"), "roleRef.kind", RBAC),
    (put("binding", "roleRef", "apiGroup", value="v1"), "roleRef.apiGroup", RBAC),
    (put("role", "rules", 0, "verbs", value=[]), "rules[0].verbs: required", RBAC),
    (drop("role", "rules", 0, "apiGroups"), "rules[0].apiGroups: required", RBAC),
    (drop("role", "rules", 0, "resources"), "rules[0].resources: required", RBAC),
    (put("role", "metadata", "labels", "a b", value=""), "no qualified name", NAMES),
    (put("deployment", "spec", "selector", "matchLabels", "app", value="x"), "does not match template", "apps/validat"),
    (put("deployment", "spec", "selector", value={}), "does not match template", "apps/validation"),
    (put("job", "spec", "template", "spec", "restartPolicy", value="Always"), "OnFailure, Never", "batch/validation"),
    (drop("job", "spec", "template", "spec", "restartPolicy"), "OnFailure, Never", "batch/validation"),
    (put("claim", "spec", "storageClassName", value="Fast"), "storageClassName: 'Fast'", CORE),
    (put("policy", "spec", "policyTypes", value=["egress"]), "policyTypes: unsupported value", NETWORKING),
    (put("policy", "spec", "egress", 0, "to", 0, "ipBlock", "cidr", value="10.0.0.0"), "valid CIDR", NETWORKING),
    (put("policy", "spec", "egress", 0, "to", 0, "ipBlock", "cidr", value="10.0.0.0/33"), "valid CIDR", NETWORKING),
    (put("policy", "spec", "egress", 0, "to", 0, value={"ipblock": {}}), "must specify a peer", NETWORKING),
    (put("policy", "spec", "egress", 1, "to", 0, "podSelector", value={"matchLabels": {"a": "b c"}}), "label", NAMES),
    (put(*EXPRESSION, "operator", value="in"), "not a valid selector operator", "meta/v1/validation"),
    (put(*EXPRESSION, "values", value=[]), "values must be specified", "meta/v1/validation"),
    (put(*EXPRESSION, "values", value=["b c"]), "no value of a label", "meta/v1/validation"),
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
    assert_named([problem for item in wrong.values() for problem in kubernetes_rules.problems(item)], words)


def test_argo_cannot_start_a_process_with_an_argument_that_is_too_long(pod: dict[str, Any]) -> None:
    """Linux: MAX_ARG_STRLEN."""
    assert list(argo_rules.argument_problems(pod)) == []
    for change in (
        put(*MAIN, "args", 0, value="x" * 131_072),
        add(*MAIN, "env", value={"name": "LONG", "value": "x" * 131_072}),
    ):
        wrong = copy.deepcopy(pod)
        change(wrong)
        problems = list(argo_rules.argument_problems(wrong))
        assert len(problems) == 2, "the template in Argo's variable holds it too"
        assert "too long" in problems[0]
        assert problems[1].startswith("configmaps is forbidden: ARGO_TEMPLATE")


# ---------------------------------------------------------------- KServe

PREDICTOR = ("spec", "predictor")
SERVICES = [
    (put("metadata", "name", value="7birds"), "is invalid: a InferenceService name", ISVC),
    (put("metadata", "name", value="birds.red"), "is invalid: a InferenceService name", ISVC),
    (put("metadata", "name", value="b" * 49), "is no value of a label", "constants.go"),
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
    (
        put(*PREDICTOR, "containers", 0, "resources", value={"requests": {"cpu": "2"}}),
        "less than or equal to",
        "inference_service_defaults.go",
    ),
]


@params(SERVICES)
def test_a_wrong_inference_service_is_refused(repository: Any, change: Change, words: str, source: str) -> None:
    service = yaml.safe_load((repository / "deploy" / "kserve" / "capnet.yaml.example").read_text())
    assert kserve_rules.problems(service) == []
    change(service)
    assert_named(kserve_rules.problems(service), words)


def test_there_are_enough_wrong_documents() -> None:
    ours = (PIPELINES, PARAMETERS, DRIVERS, PODS, RESTRICTED, WRONG_OBJECTS, SERVICES)
    assert sum(map(len, (*ours, SCHEMA, WEBHOOK))) > 150, "what docs/verified.md says"
    assert all(source for cases in ours for _, _, source in cases)
