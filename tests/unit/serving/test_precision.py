"""A model works in the precision that its thresholds were chosen in, or says that it does not."""

from __future__ import annotations

import json
import logging

import pytest

from capnet import runtime
from capnet.config import Runtime
from capnet.serving.engine import load_served


@pytest.mark.parametrize(
    ("chosen", "setting", "fast", "works_in", "is_warned_of"),
    [
        ("fp32", "auto", True, "fp32", False),
        ("fp32", "auto", False, "fp32", False),
        ("fp32", "bf16", True, "bf16", True),
        ("bf16", "auto", True, "bf16", False),
        ("bf16", "auto", False, "bf16", False),
        ("bf16", "fp32", True, "fp32", True),
        (None, "auto", False, "fp32", False),
    ],
)
def test_the_precision_of_the_thresholds(
    make_outputs, monkeypatch, caplog, chosen, setting, fast, works_in, is_warned_of
) -> None:
    paths = make_outputs()
    config = paths["model"] / "config.json"
    content = {key: value for key, value in json.loads(config.read_text()).items() if key != "precision"}
    config.write_text(json.dumps(content | ({"precision": chosen} if chosen else {})))
    monkeypatch.setattr(runtime, "_has_bf16", lambda device: fast)
    with caplog.at_level(logging.WARNING, "capnet"):
        served = load_served(
            paths["model"], paths["evaluation"] / "thresholds.json", Runtime(threads=1, device="cpu", precision=setting)
        )
    assert served.scorer.machine.bf16 == (works_in == "bf16")
    assert any("thresholds were chosen" in record.getMessage() for record in caplog.records) == is_warned_of
