"""tests/cluster/run with stand-ins of docker, kind, kubectl and make: what it runs, and what it leaves alone."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipelines import submit
from pipelines.checks import check_options

pytestmark = pytest.mark.slow

RELEASE: dict[str, Any] = yaml.safe_load(Path(__file__).with_name("kfp_release.yaml").read_text())
CONTEXT = "current-context: production\n"
LOCK = "the images of production"
AUTHOR = ("-c", "user.name=a", "-c", "user.email=a@example.com")


@dataclass
class Machine:
    """A clone of the repository, a home, and programs that stand in."""

    folder: Path
    before: dict[str, bytes] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.before = self.files

    @property
    def calls(self) -> list[str]:
        path = self.folder / "state" / "calls"
        return path.read_text().splitlines() if path.is_file() else []

    def has(self, name: str) -> bool:
        return (self.folder / "state" / name).exists()

    def run(self, **environment: str) -> subprocess.CompletedProcess[str]:
        (self.folder / "state" / "calls").unlink(missing_ok=True)
        known = {
            "PATH": f"{self.folder / 'bin'}:/usr/bin:/bin",
            "HOME": str(self.folder / "home"),
            "STAND_IN": str(self.folder / "state"),
            "PAUSE": "0.1",
            "TMPDIR": str(self.folder / "tmp"),
        }
        command = ["bash", str(self.folder / "clone" / "tests" / "cluster" / "run")]
        environment = known | environment
        arguments: dict[str, Any] = {"capture_output": True, "text": True, "timeout": 90}
        return subprocess.run(command, env=environment, cwd=self.folder, check=False, **arguments)

    @property
    def files(self) -> dict[str, bytes]:
        """Every file of the clone, but for what git keeps for itself."""
        paths = [path for path in (self.folder / "clone").rglob("*") if path.is_file() and ".git" not in path.parts]
        return {str(path.relative_to(self.folder)): path.read_bytes() for path in paths}

    def untouched(self) -> None:
        assert self.files == self.before
        assert (self.folder / "clone" / "components" / "images.lock.yaml").read_text() == LOCK
        assert (self.folder / "home" / ".kube" / "config").read_text() == CONTEXT
        assert list((self.folder / "tmp").iterdir()) == []


@pytest.fixture
def machine(tmp_path: Path, repository: Path) -> Machine:
    for name in ("bin", "state", "tmp", "home/.kube", "clone/components", "clone/.venv/bin"):
        (tmp_path / name).mkdir(parents=True)
    clone = tmp_path / "clone"
    shutil.copytree(repository / "tests" / "cluster", clone / "tests" / "cluster")
    shutil.copytree(repository / "deploy" / "secrets", clone / "deploy" / "secrets")
    (clone / "components" / "images.lock.yaml").write_text(LOCK)
    (clone / "params.yaml").write_text("runtime:\n  seed: 0\n")
    (tmp_path / "home" / ".kube" / "config").write_text(CONTEXT)
    (tmp_path / "state" / "release.json").write_text(json.dumps(RELEASE))
    text = Path(__file__).with_name("cluster_programs.py").read_text()
    for path in (
        *(tmp_path / "bin" / name for name in ("docker", "kind", "kubectl", "make")),
        *(clone / ".venv" / "bin" / name for name in ("python", "capnet")),
    ):
        path.write_text(f"#!{os.path.realpath(sys.executable)} -SE\n{text}")
        path.chmod(0o755)
    for words in (("init", "--quiet"), ("add", "--all"), (*AUTHOR, "commit", "--quiet", "--message", "all")):
        subprocess.run(["git", *words], cwd=clone, check=True)
    (clone / "params.yaml").write_text("runtime:\n  seed: 5\n")  # not committed
    return Machine(tmp_path)


def test_it_runs_everything_and_leaves_lock_context_and_nothing_else(machine: Machine) -> None:
    result = machine.run()
    assert result.returncode == 0, result.stderr
    assert result.stdout.endswith("cluster-test: everything ran\n")
    machine.untouched()
    assert not machine.has("cluster")
    assert not machine.has("registry")
    assert (machine.folder / "state" / "deleted").read_text() == "the-pod"
    (deletion,) = [call for call in machine.calls if "delete pod the-pod" in call]
    assert "--grace-period=0 --force" in deletion, "KFP 2.17 tries only pods again that vanished"
    runs = [call.removeprefix("python -m pipelines.submit ") for call in machine.calls if "pipelines.submit" in call]
    assert [run.split(" --way ")[0] for run in runs] == [
        "training --no-cache",
        "training --set train.seeds=[0,1] --set train.epochs=2000 --no-cache-from train",
        "prediction --shards 2 --no-cache",
    ]
    assert all("--cpu 500m" in run and "--wait" in run for run in runs)
    for run in runs:
        arguments = submit.command.make_context("submit", run.split()).params
        check_options(arguments["pipeline"], arguments)
    assert (machine.folder / "state" / "settings").read_text() == "runtime:\n  seed: 5\n", "what was not committed too"
    order = ("compare.py", "train.seeds", "promote", "prediction")
    at = [next(number for number, call in enumerate(machine.calls) if words in call) for words in order]
    assert at == sorted(at)


def test_what_keep_kept_is_taken_again_and_nothing_removes_it(machine: Machine) -> None:
    for _ in range(2):
        result = machine.run(KEEP="1")
        assert result.returncode == 0, result.stderr
        machine.untouched()
        assert machine.has("cluster")
        assert machine.has("registry")
        for name in ("trains", "deleted"):
            (machine.folder / "state" / name).unlink()
    assert not any(call.startswith(("kind create", "docker run")) for call in machine.calls)
    refused = machine.run()
    assert refused.returncode == 1
    what, where, todo = refused.stderr.splitlines()
    assert "is still there" in what
    assert where == "  where: kind cluster capnet-test, container capnet-test-registry"
    assert "KEEP=1" in todo
    assert {call.split()[1] for call in machine.calls} <= {"get", "container"}, "it only looked"
    assert machine.has("cluster")
    assert machine.has("registry")
    machine.untouched()


def test_a_registry_alone_is_not_removed_either(machine: Machine) -> None:
    (machine.folder / "state" / "registry").write_text("connected")
    assert machine.run().returncode == 1
    assert machine.has("registry")


def test_a_failure_leaves_as_little(machine: Machine) -> None:
    result = machine.run(KFP_SERVER="2.17.3")
    assert result.returncode != 0
    assert "couldn't find remote ref 2.17.3" in result.stderr
    assert "failed; pods and their last words" in result.stdout
    machine.untouched()
    assert not machine.has("cluster")
    assert not machine.has("registry")


def test_a_program_that_is_missing_is_named(machine: Machine) -> None:
    (machine.folder / "bin" / "kind").unlink()
    result = machine.run()
    assert result.returncode == 1
    assert result.stderr.splitlines()[:2] == ["cluster-test: the program kind is not there", "  where: PATH"]
    assert "to do" in result.stderr


def test_the_pod_that_is_deleted_is_the_one_of_the_first_seed() -> None:
    from cluster.pods import running

    def pod(name: str, stage: str, seed: int, phase: str = "Running", **more: Any) -> dict[str, Any]:
        arguments = json.dumps({"inputs": {"parameterValues": {"seed": seed}}})
        words = [
            "argoexec",
            "--",
            "/kfp-launcher/launch",
            "--executor_input",
            arguments,
            "--",
            "sh",
            "-ec",
            "run --function_to_execute",
        ]
        container = {"command": words, "args": ["--executor_input", "{{$}}", "--function_to_execute", stage]}
        return {
            "metadata": {"name": name, **more},
            "spec": {"containers": [{"name": "wait"}, container]},
            "status": {"phase": phase},
        }

    others = [
        pod("a", "evaluate", 0),
        pod("b", "train", 1),
        pod("c", "train", 0, "Pending"),
        pod("d", "train", 0, deletionTimestamp="now"),
    ]
    assert running({"items": others}, "train", 0) == ""
    assert running({"items": [*others, pod("e", "train", 0)]}, "train", 0) == "e"


def test_logs_are_kept_where_they_are_asked_for_and_something_failed(machine: Machine) -> None:
    assert machine.run(KFP_SERVER="2.17.3", LOGS="/elsewhere", CPU="1").returncode != 0
    assert "kind export logs /elsewhere --name capnet-test" in machine.calls
    assert machine.run(LOGS="/elsewhere", CPU="1").returncode == 0
    assert not any("export logs" in call for call in machine.calls)
    assert all("--cpu 1 --memory 4Gi" in call for call in machine.calls if "pipelines.submit" in call)
