"""Every parameter reaches its task as the type that the task declares, by the rules of KFP's driver.

They are read from kubeflow/pipelines 2.17.0, backend/src/v2/driver/resolve.go, handleParamTypeValidationAndConversion,
and applied by contract/kfp_driver.py: a number becomes text where text is declared, and text becomes nothing else.
kfp's compiler leaves this out on purpose.
"""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import yaml
from contract import kfp_driver
from kfp import dsl

from capnet.config import parse
from components.images import read_lock
from pipelines import compiling
from pipelines.arguments import prediction_arguments, training_arguments
from pipelines.options import Options

pytestmark = pytest.mark.slow

PARAMS = parse({"data": {"root": "s3://bucket/birds"}})
OTHERS: dict[str, tuple[str, Options]] = {
    "prediction-on-volume": ("prediction", Options(data_volume=True, retries=0, cache=False)),
    "prediction-without-state": ("prediction", Options(state_volume=False)),
    "training-on-one-of-many-nodes": ("training", Options(nodes=8, processes_per_node=4, further_seeds=True)),
    "training-here": ("training", Options(cluster=False, further_seeds=True)),
}


def arguments(kind: str, several: bool) -> Iterator[dict[str, Any]]:
    """What pipelines.submit starts runs with: one to three seeds, one to 100 parts."""
    if kind == "prediction":
        for shards in (1, 2, 100):
            yield prediction_arguments(PARAMS, "", shards, "today")
        return
    for seeds in ([0, 1], [3, 1, 2]) if several else ([], [7]):
        train = PARAMS.train.model_copy(update={"seeds": tuple(seeds)})
        yield training_arguments(PARAMS.model_copy(update={"train": train}), "today")


@pytest.mark.parametrize("name", compiling.GOLDEN_PIPELINES)
def test_every_golden_pipeline_gets_parameters_of_its_types(name: str) -> None:
    spec = next(iter(yaml.safe_load_all((compiling.GOLDEN / f"{name}.yaml").read_text())))
    kind, options = compiling.GOLDEN_PIPELINES[name]
    for values in arguments(kind, options.further_seeds):
        assert list(kfp_driver.refusals(spec, values)) == []


@pytest.mark.parametrize("name", OTHERS)
def test_so_does_one_of_other_options(name: str) -> None:
    kind, options = OTHERS[name]
    options = replace(options, images=read_lock(compiling.GOLDEN_LOCK) if options.cluster else None)
    spec = next(iter(yaml.safe_load_all(compiling.compile_text(compiling.PIPELINES[kind](options)))))
    for values in arguments(kind, options.further_seeds):
        assert list(kfp_driver.refusals(spec, values)) == []


def test_every_task_of_every_turn_was_looked_at() -> None:
    spec = next(iter(yaml.safe_load_all(compiling.golden("prediction"))))
    result = tasks(spec, next(arguments("prediction", False)))
    assert result["root/exit-handler-1/for-loop-2[0]/predict"].parameters["shard"] == 0
    assert {where.rpartition("/")[2] for where in result} == {
        "exit-handler-1",
        "outcome",
        "fetch",
        "champion",
        "for-loop-2[0]",
        "predict",
        "merge",
    }
    spec = next(iter(yaml.safe_load_all(compiling.golden("training-on-nodes"))))
    values = list(arguments("training", True))[1]
    result = tasks(spec, values)
    inside = [result[f"root/exit-handler-1/for-loop-2[{turn}]/evaluate-2"] for turn in (0, 1)]
    assert [task.parameters["seed"] for task in inside] == [1, 2]
    assert result["root/exit-handler-1/report"].parameters["others"] == [[], []], "a list of what the turns gave"


def tasks(spec: dict[str, Any], values: dict[str, Any]) -> dict[str, Any]:
    declared = kfp_driver.parameters(spec["root"])
    values = {key: item["defaultValue"] for key, item in declared.items() if "defaultValue" in item} | values
    return dict(kfp_driver.run(spec, spec["root"], kfp_driver.Inputs(values, {}, {}), "root"))


def test_a_loop_over_nothing_leaves_nothing_to_collect() -> None:
    """Why plan and champion look at these lists: resolve.go, resolveUpstreamParameters and resolveUpstreamArtifacts."""
    for name, empty, last in (
        ("prediction", {"shards": []}, "merge"),
        ("training-seeds-on-volume", {"further_seeds": []}, "report"),
    ):
        spec = next(iter(yaml.safe_load_all(compiling.golden(name))))
        values = next(arguments(name.partition("-")[0], True))
        assert list(kfp_driver.refusals(spec, values)) == []
        (refused,) = kfp_driver.refusals(spec, values | empty)
        assert refused.startswith(f"root/exit-handler-1/{last}: subTaskName, ")
        assert refused.endswith(", not in tasks")


def test_an_artifact_that_nobody_makes_is_refused() -> None:
    spec = next(iter(yaml.safe_load_all(compiling.golden("training"))))
    values = next(arguments("training", False))
    dag = spec["components"]["comp-exit-handler-1"]["dag"]["tasks"]
    dag["split"]["inputs"]["artifacts"]["manifest"] = {"componentInputArtifact": "manifest"}
    dag["graph"]["inputs"]["artifacts"]["split"]["taskOutputArtifact"]["producerTask"] = "nobody"
    dag["evaluate"]["inputs"]["artifacts"]["model"]["taskOutputArtifact"]["outputArtifactKey"] = "weights"
    assert list(kfp_driver.refusals(spec, values)) == [
        'root/exit-handler-1/evaluate: cannot find output artifact key "weights" in producer task "train"',
        'root/exit-handler-1/graph: cannot find producer task "nobody"',
        "root/exit-handler-1/split: parent DAG does not have input artifact manifest",
    ]


