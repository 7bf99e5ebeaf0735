"""How a training steps: rates and decay of each part, the schedule, and the order of the images."""

from itertools import pairwise

import numpy as np
import pytest
import torch

from capnet.config import Train
from capnet.training.optimiser import make_optimiser, make_schedule
from capnet.training.samplers import batches, class_aware, shuffled
from tests.unit.training.small_problem import trainer_of


def test_weight_decay_is_on_matrices_only_and_each_part_has_its_rate(lit, tmp_path):
    rates = {"lr_prompt": 0.1, "lr_gcn": 0.2, "lr_adapter": 0.3, "lr_head": 0.4, "lr_class_head": 0.6}
    heads = {"enabled": True, "weight_decay": 0.7}
    fitted = trainer_of(lit, tmp_path, optimiser=rates | {"weight_decay": 0.5}, class_head=heads, blend="held_out")
    model = fitted.new_model()
    result = {
        name: (group["lr"], group["weight_decay"])
        for name, group in zip(
            [name for name, parameter in model.named_parameters() if parameter.requires_grad],
            make_optimiser(model, fitted.params.train).param_groups,
            strict=True,
        )
    }
    assert "adapter.mean" not in result
    assert result["prompt.context"] == (0.1, 0.0)
    assert result["gcn.weights.0"] == (0.2, 0.5)
    assert result["adapter.down_proj.weight"] == (0.3, 0.5)
    assert result["adapter.down_proj.bias"] == (0.3, 0.0)
    assert result["logit_scale"] == result["logit_bias"] == (0.4, 0.0)
    assert result["class_head.weight"] == (0.6, 0.7)
    assert result["class_head.logit_scale"] == result["class_head.logit_bias"] == (0.4, 0.0)
    assert "linear_probe.weight" not in result


def test_the_schedule_rises_then_falls_and_goes_on_where_it_stopped():
    def rates(done):
        optimiser = torch.optim.AdamW([{"params": [torch.nn.Parameter(torch.zeros(1))], "lr": 9.0, "initial_lr": 2.0}])
        schedule = make_schedule(optimiser, 0.2, 20, done)
        for _ in range(done, 20):
            yield optimiser.param_groups[0]["lr"]
            optimiser.step()
            schedule.step()

    whole = list(rates(0))
    assert whole[:4] == pytest.approx([0.5, 1.0, 1.5, 2.0])
    assert all(a > b for a, b in pairwise(whole[3:]))
    assert whole[4:] == pytest.approx([1 + np.cos(np.pi * step / 17) for step in range(1, 17)])
    assert list(rates(7)) == whole[7:]


@pytest.mark.parametrize("sampler", ["shuffle", "class_aware"])
def test_the_batches_of_an_epoch_are_of_nearly_one_size(sampler):
    settings = Train(sampler=sampler, batch_size=8)
    targets = np.ones((27, 2), dtype=bool)
    result = batches(targets, settings, 0, 1)
    assert sorted(len(batch) for batch in result) == [6, 7, 7, 7]
    expected = shuffled(27, 0, 1) if sampler == "shuffle" else class_aware(targets, 0, 1)
    np.testing.assert_array_equal(np.concatenate(result), expected)


def test_class_aware_sampling_evens_out_classes_and_is_a_function_of_the_epoch():
    targets = np.zeros((400, 3), dtype=bool)
    targets[:360, 0], targets[360:396, 1], targets[396:, 2] = True, True, True
    order = class_aware(targets, 0, 1)
    counts = targets[order].sum(axis=0)
    assert len(order) == 400
    assert counts.min() > 0.8 * counts.max()
    np.testing.assert_array_equal(order, class_aware(targets, 0, 1))
    assert not np.array_equal(order, class_aware(targets, 0, 2))
    assert len(class_aware(np.zeros((5, 2), dtype=bool), 0, 1)) == 5
    np.testing.assert_array_equal(np.sort(shuffled(50, 3, 2)), np.arange(50))
