"""Promotion on a real store: the gate at work, the way back, the history, and what was done elsewhere."""

from __future__ import annotations

import os
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import mlflow.pyfunc
import pytest
from mlflow.tracking import MlflowClient

from capnet.config import Register
from capnet.errors import ConfigError, GateError
from capnet.promotion import history as history_of
from capnet.promotion import page, versions
from capnet.promotion import promote as promotion
from capnet.promotion.champion import resolve
from capnet.promotion.copies import copy
from capnet.promotion.page import show_verdict
from capnet.promotion.policy import Minimum, Policy
from capnet.promotion.verdict import Verdict
from capnet.tracking.store import StoreError, store

POLICY = Policy(draws=200)


def never(verdict: Verdict) -> bool:
    raise AssertionError(f"asked about a verdict that is {verdict.colour}")


def promote(
    client: MlflowClient, number: str, confirm: promotion.Confirm = never, force: bool = False, reason: str = ""
) -> promotion.Outcome:
    return promotion.promote(client, client.get_model_version("capnet", number), POLICY, confirm, force, reason)


def champion(client: MlflowClient, name: str = "capnet") -> str:
    return str(client.get_model_version_by_alias(name, "champion").version)


def history(client: MlflowClient) -> list[tuple[str, str, str, str]]:
    return [(event.kind, event.before, event.after, event.verdict) for event in history_of.events(client, "capnet")]


def test_better_in_the_mean_and_worse_in_the_tail_is_refused_with_rule_and_numbers(client: MlflowClient) -> None:
    assert promote(client, "1").now == "1"
    with pytest.raises(GateError) as caught:
        promote(client, "2")
    text = str(caught.value)
    assert text.startswith("fail: tail ")
    assert "may be 3.0 lower" in text
    assert "fail: mAP" not in text
    assert re.search(
        r"to do: look at what fell most \(.+ \d+\.\d to \d+\.\d, \d+ test pictures\b.*\); train again", text
    )
    assert champion(client) == "1"
    tags = client.get_model_version("capnet", "2").tags
    assert (tags["verdict"], tags["verdict_of"], tags["verdict_against"]) == (
        "red",
        "capnet version 2",
        "capnet version 1",
    )
    assert tags["verdict_rules"].splitlines()[0].startswith("fail: tail ")
    assert "pass: mAP" in tags["verdict_rules"]
    assert history(client) == [("promoted", "", "1", "green")]


def test_a_refusal_that_no_class_fell_for_says_what_helps(client: MlflowClient) -> None:
    version = client.get_model_version("capnet", "1")
    high, wide = POLICY.model_copy(update={"minimum": Minimum(mAP=0.99)}), POLICY.model_copy(update={"coverage": 0.5})
    with pytest.raises(GateError) as caught:
        promotion.promote(client, version, high, never)
    assert "fail: minimum mAP" in str(caught.value)
    assert "\n  to do: train again\n" in str(caught.value)
    promote(client, "1")
    with pytest.raises(GateError) as caught:
        promotion.promote(client, client.get_model_version("capnet", "2"), wide, never)
    todo = {problem.what.split(";")[0]: problem.todo for problem in caught.value.problems}
    assert todo["fail: policy"] == "promote by the policy that the champion passed"


def test_force_needs_a_reason_and_leaves_it_in_the_history(client: MlflowClient) -> None:
    promote(client, "1")
    for reason in ("", "  "):
        with pytest.raises(GateError, match="needs --reason"):
            promote(client, "2", force=True, reason=reason)
    assert promote(client, "2", force=True, reason="the tail is not sold any more").now == "2"
    last = history_of.events(client, "capnet")[-1]
    assert (last.kind, last.reason, last.verdict, bool(last.done)) == (
        "forced",
        "the tail is not sold any more",
        "red",
        True,
    )
    assert last.rules.startswith("fail: tail ")
    assert resolve(client, "models:/capnet@champion").version == client.get_model_version("capnet", "2").version
    promotion.rollback(client, "capnet")
    assert promote(client, "3").now == "3"
    with pytest.raises(GateError, match="capnet version 1"):
        promote(client, "1")  # green against no champion; today's is better


