"""The history of a registered model: the way back, promotions at once, and what was done elsewhere."""

from __future__ import annotations

import itertools
import json
import os
import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from mlflow.tracking import MlflowClient
from unit.promotion.promoting import champion, click, moves, promote

from capnet.errors import GateError
from capnet.promotion import history
from capnet.promotion import promote as promotion
from capnet.promotion.history import Event


def test_a_long_reason_in_any_script_fits_into_the_history(client: MlflowClient) -> None:
    promote(client, "3", force=True, reason="理" * 4000)
    (tag,) = (
        value for key, value in client.get_registered_model("capnet").tags.items() if key.startswith("promotion.")
    )
    assert len(tag) <= 5000, "a column of PostgreSQL takes no more"
    assert history.events(client, "capnet")[0].reason == "理" * 1500


@pytest.mark.parametrize("hours", [0, 1])
def test_the_way_back_step_by_step(client: MlflowClient, monkeypatch: pytest.MonkeyPatch, hours: int) -> None:
    """Also where each move is made on a machine whose clock is behind that of the one before."""
    if hours:
        times = (datetime.now(UTC) - number * timedelta(hours=hours) for number in itertools.count())
        monkeypatch.setattr(history, "now", lambda: next(times).isoformat(timespec="microseconds")[:26] + "Z")
    with pytest.raises(GateError, match="no champion before"):
        promotion.rollback(client, "capnet")
    promote(client, "1")
    promote(client, "3")
    promote(client, "2", force=True, reason="a test")
    assert [promotion.rollback(client, "capnet").now, promotion.rollback(client, "capnet").now] == ["3", "1"]
    with pytest.raises(GateError, match="no champion before"):
        promotion.rollback(client, "capnet")
    assert [kind for kind, *_ in moves(client)] == ["promoted", "promoted", "forced", "rolled back", "rolled back"]
    assert champion(client) == "1"
    assert promotion.audit(client, "capnet").new is None


