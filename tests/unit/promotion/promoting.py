"""Promotion on the store of three versions, and what is read from it."""

from __future__ import annotations

from mlflow.tracking import MlflowClient

from capnet.promotion import history
from capnet.promotion import promote as promotion
from capnet.promotion.policy import Policy
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
