"""Progress where there is no terminal: lines in the log, not too many, with an honest rest. Quiet loggers, and closed
streams.
"""

from __future__ import annotations

import logging
import math
import os
import pty
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from capnet import progress, streams


class Clock:
    now = 0.0

    def monotonic(self) -> float:
        return Clock.now


@pytest.fixture(autouse=True)
def no_earlier_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress.LastLine, "at", math.inf)


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
    messages = [record.getMessage() for record in caplog.records]
    assert messages == [
        f"training epoch 3: {done} of 1000, about {(1000 - done) / 60:.0f} min left" for done in (430, 460)
    ]


def test_many_short_bars_are_not_silent_together(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A training of six fits of 20 s each was silent for two minutes: each began to count anew."""
    monkeypatch.setattr(progress, "time", Clock())
    caplog.set_level("INFO")
    for fold in range(1, 5):
        with progress.bar(f"fold {fold} of 4", 20) as advance:
            for _ in range(20):
                Clock.now += 1.0
                advance()
                with progress.bar("scores", 2, stays=False) as inner:  # passing work, which says little
                    inner()
                    inner()
    messages = [record.getMessage() for record in caplog.records]
    assert messages == ["fold 2 of 4: 10 of 20, about 10 s left", "fold 3 of 4: 20 of 20, about 0 s left"]


def test_a_bar_that_follows_long_work_knows_no_pace_yet(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(progress, "time", Clock())
    caplog.set_level("INFO")
    with progress.bar("decoding", 2):
        Clock.now += 600.0
    with progress.bar("linear probe", 4000) as advance:
        for _ in range(40):
            Clock.now += 1.0
            advance()
    assert [record.getMessage() for record in caplog.records] == [
        "linear probe: 2 of 4000",
        "linear probe: 32 of 4000, about 66 min left",
    ]


def test_short_work_is_silent(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    assert list(progress.track(range(3), "reading", 3)) == [0, 1, 2]
    assert not caplog.records


DRAW = """
import sys
from capnet import progress, streams
from capnet.cli import entry
from capnet.data.demo import image_set

progress.EVERY_SECONDS = 0.0
image_set.total = lambda: 4
image_set.write_set = lambda folder, seed, advance: [advance() for _ in range(4)]
sys.argv = ["capnet", "demo-data", "--seed", "1", "--out", sys.argv[1]]
entry()
"""


@pytest.mark.parametrize("rank", ["0", "1"])
def test_the_command_line_shows_each_line_once_and_of_the_first_process_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rank: str
) -> None:
    monkeypatch.setenv("RANK", rank)
    monkeypatch.setenv("WORLD_SIZE", "2")  # torchrun sets both
    command = [sys.executable, "-c", DRAW, str(tmp_path / "data")]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    messages = [f"drawing: {done} of 4, about 0 s left" for done in (2, 3, 4)]
    assert done.stderr.splitlines() == (messages if rank == "0" else [])


def on_terminal(code: str, **environment: str) -> str:
    """What the code writes to stderr where that is a terminal."""
    terminal, other = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", **environment}
    subprocess.run([sys.executable, "-c", code], check=True, stderr=other, env=environment)
    os.close(other)
    written = ""
    with os.fdopen(terminal, "rb") as file, suppress(OSError):  # its end, on Linux
        while part := file.read1(100_000):
            written += part.decode()
    return written


def test_a_bar_of_one_step_or_without_any_leaves_no_line_on_a_terminal() -> None:
    """Ingest left `reading images 0/0` behind, and a model that was registered already `register 0/5`."""
    code = "from capnet.progress import bar, track\nwith bar('work of 5', 5): pass"
    code += "\nfor n in (0, 1, 2): list(track(range(n), f'work of {n}', n))"
    hide_cursor, erase_line = "\x1b[?25l", "\x1b[1A\x1b[2K"
    assert [erase_line in shown for shown in on_terminal(code).split(hide_cursor)[1:]] == [True, True, True, False]


SPIN = """
import logging, sys, threading
from capnet.progress import bar, waiting

before = sys.stderr
with waiting("loading a library"), waiting("loading a part of it"):
    kept = logging.StreamHandler()  # as libraries do while they are imported
assert kept.stream is before is sys.stderr
with waiting("loading another"):
    pass
with bar("work", 1), waiting("loading within a bar"):
    pass


def quietly():
    with waiting("loading in a thread"):  # such as that of the tracking server, while a bar is on the terminal
        pass


thread = threading.Thread(target=quietly)
thread.start()
thread.join()
"""


def test_a_spinner_shows_on_a_terminal_and_leaves_nothing() -> None:
    """`validate` and `predict` were silent for five to ten seconds while their libraries were loaded."""
    written = on_terminal(SPIN)
    assert "loading a library" in written
    assert "loading another" in written
    assert "part of it" not in written
    assert "in a thread" not in written
    assert "within a bar" not in written
    assert "loading" not in on_terminal(SPIN, TERM="dumb")
    assert "loading" not in on_terminal(SPIN, LOCAL_RANK="1"), "torchrun starts several on one terminal"
    assert written.endswith("\x1b[?25h\r\x1b[1A\x1b[2K"), repr(written)  # the cursor is back, the line erased


def test_a_log_gets_no_spinner() -> None:
    done = subprocess.run([sys.executable, "-c", SPIN], check=True, capture_output=True)
    assert (done.stdout, done.stderr) == (b"", b"")


def test_a_library_that_logs_to_the_root_leaves_no_handler_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    """open_clip does so when it loads a model: every later warning had level and name in front."""
    root = logging.getLogger()
    monkeypatch.setattr(root, "handlers", [])
    with streams.quiet({"": logging.CRITICAL}):
        logging.info("adds a handler to the root")
        assert root.handlers
    assert root.handlers == []


@pytest.mark.parametrize("closed", ["2>&-", "<&- >&- 2>&-"])
def test_a_command_whose_streams_are_closed_ends_with_its_exit_code(tmp_path: Path, closed: str) -> None:
    """Writing the message failed before, so that all ended with 1; and a file that was opened was number 2."""
    code = (
        "import os, sys; from capnet.cli import entry; from capnet.progress import bar;"
        " from capnet.streams import open_closed_streams;"
        "open_closed_streams(); file = open('log', 'w'); assert file.fileno() > 2; bar('work', 2).__enter__()(1);"
        "os.write(2, b'from a library'); sys.argv[1:] = ['summary']; entry()"
    )
    command = ["bash", "-c", f'exec "$0" -c "$1" {closed}', sys.executable, code]
    assert subprocess.run(command, cwd=tmp_path, check=False).returncode == 4
    assert (tmp_path / "log").read_text() == ""