@pytest.mark.parametrize("back", [False, True])
def test_who_is_promoted_between_the_last_look_and_the_own_event_is_the_one_replaced(
    client: MlflowClient, back: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other promotion runs as a whole in the moment before this one writes what it is about to do."""
    promote(client, "1")
    if back:
        promote(client, "2", force=True, reason="for a day")
    begin, ours = history.begin, "1" if back else "2"

    def late(client: MlflowClient, *arguments: Any, **named: Any) -> history.Event:
        monkeypatch.undo()
        assert promote(client, "3", force=True, reason="faster").now == "3"
        return begin(client, *arguments, **named)

    monkeypatch.setattr(history, "begin", late)
    done = promotion.rollback(client, "capnet") if back else promote(client, "2", force=True, reason="slower")
    assert (done.before, done.now, champion(client)) == ("3", ours, ours)
    assert promotion.audit(client, "capnet").new is None


def test_one_version_promoted_by_two_at_once_is_one_step_back(
    client: MlflowClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second rollback led to the version that the first one had left."""
    promote(client, "1")
    promote(client, "2", force=True, reason="a test")
    begin = history.begin

    def late(client: MlflowClient, *arguments: Any, **named: Any) -> history.Event:
        event = begin(client, *arguments, **named)
        monkeypatch.undo()
        promote(client, "3")
        return event

    monkeypatch.setattr(history, "begin", late)
    promote(client, "3")
    assert [event.after for event in history.events(client, "capnet") if event.counts] == ["1", "2", "3", "3"]
    assert [promotion.rollback(client, "capnet").now, promotion.rollback(client, "capnet").now] == ["2", "1"]


def test_two_promotions_at_once_lose_no_history(client: MlflowClient) -> None:
    promote(client, "1")
    with ThreadPoolExecutor(2) as pool:
        outcomes = list(
            pool.map(lambda number: promote(client, number, force=True, reason=f"for {number}"), ("2", "3"))
        )
    events = history.events(client, "capnet")
    assert sorted(event.after for event in events) == ["1", "2", "3"]
    assert {event.key for event in events} >= {outcome.event.key for outcome in outcomes if outcome.event}
    assert all(event.done for event in events)
    assert champion(client) in ("2", "3")
    assert {event.reason for event in events} == {"", "for 2", "for 3"}


def test_an_account_that_is_no_utf8_is_shown_and_stops_no_promotion(
    client: MlflowClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A store takes no letters of another encoding: the message blamed its folder."""
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "caf\udce9\n" + "a" * 200)
    assert promote(client, "1").now == "1"
    (event,) = history.events(client, "capnet")
    assert event.by.startswith("caf\\udce9 aaa")
    assert len(event.by) == 100


MOVED = dict.fromkeys(("kind", "before", "after", "verdict", "reason", "rules", "by", "at", "done"), "")


@pytest.mark.parametrize(
    "text", ["{}", "[" * 4999, json.dumps(MOVED | {"after": 1, "done": 2}), json.dumps(MOVED | {"reason": "\ud800"})]
)
def test_an_edited_history_is_shown_and_not_believed(client: MlflowClient, text: str) -> None:
    promote(client, "1")
    key = history.events(client, "capnet")[0].key
    client.set_registered_model_tag("capnet", key, text)
    client.set_model_version_tag("capnet", "1", "verdict_policy", text)
    audited = promotion.audit(client, "capnet")
    assert [event.kind for event in audited.events] == ["unreadable", "found"]


def test_the_way_back_passes_over_deleted_versions_and_stops_at_red_ones(client: MlflowClient) -> None:
    for number in ("1", "3"):
        promote(client, number)
    promote(client, "2", force=True, reason="a test")
    client.delete_model_version("capnet", "2")  # the alias goes with it
    assert promotion.audit(client, "capnet").champion == ""
    promote(client, "3")  # replaces nobody
    assert promotion.rollback(client, "capnet").now == "1"
    promote(client, "3")
    client.delete_model_version("capnet", "3")
    assert promotion.rollback(client, "capnet").now == "1"
    with pytest.raises(GateError, match="no champion before"):
        promotion.rollback(client, "capnet")


def test_the_way_back_to_a_version_whose_override_was_withdrawn(client: MlflowClient) -> None:
    promote(client, "1")
    promote(client, "2", force=True, reason="for a day")
    promote(client, "3")
    client.delete_model_version_tag("capnet", "2", "gate_override")
    with pytest.raises(GateError, match=r"capnet version 2 has a red verdict.*fail: tail"):
        promotion.rollback(client, "capnet")
    assert promotion.rollback(client, "capnet", force=True, reason="for another day").now == "2"
    assert client.get_model_version("capnet", "2").tags["gate_override"] == "for another day"


def test_a_rollback_that_died_is_completed_by_the_next_one_and_goes_no_further(client: MlflowClient) -> None:
    """The message of a store that failed says to try again: that went back two versions."""
    for number in ("1", "3"):
        promote(client, number)
    promote(client, "2", force=True, reason="a test")
    history.begin(client, "capnet", "rolled back", "2", "3", "green")  # it dies before it moves the alias
    assert promotion.rollback(client, "capnet").now == "3"
    promote(client, "2", force=True, reason="a test")
    history.begin(client, "capnet", "rolled back", "2", "3", "green")
    click(client, "3")  # it dies after it has
    done = promotion.rollback(client, "capnet")
    assert (done.before, done.after, done.now) == ("2", "3", "3")
    assert [event.kind for event in history.events(client, "capnet") if event.counts][-1] == "rolled back"
    assert promotion.audit(client, "capnet").new is None
    assert promotion.rollback(client, "capnet").now == "1"


@pytest.mark.parametrize("written", [0, 1])
def test_a_move_that_died_while_it_wrote_pages_is_completed_with_its_pages(
    client: MlflowClient, written: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A rollback went back two versions, and the former champion's page still called it champion."""
    write, calls = MlflowClient.update_model_version, itertools.count()

    def update(client: MlflowClient, *arguments: Any) -> Any:
        if next(calls) == written:
            raise ConnectionError
        return write(client, *arguments)

    def pages() -> list[str]:
        versions = (client.get_model_version("capnet", number) for number in ("1", "2", "3"))
        return [" ".join(re.findall("Champion since|Was champion until", version.description)) for version in versions]

    for number in ("1", "3"):
        promote(client, number)
    with monkeypatch.context() as patch:
        patch.setattr(MlflowClient, "update_model_version", update)
        calls = itertools.count(-1)  # the first is that of the verdict
        with pytest.raises(ConnectionError):
            promote(client, "2", force=True, reason="a test")
    promote(client, "2", force=True, reason="a test")
    assert pages() == ["Was champion until", "Champion since", "Was champion until"]
    with monkeypatch.context() as patch:
        patch.setattr(MlflowClient, "update_model_version", update)
        calls = itertools.count()
        with pytest.raises(ConnectionError):
            promotion.rollback(client, "capnet")
    assert promotion.rollback(client, "capnet").now == "3"
    assert [kind for kind, *_ in moves(client)] == ["promoted", "promoted", "forced", "rolled back"]
    assert pages() == ["Was champion until", "Was champion until", "Champion since"]


def test_a_promotion_in_progress_is_no_foreign_move_and_a_foreign_one_is_found_once(client: MlflowClient) -> None:
    promote(client, "1")
    history.begin(client, "capnet", "promoted", "1", "3", "green")
    click(client, "3")  # what a promotion does next; then it dies
    assert promotion.audit(client, "capnet").new is None
    assert [(event.kind, event.after, event.counts) for event in history.events(client, "capnet")] == [
        ("promoted", "1", True),
        ("promoted", "3", True),
    ]
    # one that died long before, measured against another champion
    history.begin(client, "capnet", "promoted", "1", "2", "green")
    click(client, "2")
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: promotion.audit(MlflowClient(os.environ["MLFLOW_TRACKING_URI"]), "capnet"), range(4)))
    assert [event.kind for event in history.events(client, "capnet") if event.counts] == [
        "promoted",
        "promoted",
        "found",
    ]


