"""Stage graph: what it refuses to build a graph from, and what it warns of."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from capnet.config import parse
from capnet.errors import ConfigError
from capnet.stages import run
from tests.unit.model import tiny
from tests.unit.steps import small_training
from tests.unit.steps.small_training import write_inputs

made = small_training.made


@pytest.mark.slow  # loads the weights of a text tower
@pytest.mark.parametrize("too_long", ["a class name", "the template"])
def test_texts_that_would_lose_their_end_are_refused_also_without_prompts(made: Any, too_long: str) -> None:
    folder, frame = made
    tiny.register("tiny-not-causal", folder / "configs")
    words = "very " * 20
    names = [f"a {words}red square", f"a {words}green square", "blue square"]
    write_inputs(folder, frame, names if too_long == "a class name" else ["red", "green", "blue"])
    settings: dict[str, Any] = {
        "backbone": {"name": "tiny-not-causal", "pretrained": "random"},
        "train": {"prompt": {"enabled": False}},
    }
    if too_long == "the template":
        settings["graph"] = {"template": words + "{}"}
    inputs = {name: folder / name for name in ("split", "validation")}
    with pytest.raises(ConfigError, match="longer than the text tower's 20 tokens") as error:
        run("graph", parse(settings), inputs, {"graph": folder / "graph"})
    assert "green" in str(error.value)
    assert ("blue" in str(error.value)) == (too_long == "the template")
    assert not (folder / "graph" / "graph.safetensors").exists()


@pytest.mark.slow
def test_classes_whose_texts_are_the_same_tokens_are_named(made: Any, caplog: pytest.LogCaptureFixture) -> None:
    folder, frame = made
    tiny.register("tiny-clip", folder / "configs")
    params = parse({"backbone": {"name": "tiny-clip", "pretrained": "random"}})
    inputs = {name: folder / name for name in ("split", "validation")}
    for names, named in ((["Fox", "hare", "FOX"], ["(Fox, FOX)"]), (["fox", "hare", "🦊"], [])):
        write_inputs(folder, frame, names)
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            run("graph", params, inputs, {"graph": folder / "graph"})
        texts = [record.getMessage() for record in caplog.records if "same tokens" in record.getMessage()]
        assert [part for part in named if any(part in text for text in texts)] == named
        assert len(texts) == len(named)
