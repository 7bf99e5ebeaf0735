"""What happened to the alias `champion`, one tag of the registered model per event, so that two writers at once lose
nothing.
"""

from __future__ import annotations

import getpass
import hashlib
import json
import os
import uuid
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, fields, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from capnet.errors import one_line
from capnet.redaction import redact
from capnet.tracking.store import insist

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

PREFIX = "promotion."
GATED = ("promoted", "forced", "rolled back")  # kinds of events that went through the gate
ACCEPTED = ("green", "inconclusive")  # verdicts with which readers take a version that was set elsewhere
LONGEST = 1500  # characters of a reason or of the failed rules: the value of such a tag may have 5,000


@dataclass(frozen=True)
class Event:
    """``kind``: promoted, forced, rolled back or found (moved elsewhere, seen by an audit); versions are numbers as
    text, "" for none.
    """

    kind: str
    before: str
    after: str
    verdict: str
    reason: str
    rules: str
    by: str
    at: str
    done: str = ""  # when the alias had been moved; "" where the writer died before
    overtaken: str = ""  # the version that another writer put in its place at the same time
    key: str = ""
    policy: str = ""  # hash and margins of the policy that the verdict was made by
    rows: str = ""  # number of test images that the verdict was made on

    @property
    def counts(self) -> bool:
        """True where the alias was moved and stayed there until the next event."""
        return bool(self.done) and not self.overtaken

    @property
    def accepted(self) -> bool:
        """True where the move counts and readers took the version then, whatever its tags say by now."""
        return self.counts and (self.kind in GATED or self.verdict in ACCEPTED)

    def lines(self) -> list[str]:
        """The event in words: when, which versions, the verdict and by whom; then its details, one a line."""
        before, after = (f"version {version}" if version else "none" for version in (self.before, self.after))
        state = "" if self.done else " (not finished)"
        if self.done and self.overtaken:
            state = f" (overtaken by version {self.overtaken})"
        verdict = self.verdict or "missing"
        first = f"{self.at}  {self.kind:<11} {before} -> {after}  verdict {verdict}  by {self.by}{state}"
        details = {"": self.policy, "not passed: ": self.rules, "reason: ": self.reason}
        return [first, *(f"  {name}{text}" for name, text in details.items() if text)]


def now() -> str:
    return _written(datetime.now(UTC))


def _written(time: datetime) -> str:
    return time.isoformat(timespec="microseconds").replace("+00:00", "Z")


def time_of_move(known: Sequence[Event], time: str = "") -> str:
    """A time (by default now) for a move that follows all others: clocks of two machines differ, or are set back.

    Args:
        known: the history, read before it was seen that nobody moved the alias since.
        time: what the clock says.
    """
    time, latest = time or now(), max((event.done for event in known if event.counts), default="")
    with suppress(ValueError, OverflowError):  # someone edited the tag in the UI
        time = max(time, _written(datetime.fromisoformat(latest) + timedelta(microseconds=1)))
    return time


def person() -> str:
    """The account at the store, else at this machine."""
    try:
        return os.environ.get("MLFLOW_TRACKING_USERNAME") or getpass.getuser()
    except (OSError, KeyError):  # a container's user without a name
        return f"uid {os.getuid()}"


def begin(
    client: MlflowClient,
    name: str,
    kind: str,
    before: str,
    after: str,
    verdict: str,
    reason: str = "",
    rules: str = "",
    key: str = "",
    policy: str = "",
    rows: str = "",
) -> Event:
    """Write an event before the alias moves: a writer that dies in between leaves a trace and not a silent change.

    Args:
        client, name: the registry, and the registered model.
        kind, before, after, verdict, reason, rules, policy, rows: as in ``Event``; long texts are cut.
        key: of its tag; "" for a new one.

    Returns:
        The event, not ``done``.
    """
    at = now()
    key = key or f"{PREFIX}{at}.{uuid.uuid4().hex[:8]}"
    event = Event(
        kind=kind,
        before=before,
        after=after,
        verdict=verdict,
        reason=redact(reason)[:LONGEST],
        rules=rules[:LONGEST],
        by=one_line(person())[:100],
        at=at,
        key=key,
        policy=policy,
        rows=rows,
    )
    _write(client, name, event)
    return event


def found_key(events: Sequence[Event], current: str) -> str:
    """The tag of a move that was made elsewhere: the same for all who find it, so that it is recorded once."""
    counting = [event.key for event in events if event.counts]
    return f"{PREFIX}found.{hashlib.sha256(f'{counting[-1:]} {current}'.encode()).hexdigest()[:16]}"


