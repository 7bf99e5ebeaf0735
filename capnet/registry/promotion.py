"""Moving the alias `champion`: the gate's verdict against today's champion, promotion, rollback, audit."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from capnet.config import Register
from capnet.errors import ContractError, GateError, Problem
from capnet.registry import history
from capnet.registry.candidate import FORM
from capnet.registry.champion import ALIAS, OVERRIDE, VERDICT, VERDICT_AGAINST, VERDICT_OF, VERDICT_RULES, identity, refusal
from capnet.registry.gate import FOLDER, GateScores, Rescore, judge, read_gate
from capnet.registry.history import Event
from capnet.registry.policy import Policy
from capnet.registry.verdict import Verdict

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion
    from mlflow.tracking import MlflowClient

LONGEST_TAG = 4500
Confirm = Callable[[Verdict], bool]
MakeRescore = Callable[["ModelVersion"], Rescore | None]


@dataclass(frozen=True)
class Outcome:
    """What a promotion or rollback did: versions as text, "" for none; ``now``: the champion afterwards, another where someone was faster."""

    name: str
    before: str
    after: str
    now: str
    verdict: Verdict | None
    event: Event | None


def champion_of(client: MlflowClient, name: str) -> ModelVersion | None:
    """The version under the alias, None where there is none."""
    from mlflow.exceptions import MlflowException

    try:
        model = client.get_registered_model(name)
    except MlflowException as error:
        if error.error_code == "RESOURCE_DOES_NOT_EXIST":
            return None
        raise
    number = model.aliases.get(ALIAS)
    return None if number is None else client.get_model_version(name, str(number))


def scores_of(client: MlflowClient, version: ModelVersion) -> GateScores:
    """The gate's scores among the artifacts of the version's run; raises ContractError where they are not there."""
    from mlflow.exceptions import MlflowException

    try:
        with TemporaryDirectory() as folder:
            return read_gate(Path(client.download_artifacts(str(version.run_id), FOLDER, folder)))
    except (MlflowException, OSError, ContractError) as error:
        what = f"{identity(version.name, version.version)} has no scores for the gate: {' '.join(str(error).split())[:200]}"
        raise ContractError(what, f"run {version.run_id}, artifacts {FOLDER}/", "register that model again with this version of capnet") from error


def verdict_on(client: MlflowClient, candidate: GateScores, champion: ModelVersion | None, policy: Policy, rescore: Rescore | None = None) -> Verdict:
    """Against ``champion``; a champion whose scores are gone cannot be compared with, which needs a person."""
    if champion is None:
        return judge(candidate, None, policy)
    named = {"champion": identity(champion.name, champion.version)}
    try:
        theirs = scores_of(client, champion)
    except ContractError as error:
        alone = judge(candidate, None, policy, names=named)
        return Verdict(alone.rules, (f"not comparable: {error.problems[0].what}",), True, alone.rows, alone.extra)
    return judge(candidate, theirs, policy, rescore, named)


def verdict_tags(version: ModelVersion, champion: ModelVersion | None, verdict: Verdict) -> dict[str, str]:
    """What the version's page shows and what readers of the champion ask for."""
    lines = [*map(str, verdict.broken), *(str(rule) for rule in verdict.rules if rule.outcome != "fail"), *verdict.notes]
    return {
        VERDICT: verdict.colour,
        VERDICT_OF: identity(version.name, version.version),
        VERDICT_AGAINST: identity(champion.name, champion.version) if champion else "no champion",
        VERDICT_RULES: "\n".join(lines)[:LONGEST_TAG],
    }


def tag(client: MlflowClient, version: ModelVersion, tags: Mapping[str, str]) -> None:
    for key, value in tags.items():
        client.set_model_version_tag(version.name, version.version, key, value)


def _no_reason() -> GateError:
    return GateError("--force needs --reason", "command line", "say in a sentence why this model must serve; it stays in the history")


# ---------------------------------------------------------------- promote


def promote(
    client: MlflowClient,
    version: ModelVersion,
    policy: Policy,
    confirm: Confirm,
    force: bool = False,
    reason: str = "",
    make_rescore: MakeRescore | None = None,
) -> Outcome:
    """Make ``version`` the champion of its registered model.

    A red verdict is refused without ``force`` and ``reason``; an inconclusive one asks ``confirm``. Moves of the alias made
    elsewhere are written into the history first. Raises GateError where the gate refuses.
    """
    if force and not reason.strip():
        raise _no_reason()
    name, number = version.name, str(version.version)
    follow(client, name)
    champion = champion_of(client, name)
    before = str(champion.version) if champion else ""
    if before == number and not refusal(name, number, version.tags):
        return Outcome(name, before, number, number, None, None)
    rival = champion if before != number else _former_version(client, name, number)
    rescore = make_rescore(rival) if make_rescore and rival else None
    verdict = verdict_on(client, scores_of(client, version), rival, policy, rescore)
    tag(client, version, verdict_tags(version, rival, verdict))
    if verdict.colour == "red" and not force:
        problems = [Problem(str(rule), identity(name, number), "see the classes that fell in the report; train again") for rule in verdict.broken]
        last = Problem("the promotion gate refuses this version", identity(name, number), "`--force --reason ...` promotes it all the same, on the record")
        raise GateError(problems=[*problems, last])
    if verdict.colour == "inconclusive" and not force and not confirm(verdict):
        raise GateError(
            "the gate cannot decide and nobody confirmed",
            f"{identity(name, number)}: {'; '.join(str(item) for item in (*(rule for rule in verdict.rules if rule.outcome != 'pass'), *verdict.notes))}",
            "look at both reports, then confirm with --yes, or measure on more test pictures",
        )
    now = champion_of(client, name)
    if (str(now.version) if now else "") != before:  # someone was faster: what was measured is no longer today's champion
        return promote(client, client.get_model_version(name, number), policy, confirm, force, reason, make_rescore)
    kind = "forced" if verdict.colour == "red" else "promoted"
    event = history.begin(client, name, kind, before, number, verdict.colour, reason, "; ".join(map(str, verdict.broken)))
    if verdict.colour == "red":
        client.set_model_version_tag(name, number, OVERRIDE, reason)
    elif OVERRIDE in version.tags:
        client.delete_model_version_tag(name, number, OVERRIDE)  # its reason was for another verdict
    return _move(client, event, name, verdict)


