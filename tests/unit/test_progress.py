"""Progress where there is no terminal: lines in the log, not too many, with an honest rest."""

from __future__ import annotations

import pytest

from capnet import progress


class Clock:
    now = 0.0

    def monotonic(self) -> float:
        return Clock.now


def test_a_log_gets_a_line_now_and_then_with_the_time_left(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(progress, "time", Clock())
    caplog.set_level("INFO")
    with progress.bar("training", 1000) as advance:
        advance(400)  # of an earlier run: no measure of this one's pace
        for _ in range(60):
            Clock.now += 1.0
            advance(note="epoch 3")
    told = [record.getMessage() for record in caplog.records]
    assert told == [
        f"training epoch 3: {done} of 1000, about {(1000 - done) / 60:.0f} min left" for done in (415, 430, 445, 460)
    ]


def test_short_work_is_silent(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    assert list(progress.track(range(3), "reading", 3)) == [0, 1, 2]
    assert not caplog.records
