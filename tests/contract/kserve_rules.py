"""What KServe's webhook refuses of an InferenceService with a container of its own; a stand-in.

The rules are those of kserve/kserve v0.20.0 (v0.17.0 has them too, but for the blocked variable):
pkg/apis/serving/v1beta1/inference_service_validation.go, component.go (validateReplicas, validateContainerConcurrency,
validateExactlyOneImplementation), predictor_custom.go (validateCustomProtocol), pkg/validation/env_policy.go; the
defaults that are filled in before: inference_service_defaults.go (setResourceRequirementDefaults) with the values of
config/configmap/inferenceservice.yaml; and the label that the Standard mode adds, pkg/constants/constants.go
(GetRawServiceLabel).

Where KServe makes a Service of Knative, Knative's webhook refuses fields as well. The rules are those of
knative/serving v1.13.1, which kserve/kserve v0.13.0 and v0.14.0 install (hack/quick_install.sh):
pkg/apis/serving/fieldmask.go (ContainerMask, ProbeMask, SecurityContextMask, CapabilitiesMask). v1.15.0 is the first
that takes a startupProbe.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator
from typing import Any

from contract import kubernetes_names, kubernetes_rules

NAME = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")  # inference_service_validation.go: IsvcNameFmt
BLOCKED = ("PYTHONPATH",)  # env_policy.go: DefaultBlockedEnvVars
FORMATS = (
    *("sklearn", "xgboost", "tensorflow", "pytorch", "triton", "onnx", "huggingface", "pmml", "lightgbm"),
    *("paddle", "model"),
)
RESOURCES = {"cpu": "1", "memory": "2Gi"}  # of config/configmap/inferenceservice.yaml, for requests and limits
AUTOSCALERS = ("hpa", "keda", "external", "none")  # constants.go: AutoscalerAllowedClassList
# fieldmask.go
KNATIVE = {
    *("name", "args", "command", "env", "workingDir", "envFrom", "image", "imagePullPolicy", "livenessProbe", "ports"),
    *("readinessProbe", "resources", "securityContext", "terminationMessagePath", "terminationMessagePolicy"),
    "volumeMounts",
}
KNATIVE_PROBE = {
    *("httpGet", "tcpSocket", "exec", "grpc", "initialDelaySeconds", "timeoutSeconds", "periodSeconds"),
    *("successThreshold", "failureThreshold"),
}
KNATIVE_SECURITY = {
    *("capabilities", "readOnlyRootFilesystem", "runAsUser", "runAsGroup", "runAsNonRoot"),
    *("allowPrivilegeEscalation", "seccompProfile"),
}


def problems(item: dict[str, Any]) -> list[str]:
    return list(_problems(defaulted(item)))


def knative_problems(item: dict[str, Any]) -> list[str]:
    """Fields of its containers that Knative Serving refuses."""
    found: set[str] = set()
    for container in item["spec"]["predictor"]["containers"]:
        found |= container.keys() - KNATIVE
        for probe in ("readinessProbe", "livenessProbe"):
            found |= container.get(probe, {}).keys() - KNATIVE_PROBE
        security = container.get("securityContext", {})
        found |= (security.keys() - KNATIVE_SECURITY) | (security.get("capabilities", {}).keys() - {"drop"})
    return [f"must not set the field(s): {name}" for name in sorted(found)]


def defaulted(item: dict[str, Any]) -> dict[str, Any]:
    """With the requests and limits that KServe adds to the first container."""
    filled = copy.deepcopy(item)
    for container in filled["spec"].get("predictor", {}).get("containers", [])[:1]:
        resources = container.setdefault("resources", {})
        for kind in ("requests", "limits"):
            resources[kind] = RESOURCES | resources.get(kind, {})
    return filled


def _problems(item: dict[str, Any]) -> Iterator[str]:
    name, predictor = item["metadata"].get("name", ""), item["spec"].get("predictor", {})
    if not NAME.fullmatch(name):
        yield f'the InferenceService "{name}" is invalid: a InferenceService name must consist of lower case'
    yield from kubernetes_names.metadata(item)
    scaler = item["metadata"].get("annotations", {}).get("serving.kserve.io/autoscalerClass")
    if scaler is not None and scaler not in AUTOSCALERS:
        yield f"[{scaler}] is not a supported autoscaler class type"
    containers = predictor.get("containers", [])
    for one in (*containers, *predictor.get("initContainers", ())):
        for variable in one.get("env", ()):
            if variable["name"] in BLOCKED:
                yield f'setting {variable["name"]} in container "{one["name"]}" is not allowed for security reasons'
    kinds = [kind for kind in FORMATS if kind in predictor]
    if len(kinds) + bool(containers) != 1:
        yield "Exactly one of [Custom, SKLearn, ...] must be specified in PredictorSpec"
    yield from (
        f"the 'name' field is not allowed in standard predictor {kind}" for kind in kinds if "name" in predictor[kind]
    )
    least, most = predictor.get("minReplicas", 1), predictor.get("maxReplicas", 0)
    if least < 0 or most < 0:
        yield "MinReplicas and MaxReplicas cannot be less than 0"
    elif least > most != 0:
        yield "MinReplicas cannot be greater than MaxReplicas"
    if predictor.get("containerConcurrency", 0) < 0:
        yield "Parallelism cannot be less than 0"
    if containers:
        protocol = [one.get("value") for one in containers[0].get("env", ()) if one["name"] == "PROTOCOL"]
        if protocol and protocol[0] not in ("v1", "v2"):
            yield f"Invalid protocol {protocol[0]}. Must be one of [v1, v2]"
        labels = item["metadata"].get("labels", {}) | {"app": f"isvc.{name}-predictor"}
        inner = {"metadata": {"name": f"{name}-predictor", "labels": labels}}
        yield from kubernetes_rules.pod({**inner, "spec": {**predictor, "containers": containers}})
