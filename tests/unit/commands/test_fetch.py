"""`capnet fetch`: what is chosen by options, without a remote."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from capnet.cli import main
from capnet.errors import ContractError


def test_rows_of_a_split_need_a_split(repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    options = ["--params", str(repository / "params.yaml"), "--set", "data.root=s3://bucket/birds", "--split", "val"]
    result = CliRunner().invoke(main, ["fetch", *options])
    assert isinstance(result.exception, ContractError)
    assert "there is no split yet" in str(result.exception)


def test_the_command_for_a_folder_with_blanks_can_be_pasted(repository: Path) -> None:
    options = ["--params", str(repository / "params.yaml"), "--set", "data.root=my photos"]
    result = CliRunner().invoke(main, ["fetch", *options])
    assert "dvc pull 'my photos.dvc'" in result.output
