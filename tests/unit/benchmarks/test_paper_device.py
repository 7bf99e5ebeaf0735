"""A paper's table that is to run on a GPU, on a machine without one."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from benchmarks import paper
from capnet.errors import ConfigError


@pytest.mark.parametrize("more", [["--dry-run"], ["--data", "."]])
def test_a_gpu_that_is_not_there_is_refused_before_anything_is_made_or_read(
    more: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(paper, "run_paper", lambda *_: pytest.fail("it ran"))
    command_line = ["voc-lt", "--device", "cuda", "--out", str(tmp_path / "out"), "--weights", "RN50=RN50.pt", *more]
    with pytest.raises(ConfigError, match="torch sees no GPU"):
        paper.main(command_line)
    assert capsys.readouterr().out == ""
    with pytest.raises(pytest.fail.Exception, match="it ran"):  # a check trains nothing, so it needs none
        paper.main([*command_line, "--check"])
