"""docker, kind, kubectl and make, as far as tests/cluster/run calls them; what they would keep is in $STAND_IN.

Started under one of these names. Every call is a line of $STAND_IN/calls. kind writes its context into $KUBECONFIG
or else ~/.kube/config, as the real one does.
"""

from __future__ import annotations

import json
import os
import sys
import time
from base64 import b64encode
from pathlib import Path

HERE = Path(os.environ.get("STAND_IN", "."))
CONFIG = Path(os.environ.get("KUBECONFIG") or Path(os.environ.get("HOME", "."), ".kube", "config"))
JOB, CLUSTER, REGISTRY, TRAINS, DELETED = (HERE / name for name in ("job", "cluster", "registry", "trains", "deleted"))


def refuse(words: str) -> None:
    sys.exit(f"{Path(sys.argv[0]).name}: {words}")


def docker(words: list[str]) -> None:
    if words[:2] == ["container", "inspect"]:
        sys.exit(0 if REGISTRY.exists() else 1)
    elif words[0] == "run":
        if REGISTRY.exists():
            refuse("Conflict. The container name is already in use")
        REGISTRY.write_text("new")
    elif words[0] == "port":
        print("127.0.0.1:32768")
    elif words[:2] == ["network", "connect"]:
        if REGISTRY.read_text() == "connected":
            refuse("endpoint with name capnet-test-registry already exists in network kind")
        REGISTRY.write_text("connected")
    elif words[0] == "rm":
        REGISTRY.unlink(missing_ok=True)


def kind(words: list[str]) -> None:
    if words[:2] == ["get", "clusters"]:
        print("capnet-test" if CLUSTER.exists() else "other")
    elif words[:2] == ["get", "nodes"]:
        print("capnet-test-control-plane")
    elif words[:2] == ["create", "cluster"]:
        if CLUSTER.exists():
            refuse('node(s) already exist for a cluster with the name "capnet-test"')
        CLUSTER.touch()
        CONFIG.write_text("current-context: kind-capnet-test\n")
    elif words[:2] == ["export", "kubeconfig"]:
        CONFIG.write_text("current-context: kind-capnet-test\n")
    elif words[:2] == ["delete", "cluster"]:
        CLUSTER.unlink(missing_ok=True)
        if CONFIG.is_file() and "kind-capnet-test" in CONFIG.read_text():
            CONFIG.write_text("")


def kubectl(words: list[str]) -> None:
    release = json.loads((HERE / "release.json").read_text())
    text = " ".join(words)
    if words[:2] == ["config", "use-context"]:
        CONFIG.write_text(f"current-context: {words[2]}\n")
    elif "kind-capnet-test" not in (CONFIG.read_text() if CONFIG.is_file() else "") and "--context" not in text:
        refuse("this is another cluster than the one of the test")
    elif "?ref=" in text and text.partition("?ref=")[2] not in release["servers"]:
        refuse(f"couldn't find remote ref {text.partition('?ref=')[2]}")
    elif "port-forward" in words:
        service = words[words.index("port-forward") + 1].removeprefix("svc/")
        if "kubeflow" in words and int(words[-1].strip(":")) not in release["services"].get(service, []):
            refuse(f'services "{service}" not found')
        print("Forwarding from 127.0.0.1:40000 -> 1", flush=True)
        time.sleep(120)
    elif "secret" in words:
        if words[words.index("secret") + 1] not in release["secrets"]:
            refuse("secrets not found")
        sys.stdout.write(b64encode(b"key").decode())
    elif "wait" in words and "--all" in words:
        JOB.unlink(missing_ok=True)  # this takes longer than its ttlSecondsAfterFinished
    elif "job/capnet-volumes" in words and not JOB.exists():
        refuse('jobs.batch "capnet-volumes" not found')
    elif "--output json" in text:
        shell = [
            "--",
            "/kfp-launcher/launch",
            "--executor_input",
            json.dumps({"inputs": {"parameterValues": {"seed": 0}}}, separators=(",", ":")),
        ]
        container = {
            "command": ["argoexec", *shell],
            "args": ["--executor_input", "{{$}}", "--function_to_execute", "train"],
        }
        pod = {"metadata": {"name": "the-pod"}, "spec": {"containers": [container]}, "status": {"phase": "Running"}}
        print(json.dumps({"items": [pod] if TRAINS.exists() else []}))
    elif "logs" in words:
        print("training epoch 3 loss 0.4")
    elif "delete" in words and "pod" in words:
        DELETED.write_text(words[words.index("pod") + 1])


def make(words: list[str]) -> None:
    lock = next((word.partition("=")[2] for word in words if word.startswith("LOCK=")), "components/images.lock.yaml")
    if "push" in words:
        Path(lock).write_text("of the cluster test")
    if "-C" in words:
        os.chdir(words[words.index("-C") + 1])
    if "demo" in words:
        if f"--old-file={HERE.parent}/clone/.venv/.installed" not in words:
            refuse("it would install the copy into the environment of the clone")
        (HERE / "settings").write_text(Path("params.yaml").read_text())
        Path("outputs/evaluation").mkdir(parents=True, exist_ok=True)
        Path("outputs/evaluation/evaluation.json").write_text("{}")
    if "deploy" in words:
        if Path(lock).read_text() != "of the cluster test":
            refuse("these are other images than those that were pushed")
        if "FOLDER=overlays/standalone" in words:
            JOB.touch()


def python(words: list[str]) -> None:
    """The clone's own Python, and capnet."""
    if "tests/cluster/pods.py" in words:
        os.execv(sys.executable, [sys.executable, *words])
    if "pipelines.submit" in words and Path(words[words.index("--lock") + 1]).read_text() != "of the cluster test":
        refuse("these are other images than those that were pushed")
    if "train.seeds=[0,1]" in words:
        TRAINS.touch()
        deadline = time.monotonic() + 20
        while not DELETED.exists():
            if time.monotonic() > deadline:
                refuse("nobody deleted the pod")
            time.sleep(0.05)


if __name__ == "__main__":
    name = Path(sys.argv[0]).name
    with (HERE / "calls").open("a") as calls:
        calls.write(" ".join([name, *sys.argv[1:]]) + "\n")
    programs = {"docker": docker, "kind": kind, "kubectl": kubectl, "make": make, "python": python, "capnet": python}
    programs[name](sys.argv[1:])
