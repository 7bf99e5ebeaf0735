"""The pod of a task, as KFP's driver and Argo put it together; a stand-in.

The rules are those of kubeflow/pipelines 2.17.0, backend/src/v2: driver/driver.go (initPodSpecPatch, provisionOutputs,
getPodResource), driver/k8s.go (extendPodSpecPatch, makeVolumeMountPatch), driver/resolve.go (resolveInputParameterStr,
resolvePodSpecInputRuntimeParameter, resolveK8sJsonParameter), component/launcher_v2.go (LocalPathForURI),
compiler/argocompiler/container.go (the template that is patched) and security_context.go.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from contract import kfp_driver
from contract.kfp_driver import Inputs, Refused, Values

CHANNEL = re.compile(r"\{\{\$\.inputs\.parameters\['(.+)'\]\}\}")
SCHEMES = {"gs://": "/gcs/", "minio://": "/minio/", "s3://": "/s3/"}
SCRATCH = {
    f"{path.strip('/').replace('.', 'dot-')}-scratch": path
    for path in ("/gcs", "/s3", "/minio", "/.local", "/.cache", "/.config")
}
HARDENED = {
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
    "seccompProfile": {"type": "RuntimeDefault"},
}
LAUNCHER = {"requests": {"cpu": "0.1"}, "limits": {"cpu": "0.5", "memory": "256Mi"}}  # argo.go, launcherResources
PULL_POLICIES = ("", "Always", "Never", "IfNotPresent")


def marshal(value: Any) -> str:
    """JSON as long as Go's protojson may write it: a blank behind every comma and colon, or none of them."""
    return json.dumps(value, ensure_ascii=False)


def local_path(uri: str) -> str:
    """Where the launcher puts an artifact."""
    for scheme, folder in SCHEMES.items():
        if uri.startswith(scheme):
            return folder + uri.removeprefix(scheme)
    raise Refused(f"failed to generate local path for URI {uri}: unsupported storage scheme")


def executor_input(spec: dict[str, Any], task: str, component: dict[str, Any], inputs: Inputs) -> dict[str, Any]:
    """What the launcher gets in one argument, and the task's own program in another."""
    declared = component.get("outputDefinitions", {})
    outputs = {}
    folder = ""
    for key, item in declared.get("artifacts", {}).items():
        made = kfp_driver.recorded(spec, task, key, item)
        folder = local_path(made["uri"].rpartition("/")[0])
        outputs[key] = {"artifacts": [{"name": key, "type": item["artifactType"], "uri": made["uri"], "metadata": {}}]}
    return {
        "inputs": {
            "parameterValues": inputs.parameters,
            "artifacts": {key: {"artifacts": items} for key, items in inputs.artifacts.items()},
        },
        "outputs": {
            "artifacts": outputs,
            "parameters": {key: {"outputFile": f"/tmp/kfp/outputs/{key}"} for key in declared.get("parameters", {})},
            "outputFile": f"{folder}/output_metadata.json",
        },
    }


def text(source: dict[str, Any], scope: Values) -> str:
    """A name that is a constant or a parameter of the DAG, which must not be empty (resolveInputParameterStr)."""
    if "runtimeValue" in source:
        value = source["runtimeValue"]["constant"]
    elif source["componentInputParameter"] not in scope:
        raise Refused(f"parent DAG does not have input parameter {source['componentInputParameter']}")
    else:
        value = scope[source["componentInputParameter"]]
    if not isinstance(value, str):
        raise Refused(f"resolving input parameter with spec {source}. Expected a string but got: {value!r}")
    if not value:
        raise Refused(f"resolving input parameter with spec {source}. Expected a non-empty string")
    return value


def quantity(value: str, inputs: Inputs) -> str:
    """A resource: a constant, or an input of the task, of which only text counts."""
    channel = CHANNEL.fullmatch(value)
    if not channel:
        return value
    if channel[1] not in inputs.parameters:
        raise Refused("executorInput did not contain container Image input parameter")
    result = inputs.parameters[channel[1]]
    return result if isinstance(result, str) else ""


def resources(container: dict[str, Any], inputs: Inputs) -> dict[str, dict[str, str]]:
    asked = container.get("resources", {})
    result: dict[str, dict[str, str]] = {"requests": {}, "limits": {}}
    for key, kind, name in (
        ("resourceCpuRequest", "requests", "cpu"),
        ("resourceCpuLimit", "limits", "cpu"),
        ("resourceMemoryRequest", "requests", "memory"),
        ("resourceMemoryLimit", "limits", "memory"),
    ):
        if key in asked:
            result[kind][name] = quantity(asked[key], inputs)
    accelerator = asked.get("accelerator", {})
    kind, count = (quantity(accelerator.get(key, ""), inputs) for key in ("resourceType", "resourceCount"))
    if kind and count:
        result["limits"][kind] = count
    return result


def environment(settings: dict[str, Any], scope: Values) -> Iterator[dict[str, Any]]:
    for item in settings.get("secretAsEnv", ()):
        if "secretNameParameter" not in item and not item.get("secretName"):
            raise Refused("missing either SecretName or SecretNameParameter for secret environment variable")
        name = text(item["secretNameParameter"], scope) if "secretNameParameter" in item else item["secretName"]
        for pair in item["keyToEnv"]:
            key = {"name": name, "key": pair["secretKey"], "optional": item.get("optional", False)}
            yield {"name": pair["envVar"], "valueFrom": {"secretKeyRef": key}}
    for item in settings.get("fieldPathAsEnv", ()):
        yield {"name": item["name"], "valueFrom": {"fieldRef": {"fieldPath": item["fieldPath"]}}}