@pytest.mark.parametrize(
    ("declared", "value", "expected"),
    [
        ("STRING", "a", "a"),
        ("STRING", 1, "1"),
        ("STRING", 0.5, "0.5"),
        ("STRING", True, "true"),
        ("STRING", [1], "[1]"),
        ("STRING", {"a": 1}, '{"a": 1}'),
        ("NUMBER_INTEGER", 1, 1),
        ("NUMBER_INTEGER", 0.5, 0.5),
        ("NUMBER_DOUBLE", 1, 1),
        ("BOOLEAN", False, False),
        ("LIST", [], []),
        ("STRUCT", {}, {}),
        ("TASK_FINAL_STATUS", {}, {}),
    ],
)
def test_what_the_driver_takes(declared: str, value: Any, expected: Any) -> None:
    assert kfp_driver.converted("x", declared, value) == expected


@pytest.mark.parametrize(
    ("declared", "value", "result"),
    [
        ("NUMBER_INTEGER", "1", "string"),
        ("NUMBER_DOUBLE", "1", "string"),
        ("NUMBER_INTEGER", True, "bool"),
        ("BOOLEAN", 1, "number"),
        ("BOOLEAN", "true", "string"),
        ("LIST", "[1]", "string"),
        ("LIST", {}, "struct"),
        ("STRUCT", [], "list"),
        ("STRUCT", "{}", "string"),
    ],
)
def test_what_the_driver_refuses(declared: str, value: Any, result: str) -> None:
    with pytest.raises(kfp_driver.Refused, match=f'input parameter "x" type mismatch: expect {declared}, got {result}'):
        kfp_driver.converted("x", declared, value)
    with pytest.raises(kfp_driver.Refused, match='got null for input parameter "x"'):
        kfp_driver.converted("x", declared, None)


@dsl.component(base_image="python", install_kfp_package=False)
def number() -> int:
    return 1


@dsl.component(base_image="python", install_kfp_package=False)
def told() -> str:
    return "1"


@dsl.component(base_image="python", install_kfp_package=False)
def takes(seed: int) -> int:
    return seed


@dsl.component(base_image="python", install_kfp_package=False)
def takes_list(seeds: list) -> None:
    print(seeds)


def compiled(pipeline: Any) -> dict[str, Any]:
    spec: dict[str, Any] = next(iter(yaml.safe_load_all(compiling.compile_text(dsl.pipeline(name="x")(pipeline)))))
    return spec


def test_items_of_a_list_without_a_type_become_text_and_are_refused() -> None:
    """What the pipelines did: kfp declares such an item as text, so the iteration's driver makes text of a number."""

    def untyped(seeds: list) -> None:
        with dsl.ParallelFor(seeds) as seed:
            takes(seed=seed)

    def typed(seeds: list[int]) -> None:
        with dsl.ParallelFor(seeds) as seed:
            takes(seed=seed)

    refused = 'input parameter "seed" type mismatch: expect NUMBER_INTEGER, got string'
    expected = [f"root/for-loop-1[{turn}]/takes: {refused}" for turn in (0, 1)]
    assert list(kfp_driver.refusals(compiled(untyped), {"seeds": [1, 2]})) == expected
    assert list(kfp_driver.refusals(compiled(typed), {"seeds": [1, 2]})) == []


def test_constants_outputs_and_what_a_loop_collects_have_types_too() -> None:
    def sound(seeds: list[int]) -> None:
        takes(seed=3)
        takes(seed=number().output)
        with dsl.ParallelFor(seeds) as seed:
            one = takes(seed=seed)
        takes_list(seeds=dsl.Collected(one.output))

    spec = compiled(sound)
    assert list(kfp_driver.refusals(spec, {"seeds": [1]})) == []
    tasks = spec["root"]["dag"]["tasks"]
    tasks["takes"]["inputs"]["parameters"]["seed"] = {"runtimeValue": {"constant": "3"}}
    spec["components"]["comp-number"]["outputDefinitions"]["parameters"]["Output"]["parameterType"] = "STRING"
    spec["components"]["comp-takes-list"]["inputDefinitions"]["parameters"]["seeds"]["parameterType"] = "NUMBER_INTEGER"
    result = list(kfp_driver.refusals(spec, {"seeds": [1]}))
    wrong = 'input parameter "seed" type mismatch: expect NUMBER_INTEGER, got string'
    assert result == [
        f"root/takes: {wrong}",
        f"root/takes-2: {wrong}",
        'root/takes-list: input parameter "seeds" type mismatch: expect NUMBER_INTEGER, got list',
    ]


def test_what_is_not_there_is_refused() -> None:
    def plain(seed: int) -> None:
        takes(seed=seed)

    spec = compiled(plain)
    assert list(kfp_driver.refusals(spec, {})) == ["root/takes: parent DAG does not have input parameter seed"]
    (null,) = kfp_driver.refusals(spec, {"seed": None})
    assert null == "root/takes: parent DAG's input parameter for seed is null"
    del spec["root"]["dag"]["tasks"]["takes"]["inputs"]
    (none,) = kfp_driver.refusals(spec, {})
    assert none == 'root/takes: neither value nor default value provided for non-optional parameter "seed"'
