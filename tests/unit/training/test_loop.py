"""The loop: learns, resumes to the same bits, selects by validation, stops on NaN naming the pictures."""

from itertools import pairwise

import numpy as np
import pytest
import torch

from capnet.config import Train
from capnet.errors import CapnetError, DataError
from capnet.model.capnet import CapNet
from capnet.training import checkpoint, loop
from capnet.training.loop import Labels, fit
from capnet.training.pictures import CachedViews
from capnet.training.samplers import class_aware, shuffled

pytestmark = pytest.mark.slow

NAMES = ["dog", "cat", "bus"]
SETTINGS = {"epochs": 4, "batch_size": 8, "optimiser": {"lr_adapter": 0.01}, "class_head": {"enabled": True}}


@pytest.fixture
def problem():
    """Labels that a bottleneck adapter can learn, [24, view 2, 1280] features."""
    generator = torch.Generator().manual_seed(4)
    targets = torch.rand(24, 3, generator=generator) < 0.4
    directions = torch.randn(3, 1280, generator=generator)
    features = targets.float() @ directions + 0.3 * torch.randn(24, 1280, generator=generator)
    views = torch.stack([features, features + 0.1 * torch.randn(24, 1280, generator=generator)], dim=1)
    return views, Labels(targets, torch.ones_like(targets), [f"picture{i}" for i in range(24)])


def make(lit, **settings):
    torch.manual_seed(0)
    train = Train.model_validate(SETTINGS | settings)
    with torch.no_grad():
        text = lit.text(NAMES)
    return CapNet(lit, NAMES, torch.eye(3), text, train), train


def run(lit, problem, folder, validate=None, **settings):
    model, train = make(lit, **settings)
    views, labels = problem
    return fit(model, CachedViews(views, torch.device("cpu"), 0), labels, train, 0, folder, validate)


def test_training_lowers_the_loss_and_two_runs_are_equal(lit, problem, tmp_path):
    first = run(lit, problem, tmp_path / "a", epochs=8)
    second = run(lit, problem, tmp_path / "b", epochs=8)
    assert first.history[-1]["loss"] < 0.7 * first.history[0]["loss"]
    assert first.history == second.history
    assert all(torch.equal(tensor, second.tensors[name]) for name, tensor in first.tensors.items())


def test_the_features_statistics_are_saved_but_never_trained(lit, problem, tmp_path):
    model, train = make(lit)
    views, labels = problem
    model.prepare_for(views, labels.targets, labels.known)
    tensors = fit(model, CachedViews(views, torch.device("cpu"), 0), labels, train, 0, tmp_path / "a").tensors
    assert torch.allclose(tensors["adapter.mean"], views.flatten(0, 1).mean(dim=0), atol=1e-6)
    loaded, _ = make(lit)
    loaded.load_trained(tensors, "a")
    with torch.no_grad():
        assert torch.equal(loaded.image_features(views[0]), model.image_features(views[0]))
        assert not torch.equal(loaded.image_features(views[0]), loaded.image_features(views[0], adapted=False))


@pytest.mark.parametrize("place", ["bridge", "pooled", "joint"])
def test_every_place_of_the_adapter_learns(place, lit, problem, tmp_path):
    history = run(lit, problem, tmp_path / "a", epochs=8, adapter={"place": place}).history
    assert history[-1]["loss"] < 0.7 * history[0]["loss"]


def test_prompts_under_autocast_give_nearly_the_same_training_and_full_precision_after_it(lit, problem, tmp_path):
    views, labels = problem
    found = []
    for name, precision in (("full", None), ("half", lambda: torch.autocast("cpu", torch.bfloat16))):
        model, train = make(lit)
        arguments = {} if precision is None else {"prompt_precision": precision}
        found.append(
            fit(model, CachedViews(views, torch.device("cpu"), 0), labels, train, 0, tmp_path / name, **arguments)
        )
        assert model.class_features().refined.dtype == torch.float32
    losses = [[row["loss"] for row in item.history] for item in found]
    assert losses[0] != losses[1]
    np.testing.assert_allclose(losses[0], losses[1], atol=0.01 * losses[0][0])


