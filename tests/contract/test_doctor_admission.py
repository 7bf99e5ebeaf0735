"""`capnet doctor --cluster` says whether a namespace takes the pods of tasks. What the API server says against a pod is
in the words of Kubernetes 1.36.2.
"""

from __future__ import annotations

from typing import Any

import pytest
from contract import doctor_command, kfp_pod, kubernetes_rules, pod_security_rules
from contract.cluster_shapes import compiled, runs
from contract.doctor_command import SPACE, DoctorCommand

from capnet.cluster.kubernetes_api import NotAllowed, Refused, refusal

pytestmark = pytest.mark.slow

doctor = doctor_command.doctor

FORBIDDEN = 'pods "capnet-doctor-d2hgr" is forbidden: '
REFUSED = [
    (403, f"{FORBIDDEN}failed quota: all: must specify limits.cpu for: main"),
    (403, f"{FORBIDDEN}maximum memory usage per Container is 4Gi, but limit is 8Gi"),
    (403, f"{FORBIDDEN}maximum cpu usage per Pod is 4.  No limit is specified"),
    (403, f"{FORBIDDEN}minimum cpu usage per Container is 4, but request is 2"),
    (403, f"{FORBIDDEN}cpu max limit to request ratio per Container is 2, but no limit is specified or limit is 0"),
    (403, f'{FORBIDDEN}violates PodSecurity "restricted:latest": runAsNonRoot != true'),
    (403, f'{FORBIDDEN}error looking up service account birds/nix: serviceaccount "nix" not found'),
    (403, f"{FORBIDDEN}unable to create new content in namespace birds because it is being terminated"),
    (
        422,
        'Pod "capnet-doctor-x2hmg" is invalid: spec.containers[0].resources.requests: Invalid value: "2": must be less'
        " than or equal to cpu limit of 500m",
    ),
]


@pytest.mark.parametrize(("status", "words"), REFUSED)
def test_a_pod_that_the_namespace_refuses_is_a_problem(doctor: DoctorCommand, status: int, words: str) -> None:
    doctor.cluster.against = (status, words)
    output, error = doctor.run()
    assert error is not None
    _, _, answer = " ".join(words.split()).partition(": ")
    for problem, task in zip(error.problems, ("train", "split, which asks for nothing"), strict=True):
        assert problem.what == f"the cluster refuses a pod like that of task {task}: {answer}"
        assert f"kubectl -n {SPACE} describe limitrange,resourcequota" in problem.todo
    assert "ok     pods" not in output


@pytest.mark.parametrize(
    "answer",
    [
        "exceeded quota: all, requested: pods=1, used: pods=3, limited: pods=3",
        'admission webhook "images.example.com" denied the request: image capnet-train:doctor is not signed',
    ],
)
def test_what_may_hold_for_this_pod_or_this_moment_is_a_warning(doctor: DoctorCommand, answer: str) -> None:
    doctor.cluster.against = (403, FORBIDDEN + answer)
    output, error = doctor.run()
    assert error is None
    assert f"warn   pods: the cluster refuses a pod like that of task train: {answer}" in output


def test_what_cannot_be_asked_is_said(doctor: DoctorCommand) -> None:
    doctor.cluster.against = (400, 'admission webhook "x" does not support dry run')
    output, error = doctor.run()
    assert error is None
    assert 'ok     pods: not checked: admission webhook "x" does not support dry run' in output
    doctor.cluster.forbidden = {"/pods"}
    assert "pods: whether the cluster takes those of tasks is not checked" in doctor.run()[0]


def test_a_right_that_is_missing_is_no_refusal() -> None:
    words = 'pods is forbidden: User "me" cannot create resource "pods" in API group "" in the namespace "birds"'
    assert type(refusal("POST", "/pods", "https://x", 403, words)) is NotAllowed
    assert all(type(refusal("POST", "/pods", "https://x", *case)) is Refused for case in REFUSED)


def test_the_pods_are_like_those_of_train_and_split(doctor: DoctorCommand) -> None:
    asked: dict[str, dict[str, Any]] = {}

    def take(verb: str, path: str, query: dict[str, list[str]], body: Any) -> tuple[int, Any] | None:
        if not path.endswith("/pods"):
            return None
        asked["split" if asked else "train"] = body
        return 201, body

    doctor.cluster.more = take  # type: ignore[method-assign]
    assert doctor.run("--accelerator-count", "2")[1] is None
    spec, platform = compiled("training")
    arguments = next(runs("training")) | {"accelerator_count": "2"}
    pods = {where.rpartition("/")[2]: item for where, item in kfp_pod.pods(spec, platform, arguments)}
    for name, ours in asked.items():
        (mine,), (its,) = ours["spec"]["containers"], pods[name]["spec"]["containers"]
        limits = its["resources"]["limits"]
        gpus = {key: value for key, value in limits.items() if "/" in key}  # Kubernetes asks for them as well
        assert mine["resources"].get("limits", {}) == limits
        assert mine["resources"].get("requests", {}) == its["resources"]["requests"] | gpus
        assert mine["securityContext"] == its["securityContext"] | {"seccompProfile": {"type": "RuntimeDefault"}}
        assert ours["metadata"]["labels"].items() <= pods[name]["metadata"]["labels"].items()
        assert kubernetes_rules.problems({**ours, "metadata": {"name": "x", **ours["metadata"]}}) == []
        assert list(pod_security_rules.restricted(ours)) == []
    assert set(asked) == {"train", "split"}


def test_a_quota_that_only_tasks_without_a_request_break_is_a_problem(doctor: DoctorCommand) -> None:
    """Kubernetes 1.36.2, ResourceQuota with requests.memory."""
    words = f"{FORBIDDEN}failed quota: all: must specify requests.memory for: main"

    def judge(verb: str, path: str, query: dict[str, list[str]], body: Any) -> tuple[int, Any] | None:
        if not path.endswith("/pods"):
            return None
        return (201, body) if body["spec"]["containers"][0]["resources"] else (403, words)

    doctor.cluster.more = judge  # type: ignore[method-assign]
    _, error = doctor.run()
    assert error is not None
    (problem,) = error.problems
    assert "task split, which asks for nothing: failed quota: all: must specify requests.memory" in problem.what
