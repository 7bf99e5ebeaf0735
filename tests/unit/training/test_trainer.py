"""The trainer: learns, resumes to the same bits, selects by validation, stops on NaN naming the images."""

from collections import Counter
from dataclasses import replace
from functools import partial
from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from torch._dynamo.utils import counters

from capnet.config import Backbone, Train, parse
from capnet.contracts import LabelGraph, make_classes, read_tensors, write_tensors
from capnet.data.images.store import FeatureStore
from capnet.data.images.stored_features import join_views
from capnet.errors import CapnetError, DataError
from capnet.model.backbones import load_towers
from capnet.runtime import Machine
from capnet.training import checkpoint, trainer
from capnet.training.images import CachedFeatures
from capnet.training.late_losses import LateLosses
from capnet.training.optimiser import make_optimiser, make_schedule
from capnet.training.samplers import batches, class_aware, shuffled
from capnet.training.trainer import Trainer
from tests.unit.model import tiny

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


@pytest.mark.parametrize(("stop_at", "settings"), [*((step, {}) for step in (1, 4, 5, 11)), (5, SOME_CLASSES)])
def test_an_interrupted_run_goes_on_at_the_next_step_and_ends_with_the_same_weights(
    stop_at, settings, lit, problem, tmp_path, monkeypatch, caplog
):
    logged = {"whole": [], "resumed": []}
    whole = trainer_of(lit, tmp_path, **settings)
    whole = whole.fit(
        whole.new_model(), *problem, tmp_path / "whole", log=lambda values, epoch: logged["whole"].append(values)
    )
    monkeypatch.setattr(checkpoint, "SAVE_EVERY_SECONDS", 0.0)
    monkeypatch.setattr(checkpoint, "SAVE_PAUSE", 0.0)
    caplog.set_level("INFO")

    class Counted(CachedFeatures):
        steps = 0
        last = stop_at

        def pooled(self, rows, epoch):
            Counted.steps += 1
            if Counted.steps == Counted.last:
                raise KeyboardInterrupt
            return super().pooled(rows, epoch)

    monkeypatch.setattr(trainer, "CachedFeatures", Counted)
    with pytest.raises(KeyboardInterrupt):
        run(lit, problem, tmp_path / "cut", **settings)
    Counted.steps, Counted.last = 0, -1
    again = trainer_of(lit, tmp_path, **settings)
    resumed = again.fit(
        again.new_model(), *problem, tmp_path / "cut", log=lambda values, epoch: logged["resumed"].append(values)
    )
    assert Counted.steps == whole.history[-1]["step"] - (stop_at - 1), "steps were done twice"
    assert (f"goes on after step {stop_at - 1} of" in caplog.text) == (stop_at > 1)
    assert resumed.history == whole.history
    assert same(whole.tensors, resumed.tensors)
    assert logged["resumed"] == logged["whole"][-len(logged["resumed"]) :]
    assert [values["train/loss"] for values in logged["whole"]] == [row["loss"] for row in whole.history]


def test_a_damaged_checkpoint_is_made_again(lit, problem, tmp_path, caplog):
    whole = run(lit, problem, tmp_path)
    path = tmp_path / "checkpoint.safetensors"
    path.write_bytes(path.read_bytes()[:1000])
    assert same(run(lit, problem, tmp_path).tensors, whole.tensors)
    assert "is damaged" in caplog.text


@pytest.mark.parametrize("damage", ["no tensors", "NaN", "no metadata", "strange metadata"])
def test_a_checkpoint_that_no_run_writes_is_made_again(lit, problem, tmp_path, caplog, damage):
    whole = run(lit, problem, tmp_path)
    path = tmp_path / "checkpoint.safetensors"
    tensors, metadata = read_tensors(path)
    tensors = {} if damage == "no tensors" else tensors
    tensors = {name: tensor * torch.nan for name, tensor in tensors.items()} if damage == "NaN" else tensors
    write_tensors(path, tensors, {"no metadata": {}, "strange metadata": {**metadata, "x": 1}}.get(damage, metadata))
    assert same(run(lit, problem, tmp_path).tensors, whole.tensors)
    assert "is damaged" in caplog.text


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


def test_two_runs_of_one_training_do_not_write_over_each_other(tmp_path):
    with checkpoint.lock(tmp_path), pytest.raises(CapnetError, match="already running"), checkpoint.lock(tmp_path):
        pass
    with checkpoint.lock(tmp_path):
        pass


def test_weight_decay_is_on_matrices_only_and_each_part_has_its_rate(lit, tmp_path):
    rates = {"lr_prompt": 0.1, "lr_gcn": 0.2, "lr_adapter": 0.3, "lr_head": 0.4, "lr_class_head": 0.6}
    heads = {"enabled": True, "weight_decay": 0.7}
    fitted = trainer_of(lit, tmp_path, optimiser=rates | {"weight_decay": 0.5}, class_head=heads, blend="held_out")
    model = fitted.new_model()
    found = {
        name: (group["lr"], group["weight_decay"])
        for name, group in zip(
            [name for name, parameter in model.named_parameters() if parameter.requires_grad],
            make_optimiser(model, fitted.params.train).param_groups,
            strict=True,
        )
    }
    assert "adapter.mean" not in found
    assert found["prompt.context"] == (0.1, 0.0)
    assert found["gcn.weights.0"] == (0.2, 0.5)
    assert found["adapter.down_proj.weight"] == (0.3, 0.5)
    assert found["adapter.down_proj.bias"] == (0.3, 0.0)
    assert found["logit_scale"] == found["logit_bias"] == (0.4, 0.0)
    assert found["class_head.weight"] == (0.6, 0.7)
    assert found["class_head.logit_scale"] == (0.4, 0.0)
    assert "linear_probe.weight" not in found


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
    found = batches(targets, settings, 0, 1)
    assert sorted(len(batch) for batch in found) == [6, 7, 7, 7]
    expected = shuffled(27, 0, 1) if sampler == "shuffle" else class_aware(targets, 0, 1)
    np.testing.assert_array_equal(np.concatenate(found), expected)


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