def event(kind: str, before: str, after: str, number: int, verdict: str = "green", **more: str) -> Event:
    at = f"2026-01-01T00:00:{number:02}Z"
    return replace(Event(kind, before, after, verdict, "", "", "someone", at, at, key=f"promotion.{number}"), **more)


@pytest.mark.parametrize(
    ("events", "rivals"),
    [
        ([], []),
        ([event("promoted", "", "1", 1)], ["1"]),
        ([event("promoted", "", "1", 1), event("found", "1", "7", 2)], ["1"]),
        ([event("promoted", "", "1", 1), event("found", "1", "2", 2, "red"), event("found", "2", "7", 3)], ["2", "1"]),
        ([event("promoted", "", "1", 1), event("found", "1", "2", 2), event("found", "2", "7", 3)], ["2"]),
        ([event("promoted", "", "1", 1), event("found", "1", "", 2, ""), event("found", "", "7", 3)], ["1"]),
        ([event("found", "", "2", 1, ""), event("found", "2", "7", 2)], ["2", ""]),
        ([event("promoted", "", "7", 1), event("promoted", "7", "1", 2), event("found", "1", "7", 3)], []),
        (
            [
                event("promoted", "", "1", 1),
                event("promoted", "1", "7", 2, overtaken="2"),
                event("promoted", "1", "2", 3),
            ],
            ["2"],
        ),
        ([event("promoted", "", "1", 1), event("promoted", "1", "7", 2, done="")], ["1"]),
    ],
)
def test_whom_a_verdict_on_version_seven_must_be_against(events: list[Event], rivals: list[str]) -> None:
    assert history.accepted_rivals(events, "7") == rivals


@pytest.mark.parametrize(
    ("moves", "former"),
    [
        ("1 3 2", ["3", "1"]),
        ("1 3 2 back:3", ["1"]),
        ("1 3 2 back:3 2", ["3", "1"]),
        ("1 3 back:1", []),
        ("2 1 3 1", ["3", "2"]),
        ("2 1 3 1 back:3", ["1", "2"]),  # not to and fro
        ("2 1 3 1 back:3 back:1", ["2"]),
        ("1 2 none 3", ["2", "1"]),
        ("1 2 none", ["2", "1"]),
        ("1 2 none back:2", ["1"]),
    ],
)
def test_where_a_rollback_leads(moves: str, former: list[str]) -> None:
    events, before = [], ""
    for number, move in enumerate(moves.split()):
        after = move.removeprefix("back:").replace("none", "")
        events.append(event("rolled back" if "back:" in move else "promoted", before, after, number))
        before = after
    assert history.rollback_line(events, before) == former
