"""Who may read the alias `champion`: a version with a verdict of its own that is not red, or with the reason of a person who overrode it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from capnet.errors import ConfigError, GateError

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion
    from mlflow.tracking import MlflowClient

ALIAS = "champion"
VERDICT, VERDICT_OF, VERDICT_AGAINST, VERDICT_RULES = "verdict", "verdict_of", "verdict_against", "verdict_rules"
OVERRIDE = "gate_override"


def identity(name: str, version: str | int) -> str:
    """How a tag names one version; a copy under another name has another identity, so it does not inherit a verdict."""
    return f"{name} version {version}"


def refusal(name: str, version: str | int, tags: Mapping[str, str]) -> str:
    """Why this version must not act as champion; "" where it may."""
    if tags.get(OVERRIDE, "").strip():
        return ""
    verdict = tags.get(VERDICT, "")
    if not verdict or tags.get(VERDICT_OF) != identity(name, version):
        return "no verdict of the promotion gate"
    if verdict in ("green", "inconclusive"):
        return ""
    rules = [line for line in tags.get(VERDICT_RULES, "").splitlines() if line.startswith("fail")]
    return f"a {verdict} verdict of the promotion gate" + (f": {'; '.join(rules)}" if rules else "")


def check_champion(found: ModelVersion) -> None:
    """Raise GateError where ``found`` carries the alias `champion` without being allowed to; any other version may be read."""
    if ALIAS not in found.aliases:
        return
    reason = refusal(found.name, found.version, found.tags)
    if reason:
        raise GateError(
            f"{ALIAS} is {identity(found.name, found.version)}, which has {reason}",
            f"models:/{found.name}@{ALIAS}",
            f"run `capnet promote --version {found.version}` (`--force --reason ...` where it must be so), `capnet promote --rollback`, "
            f"or set the tag {OVERRIDE} of that version to a reason",
        )


def resolve(client: MlflowClient, uri: str) -> ModelVersion:
    """The version behind ``models:/name@alias``, ``models:/name/3`` or ``models:/name`` (its champion), allowed to be read.

    Raises ConfigError for another address, GateError where the gate refuses, MlflowException where there is no such version.
    """
    text = uri.removeprefix("models:/").strip("/")
    name, at, alias = text.rpartition("@") if "@" in text else (text, "", "")
    if not uri.startswith("models:/") or not text or (at and not (name and alias)):
        raise ConfigError(f"{uri!r} is no registered model", "command line", f"write models:/NAME@{ALIAS}, models:/NAME@challenger or models:/NAME/3")
    if at:
        found = client.get_model_version_by_alias(name, alias)
    elif "/" in text:
        name, _, number = text.partition("/")
        if not number.isdigit():
            raise ConfigError(f"{number!r} is no version", uri, "write a whole number, or an alias behind @")
        found = client.get_model_version(name, number)
    else:
        found = client.get_model_version_by_alias(name, ALIAS)
    found = client.get_model_version(found.name, found.version)  # with all its aliases
    check_champion(found)
    return found
