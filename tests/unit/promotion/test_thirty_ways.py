"""Ways round the gate, each tried on a real store by someone who has no reason to give and says yes to every question.

A model that is worse all over stands against version 1. ``red``: refused by a rule; ``reason``: not without one;
``scores``: what it brings are no scores.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from threading import Barrier
from typing import Any

import pytest
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient
from unit.promotion.promoting import champion_scores, submit
from unit.promotion.worse_tables import BAD, ROWS, worse

from capnet.config import Register
from capnet.errors import CapnetError, ContractError, GateError
from capnet.promotion import history, page
from capnet.promotion import promote as promotion
from capnet.promotion.champion import resolve
from capnet.promotion.copies import copy
from capnet.promotion.policy import MayFall, Minimum, Policy
from capnet.promotion.policy_record import VERDICT_POLICY, policy_hash, policy_in_words
from capnet.promotion.scores import GateScores
from capnet.registry import register
from capnet.registry.candidate import read_candidate
from capnet.registry.register import register_version

POLICY = Policy(draws=200, minimum=Minimum(mAP=0.01))


def promote(client: MlflowClient, number: str, policy: Policy = POLICY, **more: Any) -> Any:
    version = client.get_model_version("capnet", number)
    return promotion.promote(client, version, policy, lambda verdict: True, **more)


def serving(client: MlflowClient, name: str = "capnet") -> str:
    """Who is read as champion, "" where readers refuse or there is none."""
    try:
        return str(resolve(client, f"models:/{name}@champion").version)
    except (GateError, MlflowException):
        return ""


REFUSED: dict[str, tuple[type[CapnetError], str]] = {
    "red": (GateError, "refuses this version"),
    "reason": (GateError, "needs --reason"),
    "scores": (ContractError, "no scores for the gate"),
}


@pytest.mark.parametrize("way", ROWS)
def test_no_table_of_a_worse_model_passes(client: MlflowClient, way: str, tmp_path: Path) -> None:
    promote(client, "1")
    expected, change = ROWS[way]
    champion = champion_scores(client)
    bad = change(worse(champion))
    if "content hash" not in way:
        bad = replace(bad, classes={**bad.classes, "content_hash": BAD})
    number = submit(client, bad, tmp_path / "gate")
    error, text = REFUSED[expected]
    with pytest.raises(error, match=text):
        promote(client, number)
    assert serving(client) == "1"
    client.set_registered_model_alias("capnet", "champion", number)  # a click
    assert serving(client) == "", "readers refuse it after a click, too"


POLICIES = {
    "all margins of 1": POLICY.model_copy(update={"may_fall": MayFall(mAP=1.0, tail=1.0, critical=1.0)}),
    "a margin of the tail": POLICY.model_copy(update={"may_fall": MayFall(tail=1.0)}),
    "a margin that is wider by a thousandth": POLICY.model_copy(update={"may_fall": MayFall(mAP=0.021)}),
    "a margin of critical classes": POLICY.model_copy(update={"may_fall": MayFall(critical=0.9)}),
    "no coverage": POLICY.model_copy(update={"coverage": 0.0}),
    "no minimum": POLICY.model_copy(update={"minimum": Minimum(mAP=0.0)}),
    "another seed": POLICY.model_copy(update={"seed": 7}),
}


@pytest.mark.parametrize("way", POLICIES)
@pytest.mark.parametrize("good", [True, False])
def test_no_policy_that_asks_for_less_passes_without_force(
    client: MlflowClient, way: str, good: bool, tmp_path: Path
) -> None:
    promote(client, "1")
    number = "3" if good else submit(client, marked(worse(champion_scores(client))), tmp_path / "gate")
    with pytest.raises(GateError, match="fail: policy; it asks for less than the one that the champion passed"):
        promote(client, number, POLICIES[way])
    client.set_registered_model_alias("capnet", "champion", number)
    assert serving(client) == ""
    client.set_registered_model_alias("capnet", "champion", "1")
    with pytest.raises(GateError, match="--force needs --reason"):
        promote(client, number, POLICIES[way], force=True)
    assert promote(client, number, POLICIES[way], force=True, reason="a new goal").now == number
    last = history.events(client, "capnet")[-1]
    assert (last.kind, last.reason, last.policy) == ("forced", "a new goal", policy_in_words(POLICIES[way]))
    assert "fail: policy" in last.rules


@pytest.mark.parametrize("other", ["", "2"])
def test_a_champion_whose_alias_is_removed_does_not_come_back_by_another_policy(
    client: MlflowClient, other: str
) -> None:
    """Later versions would be compared with that policy."""
    if other:
        promote(client, other)
    promote(client, "1")
    client.delete_registered_model_alias("capnet", "champion")  # a click
    lax = POLICIES["no coverage"]
    for _ in range(2):  # a refusal leaves its policy among the tags
        with pytest.raises(GateError):
            promote(client, "1", lax)
    if not other:
        with pytest.raises(GateError, match=r"as champion it passed another policy: policy .* coverage 99") as refused:
            promote(client, "1", lax)
        assert "nothing compares" not in str(refused.value)  # it may well have been compared
        client.set_registered_model_alias("capnet", "champion", "1")
        assert serving(client) == ""
        client.delete_registered_model_alias("capnet", "champion")
    assert promote(client, "1").now == "1"
    assert serving(client) == "1"


def marked(scores: GateScores) -> GateScores:
    return replace(scores, classes={**scores.classes, "content_hash": BAD})


def test_fewer_draws_are_less_and_more_margin_is_not_needed(client: MlflowClient) -> None:
    promote(client, "1", Policy(draws=300))
    with pytest.raises(GateError, match="draws 200 instead of 300"):
        promote(client, "3", Policy(draws=200))
    stricter = Policy(draws=400, coverage=1.0, may_fall=MayFall(mAP=0.01, tail=0.03, critical=0.01))
    assert promote(client, "3", stricter).now == "3"
    with pytest.raises(GateError, match=r"coverage 0.99 instead of 1, may_fall.mAP 0.02 instead of 0.01"):
        promote(client, "1", Policy(draws=400))
    hardly = Policy(draws=400, coverage=1.0, may_fall=MayFall(mAP=0.01 + 1e-9, tail=0.03, critical=0.01))
    with pytest.raises(GateError, match=r"may_fall\.mAP 0\.010000001 instead of 0\.01\n"):  # both were 0.01
        promote(client, "1", hardly)


def test_the_policy_stands_in_tags_history_and_page(client: MlflowClient) -> None:
    promote(client, "1")
    tag = json.loads(client.get_model_version("capnet", "1").tags[VERDICT_POLICY])
    assert tag == {"sha256": policy_hash(POLICY), "policy": POLICY.model_dump(mode="json")}
    assert policy_hash(POLICY) != policy_hash(POLICY.model_copy(update={"seed": 1}))
    (event,) = history.events(client, "capnet")
    assert event.policy.startswith(f"policy {policy_hash(POLICY)[:12]}: mAP at least 1, may fall by 2, tail by 3")
    assert f"  {event.policy}" in event.lines()
    assert f"- `{policy_in_words(POLICY)}`" in str(client.get_model_version("capnet", "1").description).splitlines()
    client.delete_model_version_tag("capnet", "1", VERDICT_POLICY)  # the history still has it
    with pytest.raises(GateError, match=r"it is not the one that the champion passed: policy .* tail by 3"):
        promote(client, "3", POLICY.model_copy(update={"may_fall": MayFall(tail=0.5)}))
    assert promote(client, "3").now == "3"


def test_an_event_of_a_newer_version_is_read(client: MlflowClient) -> None:
    promote(client, "1")
    (event,) = history.events(client, "capnet")
    content = json.loads(client.get_registered_model("capnet").tags[event.key])
    client.set_registered_model_tag("capnet", event.key, json.dumps(content | {"of": "tomorrow"}))
    assert history.events(client, "capnet") == [event]
    client.set_registered_model_tag("capnet", event.key, "[]")
    assert [result.kind for result in history.events(client, "capnet")] == ["unreadable"]


# ---------------------------------------------------------------- the registry


def hide_scores(client: MlflowClient, number: str) -> None:
    """The champion's gate scores are taken away."""
    version = client.get_model_version("capnet", "1")
    empty = client.create_run(client.get_run(version.run_id).info.experiment_id).info.run_id
    tags = {key: value for key, value in version.tags.items() if key != "verdict_of"}
    made = str(client.create_model_version("capnet", version.source, run_id=empty, tags=tags).version)
    page.show_verdict(client, client.get_model_version("capnet", made), {"verdict_of": f"capnet version {made}"})
    client.set_registered_model_alias("capnet", "champion", made)
    client.set_model_version_tag("capnet", made, "gate_override", "scores are lost")