def _move(client: MlflowClient, event: Event, name: str, verdict: Verdict | None) -> Outcome:
    """Set the alias and look again: MLflow has no compare-and-swap, so of two at once the later one stays."""
    client.set_registered_model_alias(name, ALIAS, event.after)
    finished = history.finish(client, name, event)
    champion = champion_of(client, name)
    return Outcome(name, event.before, event.after, str(champion.version) if champion else "", verdict, finished)


def _former_version(client: MlflowClient, name: str, number: str) -> ModelVersion | None:
    """Whom the present champion replaced: what it is measured against when someone set the alias without the gate."""
    from mlflow.exceptions import MlflowException

    before = history.former(events(client, name), number)
    try:
        return client.get_model_version(name, before) if before else None
    except MlflowException:
        return None


def copy(client: MlflowClient, version: ModelVersion, name: str) -> ModelVersion:
    """The same content under another registered model: the copy that is there, else a new one, without verdict and reason."""
    wanted = version.tags.get("content_hash", "")
    there = [item for item in client.search_model_versions(f"name = '{name}' and tags.content_hash = '{wanted}'") if item.status == "READY"]
    there = [item for item in there if item.tags.get(FORM) == version.tags.get(FORM)]
    if there:
        return client.get_model_version(name, min((str(item.version) for item in there), key=int))
    with contextlib.redirect_stderr(io.StringIO()):  # mlflow tells every copy twice
        made = client.copy_model_version(f"models:/{version.name}/{version.version}", name)
    for key in (VERDICT, VERDICT_OF, VERDICT_AGAINST, VERDICT_RULES, OVERRIDE):
        if key in version.tags:
            client.delete_model_version_tag(name, made.version, key)
    client.set_model_version_tag(name, made.version, "copied_from", identity(version.name, version.version))
    return client.get_model_version(name, made.version)


# ---------------------------------------------------------------- back, and what others did


def events(client: MlflowClient, name: str) -> list[Event]:
    return history.read(client.get_registered_model(name).tags)


def rollback(client: MlflowClient, name: str, force: bool = False, reason: str = "") -> Outcome:
    """The champion before the present one comes back, at once and without a new test.

    Raises GateError where there was none, or where readers would refuse it and no ``force`` with a ``reason`` is given.
    """
    if force and not reason.strip():
        raise _no_reason()
    follow(client, name)
    champion = champion_of(client, name)
    current = str(champion.version) if champion else ""
    back = history.former(events(client, name), current) if current else ""
    if not back:
        raise GateError(f"no champion before {identity(name, current) if current else 'now'} is known", f"models:/{name}", "promote a version instead")
    version = client.get_model_version(name, back)
    why = refusal(name, back, version.tags)
    if why and not force:
        raise GateError(
            f"{identity(name, back)} has {why}", f"models:/{name}/{back}", "`--rollback --force --reason ...` goes back all the same, on the record"
        )
    event = history.begin(client, name, "rolled back", current, back, version.tags.get(VERDICT, ""), reason)
    if why:
        client.set_model_version_tag(name, back, OVERRIDE, reason)
    return _move(client, event, name, None)


def follow(client: MlflowClient, name: str) -> Event | None:
    """Write a move of the alias that was made elsewhere (in the UI) into the history; None where there was none."""
    found, known = champion_of(client, name), events(client, name)
    current, last = str(found.version) if found else "", history.expected(known)
    if current == last:
        return None
    tags = found.tags if found else {}
    verdict = tags.get(VERDICT, "") if found and tags.get(VERDICT_OF) == identity(name, current) else ""
    rules = "; ".join(line for line in tags.get(VERDICT_RULES, "").splitlines() if line.startswith("fail"))
    event = history.begin(client, name, "found", last, current, verdict, tags.get(OVERRIDE, "") or "the alias was moved outside capnet promote", rules)
    return history.finish(client, name, event)


@dataclass(frozen=True)
class Audit:
    """All events; ``new`` was found now; ``refused``: why readers refuse the present champion, "" where they accept it."""

    events: list[Event]
    new: Event | None
    champion: str
    refused: str


def audit(client: MlflowClient, name: str) -> Audit:
    """Record moves made elsewhere and say whether the present champion may be read."""
    new = follow(client, name)
    champion = champion_of(client, name)
    refused = refusal(name, champion.version, champion.tags) if champion else ""
    return Audit(events(client, name), new, str(champion.version) if champion else "", refused)


def candidate_of(client: MlflowClient, settings: Register, number: str = "") -> ModelVersion:
    """The version with this number, else the one under the setting's alias (`challenger`)."""
    found = client.get_model_version(settings.name, number) if number else client.get_model_version_by_alias(settings.name, settings.alias)
    return client.get_model_version(found.name, found.version)