def test_a_long_reason_in_any_script_fits_into_the_history(client: MlflowClient) -> None:
    promote(client, "3", force=True, reason="理" * 4000)
    (tag,) = (
        value for key, value in client.get_registered_model("capnet").tags.items() if key.startswith("promotion.")
    )
    assert len(tag) <= 5000, "a column of PostgreSQL takes no more"
    assert history_of.events(client, "capnet")[0].reason == "理" * 1500


def test_a_red_champion_that_was_clicked_is_refused_by_readers_and_named_by_the_audit(client: MlflowClient) -> None:
    promote(client, "1")
    with pytest.raises(GateError):
        promote(client, "2")
    client.set_registered_model_alias("capnet", "champion", "2")  # what the UI does
    with pytest.raises(GateError, match=r"red verdict.*fail: tail"):
        resolve(client, "models:/capnet@champion")
    with pytest.raises(GateError, match="capnet version 2"):
        resolve(client, "models:/capnet/2")
    with pytest.raises(Exception, match=r"red verdict.*fail: tail"):
        mlflow.pyfunc.load_model("models:/capnet@champion")  # what serving does
    found = promotion.audit(client, "capnet")
    assert (found.champion, found.new and found.new.kind) == ("2", "found")
    assert found.refused.startswith("a red verdict")
    assert history(client)[-1] == ("found", "1", "2", "red")
    assert promotion.audit(client, "capnet").new is None, "recorded once"
    assert promotion.rollback(client, "capnet").now == "1"
    assert mlflow.pyfunc.load_model("models:/capnet@champion") is not None
    assert promotion.audit(client, "capnet").refused == ""


def test_a_champion_without_a_verdict_is_refused_until_a_reason_is_tagged(client: MlflowClient) -> None:
    for key in ("verdict", "verdict_of"):
        client.delete_model_version_tag("capnet", "3", key)
    client.set_registered_model_alias("capnet", "champion", "3")
    with pytest.raises(GateError, match="no verdict"):
        resolve(client, "models:/capnet@champion")
    client.set_model_version_tag("capnet", "3", "verdict", "green")
    with pytest.raises(GateError, match="no verdict"):
        resolve(client, "models:/capnet@champion")  # the tag alone says nothing about which version it belongs to
    client.set_model_version_tag("capnet", "3", "gate_override", "approved by the board")
    assert str(resolve(client, "models:/capnet").version) == "3"
    assert promotion.audit(client, "capnet").events[-1].reason == "approved by the board"


@pytest.mark.parametrize("address", ["models:/capnet@champion", "models:/capnet/9", "models:/other"])
def test_a_version_that_is_not_there_says_how_one_comes_there(client: MlflowClient, address: str) -> None:
    settings = Register(tracking_uri=os.environ["MLFLOW_TRACKING_URI"])
    with pytest.raises(StoreError, match="not found") as caught, store(settings, "get the model") as opened:
        resolve(opened, address)
    assert "`capnet promote` makes one the champion" in str(caught.value)
    assert "writable" not in str(caught.value)


def test_a_good_version_that_was_clicked_is_followed(client: MlflowClient) -> None:
    promote(client, "1")
    third = client.get_model_version("capnet", "3")
    against = client.get_model_version("capnet", "1")
    # as if it had been registered now
    verdict = promotion.verdict_on(client, promotion.scores_of(client, third), against, POLICY)
    page.show_verdict(client, third, page.verdict_tags(third, against, verdict, POLICY))
    client.set_registered_model_alias("capnet", "champion", "3")
    assert str(resolve(client, "models:/capnet@champion").version) == "3"
    with pytest.raises(GateError):
        promote(client, "1")
    assert history(client) == [("promoted", "", "1", "green"), ("found", "1", "3", "green")]
    client.delete_registered_model_alias("capnet", "champion")
    assert promotion.audit(client, "capnet").champion == ""
    assert history(client)[-1] == ("found", "3", "", "")


