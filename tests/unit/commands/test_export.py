"""What `capnet export` writes over, and what it does not."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import onnx
import pytest
from click.testing import CliRunner
from onnx import TensorProto, helper

from capnet.commands.export import check_description, command
from capnet.errors import ConfigError, ContractError


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


def test_a_graph_of_something_else_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a detector of one's own under the usual name, or a model whose producer is called capnet."""
    monkeypatch.chdir(tmp_path)
    Path("params.yaml").write_text("{}\n")
    value = helper.make_tensor_value_info("capnet", TensorProto.FLOAT, [1])
    node = helper.make_node("Identity", ["capnet"], ["y"], name="capnet")
    graph = helper.make_graph([node], "capnet", [value], [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1])])
    model = helper.make_model(graph, producer_name="capnet")
    path, run = Path("model.onnx"), partial(CliRunner().invoke, command, catch_exceptions=False)
    onnx.save(model, path)
    before = path.read_bytes()
    with pytest.raises(ConfigError, match="a file that no earlier export wrote"):
        run(["--model", "outputs"])
    assert path.read_bytes() == before
    Path("folder.onnx").mkdir()
    with pytest.raises(ConfigError, match="the output is a folder"):
        run(["--model", "outputs", "--out", "folder.onnx"])
    onnx.helper.set_model_props(model, {"capnet": '{"schema": 1}'})
    onnx.save(model, path)
    for out in ("model.onnx", "new.onnx"):
        with pytest.raises(ContractError, match="no model is in this folder"):
            run(["--model", "outputs", "--out", out])
