"""JSON between stages that is small on disk and large in memory."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import pytest
from faults.bounded import bounded

from capnet.contracts import csv_text, read_json


@pytest.mark.parametrize("part", ['{"":0}', "[]", "{}"])
def test_millions_of_lists_or_objects_are_refused_before_they_are_made(part: str, tmp_path: Path) -> None:
    path = tmp_path / "file.json"
    path.write_text("[" + f"{part}," * 4_500_000 + "0]")
    outcome = bounded(lambda: read_json(path))
    assert outcome.kind == "refused"
    assert "more than 1,000,000 lists and objects" in outcome.text
    assert outcome.megabytes < 200


def test_a_million_numbers_are_read(tmp_path: Path) -> None:
    path = tmp_path / "file.json"
    path.write_text("[" + "[1.5,2]," * 500_000 + "0]")
    assert len(read_json(path)) == 500_001


def test_a_name_with_a_line_end_begins_no_row() -> None:
    rows = [["one\rtwo", "a"], ["three\nfour", "b\r\n"], ["five", 'six "7"']]
    text = csv_text(("path", "class"), rows)
    assert list(csv.reader(io.StringIO(text, newline=""))) == [["path", "class"], *rows]
    assert text.endswith('\nfive,"six ""7"""\n')
