"""What Argo Workflows cannot carry: too long arguments and workflows, names and variables of its own; a stand-in.

Sources: argoproj/argo-workflows v4.0.5, workflow/packer/packer.go (CompressWorkflowIfNeeded: a workflow of more than a
megabyte after its nodes were packed is refused), workflow/common/common.go (MaxEnvVarLen), workflow/controller/
workflowpod.go (a longer ARGO_TEMPLATE goes into a ConfigMap, which the roles of manifests/namespace-install, as KFP
installs them, do not let the controller make), workflow/controller/operator.go (initializeExecutableNode: every node
keeps its inputs; processNodeRetries: a node of kind Retry keeps the outputs too), workflow/validate/validate.go
(validateWorkflowFieldNames, resolveAllVariables). Which template has which inputs: kubeflow/pipelines 2.17.0,
backend/src/v2/compiler/argocompiler/dag.go and container.go. An argument of a process: Linux,
include/uapi/linux/binfmts.h (MAX_ARG_STRLEN).
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import re
from collections.abc import Iterator
from typing import Any

from contract import kfp_driver, kfp_pod
from contract.kfp_driver import Inputs, Refused, Values

MOST_ARGUMENT = 32 * 4096  # bytes, its end included
MOST_WORKFLOW = 1024 * 1024
MOST_TEMPLATE = 131_072
TEMPLATE = 4_000  # bytes of the rest of a template: volumes, the launcher's own container, where logs go
TAG = re.compile(r"\{\{(.*?)\}\}", re.DOTALL)
PREFIXES = ("item.", "steps.", "inputs.", "outputs.", "pod.", "workflow.", "tasks.")  # common.go: of its variables
NAME = re.compile(r"[a-zA-Z0-9][-a-zA-Z0-9]*")


def argument_problems(pod: dict[str, Any]) -> Iterator[str]:
    """Arguments and variables that no process can get."""
    for item in (*pod["spec"].get("initContainers", ()), *pod["spec"]["containers"]):
        for word in (*item.get("command", ()), *item.get("args", ())):
            if len(word.encode()) + 1 > MOST_ARGUMENT:
                yield f"{item['name']}: argument list too long: {len(word.encode())} bytes in one"
        for variable in item.get("env", ()):
            if len(f"{variable['name']}={variable.get('value', '')}".encode()) + 1 > MOST_ARGUMENT:
                yield f"{item['name']}: variable {variable['name']} is too long"
    if (size := template_size(pod)) > MOST_TEMPLATE:
        yield f"configmaps is forbidden: ARGO_TEMPLATE has {size} bytes"


def template_size(pod: dict[str, Any]) -> int:
    """Bytes of the variable ARGO_TEMPLATE: the pod's patch is text in JSON, and the executor's input text in that."""
    (main,) = pod["spec"]["containers"]
    executor_input = main["command"][main["command"].index("--executor_input") + 1]
    own = {"args": [word.replace(executor_input, "{{$}}") for word in main["args"]]}  # the launcher fills it in
    return TEMPLATE + len(go_json(go_json({"containers": [main | own]})).encode())


def go_json(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def name_problems(spec: dict[str, Any]) -> Iterator[str]:
    """Names of tasks, which become those of Argo's tasks and templates."""
    for component in ({"dag": spec["root"]["dag"]}, *spec["components"].values()):
        for name in component.get("dag", {}).get("tasks", {}):
            if len(name) > 128 or not NAME.fullmatch(name):
                yield f"name: '{name}' is invalid"
            elif name[0].isdigit():
                yield f"tasks.{name} name cannot begin with a digit when using either 'depends' or 'dependencies'"


def tag_problems(text: str) -> Iterator[str]:
    """Text that Argo would take for a variable of its own, and cannot resolve (resolveAllVariables)."""
    for tag in TAG.findall(text):
        if tag.strip().startswith(PREFIXES):
            yield f"failed to resolve {{{{{tag}}}}}"


def root_problems(spec: dict[str, Any], arguments: Values) -> Iterator[str]:
    """The driver of the root gets the run's parameters in one argument, and the root's own specification in another;
    both are in ARGO_TEMPLATE.
    """
    for what, value in (("runtime_config", {"parameterValues": dict(arguments)}), ("component", spec["root"])):
        if (size := len(kfp_pod.marshal(value).encode())) + 1 > MOST_ARGUMENT:
            yield f"root-driver: argument list too long: {size} bytes in --{what}"
        yield from tag_problems(kfp_pod.marshal(value))
    texts = [kfp_pod.marshal({"parameterValues": dict(arguments)}), kfp_pod.marshal(spec["root"])]
    if (size := TEMPLATE + len(go_json(texts).encode())) > MOST_TEMPLATE:
        yield f"root-driver: configmaps is forbidden: ARGO_TEMPLATE has {size} bytes"


