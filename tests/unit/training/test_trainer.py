"""The trainer: learns, selects by validation, fetches no value in a step, stops on NaN naming the images."""

from collections import Counter
from dataclasses import replace
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch._dynamo.utils import counters

from capnet.config import Backbone, parse
from capnet.data.images.store import FeatureStore
from capnet.data.images.stored_features import join_views
from capnet.errors import DataError
from capnet.model.backbones import load_towers
from capnet.runtime import Machine
from capnet.training import checkpoint, trainer
from capnet.training.images import CachedFeatures
from capnet.training.late_losses import LateLosses
from capnet.training.trainer import Trainer
from tests.unit.model import tiny
from tests.unit.training import small_problem
from tests.unit.training.small_problem import SOME_CLASSES, run, same, table, trainer_of

problem = small_problem.problem


def test_training_lowers_the_loss_and_two_runs_are_equal(lit, problem, tmp_path):
    first = run(lit, problem, tmp_path / "a", epochs=8)
    second = run(lit, problem, tmp_path / "b", epochs=8)
    assert first.history[-1]["loss"] < 0.7 * first.history[0]["loss"]
    assert first.history == second.history
    assert same(first.tensors, second.tensors)


def test_features_read_from_the_store_train_to_the_bits_of_a_tensor(lit, problem, tmp_path, monkeypatch):
    monkeypatch.setenv("CAPNET_STATE", str(tmp_path / "state"))
    rows, views = problem
    halves = views.half()
    store, hashes = FeatureStore("key", 1), rows["image_id"].tolist()
    store.fill(hashes, iter(halves[:, :1].numpy()))
    second = FeatureStore("random views", 1)
    second.fill(hashes[::-1], iter(halves[:, 1:].flip(0).numpy()))
    stored = join_views([store.read(hashes), second.read(hashes)])
    first = run(lit, (rows, stored), tmp_path / "a")
    assert first.history == run(lit, (rows, halves.float()), tmp_path / "b").history
    assert first.history != run(lit, problem, tmp_path / "c").history
    assert same(first.tensors, run(lit, (rows, stored), tmp_path / "d").tensors)


def test_the_features_statistics_are_saved_but_never_trained(lit, problem, tmp_path):
    _, views = problem
    fitted = trainer_of(lit, tmp_path)
    model = fitted.new_model()
    tensors = fitted.fit(model, *problem, tmp_path / "a").tensors
    assert torch.allclose(tensors["adapter.mean"], views.flatten(0, 1).mean(dim=0), atol=1e-6)
    loaded = fitted.new_model()
    loaded.load_trained(tensors, "a")
    with torch.no_grad():
        assert torch.equal(loaded.image_features(views[0]), model.image_features(views[0]))
        assert not torch.equal(loaded.image_features(views[0]), loaded.image_features(views[0], adapted=False))


@pytest.mark.parametrize("location", ["bridge", "pooled", "joint"])
def test_every_location_of_the_adapter_learns(location, lit, problem, tmp_path):
    history = run(lit, problem, tmp_path / "a", epochs=8, adapter={"location": location}).history
    assert history[-1]["loss"] < 0.7 * history[0]["loss"]


def test_prompts_under_autocast_give_nearly_the_same_training_and_full_precision_after_it(lit, problem, tmp_path):
    losses = []
    for bf16 in (False, True):
        fitted = replace(
            trainer_of(lit, tmp_path, head={"start": "settings"}), machine=Machine(torch.device("cpu"), bf16)
        )
        model = fitted.new_model()
        losses.append([row["loss"] for row in fitted.fit(model, *problem, tmp_path / str(bf16)).history])
        assert model.class_features().refined.dtype == torch.float32
    assert losses[0] != losses[1]
    np.testing.assert_allclose(losses[0], losses[1], atol=0.01 * losses[0][0])


def test_the_best_validation_epoch_is_kept_and_without_validation_the_last(lit, problem, tmp_path):
    values = iter([0.2, 0.9, 0.5, 0.4])
    kept = {}

    def validate(model):
        value = next(values)
        kept[value] = model.trained_tensors()
        return {"val_mAP": value}

    result = run(lit, problem, tmp_path / "a", validate)
    assert result.selected_epoch == 2
    assert same(result.tensors, kept[0.9])
    values = iter([0.2, 0.9, 0.5, 0.4])
    assert run(lit, problem, tmp_path / "b", validate, select="last").selected_epoch == 4
    assert run(lit, problem, tmp_path / "c").selected_epoch == 4


def test_unknown_labels_never_move_a_weight(lit, problem, tmp_path):
    rows, views = problem
    targets = trainer_of(lit, tmp_path).labels(rows).targets
    unknown = torch.rand(targets.shape, generator=torch.Generator().manual_seed(9)) < 0.3
    tables = {"a": table(targets & ~unknown, unknown), "b": table(targets | unknown, unknown)}
    a, b = (run(lit, (item, views), tmp_path / name) for name, item in tables.items())
    assert same(a.tensors, b.tensors)
    assert not same(a.tensors, run(lit, (table(targets), views), tmp_path / "c").tensors)


def test_a_loss_that_is_not_finite_names_the_images(lit, problem, tmp_path, monkeypatch):
    broken = problem[1].clone()
    broken[7] = float("nan")
    monkeypatch.setattr(trainer, "CachedFeatures", lambda views, *rest: CachedFeatures(broken, *rest))
    with pytest.raises(DataError, match="images image7\n"):
        run(lit, problem, tmp_path, batch_size=24, epochs=1)


