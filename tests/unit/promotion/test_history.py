"""The history of a registered model: the way back, promotions at once, and what was done elsewhere."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from mlflow.tracking import MlflowClient
from unit.promotion.promoting import champion, moves, promote

from capnet.errors import GateError
from capnet.promotion import history
from capnet.promotion import promote as promotion


def test_a_long_reason_in_any_script_fits_into_the_history(client: MlflowClient) -> None:
    promote(client, "3", force=True, reason="理" * 4000)
    (tag,) = (
        value for key, value in client.get_registered_model("capnet").tags.items() if key.startswith("promotion.")
    )
    assert len(tag) <= 5000, "a column of PostgreSQL takes no more"
    assert history.events(client, "capnet")[0].reason == "理" * 1500


def test_the_way_back_step_by_step(client: MlflowClient) -> None:
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


@pytest.mark.parametrize("back", [False, True])
def test_who_is_promoted_between_the_last_look_and_the_own_event_is_the_one_replaced(
    client: MlflowClient, back: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other promotion runs as a whole in the moment before this one writes what it is about to do."""
    promote(client, "1")
    if back:
        promote(client, "2", force=True, reason="for a day")
    begin, ours = history.begin, "1" if back else "2"

    def late(client: MlflowClient, *given: Any) -> history.Event:
        monkeypatch.undo()
        assert promote(client, "3", force=True, reason="faster").now == "3"
        return begin(client, *given)

    monkeypatch.setattr(history, "begin", late)
    done = promotion.rollback(client, "capnet") if back else promote(client, "2", force=True, reason="slower")
    assert (done.before, done.now, champion(client)) == ("3", ours, ours)
    assert promotion.audit(client, "capnet").new is None


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


def test_an_edited_history_is_shown_and_not_believed(client: MlflowClient) -> None:
    promote(client, "1")
    key = history.events(client, "capnet")[0].key
    client.set_registered_model_tag("capnet", key, "{}")
    found = promotion.audit(client, "capnet")
    assert [event.kind for event in found.events] == ["unreadable", "found"]
