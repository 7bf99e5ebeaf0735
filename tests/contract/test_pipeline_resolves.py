"""KFP's driver finds every value that a compiled pipeline names, in the exit handler and in loops too. No compiler says
so: a run would.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
import yaml
from kfp.dsl.structures import ResourceSpec

from pipelines import compiling

pytestmark = pytest.mark.slow

CHANNEL = re.compile(r"\{\{\$\.inputs\.parameters\['([^']+)'\]\}\}")
# inputs that kfp adds to a task whose resources are parameters, over those of the same name
KFP_INPUTS = set(ResourceSpec.__dataclass_fields__)
Documents = tuple[dict[str, Any], dict[str, Any]]


def documents(name: str) -> Documents:
    """Specification, and the platform's settings by executor."""
    spec, platform = yaml.safe_load_all(compiling.golden(name))
    return spec, platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]


def named(value: Any) -> Iterator[str]:
    """Every parameter of the surrounding DAG that settings of an executor name."""
    if isinstance(value, dict):
        if isinstance(value.get("componentInputParameter"), str):
            yield value["componentInputParameter"]
        for item in value.values():
            yield from named(item)
    elif isinstance(value, list):
        for item in value:
            yield from named(item)


def missing(component: dict[str, Any], known: set[str], result: Documents, at: str) -> Iterator[str]:
    """What tasks of a DAG ask for and do not get. ``there``: the DAG's own parameters when it runs, as the driver
    resolves them.
    """
    spec, platform = result
    dag = component["dag"]["tasks"]
    for name, task in dag.items():
        where = f"{at}/{name}"
        inputs = task.get("inputs", {}).get("parameters", {})
        for key, source in inputs.items():
            parameter = source.get("componentInputParameter", "")
            if parameter and parameter not in known:
                yield f"{where}: {key} is {parameter}, which the DAG does not have"
            for channel in CHANNEL.findall(str(source.get("runtimeValue", ""))):
                if channel not in inputs:
                    yield f"{where}: {key} is {channel}, which the task does not have"
            producer = source.get("taskOutputParameter", {}).get("producerTask", name)
            if producer not in dag:
                yield f"{where}: {key} comes from {producer}, which is not in the DAG"
        inner = spec["components"][task["componentRef"]["name"]]
        loop = task.get("parameterIterator", {})
        provided = set(inputs) | {loop["itemInput"]} if loop else set(inputs)
        needed = {
            key
            for key, item in inner.get("inputDefinitions", {}).get("parameters", {}).items()
            if not item.get("isOptional")
        }
        yield from (f"{where}: nothing is given for {key}" for key in sorted(needed - provided))
        if "dag" in inner:
            yield from missing(inner, provided - {loop.get("items", {}).get("inputParameter")}, result, where)
            continue
        executor = inner["executorLabel"]
        resources = CHANNEL.findall(
            str(spec["deploymentSpec"]["executors"][executor]["container"].get("resources", {}))
        )
        kinds = (
            {key: item["parameterType"] for key, item in component["inputDefinitions"]["parameters"].items()}
            if resources
            else {}
        )
        yield from (
            f"{where}: resources name {channel}, which the task does not have"
            for channel in resources
            if channel not in inputs
        )
        yield from (
            f"{where}: {channel} is no text, and the driver leaves it out"
            for channel in resources
            if kinds.get(channel) != "STRING"
        )
        own = inner.get("inputDefinitions", {}).get("parameters", {})
        yield from (
            f"{where}: kfp puts a resource in the place of input {key}"
            for key in sorted(own.keys() & KFP_INPUTS)
            if resources
        )
        yield from (
            f"{where}: {executor} names {parameter}, which the DAG does not have"
            for parameter in named(platform.get(executor, {}))
            if parameter not in known
        )


@pytest.mark.parametrize("name", compiling.GOLDEN_PIPELINES)
def test_every_value_reaches_the_task_that_names_it(name: str) -> None:
    by_name = documents(name)
    root = by_name[0]["root"]
    assert not list(missing(root, set(root["inputDefinitions"]["parameters"]), by_name, name))


def test_a_value_that_stays_outside_is_seen() -> None:
    by_name = documents("training-seeds-on-volume")
    root = by_name[0]["root"]
    del root["dag"]["tasks"]["exit-handler-1"]["inputs"]["parameters"]["pipelinechannel--memory"]
    text = "\n".join(missing(root, set(root["inputDefinitions"]["parameters"]), by_name, "training"))
    assert "exit-handler-1: nothing is given for pipelinechannel--memory" in text
    assert "for-loop-2: pipelinechannel--memory is pipelinechannel--memory, which the DAG does not have" in text


def test_a_resource_that_is_a_number_or_an_input_of_the_same_name_is_seen() -> None:
    by_name = documents("training")
    root, components = by_name[0]["root"], by_name[0]["components"]
    handler = components["comp-exit-handler-1"]["inputDefinitions"]["parameters"]
    handler["pipelinechannel--accelerator_count"]["parameterType"] = "NUMBER_INTEGER"
    components["comp-train"]["inputDefinitions"]["parameters"]["accelerator_count"] = {
        "parameterType": "NUMBER_INTEGER"
    }
    text = "\n".join(missing(root, set(root["inputDefinitions"]["parameters"]), by_name, "training"))
    assert "train: pipelinechannel--accelerator_count is no text, and the driver leaves it out" in text
    assert "train: kfp puts a resource in the place of input accelerator_count" in text


def test_a_loop_does_not_pass_its_list_on() -> None:
    by_name = documents("prediction")
    root = by_name[0]["root"]
    loop = by_name[0]["components"]["comp-for-loop-2"]["dag"]["tasks"]["predict"]
    loop["inputs"]["parameters"]["shards"] = {"componentInputParameter": "pipelinechannel--shards"}
    assert list(missing(root, set(root["inputDefinitions"]["parameters"]), by_name, "prediction")) == [
        "prediction/exit-handler-1/for-loop-2/predict: shards is pipelinechannel--shards, which the DAG does not have"
    ]
