"""A user's process of its own: it says that it is ready, waits for a line and does what the line says, so that several
begin together.

A line is JSON: {"uri", "do", ...}; the answer is one line of JSON.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import mlflow.pyfunc  # noqa: F401  what is imported now does not spread the starts
import pandas  # noqa: F401

from capnet.cli import main
from capnet.config import Register
from capnet.registry.candidate import read_candidate
from capnet.registry.register import register_version
from capnet.tracking.store import store


def register(task: dict[str, Any]) -> dict[str, Any]:
    outputs = Path(task["outputs"])
    candidate = read_candidate(*(outputs / name for name in ("split", "validation", "model", "evaluation")))
    settings = Register(name=task["name"], experiment=task["name"])
    return {"version": str(register_version(settings, candidate, outputs / "evaluation/report.html").version)}


def promote(task: dict[str, Any]) -> dict[str, Any]:
    """`capnet promote` as the command line runs it."""
    from click.testing import CliRunner

    arguments = [
        "promote",
        "--set",
        f"register.name={task['name']}",
        "--version",
        task["version"],
        "--force",
        "--reason",
        f"for {task['version']}",
    ]
    done = CliRunner().invoke(main, arguments)
    return {
        "code": done.exit_code,
        "out": done.stdout,
        "err": done.stderr + (repr(done.exception) if done.exception else ""),
    }


def poll(task: dict[str, Any]) -> dict[str, Any]:
    """Open the store: the first time everything behind it is imported and connected."""
    with store(Register(), "look") as client:
        client.search_registered_models()
    return {}


def work() -> None:
    for line in sys.stdin:
        task = json.loads(line)
        os.environ["MLFLOW_TRACKING_URI"] = task["uri"]
        try:
            answer = {"register": register, "promote": promote, "look": poll}[task["do"]](task)
        except Exception as error:
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    work()
