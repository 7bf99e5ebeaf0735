"""What KFP's driver gives every task of a compiled pipeline, and where it refuses a value; a stand-in.

The rules are those of kubeflow/pipelines 2.17.0 (2.16.0 has the same), backend/src/v2: driver/resolve.go
(resolveInputs, resolveInputParameter, resolveInputArtifact, resolveUpstreamParameters, resolveUpstreamArtifacts,
handleParamTypeValidationAndConversion, CollectInputs), driver/dag.go (the iterations of a loop), driver/util.go
(getItems), metadata/converter.go (PbValueToText, toRuntimeArtifact), metadata/client.go (RecordArtifact,
GenerateOutputURI). No compiler looks at this, and kfp's local runners take more.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

Values = Mapping[str, Any]
NUMBERS = ("NUMBER_DOUBLE", "NUMBER_INTEGER")
STRUCTS = ("STRUCT", "TASK_FINAL_STATUS", "TASK_CONFIG")
TAKES = {"string": ("STRING",), "number": NUMBERS, "bool": ("BOOLEAN",), "list": ("LIST",), "struct": STRUCTS}
# what the launcher notes of KFP's own store (objectstore/config.go, SessionInfo)
STORE = json.dumps(
    {
        "Provider": "minio",
        "Params": {
            "accessKeyKey": "accesskey",
            "disableSSL": "true",
            "endpoint": "seaweedfs.kubeflow.svc:9000",
            "forcePathStyle": "true",
            "fromEnv": "false",
            "maxRetries": "5",
            "region": "minio",
            "secretKeyKey": "secretkey",
            "secretName": "mlpipeline-minio-artifact",
        },
    },
    separators=(",", ":"),
)
RUN = "0b6b4c52-6d5a-4f3e-9f0e-3b1f2a7c8d90"  # an id, of a run or a task
SAMPLE = {"STRING": "text", "NUMBER_DOUBLE": 0.5, "NUMBER_INTEGER": 1, "BOOLEAN": True, "LIST": [], "STRUCT": {}}


class Refused(Exception):
    """The driver ends with this, and the task with it."""


class Inputs(NamedTuple):
    """Of one task: parameters and artifacts by name, and ``scope``, the parameters of the DAG that the task is in."""

    parameters: dict[str, Any]
    artifacts: dict[str, list[dict[str, Any]]]
    scope: Values


Found = tuple[str, Inputs | Refused]  # where a task is, and its inputs


def kind(value: Any) -> str:
    """What a protobuf Value calls it: every number is a double, and true is none."""
    for name, types in (("bool", bool), ("number", int | float), ("string", str), ("list", list), ("struct", dict)):
        if isinstance(value, types):
            return name
    return "null"


def text(value: Any) -> str:
    """A value of any kind as text (PbValueToText)."""
    if value is None or isinstance(value, str):
        return value or ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return str(int(value)) if float(value).is_integer() else repr(float(value))
    return json.dumps(value)


def converted(name: str, declared: str, value: Any) -> Any:
    """``value`` as a parameter of this type gets it (handleParamTypeValidationAndConversion); raises Refused."""
    if declared == "STRING":
        return text(value)
    result = kind(value)
    if result == "null":
        raise Refused(f'got null for input parameter "{name}"')
    if declared not in TAKES[result]:
        raise Refused(f'input parameter "{name}" type mismatch: expect {declared}, got {result}')
    return value


def items_of(value: Any) -> list[Any]:
    """What a loop iterates over (getItems): a list, or text that is JSON of one."""
    result = json.loads(value) if isinstance(value, str) else value
    if not isinstance(result, list):
        raise Refused(f"value of type {kind(result)} cannot be iterated")
    return result


def parameters(component: dict[str, Any]) -> dict[str, Any]:
    result: dict[str, Any] = component.get("inputDefinitions", {}).get("parameters", {})
    return result


def output(spec: dict[str, Any], tasks: dict[str, Any], producer: str, key: str, known: Values) -> Any:
    """A value of the type that ``producer`` declares; a list of them where it is in a loop (CollectInputs)."""
    if producer not in tasks:
        raise Refused(f"producer task, {producer}, not in tasks")
    component = spec["components"][tasks[producer]["componentRef"]["name"]]
    if "dag" not in component:
        return SAMPLE[component["outputDefinitions"]["parameters"][key]["parameterType"]]
    source = component["dag"]["outputs"]["parameters"][key]["valueFromParameter"]
    turns = turns_of(spec, tasks, producer, source["producerSubtask"], known)
    inner = output(spec, component["dag"]["tasks"], source["producerSubtask"], source["outputParameterKey"], known)
    return [inner] * turns if "parameterIterator" in tasks[producer] else inner


def artifacts_of(spec: dict[str, Any], tasks: dict[str, Any], producer: str, key: str, known: Values) -> Any:
    """What ``producer`` recorded; from a loop all that its turns did (resolveUpstreamArtifacts)."""
    if producer not in tasks:
        raise Refused(f'cannot find producer task "{producer}"')
    component = spec["components"][tasks[producer]["componentRef"]["name"]]
    if "dag" not in component:
        declared = component.get("outputDefinitions", {}).get("artifacts", {})
        if key not in declared:
            raise Refused(f'cannot find output artifact key "{key}" in producer task "{producer}"')
        return [recorded(spec, producer, key, declared[key])]
    (source,) = component["dag"]["outputs"]["artifacts"][key]["artifactSelectors"]
    turns = turns_of(spec, tasks, producer, source["producerSubtask"], known)
    inner = component["dag"]["tasks"], source["producerSubtask"], source["outputArtifactKey"]
    return [one for _ in range(turns) for one in artifacts_of(spec, *inner, known)]


def turns_of(spec: dict[str, Any], tasks: dict[str, Any], loop: str, inner: str, known: Values) -> int:
    """How often a DAG ran: a loop over nothing has no task that anything could come from."""
    iterator = tasks[loop].get("parameterIterator")
    if not iterator:
        return 1
    named = iterator["items"].get("inputParameter", "")
    items = items_of(inputs_of(spec, tasks, loop, known)[named] if named else json.loads(iterator["items"]["raw"]))
    if not items:
        raise Refused(f"subTaskName, {inner}, not in tasks")
    return len(items)


def recorded(spec: dict[str, Any], task: str, key: str, declared: dict[str, Any]) -> dict[str, Any]:
    """One artifact, with an address and a store of the usual length."""
    root = f"minio://mlpipeline/v2/artifacts/{spec['pipelineInfo']['name']}/{RUN}"
    return {
        "name": "1234567",  # a number of ML Metadata
        "type": {"instanceSchema": f"title: {declared['artifactType'].get('schemaTitle', '')}"},
        "uri": f"{root}/{task}/{RUN}/{key}",
        "metadata": {"display_name": key, "store_session_info": STORE},
    }


def resolved(spec: dict[str, Any], tasks: dict[str, Any], source: dict[str, Any], known: Values) -> Any:
    """One input before the look at its type (resolveInputParameter); None where the pipeline's parameter is null."""
    if "parameterExpressionSelector" in source:
        raise NotImplementedError("no pipeline here takes a part of a value; add expression.Select before one does")
    if "taskFinalStatus" in source:
        return {}
    if "taskOutputParameter" in source:
        return output(
            spec,
            tasks,
            source["taskOutputParameter"]["producerTask"],
            source["taskOutputParameter"]["outputParameterKey"],
            known,
        )
    if "runtimeValue" in source:
        return source["runtimeValue"]["constant"]
    source_name = source["componentInputParameter"]
    if source_name not in known:
        raise Refused(f"parent DAG does not have input parameter {source_name}")
    return known[source_name]


