"""What KFP's API server refuses: of a pipeline that is uploaded, of parameters that a run is started with; a stand-in.

The rules are those of kubeflow/pipelines 2.17.0, backend/src: apiserver/template/v2_template.go (NewV2SpecTemplate,
validatePipelineJobInputs), apiserver/template/template.go (isPipelineSpec), apiserver/common/utils.go
(ValidatePipelineName), apiserver/common/const.go (MaxFileLength), v2/compiler/visitor.go (dfs),
v2/compiler/argocompiler/dag.go (task, addImplicitDependencies) and container.go (containerExecutorTask).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

import yaml
from contract import argo_rules, kfp_driver
from google.protobuf import json_format
from kfp.kubernetes import kubernetes_executor_config_pb2
from kfp.pipeline_spec import pipeline_spec_pb2

MOST = 32 << 20  # const.go: MaxFileLength
PIPELINE_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,127}")  # utils.go: pipelineNamePattern
KINDS: Mapping[str, tuple[Any, str]] = {
    "NUMBER_DOUBLE": ((int, float), "double or integer"),
    "NUMBER_INTEGER": ((int, float), "double or integer"),
    "STRING": (str, "string"),
    "BOOLEAN": (bool, "bool"),
    "LIST": (list, "list"),
    "STRUCT": (dict, "struct"),
}


class Refused(Exception):
    """The server's words."""


def read(text: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Specification and the platform's settings by executor of an uploaded file; raises Refused."""
    if len(text.encode()) > MOST:
        raise Refused(f"file size too large. Maximum supported file size is {MOST}")
    spec: dict[str, Any] = {}
    platform: dict[str, Any] = {}
    try:
        documents = [item for item in yaml.load_all(text, yaml.CSafeLoader) if item is not None]
    except yaml.YAMLError as error:
        raise Refused(f"unable to decode yaml document: {error}") from None
    for item in documents:
        if is_spec(item):
            if spec:
                raise Refused("multiple pipeline specs provided")
            spec = item
        elif isinstance(item, dict) and "kubernetes" in item.get("platforms", {}):
            if platform:
                raise Refused("multiple platform specs provided")
            platform = item["platforms"]["kubernetes"]
    if not spec:
        raise Refused("no pipeline spec is provided")
    executors: dict[str, Any] = platform.get("deploymentSpec", {}).get("executors", {})
    for settings in executors.values():
        message = kubernetes_executor_config_pb2.KubernetesExecutorConfig()
        try:
            json_format.ParseDict(settings, message, ignore_unknown_fields=False)
        except json_format.ParseError as error:
            raise Refused(f"failed to unmarshal kubernetes config: {error}") from None
    for problem in (*heads(spec), *components(spec), *argo_rules.name_problems(spec)):
        raise Refused(problem)
    return spec, executors


def is_spec(item: Any) -> bool:
    """template.go: isPipelineSpec. A document that is none, an unknown field is enough, is passed over."""
    try:
        message = json_format.ParseDict(item, pipeline_spec_pb2.PipelineSpec(), ignore_unknown_fields=False)
    except (json_format.ParseError, AttributeError, TypeError):
        return False
    return bool(message.pipeline_info.name) and message.HasField("root")


def heads(spec: dict[str, Any]) -> Iterator[str]:
    """v2_template.go: NewV2SpecTemplate; utils.go: ValidatePipelineName."""
    if spec.get("schemaVersion") != "2.1.0":
        yield f"KFP only supports schema version 2.1.0, but the pipeline spec has version {spec.get('schemaVersion')}"
    if not PIPELINE_NAME.fullmatch(spec["pipelineInfo"]["name"]):
        yield "pipeline's name must contain only lowercase alphanumeric characters or '-' and be at most 128 long"


def components(spec: dict[str, Any]) -> Iterator[str]:
    """visitor.go: dfs; dag.go: task, addImplicitDependencies."""
    executors = spec.get("deploymentSpec", {}).get("executors", {})
    every = spec.get("components", {})
    for name, component in ({"root": spec.get("root", {})} | every).items():
        if label := component.get("executorLabel"):
            if label not in executors:
                yield f'executor(label="{label}") not found in deployment config'
            elif not executors[label].keys() & {"container", "importer"}:
                yield f'executor(label="{label}"): non-container and non-importer executor not implemented'
        elif "dag" not in component:
            yield f'error processing component name="{name}": unknown component implementation'
        tasks = component.get("dag", {}).get("tasks", {})
        if "dag" in component and not any("triggerPolicy" not in task for task in tasks.values()):
            yield f"DAG {name} must contain one or more non-exit tasks"
        for key, task in tasks.items():
            yield from of_task(key, task, tasks, every)


def of_task(key: str, task: dict[str, Any], tasks: dict[str, Any], every: dict[str, Any]) -> Iterator[str]:
    reference = task.get("componentRef", {}).get("name", "")
    if not reference:
        yield f'component ref name is empty for task name="{key}"'
    elif reference not in every:
        yield f'cannot find component ref name="{reference}"'
    if "parameterIterator" in task and "artifactIterator" in task:
        yield f'invalid task "{key}": parameterIterator and artifactIterator cannot be specified at the same time'
    elif "artifactIterator" in task:
        yield "artifact iterator not implemented yet"
    inputs = task.get("inputs", {})
    sources = [*inputs.get("parameters", {}).values(), *inputs.get("artifacts", {}).values()]
    named = {
        item[kind]["producerTask"]
        for item in sources
        for kind in ("taskOutputParameter", "taskOutputArtifact")
        if kind in item
    }
    yield from (f'unknown producer task "{one}" in DAG' for one in sorted(named - tasks.keys()))
    for one in sorted(set(task.get("dependentTasks", ())) - tasks.keys()):
        yield f"dependency '{one}' not defined"  # argo-workflows v4.0.5, workflow/validate/validate.go: validateDAG


def check_parameters(spec: dict[str, Any], arguments: Mapping[str, Any]) -> None:
    """v2_template.go: validatePipelineJobInputs; raises Refused with the first problem."""
    known = kfp_driver.parameters(spec["root"])
    for name, item in known.items():
        if name not in arguments:
            if not item.get("isOptional") and "defaultValue" not in item:
                raise Refused(
                    f"parameter {name} is not optional, yet has neither default value nor user provided value"
                )
            continue
        if item["parameterType"] not in KINDS:
            raise Refused(f"input parameter {name} requires type {item['parameterType']}, which is invalid for root")
        types, called = KINDS[item["parameterType"]]
        if not isinstance(arguments[name], types) or (types is not bool and isinstance(arguments[name], bool)):
            raise Refused(f"input parameter {name} requires type {called}, but the parameter value is not")
    if extra := sorted(arguments.keys() - known.keys()):
        raise Refused(f"parameter(s) provided are not required by pipeline: {', '.join(extra)}")
    for problem in argo_rules.root_problems(spec, arguments):
        raise Refused(problem)
