"""Of many classes a step trains the prompts of some: those that the batch shows first, then who waited longest."""

import numpy as np
import pytest
import torch

from capnet.config import Backbone, Train
from capnet.model.backbones import load_towers
from capnet.model.capnet import CapNet
from capnet.runtime import Machine
from capnet.training.class_steps import ClassSteps
from capnet.training.distributed import SINGLE_PROCESS
from tests.unit.model import tiny

NAMES = ["dog", "traffic light", "cat", "bus", "red car", "horse", "tree"]
CPU = Machine(torch.device("cpu"), bf16=False)


@pytest.fixture
def make_steps(tmp_path, monkeypatch):
    monkeypatch.setenv("CAPNET_STATE", str(tmp_path))
    tiny.register("tiny-clip", tmp_path / "configs")
    towers = load_towers(Backbone(name="tiny-clip", pretrained="random"))

    def make(limit):
        torch.manual_seed(0)
        settings = Train(prompt={"classes_per_step": limit})
        model = CapNet(towers, NAMES, torch.eye(len(NAMES)), torch.randn(len(NAMES), towers.embed_dim), settings)
        return model, ClassSteps(model, CPU, SINGLE_PROCESS)

    return make


def positive(*classes):
    return torch.from_numpy(np.isin(np.arange(len(NAMES)), classes))


def trained(model, steps, *classes):
    """Numbers of the classes whose prompts a step gives a gradient, after which all prompts move."""
    model.prompt.context.grad = None
    steps.encode(positive(*classes)).sum().backward()
    with torch.no_grad():
        model.prompt.context += 0.1 * torch.randn_like(model.prompt.context)
    return model.prompt.context.grad.abs().sum(dim=(1, 2)).nonzero().flatten().tolist()


def test_positives_of_the_batch_come_first_and_then_who_waited_longest(make_steps):
    model, steps = make_steps(3)
    assert trained(model, steps, 6, 5) == [0, 5, 6]
    assert trained(model, steps, 0) == [0, 1, 2]
    assert trained(model, steps) == [3, 4, 5]
    assert trained(model, steps, 0, 1, 5, 6) == [0, 1, 6], "more positives than places: they take turns too"
    assert trained(model, steps, 0, 1, 5, 6) == [0, 1, 5]


def test_the_others_keep_the_features_that_they_had(make_steps):
    model, steps = make_steps(2)
    at_start = model.prompt(model.towers.text).detach()
    trained(model, steps, 1, 2)
    now = model.prompt(model.towers.text).detach()
    features = steps.encode(positive(2, 4)).detach()
    torch.testing.assert_close(features[[2, 4]], now[[2, 4]])
    torch.testing.assert_close(features[[0, 1, 3, 5, 6]], at_start[[0, 1, 3, 5, 6]])
    assert not torch.allclose(now, at_start, atol=1e-3)


@pytest.mark.parametrize("limit", [0, 7, 100])
def test_without_a_limit_below_the_number_of_classes_all_are_trained(limit, make_steps):
    model, steps = make_steps(limit)
    assert trained(model, steps, 3) == list(range(7))
    assert not steps.kept
    torch.testing.assert_close(steps.encode(positive()), model.prompt(model.towers.text))
