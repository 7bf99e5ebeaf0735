"""The benchmark of the data stages: its unit of memory is the one that its table names."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from benchmarks import scale


def test_memory_is_in_the_unit_of_the_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    kibibytes = 3 * 2**20  # the system counts in these
    # not in subprocess itself: matplotlib asks a process for the fonts where its cache is not there yet
    monkeypatch.setattr(scale, "subprocess", SimpleNamespace(Popen=lambda *_, **__: SimpleNamespace(pid=1)))
    monkeypatch.setattr(scale.os, "wait4", lambda *_: (1, 0, SimpleNamespace(ru_maxrss=kibibytes)))
    drawing = tmp_path / "drawing.svg"
    scale.main(["--rows", "10", "100", "--stages", "ingest", "--figure", str(drawing)])
    head, _, row, _ = capsys.readouterr().out.splitlines()
    assert [cell.strip() for cell in head.split("|")][3] == "GiB"
    assert [cell.strip() for cell in row.split("|")][3] == "3.00"
    for words in ("ingest", "together", "linear growth"):
        assert words in drawing.read_text()
