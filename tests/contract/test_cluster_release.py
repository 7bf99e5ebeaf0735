"""The three rungs before real servers, and the names of their releases: what workflow, scripts, documents and code say
of them is what the releases have.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from contract import kfp_rules, kserve_rules, trainer_rules

pytestmark = pytest.mark.slow

RELEASE: dict[str, Any] = yaml.safe_load(Path(__file__).with_name("kfp_release.yaml").read_text())


def test_the_workflow_has_a_rung_for_every_push_and_one_for_every_night(repository: Path) -> None:
    workflow = yaml.safe_load((repository / ".github" / "workflows" / "cluster.yml").read_text())
    when = workflow[True]  # YAML 1.1 takes on for true
    assert set(when) == {"push", "pull_request", "schedule", "workflow_dispatch"}
    jobs = workflow["jobs"]
    assert {name: "'schedule'" in job["if"] for name, job in jobs.items()} == {
        "rules": False,
        "admission": False,
        "night": True,
    }
    steps = {name: "\n".join(str(step.get("run", "")) for step in job["steps"]) for name, job in jobs.items()}
    for path in re.findall(r"tests/[\w./]+", "\n".join(steps.values())):
        assert (repository / path).exists(), path
    assert workflow["env"]["ARGO"] == RELEASE["argo"]
    assert RELEASE["server"] in [str(step.get("with", {}).get("ref")) for step in jobs["rules"]["steps"]]
    assert "lint --offline" in steps["rules"]
    night = [step for step in jobs["night"]["steps"] if "make cluster-test" in step.get("run", "")]
    assert (night[0]["env"]["CPU"], night[0]["env"]["MEMORY"]) == ("1", "4Gi")
    assert "rm -rf" in jobs["night"]["steps"][0]["run"], "room on the disk comes first"
    assert jobs["night"]["steps"][-1]["if"] == "failure()"
    assert jobs["night"]["steps"][-1]["with"]["path"] == "logs"


def test_admission_looks_at_every_overlay_with_the_releases_of_the_documents(repository: Path) -> None:
    text = (repository / "tests" / "cluster" / "admission").read_text()
    (folders,) = re.findall(r"^for folder in (.*); do$", text, flags=re.MULTILINE)
    overlays = {f"overlays/{path.parent.name}" for path in (repository / "deploy" / "overlays").glob("*/*.yaml")}
    assert overlays <= set(folders.split())
    for name in ("trainer", "kserve", "cert-manager"):
        variable = name.upper().replace("-", "_")
        assert re.findall(rf"\$\{{{variable}:-([\d.]+)\}}", text) == [RELEASE[name]]
    assert f"--version {RELEASE['trainer']}" in (repository / "docs" / "on-kubernetes.md").read_text()
    assert "apply --dry-run=server" in text


def test_what_real_servers_get_is_what_our_stand_ins_take(repository: Path, tmp_path: Path) -> None:
    from cluster import documents

    documents.main(tmp_path)
    for path in (tmp_path / "pipelines").glob("*.yaml"):
        spec, _ = kfp_rules.read(path.read_text())
        kfp_rules.check_parameters(spec, json.loads(path.with_suffix(".json").read_text()))
    job = yaml.safe_load((tmp_path / "trainjob.yaml").read_text())
    runtimes = {"torch-distributed": trainer_rules.Runtime()}
    assert [*trainer_rules.unfit(job), *trainer_rules.denied(job, runtimes)] == []
    wrong = yaml.safe_load((tmp_path / "trainjob.yaml").read_text().replace("capnet.internal/pipelines", "capnet"))
    assert any("domain-prefixed path" in text for text in trainer_rules.denied(wrong, runtimes))
    service = yaml.safe_load((tmp_path / "inferenceservice.yaml").read_text())
    assert kserve_rules.problems(service) == []
    service["metadata"]["name"] = "7birds"
    assert any("InferenceService name must consist of" in text for text in kserve_rules.problems(service))


PLACES = ("tests/cluster/run", ".github/workflows/cluster.yml", "docs/on-kubernetes.md", "docs/air-gapped.md")
CODE = ("pipelines/ways.py", "capnet/commands/doctor/cluster.py", "capnet/commands/doctor/platform.py")


@pytest.mark.parametrize("path", PLACES)
def test_the_server_is_named_by_a_release_of_the_server(path: str, repository: Path) -> None:
    text = (repository / path).read_text()
    named = set(re.findall(r"\?ref=(\d[\d.]*\d)|KFP_SERVER(?:=|:-)(\d[\d.]*\d)|default: \"(2\.\d+\.\d+)\"", text))
    assert {"".join(result) for result in named} == {RELEASE["server"]}
    assert "KFP_VERSION" not in text


def test_the_servers_release_is_not_taken_for_the_clients(repository: Path) -> None:
    (client,) = re.findall(r"^kfp==(.*)$", (repository / "constraints.txt").read_text(), flags=re.MULTILINE)
    assert client not in RELEASE["servers"], "the tests below would see no difference"
    stand_ins = ("kubernetes_server.py", "doctor_command.py", "test_doctor_cluster.py")
    places = (*PLACES, *(f"tests/contract/{name}" for name in stand_ins))
    naming = [path for path in places if client in (repository / path).read_text()]
    assert naming == []


@pytest.mark.parametrize("path", [*PLACES, *CODE, "deploy/base/service-account.yaml"])
def test_services_and_secrets_are_in_the_releases_manifests(path: str, repository: Path) -> None:
    text = (repository / path).read_text()
    asked = re.findall(r"forward kubeflow (\S+) (\d+)", text)
    asked += re.findall(r"-n kubeflow port-forward svc/(\S+) \d+:(\d+)", text)
    asked += re.findall(r"http://([\w-]+)\.kubeflow(?:\.svc[\w.]*)?:(\d+)", text)
    asked += re.findall(r"/services/([\w-]+):(\d+)/proxy", text)
    for service, port in asked:
        assert int(port) in RELEASE["services"].get(service, []), f"{service}:{port}"
    for name in re.findall(r"-n kubeflow get secret (\S+)", text):
        assert name in RELEASE["secrets"]
    for kind, name in re.findall(r'"(configmaps|secrets)", "get", "([\w-]+)"', text):
        assert name in RELEASE[kind]
    for kind, name in re.findall(r"resources: \[(configmaps|secrets)\]\n    resourceNames: \[([\w-]+)\]", text):
        assert name in RELEASE[kind]
    for name in re.findall(r"[\w-]+-configmap", text):
        assert name in RELEASE["configmaps"]
    assert asked or not path.startswith("tests")
    assert "minio-service" not in text