def workflow_size(spec: dict[str, Any], platform: dict[str, Any], arguments: Values) -> int:
    """Bytes of the workflow when all its tasks have ended, its nodes packed where it is too large without."""
    declared = kfp_driver.parameters(spec["root"])
    values = {key: item["defaultValue"] for key, item in declared.items() if "defaultValue" in item} | dict(arguments)
    nodes = {}
    for where, inputs in kfp_driver.run(spec, spec["root"], Inputs(values, {}, {}), "root"):
        if isinstance(inputs, Refused):
            raise inputs
        for suffix, texts, outputs in templates(spec, platform, where, inputs):
            for kind in ("", "(0)"):  # the node that tries again, and its only try
                name = f"capnet-x7x9k.root.{where.replace('/', '.')}{suffix}{kind}"
                ident = f"capnet-x7x9k-{int.from_bytes(hashlib.sha256(name.encode()).digest()[:4])}"
                nodes[ident] = node(ident, name, texts, outputs)
    rest = len(kfp_pod.marshal({"spec": spec, "platform": platform})) * 2  # what is in arguments once more, escaped
    plain = json.dumps(nodes, sort_keys=True, separators=(",", ":"))
    if len(plain) + rest <= MOST_WORKFLOW:
        return len(plain) + rest
    return len(base64.b64encode(gzip.compress(plain.encode(), 6))) + rest


def node(ident: str, name: str, texts: dict[str, str], outputs: dict[str, str]) -> dict[str, Any]:
    digest = hashlib.md5(ident.encode()).hexdigest()
    return {
        "id": ident,
        "name": name,
        "displayName": name.rpartition(".")[2],
        "type": "Pod",
        "templateName": "retry-system-container-impl",
        "templateScope": "local/capnet-x7x9k",
        "phase": "Succeeded",
        "boundaryID": f"capnet-x7x9k-{int(digest[:8], 16)}",
        "startedAt": "2026-01-01T10:20:30Z",
        "finishedAt": "2026-01-01T10:21:30Z",
        "progress": "1/1",
        "resourcesDuration": {"cpu": 1, "memory": 2},
        "inputs": {"parameters": [{"name": key, "value": value} for key, value in texts.items()]},
        "outputs": {"parameters": [{"name": key, "value": value} for key, value in outputs.items()], "exitCode": "0"},
        "children": [f"capnet-x7x9k-{int(digest[8:16], 16)}"],
        "hostNodeName": "node-1",
    }


def templates(
    spec: dict[str, Any], platform: dict[str, Any], where: str, inputs: Inputs
) -> Iterator[tuple[str, dict[str, str], dict[str, str]]]:
    """The nodes of one task by suffix: the inputs that each keeps, and its outputs."""
    name = where.rpartition("/")[2]
    task, component = task_of(spec, name.partition("[")[0])
    definition = spec["components"][component]
    common = {"component": kfp_pod.marshal(definition), "task": kfp_pod.marshal(task), "parent-dag-id": "12345"}
    if "dag" in definition:
        yield "-driver", common, {"execution-id": "12345", "iteration-count": "0", "condition": "true"}
        yield "", {"parent-dag-id": "12345", "condition": ""}, {}
        return
    label = definition["executorLabel"]
    container = spec["deploymentSpec"]["executors"][label]["container"]
    unique = hashlib.sha256(where.encode()).hexdigest()
    patch = kfp_pod.marshal(kfp_pod.pod(spec, platform, name, inputs)["spec"]["containers"])
    patch = patch.replace(
        kfp_driver.RUN, f"{unique[:8]}-{unique[8:12]}-{unique[12:16]}-{unique[16:20]}-{unique[20:32]}"
    )
    both = {"container": kfp_pod.marshal(container), "kubernetes-config": kfp_pod.marshal(platform.get(label, {}))}
    yield "-driver", common | both, {"pod-spec-patch": patch, "cached-decision": "false", "condition": "true"}
    yield "", {"pod-spec-patch": patch, "cached-decision": "false"}, {}
    yield ".executor", {"pod-spec-patch": patch}, {}


def task_of(spec: dict[str, Any], name: str) -> tuple[dict[str, Any], str]:
    for component in ({"dag": spec["root"]["dag"]}, *spec["components"].values()):
        if name in component.get("dag", {}).get("tasks", {}):
            task = component["dag"]["tasks"][name]
            return task, task["componentRef"]["name"]
    raise KeyError(name)
