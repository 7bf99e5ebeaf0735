"""Towers for the tests of this folder."""

import pytest

from capnet.config import Backbone
from capnet.model.backbones import load_towers
from tests.unit.model import tiny


@pytest.fixture
def make_towers(tmp_path, monkeypatch):
    """Towers of a tiny model with random weights, by name."""
    monkeypatch.setenv("CAPNET_STATE", str(tmp_path / "state"))

    def make(name):
        tiny.register(name, tmp_path / "configs")
        return load_towers(Backbone(name=name, pretrained="random"))

    return make