def typed(declared: dict[str, Any], arguments: Values, unset: frozenset[str], without: str) -> dict[str, Any]:
    """``given`` after the look at its types.

    ``unset``: nulls that the driver itself put there. ``without``: the input that a loop takes away.
    """
    result = dict(arguments)
    for name, item in declared.items():
        if name == without:
            continue
        if name not in arguments:
            if not item.get("isOptional") and "defaultValue" not in item:
                raise Refused(f'neither value nor default value provided for non-optional parameter "{name}"')
            if item.get("isOptional"):
                continue
        if name not in unset:
            result[name] = converted(name, item["parameterType"], arguments.get(name))
    return result


def inputs_of(spec: dict[str, Any], tasks: dict[str, Any], name: str, known: Values) -> dict[str, Any]:
    """What the driver of one task finds; ``there`` are the parameters of the DAG that it is in."""
    task = tasks[name]
    component = spec["components"][task["componentRef"]["name"]]
    declared, arguments, unset = parameters(component), {}, set()
    sources = task.get("inputs", {}).get("parameters", {})
    if "dag" in component:
        for key, item in declared.items():
            if key not in sources and item.get("isOptional"):
                arguments[key] = item.get("defaultValue")
                unset |= {key} if "defaultValue" not in item else set()
    for key, source in sources.items():
        value = resolved(spec, tasks, source, known)
        if value is None and not declared.get(key, {}).get("isOptional"):
            raise Refused(f"parent DAG's input parameter for {key} is null")
        if value is not None:
            arguments[key] = value
    return typed(declared, arguments, frozenset(unset), task.get("parameterIterator", {}).get("itemInput", ""))