REGISTRY: dict[str, Callable[[MlflowClient, str], Any]] = {
    "asked again": lambda client, number: None,
    "the alias first": lambda client, number: client.set_registered_model_alias("capnet", "champion", number),
    "no alias": lambda client, number: client.delete_registered_model_alias("capnet", "champion"),
    "on another version in between": lambda client, number: client.set_registered_model_alias(
        "capnet", "champion", "2"
    ),
    "challenger too": lambda client, number: client.set_registered_model_alias("capnet", "challenger", number),
    "an override that is blank": lambda client, number: client.set_model_version_tag(
        "capnet", number, "gate_override", "  "
    ),
    "a green word": lambda client, number: client.set_model_version_tag("capnet", number, "verdict", "green"),
    "the champion is deleted": lambda client, number: (
        promote(client, "3"),
        client.delete_model_version("capnet", "3"),
    ),
    "the champion's scores are gone": hide_scores,
    "the champion was renamed": lambda client, number: (
        client.rename_registered_model("capnet", "elsewhere"),
        client.rename_registered_model("elsewhere", "capnet"),
    ),
}


@pytest.mark.parametrize("way", REGISTRY)
def test_no_move_in_the_registry_helps_a_worse_model(client: MlflowClient, way: str, tmp_path: Path) -> None:
    promote(client, "1")
    number = submit(client, marked(worse(champion_scores(client))), tmp_path / "gate")
    REGISTRY[way](client, number)
    with pytest.raises(GateError):
        promote(client, number)
    assert serving(client) != number
    with suppress(GateError):
        promotion.rollback(client, "capnet")
    with pytest.raises(GateError):
        promote(client, number)
    assert serving(client) != number
    client.set_registered_model_alias("capnet", "champion", number)
    assert serving(client) != number