def volumes(settings: dict[str, Any], scope: Values) -> Iterator[tuple[dict[str, Any], str]]:
    """Volumes and where they are mounted; one with a claim has the claim's name."""
    for item in settings.get("pvcMount", ()):
        name = text(item["pvcNameParameter"], scope)
        if not item.get("mountPath"):
            raise Refused("failed to mount volume, missing mountpath or pvc name")
        yield {"name": name, "persistentVolumeClaim": {"claimName": name}}, item["mountPath"]
    for item in settings.get("emptyDirMounts", ()):
        empty = {key: item[key] for key in ("medium", "sizeLimit") if key in item}
        yield {"name": item["volumeName"], "emptyDir": empty}, item["mountPath"]


def value_of(source: dict[str, Any], scope: Values) -> Any:
    return kfp_driver.resolved({}, {}, source, scope)


def placement(settings: dict[str, Any], scope: Values) -> dict[str, Any]:
    result: dict[str, Any] = {}
    if "nodeSelector" in settings:
        selector = value_of(settings["nodeSelector"]["nodeSelectorJson"], scope)
        if not isinstance(selector, dict) or not all(isinstance(item, str) for item in selector.values()):
            raise Refused("failed to unmarshal k8s Resource json ensure that k8s Resource json correctly adheres")
        result["nodeSelector"] = selector
    tolerations = []
    for item in settings.get("tolerations", ()):
        value = value_of(item["tolerationJson"], scope)
        if not isinstance(value, dict | list):
            raise Refused("encountered unexpected toleration proto value, must be either struct or list type")
        tolerations += value if isinstance(value, list) else [value] if value else []
    return result | ({"tolerations": tolerations} if tolerations else {})


def pod(spec: dict[str, Any], platform: dict[str, Any], name: str, inputs: Inputs) -> dict[str, Any]:
    """The pod of the task ``name`` in the scope of ``inputs``; raises Refused where the driver would end."""
    (component,) = {
        task["componentRef"]["name"]
        for item in ({"dag": spec["root"]["dag"]}, *spec["components"].values())
        for key, task in item.get("dag", {}).get("tasks", {}).items()
        if key == name
    }
    declared = spec["components"][component]
    container = spec["deploymentSpec"]["executors"][declared["executorLabel"]]["container"]
    settings = platform.get(declared["executorLabel"], {})
    if settings.get("imagePullPolicy", "") not in PULL_POLICIES:
        raise Refused("ImagePullPolicy should be one of 'Always', 'Never' or 'IfNotPresent'")
    arguments = marshal(executor_input(spec, name, declared, inputs))
    own = list(volumes(settings, inputs.scope))
    mounts = {"kfp-launcher": "/kfp-launcher", **SCRATCH}
    user = settings.get("securityContext", {})
    main = {
        "name": "main",
        "image": container["image"],
        "command": [
            *("/kfp-launcher/launch", "--pipeline_name", spec["pipelineInfo"]["name"]),
            *("--executor_input", arguments, "--component_spec", marshal(declared), "--"),
        ],
        "args": [item.replace("{{$}}", arguments) for item in (*container["command"], *container.get("args", ()))],
        "env": [*container.get("env", ()), *environment(settings, inputs.scope)],
        "resources": resources(container, inputs),
        "securityContext": HARDENED | {key: user[key] for key in ("runAsNonRoot", "runAsUser") if key in user},
        "volumeMounts": [
            *({"name": key, "mountPath": path} for key, path in mounts.items()),
            *({"name": volume["name"], "mountPath": path} for volume, path in own),
        ],
    }
    copies = {
        "name": "kfp-launcher",
        "image": "ghcr.io/kubeflow/kfp-launcher:2.17.0",
        "resources": LAUNCHER,
        "securityContext": HARDENED | {"runAsNonRoot": True},
        "volumeMounts": [{"name": "kfp-launcher", "mountPath": "/kfp-launcher"}],
    }
    secrets = [
        {"name": text(item["secretNameParameter"], inputs.scope)} for item in settings.get("imagePullSecret", ())
    ]
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": f"{spec['pipelineInfo']['name']}-x7x9k-{name}", **settings.get("podMetadata", {})},
        "spec": {
            "initContainers": [copies],
            "containers": [main],
            "volumes": [*({"name": key, "emptyDir": {}} for key in mounts), *(volume for volume, _ in own)],
            "securityContext": {"seccompProfile": {"type": "RuntimeDefault"}},
            **({"imagePullSecrets": secrets} if secrets else {}),
            **(
                {"activeDeadlineSeconds": int(settings["activeDeadlineSeconds"])}
                if "activeDeadlineSeconds" in settings
                else {}
            ),
            **placement(settings, inputs.scope),
        },
    }


def pods(spec: dict[str, Any], platform: dict[str, Any], arguments: Values) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every pod that runs one of our images, by where its task is."""
    declared = kfp_driver.parameters(spec["root"])
    values = {key: item["defaultValue"] for key, item in declared.items() if "defaultValue" in item} | dict(arguments)
    for where, inputs in kfp_driver.run(spec, spec["root"], Inputs(values, {}, {}), "root"):
        if isinstance(inputs, Refused):
            raise inputs
        name = where.rpartition("/")[2]
        if not name.endswith("]") and not name.startswith(("exit-handler-", "for-loop-")):
            yield where, pod(spec, platform, name, inputs)
