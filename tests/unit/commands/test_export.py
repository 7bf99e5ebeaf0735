"""What `capnet export` writes over, and what it does not."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from capnet.commands.export import check_description, command
from capnet.errors import ConfigError


@pytest.mark.parametrize("content", ['{"images": []}', "[]", "", "no JSON"])
def test_a_json_file_of_something_else_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str
) -> None:
    """As predictions for MegaDetector's programs, or annotations in COCO's JSON."""
    monkeypatch.chdir(tmp_path)
    Path("params.yaml").write_text("{}\n")
    Path("birds.json").write_text(content)
    with pytest.raises(ConfigError, match="a file that no earlier export wrote"):
        CliRunner().invoke(command, ["--model", "outputs", "--out", "birds.onnx"], catch_exceptions=False)
    assert Path("birds.json").read_text() == content


def test_the_description_of_an_earlier_export_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "birds.json"
    check_description(path)
    path.write_text(json.dumps({"weight_hash": "a", "output": {"name": "logits"}, "classes": []}))
    check_description(path)
