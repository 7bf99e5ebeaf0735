"""Options that commands share."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from capnet.cli import main

ADDRESS = "s3://bucket/out.csv"


@pytest.mark.parametrize(
    "command",
    [
        ["predict", "--input", "images", "--model", "outputs", "--out", ADDRESS],
        ["export", "--out", ADDRESS],
        ["shard", "--out", ADDRESS],
        ["label", "--input", "images", "--out", ADDRESS],
        ["review", "--out", ADDRESS],
        ["split", "--output", f"split={ADDRESS}"],
    ],
    ids=lambda command: command[0],
)
def test_an_address_is_no_output(command: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It would become a folder of the name s3: here, in predict after hours of work."""
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(main, command)
    assert done.exit_code == 2
    assert f"'{ADDRESS}' is no path on this machine" in done.stderr
    assert list(tmp_path.iterdir()) == []
