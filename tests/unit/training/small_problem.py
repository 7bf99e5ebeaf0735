"""Labels that a bottleneck adapter learns in four epochs, and the trainer on them."""

import numpy as np
import pandas as pd
import pytest
import torch

from capnet.config import parse
from capnet.contracts import LabelGraph, make_classes
from capnet.runtime import Machine
from capnet.training.trainer import Trainer

NAMES = ["dog", "cat", "bus"]
SETTINGS = {"epochs": 4, "batch_size": 8, "optimiser": {"lr_adapter": 0.01}, "class_head": {"enabled": True}}
SOME_CLASSES = {"prompt": {"classes_per_step": 2}}


def table(targets, unknown=None):
    """A row an image, from targets bool [row, class] and unknown bool [row, class]."""
    unknown = np.zeros(targets.shape, dtype=bool) if unknown is None else unknown
    lists = {"labels": targets, "unknown": unknown}
    columns = {name: [np.flatnonzero(row) for row in np.asarray(matrix)] for name, matrix in lists.items()}
    return pd.DataFrame(columns | {"image_id": [f"image{i}" for i in range(len(targets))]})


@pytest.fixture
def problem():
    """Labels that a bottleneck adapter can learn, as a table and as features [24, view 2, 1280]."""
    generator = torch.Generator().manual_seed(4)
    targets = torch.rand(24, 3, generator=generator) < 0.4
    directions = torch.randn(3, 1280, generator=generator)
    features = targets.float() @ directions + 0.3 * torch.randn(24, 1280, generator=generator)
    views = torch.stack([features, features + 0.1 * torch.randn(24, 1280, generator=generator)], dim=1)
    return table(targets), views


def trainer_of(lit, folder, **settings):
    params = parse({"train": SETTINGS | settings, "runtime": {"seed": 0, "threads": 1}})
    with torch.no_grad():
        text = lit.text(NAMES)
    graph, machine = LabelGraph(torch.eye(3), text, {}), Machine(torch.device("cpu"), bf16=False)
    return Trainer(params, make_classes(NAMES), graph, lit, machine, folder)


def run(lit, problem, folder, validate=None, **settings):
    fitted = trainer_of(lit, folder, **settings)
    return fitted.fit(fitted.new_model(), *problem, folder, validate=validate)


def same(first, second):
    return first.keys() == second.keys() and all(torch.equal(tensor, second[name]) for name, tensor in first.items())
