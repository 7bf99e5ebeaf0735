"""The running pod of a stage and seed: kubectl get pods --output json | python tests/cluster/pods.py STAGE SEED."""

from __future__ import annotations

import json
import sys
from itertools import pairwise
from typing import Any


def after(words: list[str], name: str) -> list[str]:
    """Every word that follows ``name``."""
    return [word for before, word in pairwise(words) if before == name]


def seed_of(words: list[str]) -> Any:
    """The parameter seed of the launcher's --executor_input; a second one of the name holds a placeholder."""
    for text in after(words, "--executor_input"):
        if text.startswith('{"'):
            return json.loads(text).get("inputs", {}).get("parameterValues", {}).get("seed")
    return None


def running(pods: dict[str, Any], stage: str, seed: int) -> str:
    """Name of the pod, which is not ending either; an empty text where there is none."""
    for pod in pods["items"]:
        containers = pod["spec"]["containers"]
        words = [word for item in containers for word in (*item.get("command", ()), *item.get("args", ()))]
        here = pod["status"].get("phase") == "Running" and "deletionTimestamp" not in pod["metadata"]
        if here and stage in after(words, "--function_to_execute") and seed_of(words) == seed:
            return str(pod["metadata"]["name"])
    return ""


if __name__ == "__main__":
    print(running(json.load(sys.stdin), sys.argv[1], int(sys.argv[2])))
