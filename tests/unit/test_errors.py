"""Messages that quote a stranger's file."""

from __future__ import annotations

import pytest

from capnet.errors import CapnetError, DataError, Problem, exits


def test_what_a_message_quotes_neither_steers_a_terminal_nor_fills_it() -> None:
    text = str(DataError(f"label \x1b[2J\x07\x9b \u202egpj.exe {'a' * 10**6}", "file\r\x00", "do\ttwo\nlines \ud800"))
    assert not {"\x1b", "\x07", "\x9b", "\u202e", "\r", "\0", "\ud800"} & set(text)
    assert r"\x1b[2J\x07\x9b \u202egpj.exe" in text
    assert len(text) < 5000
    assert text.count("\n") == 3, "lines of our own stay"
    text.encode()


def test_other_letters_stay_as_they_are() -> None:
    quoted = "Füchse, 狐, 🦊, e\u0301"
    assert str(Problem(quoted, "a\\b", "x")) == f"{quoted}\n  where: a\\b\n  to do: x"


@pytest.mark.parametrize(("kind", "heading"), [(CapnetError, "error"), (DataError, "data error")])
def test_the_first_line_says_what_kind_of_error_it_is_where_there_is_a_word(
    kind: type[CapnetError], heading: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit), exits("capnet"):
        raise kind("no room", "/data", "make some")
    assert capsys.readouterr().err == f"capnet: {heading}\nno room\n  where: /data\n  to do: make some\n"