def artifacts_into(
    spec: dict[str, Any], tasks: dict[str, Any], name: str, known: Values, around: Values
) -> dict[str, list[dict[str, Any]]]:
    """The artifacts of one task; ``around`` are those of the DAG that it is in (resolveInputArtifact)."""
    arguments = {}
    for key, source in tasks[name].get("inputs", {}).get("artifacts", {}).items():
        if "taskOutputArtifact" in source:
            producer = source["taskOutputArtifact"]
            arguments[key] = artifacts_of(spec, tasks, producer["producerTask"], producer["outputArtifactKey"], known)
        elif source["componentInputArtifact"] not in around:
            raise Refused(f"parent DAG does not have input artifact {source['componentInputArtifact']}")
        else:
            arguments[key] = around[source["componentInputArtifact"]]
    return arguments


def refusals(spec: dict[str, Any], arguments: Values) -> Iterator[str]:
    """Every task whose driver would refuse, with its words: empty where the whole pipeline gets its parameters."""
    declared = parameters(spec["root"])
    values = {key: item["defaultValue"] for key, item in declared.items() if "defaultValue" in item} | dict(arguments)
    for where, result in run(spec, spec["root"], Inputs(values, {}, {}), "root"):
        if isinstance(result, Refused):
            yield f"{where}: {result}"


def run(spec: dict[str, Any], component: dict[str, Any], around: Inputs, at: str) -> Iterator[Found]:
    """Every task below ``component`` with its inputs, every turn of a loop too; nothing runs inside a refused one."""
    tasks = component["dag"]["tasks"]
    for name, task in tasks.items():
        where = f"{at}/{name}"
        inner = spec["components"][task["componentRef"]["name"]]
        try:
            arguments = inputs_of(spec, tasks, name, around.parameters)
            artifacts = artifacts_into(spec, tasks, name, around.parameters, around.artifacts)
            turns = list(iterations(task, inner, arguments)) if "parameterIterator" in task else [("", arguments)]
        except Refused as refused:
            yield where, refused
            continue
        for number, result in turns:
            inputs = Inputs(result, artifacts, around.parameters)
            yield f"{where}{number}", inputs
            if "dag" in inner:
                yield from run(spec, inner, inputs, f"{where}{number}")


def iterations(
    task: dict[str, Any], component: dict[str, Any], arguments: Values
) -> Iterator[tuple[str, dict[str, Any]]]:
    """What each turn of a loop gets: the list goes, its item comes, and the types are looked at once more."""
    loop = task["parameterIterator"]
    listed = loop["items"].get("inputParameter", "")
    every = arguments[listed] if listed else json.loads(loop["items"]["raw"])
    for number, item in enumerate(items_of(every)):
        result = {key: value for key, value in arguments.items() if key != listed} | {loop["itemInput"]: item}
        yield f"[{number}]", typed(parameters(component), result, frozenset(), listed)