@pytest.mark.parametrize(
    ("head", "warned"),
    [
        ({"start": "settings", "logit_scale": 100.0, "bias_init": 10.0}, True),
        ({"bias": False, "logit_scale": 200.0}, True),
        ({"start": "settings", "logit_scale": 100.0, "bias_init": -25.0}, False),
        ({"logit_scale": 100.0}, False),
    ],
)
def test_scores_that_start_too_high_to_be_ranked_are_named_once(head, warned, lit, problem, tmp_path, caplog):
    run(lit, problem, tmp_path, head=head, epochs=2)
    assert [record.levelname for record in caplog.records if "train.head" in record.message] == ["WARNING"] * warned


@pytest.mark.parametrize(("start", "warned"), [("settings", 1), ("data", 0)])
def test_a_training_that_goes_on_says_nothing_of_where_scores_started(
    start, warned, lit, problem, tmp_path, monkeypatch, caplog
):
    monkeypatch.setattr(checkpoint, "SAVE_EVERY_SECONDS", 0.0)
    monkeypatch.setattr(checkpoint, "SAVE_PAUSE", 0.0)
    settings = {"head": {"start": start, "logit_scale": 100.0, "bias_init": 10.0}}
    step, steps = Trainer.step, []

    def counted(self, model, *arguments):
        if len(steps) == 4:
            raise KeyboardInterrupt
        steps.append(step(self, model, *arguments))
        with torch.no_grad():
            model.logit_scale.zero_()
            model.logit_bias.fill_(50.0)  # from the second step on all scores are too high
        return steps[-1]

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "step", counted)
        with pytest.raises(KeyboardInterrupt):
            run(lit, problem, tmp_path, **settings)
    run(lit, problem, tmp_path, **settings)
    assert [record.levelname for record in caplog.records if "train.head" in record.message] == ["WARNING"] * warned


@pytest.mark.slow  # compiles
def test_compiled_towers_with_adapters_in_their_blocks_train_alike(problem, tmp_path, monkeypatch):
    """Traced by torch's compiler, whose kernels, minutes of work for a C++ compiler, are left out here. As many
    blocks as ViT-B has: torch gives up on code of which it has made eight variants.
    """
    monkeypatch.setenv("CAPNET_STATE", str(tmp_path))
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager"))
    deep = tiny.CONFIGS["tiny-clip"] | {"vision_cfg": tiny.VIT | {"layers": 12}}
    monkeypatch.setitem(tiny.CONFIGS, "tiny-deep", deep)
    tiny.register("tiny-deep", tmp_path / "configs")
    torch._dynamo.reset()
    counters.clear()
    pixels, losses = torch.randn(24, 3, 32, 32, generator=torch.Generator().manual_seed(1)), []
    for compiled in (False, True):
        towers = load_towers(Backbone(name="tiny-deep", pretrained="random"))
        fitted = trainer_of(towers, tmp_path, epochs=2, head={"start": "settings"}, class_head={"enabled": False})
        params = parse(fitted.params.model_dump(by_alias=True) | {"runtime": {"threads": 1, "compile": compiled}})
        fitted = replace(fitted, params=params)
        model = fitted.new_model()
        images = SimpleNamespace(
            announce=lambda *_: None,
            pooled=lambda rows, epoch, model=model: model.pooled(pixels[torch.from_numpy(rows)]),
        )
        monkeypatch.setattr(Trainer, "_images", lambda *_, images=images: images)
        rows, _ = problem
        losses.append([row["loss"] for row in fitted.fit(model, rows, None, tmp_path / str(compiled)).history])
        assert (model.towers.image.blocks[0]._compiled_call_impl is not None) == compiled
        assert model.block_adapters.adapters[0].up_proj.weight.abs().sum() > 0
        model.release_towers()
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-4)
    assert not counters["graph_break"]
    assert counters["frames"]["ok"] == counters["frames"]["total"] >= 12


def callers(event):
    """Names of the operations within which a profiler's ``event`` ran."""
    names = set()
    while event := event.cpu_parent:
        names.add(event.name)
    return names


@pytest.mark.parametrize("settings", [{}, SOME_CLASSES], ids=["all classes", "some classes"])
def test_no_step_fetches_a_value(settings, lit, problem, tmp_path, monkeypatch):
    """A GPU would wait for each; on a CPU the same operations run, but for what is inside of AdamW's kernel."""
    fitted = trainer_of(lit, tmp_path, epochs=1, **settings)
    model, fetched, steps = fitted.new_model(), Counter(), []
    original = Trainer.step

    def counted(*arguments):
        with torch.profiler.profile() as profile:
            result = original(*arguments)
        steps.append(result)
        fetched.update(event.name for event in profile.events() if "aten::_fused_adamw_" not in callers(event))
        return result

    monkeypatch.setattr(Trainer, "step", counted)
    fitted.fit(model, *problem, tmp_path)
    assert len(steps) == 3
    assert fetched["aten::linear"] > 3
    assert fetched["aten::_local_scalar_dense"] == 0


def test_on_a_gpu_losses_are_fetched_sixteen_steps_at_a_time_and_name_the_step_that_broke():
    losses = LateLosses(torch.device("cuda"), [f"image{number}" for number in range(40)])
    for step in range(16):
        assert not losses.due
        losses.add(torch.tensor(float(step)), torch.zeros(2, 3), np.array([2 * step, 2 * step + 1]))
    assert losses.due
    assert losses.fetch(1) == [float(step) for step in range(16)]
    assert losses.fetch(1) == []
    for batch in ([1, 2], [3, 4], [5, 6]):
        logits = torch.zeros(2, 3)
        logits[1, 2] = float("nan") if batch[0] > 1 else 0.0
        losses.add(logits.sum(), logits, np.array(batch))
    with pytest.raises(DataError, match=r"(?s)epoch 2.*images image4\n"):
        losses.fetch(2)
    assert LateLosses(torch.device("cpu"), []).every == 1