def test_another_registered_model_is_no_way_round_either(client: MlflowClient, tmp_path: Path) -> None:
    promote(client, "1")
    number = submit(client, marked(worse(champion_scores(client))), tmp_path / "gate")
    with pytest.raises(GateError):
        promote(client, number)
    for name, made in (
        ("production", copy(client, client.get_model_version("capnet", number), "production")),
        ("by hand", client.copy_model_version(f"models:/capnet/{number}", "by hand")),
        ("capnet", client.copy_model_version(f"models:/capnet/{number}", "capnet")),
    ):
        version = client.get_model_version(name, made.version)
        with pytest.raises(GateError, match="needs --reason" if name != "capnet" else "refuses this version"):
            promotion.promote(client, version, POLICY, lambda verdict: True)
        client.set_registered_model_alias(name, "champion", made.version)
        assert serving(client, name) == ""


def test_there_are_thirty_ways_and_more() -> None:
    assert len(ROWS) + len(POLICIES) + len(REGISTRY) >= 45


def test_scores_from_before_they_said_whose_they_are_are_written_again(
    database: Path, make_outputs: Callable[..., dict[str, Path]]
) -> None:
    paths = make_outputs()
    candidate, report = read_candidate(**paths), paths["evaluation"] / "report.html"
    version = register_version(Register(), candidate, report)
    (file,) = database.parent.glob(f"mlruns/**/{version.run_id}/artifacts/gate/gate.json")
    content = json.loads(file.read_text())
    assert content.pop("content_hash") == candidate.content_hash
    file.write_text(json.dumps(content))
    client = MlflowClient(os.environ["MLFLOW_TRACKING_URI"])
    with pytest.raises(ContractError, match=r"no content hash.*\n.*\n.*register that model again"):
        promote(client, "1")
    assert register_version(Register(), candidate, report).version == version.version
    assert promote(client, "1").now == "1"
    file.write_text(json.dumps(content | {"content_hash": "of another version of the run"}))
    register_version(Register(), candidate, report)
    assert "of another version" in file.read_text(), "that one keeps its own"


def test_registrations_at_once_leave_one_version(
    database: Path, make_outputs: Callable[..., dict[str, Path]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three that all looked before any of them made its version."""
    paths, everyone = make_outputs(), Barrier(3)
    candidate, make = read_candidate(**paths), register._create_version

    def together(*arguments: Any) -> Any:
        everyone.wait(timeout=120)
        return make(*arguments)

    monkeypatch.setattr(register, "_create_version", together)
    with ThreadPoolExecutor(3) as pool:
        jobs = [
            pool.submit(register_version, Register(), candidate, paths["evaluation"] / "report.html") for _ in range(3)
        ]
        numbers = {str(job.result().version) for job in jobs}
    client = MlflowClient(os.environ["MLFLOW_TRACKING_URI"])
    (version,) = client.search_model_versions("name = 'capnet'")
    model = client.get_registered_model("capnet")
    assert numbers == {str(version.version)} == {str(model.aliases["challenger"])}
    assert client.get_model_version("capnet", version.version).tags["verdict"] == "green"