@pytest.mark.parametrize("stop_at", [1, 5, 11])
def test_an_interrupted_run_goes_on_at_the_next_step_and_ends_with_the_same_weights(
    stop_at, lit, problem, tmp_path, monkeypatch, caplog
):
    whole = run(lit, problem, tmp_path / "whole")
    monkeypatch.setattr(loop, "SAVE_EVERY_SECONDS", 0.0)
    monkeypatch.setattr(loop, "SAVE_PAUSE", 0.0)
    caplog.set_level("INFO")

    class Counted(CachedViews):
        steps = 0
        last = stop_at

        def pooled(self, rows, epoch):
            Counted.steps += 1
            if Counted.steps == Counted.last:
                raise KeyboardInterrupt
            return super().pooled(rows, epoch)

    views, labels = problem
    pictures = Counted(views, torch.device("cpu"), 0)
    model, train = make(lit)
    with pytest.raises(KeyboardInterrupt):
        fit(model, pictures, labels, train, 0, tmp_path / "cut")
    Counted.steps, Counted.last = 0, -1
    model, train = make(lit)
    resumed = fit(model, pictures, labels, train, 0, tmp_path / "cut")
    assert Counted.steps == whole.history[-1]["step"] - (stop_at - 1), "steps were done twice"
    assert (f"goes on after step {stop_at - 1} of" in caplog.text) == (stop_at > 1)
    assert resumed.history == whole.history
    assert all(torch.equal(tensor, resumed.tensors[name]) for name, tensor in whole.tensors.items())


def test_the_best_validation_epoch_is_kept_and_without_validation_the_last(lit, problem, tmp_path):
    values = iter([0.2, 0.9, 0.5, 0.4])
    kept = {}

    def validate(model):
        value = next(values)
        kept[value] = model.trained_tensors()
        return {"val_mAP": value}

    result = run(lit, problem, tmp_path / "a", validate)
    assert result.selected_epoch == 2
    assert all(torch.equal(tensor, kept[0.9][name]) for name, tensor in result.tensors.items())
    values = iter([0.2, 0.9, 0.5, 0.4])
    assert run(lit, problem, tmp_path / "b", validate, select="last").selected_epoch == 4
    assert run(lit, problem, tmp_path / "c").selected_epoch == 4


def test_unknown_labels_never_move_a_weight(lit, problem, tmp_path):
    views, labels = problem
    known = torch.rand(labels.targets.shape, generator=torch.Generator().manual_seed(9)) < 0.7
    one = Labels(labels.targets & known, known, labels.image_ids)
    other = Labels(labels.targets | ~known, known, labels.image_ids)
    a, b = (run(lit, (views, item), tmp_path / name) for name, item in (("a", one), ("b", other)))
    assert all(torch.equal(tensor, b.tensors[name]) for name, tensor in a.tensors.items())


def test_a_loss_that_is_not_finite_names_the_pictures(lit, problem, tmp_path):
    views, labels = problem
    broken = views.clone()
    broken[7] = float("nan")
    with pytest.raises(DataError, match="pictures picture7\n"):
        run(lit, (broken, labels), tmp_path, batch_size=24, epochs=1)


def test_two_runs_of_one_training_do_not_write_over_each_other(tmp_path):
    with checkpoint.lock(tmp_path), pytest.raises(CapnetError, match="already running"), checkpoint.lock(tmp_path):
        pass
    with checkpoint.lock(tmp_path):
        pass


def test_weight_decay_is_on_matrices_only_and_each_part_has_its_rate(lit):
    model, train = make(
        lit, optimiser={"lr_prompt": 0.1, "lr_gcn": 0.2, "lr_adapter": 0.3, "lr_head": 0.4, "weight_decay": 0.5}
    )
    found = {
        name: (group["rate"], group["weight_decay"])
        for name, group in zip(
            [name for name, parameter in model.named_parameters() if parameter.requires_grad],
            loop.make_optimiser(model, train).param_groups,
            strict=True,
        )
    }
    assert "adapter.mean" not in found
    assert found["prompt.context"] == (0.1, 0.0)
    assert found["gcn.weights.0"] == (0.2, 0.5)
    assert found["adapter.down_proj.weight"] == (0.3, 0.5)
    assert found["adapter.down_proj.bias"] == (0.3, 0.0)
    assert found["logit_scale"] == found["logit_bias"] == (0.4, 0.0)


def test_the_schedule_rises_then_falls_to_zero():
    parameter = torch.nn.Parameter(torch.zeros(1))
    optimiser = torch.optim.AdamW([{"params": [parameter], "lr": 1.0, "rate": 2.0}])
    rates = []
    for step in range(20):
        loop.set_learning_rates(optimiser, step, 20, 0.2)
        rates.append(optimiser.param_groups[0]["lr"])
    assert rates[:4] == pytest.approx([0.5, 1.0, 1.5, 2.0])
    assert rates[4] == pytest.approx(2.0)
    assert all(a > b for a, b in pairwise(rates[4:]))
    assert rates[-1] < 0.05


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
