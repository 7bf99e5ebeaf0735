"""Several processes register and promote at the same time, on MLflow with PostgreSQL and on a database file."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from mlflow.tracking import MlflowClient
from services.mlflow_server import MlflowServer
from unit.conftest import _make as make_outputs

from capnet.promotion import history
from capnet.promotion import promote as promotion
from capnet.registry.candidate import read_candidate

WORKERS, ROUNDS = 3, 3


@dataclass
class Workers:
    """Processes that begin together."""

    processes: list[subprocess.Popen[str]]

    def together(self, *tasks: dict[str, Any]) -> list[dict[str, Any]]:
        """Give each process its task, then read all answers."""
        chosen = self.processes[: len(tasks)]
        for process, task in zip(chosen, tasks, strict=True):
            assert process.stdin is not None
            process.stdin.write(json.dumps(task) + "\n")
        for process in chosen:
            assert process.stdin is not None
            process.stdin.flush()
        answers = [json.loads(process.stdout.readline() or "{}") for process in chosen if process.stdout is not None]
        assert not [answer["error"] for answer in answers if "error" in answer]
        return answers


@pytest.fixture(scope="module")
def workers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workers]:
    folder, script = tmp_path_factory.mktemp("workers"), Path(__file__).with_name("registry_worker.py")
    (folder / "params.yaml").write_text("register:\n  name: capnet\n")
    usual = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "CAPNET_STATE": str(folder / "state"),
        "MLFLOW_DISABLE_TELEMETRY": "true",
    }
    processes = [
        subprocess.Popen(
            [sys.executable, str(script)],
            cwd=folder,
            env=usual,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(WORKERS)
    ]
    try:
        yield Workers(processes)
    finally:
        for process in processes:
            process.terminate()
            process.wait()


@pytest.fixture(scope="module")
def outputs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Three models that differ."""
    folder = tmp_path_factory.mktemp("models")
    for number in range(3):
        make_outputs(folder / str(number), mAP=0.5 + number / 10, skill=2.0 + number)
    return [folder / str(number) for number in range(3)]


@pytest.fixture(params=["postgresql", "sqlite"])
def uri(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The server's address, or a database file that is not there yet."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'mlflow.db'}"
    tracking: MlflowServer = request.getfixturevalue("tracking")
    return tracking.address


def test_the_same_model_registered_at_once_is_one_version(workers: Workers, outputs: list[Path], uri: str) -> None:
    workers.together(*[{"do": "look", "uri": uri}] * WORKERS)  # all make the tables of the database file at once
    client = MlflowClient(uri)
    for number in range(ROUNDS):
        name = f"at once {number}"
        task = {"do": "register", "uri": uri, "name": name, "outputs": str(outputs[0])}
        assert [answer["version"] for answer in workers.together(*[task] * WORKERS)] == ["1"] * WORKERS
        (version,) = client.search_model_versions(f"name = '{name}'")
        model = client.get_registered_model(name)
        assert (str(version.version), {alias: str(value) for alias, value in model.aliases.items()}) == (
            "1",
            {"challenger": "1"},
        )
        tags = client.get_model_version(name, "1").tags
        candidate = read_candidate(*(outputs[0] / folder for folder in ("split", "validation", "model", "evaluation")))
        assert (tags["content_hash"], tags["verdict"], tags["verdict_of"]) == (
            candidate.content_hash,
            "green",
            f"{name} version 1",
        )
        experiment = client.get_experiment_by_name(name)
        assert experiment is not None
        runs = client.search_runs([experiment.experiment_id])
        assert {run.info.status for run in runs} == {"FINISHED"}
        unmarked = [run.info.run_id for run in runs if run.data.tags.get("duplicate_of") != "version 1"]
        assert unmarked == [version.run_id], "every other run says whose duplicate it is"


def test_two_promotions_at_once_keep_both_events_and_the_audit_is_clean(
    workers: Workers, outputs: list[Path], uri: str
) -> None:
    name = "promoted at once"
    for path in outputs:
        workers.together({"do": "register", "uri": uri, "name": name, "outputs": str(path)})
    client = MlflowClient(uri)
    (first,) = workers.together({"do": "promote", "uri": uri, "name": name, "version": "1"})
    assert first["code"] == 0, first
    for _ in range(ROUNDS):
        answers = workers.together(
            *[{"do": "promote", "uri": uri, "name": name, "version": number} for number in ("2", "3")]
        )
        assert [answer["code"] for answer in answers] == [0, 0], answers
        events = history.events(client, name)
        champion = str(client.get_model_version_by_alias(name, "champion").version)
        assert champion in ("2", "3")
        assert all(event.done for event in events)
        both = [event for event in events if event.reason in ("for 2", "for 3")]
        assert {event.after for event in both} == {"2", "3"}
        loser = {"2": "3", "3": "2"}[champion]
        lost = [event for event in events if event.after == loser][-1]
        won = [event for event in events if event.after == champion and event.counts][-1]
        is_named = "another promotion moved it" in answers[int(loser) - 2]["err"]
        assert is_named or won.before == loser, "the message names it, or the other had replaced it"
        assert lost.overtaken in ("", champion)
        audit = promotion.audit(client, name)
        assert (audit.champion, audit.new, audit.refused) == (champion, None, "")
        assert history.expected_champion(events) == champion
        (back,) = workers.together({"do": "promote", "uri": uri, "name": name, "version": "1"})
        assert back["code"] == 0, back
    assert not [event for event in history.events(client, name) if event.kind == "found"]
