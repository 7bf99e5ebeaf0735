"""Every pipeline that we compile, with every number of seeds and parts, fits the servers: its pods, their arguments,
its workflow. Which documents the servers refuse is in test_kfp_rules.py and test_kubernetes_rules.py.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from contract import (
    argo_rules,
    cluster_shapes,
    kfp_driver,
    kfp_pod,
    kfp_rules,
    kserve_rules,
    kubernetes_rules,
    pod_security_rules,
)
from contract.cluster_shapes import SHAPES, compiled, runs
from contract.test_pipeline_types import PARAMS

from capnet.inline import MOST as MOST_INLINED
from capnet.inline import PACKED
from pipelines.arguments import prediction_arguments
from pipelines.checks import MOST_SHARDS, TAKEN, check_size

pytestmark = pytest.mark.slow

MOST = 106_000  # bytes of one argument or variable: a process takes 131,072, and addresses may be longer than here


@pytest.mark.parametrize("name", SHAPES)
def test_the_servers_take_the_pipeline_its_parameters_and_every_pod(name: str) -> None:
    spec, platform = compiled(name)
    for arguments in runs(name):
        kfp_rules.check_parameters(spec, arguments)
        assert list(kfp_driver.refusals(spec, arguments)) == []
        for where, pod in kfp_pod.pods(spec, platform, arguments):
            assert kubernetes_rules.problems(pod) == [], where
            assert list(pod_security_rules.restricted(pod)) == [], where
            assert list(argo_rules.tag_problems(" ".join(words(pod)))) == [], where
            assert longest(pod) < MOST, where


def test_no_claim_can_have_the_name_of_another_volume_of_a_task() -> None:
    spec, platform = compiled("training")
    for _, pod in kfp_pod.pods(spec, platform, next(runs("training"))):
        others = {item["name"] for item in pod["spec"]["volumes"] if "persistentVolumeClaim" not in item}
        assert others <= set(TAKEN)


def words(pod: dict[str, Any]) -> list[str]:
    (main,) = pod["spec"]["containers"]
    return [*main["command"], *main["args"]]


def longest(pod: dict[str, Any]) -> int:
    """Bytes of a pod's longest argument or variable."""
    return max(argo_rules.template_size(pod), *(len(word.encode()) for word in words(pod)))


def longest_of(parts: int) -> int:
    """The same of all pods of a prediction in so many parts."""
    spec, platform = compiled("prediction")
    arguments = prediction_arguments(PARAMS, "", parts, "today")
    return max(longest(pod) for _, pod in kfp_pod.pods(spec, platform, arguments))


def test_every_number_of_parts_up_to_the_most_fits_and_the_most_is_the_most() -> None:
    sizes = [longest_of(parts) for parts in (4, 20, 21, 99, MOST_SHARDS)]
    assert sizes == sorted(sizes), "it grows by the same with every part"
    assert sizes[-1] < MOST
    assert longest_of(MOST_SHARDS + 10) > MOST, "more would fit: raise MOST_SHARDS"
    assert longest_of(150) > argo_rules.MOST_TEMPLATE, "what --shards allowed once"


@pytest.mark.parametrize(
    ("stage", "section", "setting"), [("validate", "validate", "reference"), ("register", "register", "policy")]
)
def test_the_longest_file_that_travels_with_a_run_fits(stage: str, section: str, setting: str) -> None:
    spec, platform = compiled("training")
    arguments = next(runs("training"))
    arguments[stage][section][setting] = PACKED + "x" * (MOST_INLINED - len(PACKED))
    kfp_rules.check_parameters(spec, arguments)
    check_size(arguments)
    assert max(longest(pod) for _, pod in kfp_pod.pods(spec, platform, arguments)) < MOST


@pytest.mark.parametrize("name", SHAPES)
def test_the_workflow_is_small_enough_for_argo_when_its_last_task_has_ended(name: str) -> None:
    spec, platform = compiled(name)
    for arguments in runs(name, shards=(1, MOST_SHARDS)):
        assert argo_rules.workflow_size(spec, platform, arguments) < argo_rules.MOST_WORKFLOW


def test_the_workflow_of_a_thousand_parts_would_be_refused() -> None:
    spec, platform = compiled("prediction")
    arguments = prediction_arguments(PARAMS, "", 1000, "today")
    assert argo_rules.workflow_size(spec, platform, arguments) > argo_rules.MOST_WORKFLOW


def test_objects_of_deploy_are_taken(repository: Path) -> None:
    seen = set()
    for path in sorted((repository / "deploy").rglob("*.yaml")):
        for item in yaml.safe_load_all(path.read_text()):
            if item["kind"] in ("Kustomization", "Component"):
                continue
            seen.add(item["kind"])
            assert kubernetes_rules.problems(item) == [], path
            for pod in (item, item.get("spec", {}).get("template", {})):
                if "containers" in pod.get("spec", {}):
                    assert list(pod_security_rules.restricted(pod)) == [], path
    assert seen >= {"Job", "Deployment", "Pod", "PersistentVolumeClaim", "RoleBinding", "NetworkPolicy", "Role"}
    example = yaml.safe_load((repository / "deploy" / "kserve" / "capnet.yaml.example").read_text())
    assert kserve_rules.problems(example) == []
    assert kserve_rules.knative_problems(example) == []
    assert list(pod_security_rules.restricted({"spec": example["spec"]["predictor"]})) == []
    (container,) = example["spec"]["predictor"]["containers"]
    container["startupProbe"] = container["lifecycle"] = {}
    container["readinessProbe"]["terminationGracePeriodSeconds"] = 1
    container["securityContext"]["privileged"] = False
    container["securityContext"]["capabilities"]["add"] = ["CHOWN"]
    words = ("add", "lifecycle", "privileged", "startupProbe", "terminationGracePeriodSeconds")
    assert kserve_rules.knative_problems(example) == [f"must not set the field(s): {word}" for word in words]


def test_the_table_of_resources_is_what_the_pipelines_ask_for() -> None:
    text = cluster_shapes.PAGE.read_text()
    assert text == cluster_shapes.written(text), "PYTHONPATH=.:tests python -m contract.cluster_shapes"