def test_the_way_back_step_by_step(client: MlflowClient) -> None:
    with pytest.raises(GateError, match="no champion before"):
        promotion.rollback(client, "capnet")
    promote(client, "1")
    promote(client, "3")
    promote(client, "2", force=True, reason="a test")
    assert [promotion.rollback(client, "capnet").now, promotion.rollback(client, "capnet").now] == ["3", "1"]
    with pytest.raises(GateError, match="no champion before"):
        promotion.rollback(client, "capnet")
    assert [kind for kind, *_ in history(client)] == ["promoted", "promoted", "forced", "rolled back", "rolled back"]
    assert champion(client) == "1"


def test_promoting_the_champion_again_changes_nothing(client: MlflowClient) -> None:
    promote(client, "3")
    assert promote(client, "3").event is None
    assert len(history(client)) == 1


def test_an_inconclusive_verdict_asks(client: MlflowClient, three_versions: Path) -> None:
    promote(client, "1")
    run = client.get_model_version("capnet", "1").run_id
    (place,) = three_versions.parent.glob(f"mlruns/**/{run}/artifacts/gate")
    place.rename(place.with_name("lost"))
    asked: list[Verdict] = []
    try:
        with pytest.raises(GateError, match="needs --reason"):
            promote(client, "3", lambda verdict: True)
        with pytest.raises(GateError, match="nobody confirmed"):
            promote(client, "3", lambda verdict: bool(asked.append(verdict)), reason="the old scores are lost")
        assert "capnet version 1 has no scores for the gate" in asked[0].asks[0]
        assert champion(client) == "1"
        assert promote(client, "3", lambda verdict: True, reason="the old scores are lost").now == "3"
    finally:
        place.with_name("lost").rename(place)
    assert history(client)[-1] == ("promoted", "1", "3", "inconclusive")
    assert str(resolve(client, "models:/capnet@champion").version) == "3"


