"""Promotion on the store of three versions, and what is read from it."""

from __future__ import annotations

from pathlib import Path

from mlflow.tracking import MlflowClient
from unit.promotion.worse_tables import BAD

from capnet.promotion import history, measure
from capnet.promotion import promote as promotion
from capnet.promotion.policy import Policy
from capnet.promotion.scores import GateScores, write_gate
from capnet.promotion.verdict import Verdict

POLICY = Policy(draws=200)


def never(verdict: Verdict) -> bool:
    raise AssertionError(f"asked about a verdict that is {verdict.colour}")


def promote(
    client: MlflowClient, number: str, confirm: promotion.Confirm = never, force: bool = False, reason: str = ""
) -> promotion.Outcome:
    return promotion.promote(client, client.get_model_version("capnet", number), POLICY, confirm, force, reason)


def champion(client: MlflowClient, name: str = "capnet") -> str:
    return str(client.get_model_version_by_alias(name, "champion").version)


def moves(client: MlflowClient) -> list[tuple[str, str, str, str]]:
    """Kind, before, after and verdict of every event, oldest first."""
    return [(event.kind, event.before, event.after, event.verdict) for event in history.events(client, "capnet")]


def click(client: MlflowClient, number: str, name: str = "capnet") -> None:
    """What the page of MLflow does."""
    client.set_registered_model_alias(name, "champion", number)


def champion_scores(client: MlflowClient) -> GateScores:
    """Those of version 1."""
    return measure.scores_of(client, client.get_model_version("capnet", "1"))


def submit(client: MlflowClient, scores: GateScores, folder: Path, content_hash: str | None = BAD) -> str:
    """A version of these scores, as a registration leaves one."""
    base = client.get_model_version("capnet", "1")
    run = client.create_run(client.get_run(base.run_id).info.experiment_id, tags={})
    write_gate(folder, scores)
    client.log_artifacts(run.info.run_id, str(folder), "gate")
    tags = {"backbone": "referenced"} | ({"content_hash": content_hash} if content_hash else {})
    made = client.create_model_version("capnet", base.source, run_id=run.info.run_id, tags=tags)
    return str(made.version)