def finish(client: MlflowClient, name: str, event: Event, done: str, overtaken: str = "") -> Event:
    """Write that the alias was moved.

    Args:
        client, name: as in ``begin``.
        event: from ``begin``.
        done: when the alias had been moved.
        overtaken: as in ``Event``.
    """
    finished = replace(event, done=done, overtaken=overtaken)
    _write(client, name, finished)
    return finished


def _write(client: MlflowClient, name: str, event: Event) -> None:
    content = {key: value for key, value in asdict(event).items() if key != "key"}
    # escaped, a letter may take six characters
    insist(client.set_registered_model_tag, name, event.key, json.dumps(content, ensure_ascii=False))


def read(tags: Mapping[str, str]) -> list[Event]:
    """All events among a registered model's tags, in the order in which the alias moved."""
    events, known = [], {field.name for field in fields(Event)} - {"key"}
    for key, value in tags.items():
        if key.startswith(PREFIX):
            try:
                content = json.loads(value)  # a newer version may say more
                content = {name: content[name] for name in known & content.keys()}
                "".join(content.values()).encode()  # all of it is text, and no half of a letter, which cannot be shown
                events.append(Event(**content, key=key))
            # someone edited the tag in the UI; the audit names it
            except (ValueError, TypeError, AttributeError, RecursionError):
                at = key.removeprefix(PREFIX).rpartition(".")[0]
                events.append(Event("unreadable", "", "", "", value[:200], "", "?", at, key=key))
    return sorted(events, key=lambda event: (event.done or event.at, event.key))


def events(client: MlflowClient, name: str) -> list[Event]:
    return read(client.get_registered_model(name).tags)


def expected_champion(events: Sequence[Event]) -> str:
    """The champion that the finished events lead to; "" for none."""
    finished = [event for event in events if event.counts]
    return finished[-1].after if finished else ""


def unfinished(events: Sequence[Event], current: str) -> Event | None:
    """The event of a move to ``current`` that is not finished: its process is still at work, or died. None where there
    is no such event.

    Only moves away from the champion that the finished events lead to count: an older move was measured against
    another one.
    """
    last = expected_champion(events)
    moves = [event for event in events if (event.before, event.after) == (last, current) and event.kind in GATED]
    begun = [event for event in moves if not event.done]
    return begun[-1] if begun and current != last else None


def champions(events: Sequence[Event]) -> list[str]:
    """All that the alias ever pointed to, the latest first; "" for none."""
    return list(dict.fromkeys(event.after for event in reversed(events) if event.counts))


def passed_policy(events: Sequence[Event], version: str) -> str:
    """The policy, in words, by which a version was last accepted as champion; "" where the history does not say. A
    rollback asks for nothing.
    """
    by = [event.policy for event in events if event.accepted and event.after == version and event.kind != "rolled back"]
    return by[-1] if by else ""


def accepted_rivals(events: Sequence[Event], version: str) -> list[str]:
    """Whom a verdict must be against for ``version`` to be champion without having gone through the gate, nearest
    first; empty: anyone.

    That is the champion before it, even if the alias was taken away from that one in between; "" stands for no
    champion. If that one was set elsewhere without a good verdict, nobody read it, so the champion before it counts as
    well.
    """
    counting = [event for event in events if event.counts]
    if any(event.after == version and event.kind in GATED for event in counting):
        return []
    while counting and counting[-1].after == version:
        counting.pop()
    earlier: list[str] = []
    for event in reversed(counting):
        if not event.after:
            continue
        earlier.append(event.after)
        if event.accepted:
            return earlier
    return [*earlier, ""] if earlier else []


def rollback_line(events: Sequence[Event], current: str) -> list[str]:
    """The champions before ``current``, the latest first: where rollbacks lead.

    A rollback continues from where the last one led, so that two of them go two steps back. A move that two writers
    made at once is one step.
    """
    line: list[str] = []
    last: tuple[str, str] | None = None
    for event in events:
        if not event.counts or (event.before, event.after) == last:
            continue
        last = event.before, event.after
        if event.kind == "rolled back" and event.after in line:
            del line[len(line) - line[::-1].index(event.after) :]
            continue
        line += [number for number in (event.before, event.after) if number and line[-1:] != [number]]
    return [number for number in dict.fromkeys(reversed(line)) if number != current]