@pytest.mark.parametrize("back", [False, True])
def test_who_is_promoted_between_the_last_look_and_the_own_event_is_the_one_replaced(
    client: MlflowClient, back: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other promotion runs as a whole in the moment before this one writes what it is about to do."""
    promote(client, "1")
    if back:
        promote(client, "2", force=True, reason="for a day")
    begin, ours = history_of.begin, "1" if back else "2"

    def late(client: MlflowClient, *given: Any) -> history_of.Event:
        monkeypatch.undo()
        assert promote(client, "3", force=True, reason="faster").now == "3"
        return begin(client, *given)

    monkeypatch.setattr(history_of, "begin", late)
    done = promotion.rollback(client, "capnet") if back else promote(client, "2", force=True, reason="slower")
    assert (done.before, done.now, champion(client)) == ("3", ours, ours)
    assert promotion.audit(client, "capnet").new is None


def test_two_promotions_at_once_lose_no_history(client: MlflowClient) -> None:
    promote(client, "1")
    with ThreadPoolExecutor(2) as pool:
        outcomes = list(
            pool.map(lambda number: promote(client, number, force=True, reason=f"for {number}"), ("2", "3"))
        )
    events = history_of.events(client, "capnet")
    assert sorted(event.after for event in events) == ["1", "2", "3"]
    assert {event.key for event in events} >= {outcome.event.key for outcome in outcomes if outcome.event}
    assert all(event.done for event in events)
    assert champion(client) in ("2", "3")
    assert {event.reason for event in events} == {"", "for 2", "for 3"}


def test_a_copy_needs_a_verdict_of_its_own(client: MlflowClient) -> None:
    promote(client, "1")
    promote(client, "2", force=True, reason="only in staging")
    copied = copy(client, client.get_model_version("capnet", "2"), "capnet-production")
    assert not {"verdict", "gate_override"} & copied.tags.keys()
    assert copied.tags["copied_from"] == "capnet version 2"
    assert copied.tags["content_hash"] == client.get_model_version("capnet", "2").tags["content_hash"]
    assert copy(client, client.get_model_version("capnet", "2"), "capnet-production").version == copied.version
    for reason, refused in (("", "needs --reason"), ("as in staging", "nobody confirmed")):
        with pytest.raises(
            GateError, match=rf"\ncapnet version 2, which it is a copy of, has a red verdict; fail: (.|\n)*{refused}\n"
        ):
            promotion.promote(client, copied, POLICY, lambda verdict: False, reason=reason)
    assert versions.champion_of(client, "capnet-production") is None
    done = promotion.promote(client, copied, POLICY, lambda verdict: True, reason="as in staging")
    assert (done.name, done.now, done.verdict and done.verdict.colour) == ("capnet-production", "1", "inconclusive")
    assert champion(client, "capnet-production") == "1"
    client.copy_model_version("models:/capnet/2", "elsewhere")  # as the UI's button does
    client.set_registered_model_alias("elsewhere", "champion", "1")
    assert client.get_model_version("elsewhere", "1").tags["gate_override"] == "only in staging"
    with pytest.raises(GateError, match=r"no verdict.*its tags are those of capnet version 2"):
        resolve(client, "models:/elsewhere@champion")
    client.delete_registered_model_alias("elsewhere", "champion")
    for _ in range(2):  # the first call gives the copy tags of its own
        with pytest.raises(GateError, match="capnet version 2, which it is a copy of, has a red verdict"):
            promotion.promote(client, client.get_model_version("elsewhere", "1"), POLICY, lambda verdict: False)


def test_a_copy_that_was_interrupted_is_completed(client: MlflowClient) -> None:
    promote(client, "1")
    home = client.get_model_version("capnet", "1")
    for interrupted in ("no tag", "half of the tags"):
        client.copy_model_version("models:/capnet/1", interrupted)
        if interrupted == "half of the tags":
            client.set_model_version_tag(interrupted, "1", "copied_from", "capnet version 1")
            for key in ("verdict", "verdict_of"):
                client.delete_model_version_tag(interrupted, "1", key)
        done = copy(client, home, interrupted)
        assert str(done.version) == "1"
        assert done.tags["copied_from"] == "capnet version 1"
        assert not [key for key in done.tags if key.startswith("verdict")]
        with pytest.raises(GateError, match="needs --reason"):
            promotion.promote(client, done, POLICY, never)


def test_a_copy_of_a_green_version_passes_where_no_champion_is(client: MlflowClient) -> None:
    promote(client, "1")
    copied = copy(client, client.get_model_version("capnet", "1"), "capnet-production")
    with pytest.raises(
        GateError, match=r"^a copy of capnet version 1.*no champion to compare it with\n(.|\n)*needs --reason\n"
    ):
        promotion.promote(client, copied, POLICY, never)
    client.set_registered_model_alias("capnet-production", "champion", "1")
    with pytest.raises(GateError, match="reason needed: a copy of capnet version 1"):
        resolve(client, "models:/capnet-production@champion")
    client.delete_registered_model_alias("capnet-production", "champion")
    done = promotion.promote(client, copied, POLICY, never, reason="proven in staging")
    assert done.verdict is not None
    assert (done.now, done.verdict.colour) == ("1", "green")
    assert history_of.events(client, "capnet-production")[-1].reason == "proven in staging"
    assert str(resolve(client, "models:/capnet-production@champion").version) == "1"


def test_an_edited_history_is_shown_and_not_believed(client: MlflowClient) -> None:
    promote(client, "1")
    key = history_of.events(client, "capnet")[0].key
    client.set_registered_model_tag("capnet", key, "{}")
    found = promotion.audit(client, "capnet")
    assert [event.kind for event in found.events] == ["unreadable", "found"]


@pytest.mark.parametrize(
    "uri", ["capnet", "models:/", "models:/capnet@", "models:/@champion", "models:/capnet/two", "runs:/x/model"]
)
def test_addresses_that_are_no_registered_model(database: Path, uri: str) -> None:
    with pytest.raises(ConfigError):
        resolve(MlflowClient(os.environ["MLFLOW_TRACKING_URI"]), uri)


def lines_of(client: MlflowClient, number: str) -> list[str]:
    """The description of a version, line by line."""
    return str(client.get_model_version("capnet", number).description).splitlines()


def test_a_version_says_its_verdict_first_and_stays_up_to_date(client: MlflowClient) -> None:
    client.update_model_version("capnet", "1", "mAP 50.0 % over 4 classes.\n\nWhat a person wrote.")
    promote(client, "1")
    first = lines_of(client, "1")
    assert first[0].startswith("Verdict: green, against no champion. Champion since 20")
    assert first[-3:] == ["mAP 50.0 % over 4 classes.", "", "What a person wrote."]
    with pytest.raises(GateError):
        promote(client, "2")
    refused = lines_of(client, "2")
    assert refused[0] == "Verdict: red, against capnet version 1."
    rules = client.get_model_version("capnet", "2").tags["verdict_rules"].splitlines()
    assert refused[2 : 2 + len(rules)] == [f"- `{rule}`" for rule in rules], "every rule with its numbers"
    promote(client, "2", force=True, reason="the `tail` is not sold")
    assert "- `reason of a person: the 'tail' is not sold`" in lines_of(client, "2")
    assert " Was champion until 20" in lines_of(client, "1")[0]
    promotion.rollback(client, "capnet")
    assert " Champion since 20" in lines_of(client, "1")[0]
    assert ", rolled back by " in lines_of(client, "1")[0]
    assert " Was champion until 20" in lines_of(client, "2")[0]
    client.set_registered_model_alias("capnet", "champion", "3")
    promotion.audit(client, "capnet")
    assert lines_of(client, "3")[0].startswith("Verdict: green, against no champion. Champion since 20")
    assert lines_of(client, "3")[0].endswith(", moved outside capnet promote. Readers refuse it.")
    assert any(line.startswith("- `refused: no verdict against capnet version 1") for line in lines_of(client, "3"))
    assert " Was champion until 20" in lines_of(client, "1")[0]
    assert [lines_of(client, "1").count("---"), lines_of(client, "1")[-1]] == [1, "What a person wrote."]


def test_a_page_of_many_rules_and_a_long_reason_fits_into_the_store(client: MlflowClient) -> None:
    """MLflow's column has 5,000 letters in PostgreSQL and MySQL; SQLite takes more, and its tests with it."""
    client.update_model_version("capnet", "1", "mAP 50.0 %.\n\n" + "What a person wrote. " * 40)
    version = client.get_model_version("capnet", "1")
    rules = [f"fail: critical class number {n} 80.0 against 90.0: -10.0 (-12.0 to -8.0)" for n in range(60)]
    tags = {"verdict": "red", "verdict_of": "capnet version 1", "verdict_against": "no champion"}
    tags |= {"verdict_rules": "\n".join(rules)[:4500], "gate_override": "because " * 400}
    show_verdict(client, version, tags)
    text = client.get_model_version("capnet", "1").description
    assert 4500 < len(text) <= 5000
    assert text.splitlines()[2] == f"- `{rules[0]}`"
    assert re.search(r"\n- and \d\d more, in the tag verdict_rules\n", text)
    assert "- `reason of a person: because because" in text
    assert text.endswith("What a person wrote. " * 40)
    client.update_model_version("capnet", "1", "x" * 4995)
    show_verdict(client, version, tags)
    assert client.get_model_version("capnet", "1").description == "x" * 4995, "a person's words are not cut"


def test_a_copy_does_not_show_the_verdict_of_another(client: MlflowClient) -> None:
    promote(client, "1")
    copied = copy(client, client.get_model_version("capnet", "1"), "capnet-production")
    assert str(copied.description).splitlines()[0] == "Verdict: none of its own."
